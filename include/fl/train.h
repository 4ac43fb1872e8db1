/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file train.h
 * Training beyond fl_model_fit's defaults: optimisers and schedules, the step
 * in its parts, hooks on the gradient, partial training, memory known before
 * it is taken, data that is pulled, checkpoints.
 */
#ifndef FL_TRAIN_H
#define FL_TRAIN_H

#include <fl/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- optimiser ----------------------------------------------------------- */

enum {
  FL_OPTIMISER_SGD = 0,   /**< with momentum > 0: momentum, or Nesterov's */
  FL_OPTIMISER_ADAM = 1,  /**< weight decay added to the gradient (L2) */
  FL_OPTIMISER_ADAMW = 2, /**< decoupled (Loshchilov and Hutter, 2019) */
  FL_OPTIMISER_ADAGRAD = 3
};

enum {
  FL_SCHEDULE_CONSTANT = 0,
  FL_SCHEDULE_STEP = 1,  /**< times `factor` after every `period` updates */
  FL_SCHEDULE_COSINE = 2 /**< half a cosine from the rate down to `factor`
                              times the rate over `period` updates */
};

/** An optimiser and its schedule. Formulas are those of torch.optim (SGD with
 * dampening 0). */
typedef struct fl_optimiser_options {
  uint32_t struct_size;
  uint32_t kind;       /**< FL_OPTIMISER_*; default SGD */
  float learning_rate; /**< finite, >= 0; default .05 */
  float momentum;      /**< SGD; 0..1, default 0 */
  uint32_t nesterov;   /**< SGD with momentum; default 0 */
  float beta1;         /**< Adam, AdamW; 0..1, default .9 */
  float beta2;         /**< default .999 */
  float epsilon;       /**< >= 0; default (0): 1e-8, Adagrad 1e-10 */
  float weight_decay;  /**< >= 0, default 0 */
  float clip_norm;     /**< L2 norm that a gradient is scaled down to; 0 = none,
                            the default */
  uint32_t accumulate; /**< batches per update, whose gradients are averaged;
                            >= 1, default 1 */
  uint32_t schedule;   /**< FL_SCHEDULE_*; default constant */
  uint32_t warmup;     /**< updates over which the rate rises linearly */
  float factor;        /**< of the schedule; default .1 */
  uint64_t period;     /**< of the schedule, updates; >= 1 unless constant */
} fl_optimiser_options;
FL_API fl_status fl_optimiser_options_init(fl_optimiser_options *options,
                                           size_t size);

/** What fl_model_step and fl_fit_options take for "as the optimiser's
 * schedule says". */
#define FL_RATE_SCHEDULED (-1.0f)

/** Train with this optimiser from now on; its state begins anew. A model that
 * was given none has SGD at a rate of .05. FL_E_OPTIONS; FL_E_NOMEM: as before.
 * State takes 4 bytes per trained weight with momentum and Adagrad, 8 with
 * Adam and AdamW. */
FL_API fl_status fl_model_set_optimiser(fl_model *model,
                                        const fl_optimiser_options *options);
/** What is in use, with all defaults filled in. */
FL_API fl_status fl_model_get_optimiser(const fl_model *model,
                                        fl_optimiser_options *options);
/** Updates since the optimiser was set, and the rate of the next one. Either
 * may be NULL. */
FL_API fl_status fl_model_get_progress(const fl_model *model, uint64_t *updates,
                                       float *rate);

/* ---- the step in its parts ----------------------------------------------- */

/** Forward and backward: add the gradient of the batch's mean loss to the
 * model's gradient, which starts at zero. Errors and guarantees as for
 * fl_model_step; `loss` may be NULL. */
FL_API fl_status fl_model_accumulate(fl_model *model, const fl_dataset *data,
                                     double *loss);
/** Borrow the gradient accumulated so far, laid out like the last `count` flat
 * weights (all, unless the first modules are frozen); the host may change it.
 * Valid until the model is trained or freed, or its optimiser, hook, memory
 * limit, first active module or checkpoint is set, which drops what was
 * accumulated. FL_E_STATE: nothing was
 * accumulated since the last update. */
FL_API fl_status fl_model_get_gradient(fl_model *model, float **gradient,
                                       uint64_t *count);
/** Update with what was accumulated, divided by the number of batches, and
 * start over. `learning_rate` as for fl_model_step. FL_E_STATE: nothing
 * accumulated; FL_E_NOT_FINITE: the gradient, which is dropped. */
FL_API fl_status fl_model_update(fl_model *model, float learning_rate);

/** Sees the whole gradient before each update and may change it: FedProx's
 * pull to the global weights, SCAFFOLD's correction, noise. `gradient` and
 * `weights` are the last `count` flat ones (all, unless the first modules are
 * frozen). A status other than FL_OK ends the step with
 * it, weights unchanged. The hook may read the model; what trains it or changes
 * its settings is FL_E_STATE meanwhile. */
typedef fl_status (*fl_gradient_fn)(float *gradient, const float *weights,
                                    uint64_t count, void *user);
/** Set or, with NULL, take away the hook. */
FL_API fl_status fl_model_set_gradient_hook(fl_model *model,
                                            fl_gradient_fn hook, void *user);

/* ---- partial training ---------------------------------------------------- */

/** Freeze all modules below `module`: their weights keep their values, and
 * cost no gradient, no optimiser state and, where nothing before them is
 * trained, no stored activation and no way back. State of the optimiser is
 * kept for the modules that stay trained, and starts at zero for those that
 * come back. FL_E_RANGE: no module from there on has a weight; FL_E_NOMEM.
 * Default 0: all are trained. */
FL_API fl_status fl_model_set_first_active(fl_model *model, uint32_t module);
FL_API uint32_t fl_model_first_active(const fl_model *model);
/** Freeze the modules whose byte is not 0 and train the others, those from
 * `n_modules` on too. A module in the
 * middle saves its gradient and update; memory and the way back are saved in
 * front of the first module that is trained, which is then the first active
 * one. Sets the first active module, and is undone by setting that. FL_E_RANGE:
 * nothing would be trained; FL_E_NOMEM: as before. */
FL_API fl_status fl_model_set_frozen(fl_model *model, const uint8_t *frozen,
                                     uint32_t n_modules);

/* ---- memory -------------------------------------------------------------- */

/** Bytes, all known before any of it is taken. `peak` is their sum. */
typedef struct fl_memory_plan {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t weights;   /**< tensors, trained or not */
  uint64_t gradients; /**< gathered; 0 when updates are made on the way back */
  uint64_t optimiser; /**< its state */
  uint64_t activations; /**< and all else that a batch needs */
  uint64_t peak;
} fl_memory_plan;
FL_API fl_status fl_memory_plan_init(fl_memory_plan *plan, size_t size);
/** What a batch of `batch_size` samples will take with the optimiser, hook and
 * frozen modules set now. `is_training` 0: forward only. FL_E_STATE: no graph;
 * FL_E_NOMEM: more than this machine can address. */
FL_API fl_status fl_model_plan_memory(const fl_model *model,
                                      uint32_t batch_size, int32_t is_training,
                                      fl_memory_plan *plan);
/** Refuse batches whose plan's peak is above `bytes` (FL_E_LIMIT, which names
 * the largest batch that fits). 0, the default: no limit. */
FL_API fl_status fl_model_set_memory_limit(fl_model *model, uint64_t bytes);

/* ---- data that is pulled ------------------------------------------------- */

/** Give the next batch: fill in `batch` (initialised; what it points to must
 * stay until the next call). batch->n = 0 ends the epoch. The callback may read
 * and score the model. A status other than
 * FL_OK ends the fit with it. */
typedef fl_status (*fl_batch_fn)(fl_dataset *batch, uint32_t epoch,
                                 uint64_t step, void *user);
/** As fl_model_fit, with batches from a callback instead of a data set;
 * `batch_size`, `shuffle` and `seed` of the options are not used but for what
 * layers draw, and progress->steps is 0, for nobody knows. */
FL_API fl_status fl_model_fit_pull(fl_model *model, fl_batch_fn next,
                                   void *user, const fl_fit_options *options,
                                   fl_fit_result *result);

/* ---- checkpoints --------------------------------------------------------- */

/** Write all that training goes on from: tensors, optimiser and its state,
 * updates, and where a fit is. May be called from a progress callback.
 * FL_E_NOT_FINITE: a
 * weight or a moment is not finite, nothing is written; FL_E_IO. */
FL_API fl_status fl_model_save_checkpoint(const fl_model *model,
                                          const fl_writer *writer);
/** Take it back, into a model of the same schema. A fit with the same data and
 * options and `resume` set then goes on at the step where the checkpoint was
 * written, to the same bits as without the break (on the same build and
 * machine). FL_E_SCHEMA, FL_E_FORMAT, FL_E_TRUNCATED, FL_E_VERSION, FL_E_IO,
 * FL_E_NOMEM: the model is as before. */
FL_API fl_status fl_model_load_checkpoint(fl_model *model,
                                          const fl_reader *reader);

#ifdef __cplusplus
}
#endif
#endif

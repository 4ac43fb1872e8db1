/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file train.h
 * Training beyond fl_model_fit's defaults: optimisers and schedules, the step
 * in its parts, hooks on the gradient, partial training, memory known before
 * it is taken, data that is pulled, checkpoints.
 *
 * Ownership, thread-safety, determinism and what failures leave: model.h.
 * Setting the optimiser, the hook, the first active module or the memory limit,
 * and loading a checkpoint, drops the gradient gathered so far and gives its
 * memory back; a setting that fails keeps it. No setting may be made from a
 * callback.
 */
#ifndef FL_TRAIN_H
#define FL_TRAIN_H

#include <fl/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- optimiser ----------------------------------------------------------- */

enum {
  FL_OPTIMISER_SGD = 0,    /**< with momentum > 0: momentum, or Nesterov's
                                (Sutskever et al., ICML 2013) */
  FL_OPTIMISER_ADAM = 1,   /**< Kingma and Ba, ICLR 2015 */
  FL_OPTIMISER_ADAMW = 2,  /**< Loshchilov and Hutter, ICLR 2019 */
  FL_OPTIMISER_ADAGRAD = 3 /**< Duchi et al., JMLR 2011 */
};

enum {
  FL_SCHEDULE_CONSTANT = 0,
  FL_SCHEDULE_STEP = 1,  /**< times `factor` after every `period` updates */
  FL_SCHEDULE_COSINE = 2 /**< half a cosine from the rate down to `factor`
                              times the rate over `period` updates, and there
                              it stays (Loshchilov and Hutter, ICLR 2017) */
};

/** An optimiser and its schedule. Formulas are those of torch.optim (SGD with
 * dampening 0). All numbers are finite. The squares that Adam, AdamW and
 * Adagrad keep end at FLT_MAX: a weight that had a gradient beyond 1e19 hardly
 * moves until they have decayed, which Adagrad's never do; clip_norm prevents
 * that. */
typedef struct fl_optimiser_options {
  uint32_t struct_size;
  uint32_t kind;       /**< FL_OPTIMISER_*; default SGD */
  float learning_rate; /**< 0..1e30; default .05 */
  float momentum;      /**< SGD; 0..1, default 0 */
  uint32_t nesterov;   /**< 0 or 1, which wants a momentum; default 0 */
  float beta1;         /**< Adam, AdamW; 0..0.999999, default .9 */
  float beta2;         /**< Adam, AdamW; 0..0.9999999, default .999 */
  float epsilon;       /**< 0..1; default (0): 1e-8, Adagrad 1e-10 */
  float weight_decay;  /**< 0..1e30, default 0; added to the gradient (L2), but
                            for AdamW, which shrinks the weight itself */
  float clip_norm;     /**< L2 norm, of all trained weights together, that a
                            gradient is scaled down to; 0..1e30, 0 = none, the
                            default */
  uint32_t accumulate; /**< batches per update, whose gradients are averaged;
                            >= 1, default 1; 1 where rows of a sparse embedding
                            are trained */
  uint32_t schedule;   /**< FL_SCHEDULE_*; default constant */
  uint32_t warmup;     /**< updates over which the rate of the schedule is
                            multiplied by 1/warmup, 2/warmup, ...; default 0 */
  float factor;        /**< of the schedule; 0..1e6, default .1 */
  uint64_t period;     /**< of the schedule, updates; >= 1 unless constant */
} fl_optimiser_options;
/** Set the defaults. FL_E_OPTIONS. */
FL_API fl_status fl_optimiser_options_init(fl_optimiser_options *options,
                                           size_t size);

/** What fl_model_step and fl_fit_options take for "as the optimiser's
 * schedule says". */
#define FL_RATE_SCHEDULED (-1.0f)

/** Train with this optimiser from now on; its state and the number of updates
 * begin anew. `options` NULL = defaults, which is what a model begins with: SGD
 * at a rate of .05. FL_E_OPTIONS names the value; FL_E_NOMEM. State takes 4
 * bytes per trained weight with momentum and Adagrad, 8 with Adam and AdamW, at
 * once, the old one being freed afterwards; the memory limit is not asked. */
FL_API fl_status fl_model_set_optimiser(fl_model *model,
                                        const fl_optimiser_options *options);
/** What is in use, with all defaults filled in. `options` is initialised. */
FL_API fl_status fl_model_get_optimiser(const fl_model *model,
                                        fl_optimiser_options *options);
/** Updates since the optimiser was set (by all steps and fits), and the rate of
 * the next one by its schedule. Either may be NULL. */
FL_API fl_status fl_model_get_progress(const fl_model *model, uint64_t *updates,
                                       float *rate);

/* ---- the step in its parts ----------------------------------------------- */

/** Forward and backward: add the gradient of the batch's mean loss to the
 * model's gradient, which starts at zero. Errors as for fl_model_step, after
 * which the gradient is as it was; `loss` may be NULL. Gradients are gathered
 * from then on (see fl_model_step), which takes 4 bytes per trained weight; a
 * step adds its batch to them and updates when there are `accumulate`.
 * FL_E_CONFLICT: rows of a sparse embedding are trained, whose gradients are
 * not gathered. */
FL_API fl_status fl_model_accumulate(fl_model *model, const fl_dataset *data,
                                     double *loss);
/** Borrow the gradient accumulated so far, a sum over batches, laid out like
 * the last `count` flat weights (all, unless the first modules are frozen); the
 * host may change it, but for what is not trained. Valid until the model is
 * trained or freed, or a setting drops it (see above). `count` may be NULL.
 * FL_E_STATE: nothing was accumulated since the last update. */
FL_API fl_status fl_model_get_gradient(fl_model *model, float **gradient,
                                       uint64_t *count);
/** Update with what was accumulated, divided by the number of batches, and
 * start over. `learning_rate` as for fl_model_step. FL_E_ARGUMENT: the rate,
 * and FL_E_STATE: nothing accumulated, change nothing. FL_E_NOT_FINITE: the
 * gradient; the hook's status: weights are unchanged, the gradient is dropped.
 */
FL_API fl_status fl_model_update(fl_model *model, float learning_rate);

/** Sees the whole gradient before each update and may change it: FedProx's
 * pull to the global weights (Li et al., MLSys 2020), SCAFFOLD's correction
 * (Karimireddy et al., ICML 2020), noise. It is the mean over the batches of
 * the update, before clip_norm and weight decay. `gradient` and `weights` are
 * the last `count` flat ones (all, unless the first modules are frozen); what
 * is put where nothing is trained does not count. A negative status ends the
 * step with it, a positive one with FL_E_CALLBACK, weights unchanged, the
 * gradient dropped. The hook may read the model; what trains it or changes its
 * settings is FL_E_STATE meanwhile, and so are scores where rows of a sparse
 * embedding are trained. Runs on the calling thread. */
typedef fl_status (*fl_gradient_fn)(float *gradient, const float *weights,
                                    uint64_t count, void *user);
/** Set or, with NULL, take away the hook; `user` is handed to it. With a hook
 * gradients are gathered: 4 bytes per trained weight, from the next step on. */
FL_API fl_status fl_model_set_gradient_hook(fl_model *model,
                                            fl_gradient_fn hook, void *user);

/* ---- partial training ---------------------------------------------------- */

/** Freeze all modules below `module`: their weights keep their values, and
 * cost no gradient, no optimiser state (as far as they come first in the flat
 * weights) and, where nothing before them is trained, no stored activation and
 * no way back. State of the optimiser is kept for the modules that stay
 * trained, and starts at zero for those that come back; the number of updates
 * goes on. So does Adam's bias correction, which counts all updates of the
 * optimiser: what comes back late begins with steps of up to (1 - beta1) /
 * sqrt(1 - beta2) times the rate, 3.2 by default. Setting the optimiser anew
 * avoids that. FL_E_RANGE: no module from there on has a trainable weight;
 * FL_E_NOMEM: as before. Default 0: all are trained. */
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

/** Bytes, all known before any of it is taken. `peak` is their sum. Not in it:
 * names, layers and description, the order of a fit's samples (4 bytes each),
 * and what planning, setting the optimiser, freezing, loading, saving, the
 * self-test and adapters take while they run. */
typedef struct fl_memory_plan {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t weights;   /**< tensors, trained or not */
  uint64_t gradients; /**< gathered; 0 when updates are made on the way back */
  uint64_t optimiser; /**< its state, which is there already */
  uint64_t activations; /**< and all else that a batch needs */
  uint64_t peak;
} fl_memory_plan;
FL_API fl_status fl_memory_plan_init(fl_memory_plan *plan, size_t size);
/** What a batch of `batch_size` samples, 1 or more, will take with the
 * optimiser, hook and frozen modules set now. `is_training` 0: forward only.
 * FL_E_STATE: no graph; FL_E_NOMEM: more than this machine can address, or to
 * plan with. */
FL_API fl_status fl_model_plan_memory(const fl_model *model,
                                      uint32_t batch_size, int32_t is_training,
                                      fl_memory_plan *plan);
/** Refuse batches whose plan's peak is above `bytes` (FL_E_LIMIT, which names
 * the largest batch that fits); scores take smaller batches instead, as long as
 * one fits. 0, the default: no limit. It counts the optimiser's state, yet
 * refuses no setting; scores count a gradient that training has gathered, too.
 * Training and scoring share memory for activations, which is kept at its
 * largest size; with a limit it is given back at each setting, and where a
 * batch needs less of it and all together would be above the limit. */
FL_API fl_status fl_model_set_memory_limit(fl_model *model, uint64_t bytes);

/* ---- data that is pulled ------------------------------------------------- */

/** Give the next batch, number `step` (from 0) of `epoch`: fill in `batch`
 * (initialised; what it points to must stay until the next call). batch->n = 0
 * ends the epoch. The callback may read and score the model. A negative status
 * ends the fit with it, a positive one with FL_E_CALLBACK. Runs on the calling
 * thread. */
typedef fl_status (*fl_batch_fn)(fl_dataset *batch, uint32_t epoch,
                                 uint64_t step, void *user);
/** As fl_model_fit, with batches from a callback instead of a data set, each
 * checked when it comes: a bad one ends the fit, the steps before it done.
 * `batch_size`, `shuffle` and `seed` of the options are not used but for what
 * layers draw, and progress->steps is 0, for nobody knows. With `resume` the
 * first batch asked for is the one that comes next. */
FL_API fl_status fl_model_fit_pull(fl_model *model, fl_batch_fn next,
                                   void *user, const fl_fit_options *options,
                                   fl_fit_result *result);

/* ---- checkpoints --------------------------------------------------------- */

/** Write all that training goes on from: tensors, optimiser and its state,
 * updates, first active module, gathered gradient, and where a fit is; not hook
 * and memory limit. Guarded by a hash, and put together in memory: up to 16
 * bytes per weight. May be called from a progress callback. FL_E_NOT_FINITE: a
 * weight, a moment or a gradient, and FL_E_TOO_LARGE: more than 2^30 values,
 * write nothing; FL_E_NOMEM; FL_E_IO: the writer failed. Determinism: D0. */
FL_API fl_status fl_model_save_checkpoint(const fl_model *model,
                                          const fl_writer *writer);
/** Take it back, into a model of the same schema, whose optimiser, first active
 * module and gradient it replaces; borrowed weights stay where they are. A fit
 * with the same data and options and `resume` set then goes on at the step
 * where the checkpoint was written, to the same bits as without the break (D1;
 * hook and memory limit being set as before). Hostile bytes are fine.
 * FL_E_SCHEMA: another model's; FL_E_FORMAT (also values that are not finite),
 * FL_E_TRUNCATED, FL_E_VERSION, FL_E_TOO_LARGE, FL_E_DIM, FL_E_RANGE,
 * FL_E_NOT_FINITE: malformed; FL_E_IO: the reader failed; FL_E_NOMEM: the model
 * is as before. */
FL_API fl_status fl_model_load_checkpoint(fl_model *model,
                                          const fl_reader *reader);

#ifdef __cplusplus
}
#endif
#endif

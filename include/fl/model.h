/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file model.h
 * A model: named tensors in one arena, optionally with a layer graph that can
 * be trained. A host with its own trainer uses only the tensors.
 *
 * Tensor layout is PyTorch's and safetensors': row-major; dense weights are
 * [units, inputs]. The arena holds all trainable tensors as one contiguous
 * run of float32 in order of declaration ("flat weights"), so that an update
 * is one vector. A *module* groups tensors that are frozen, masked and
 * weighted together; a *segment* is a maximal run of trainable tensors of one
 * module.
 *
 * What holds for all of this header, layers.h, train.h and weights.h:
 * - Ownership: what a constructor puts into *out is the caller's, and keeps
 *   the context alive; nothing else moves. Names and options are copied, data
 *   sets and callbacks' `user` are borrowed for the call.
 * - Thread-safety: one call per model or builder at a time, and meanwhile no
 *   write through a borrowed pointer. Calls that take a const fl_model only
 *   read it: any number of them may run at once. A callback may do with the
 *   model that calls it what its comment says.
 * - On failure the model is as it was, but for memory that it took or gave
 *   back, and for what a comment says. Setting weights, in whatever way,
 *   leaves the optimiser's state and gathered gradients as they are.
 * - Determinism: what builds, describes, hashes, draws, copies, saves and
 *   loads is D0. What computes (trains, scores, predicts, merges) is D1: the
 *   same bits for any number of the host's threads, yet not for a sample
 *   alone and among others. It is D2 where a product goes to OpenBLAS, if
 *   that is compiled in: beyond 2700 cubed (docs/determinism.md).
 */
#ifndef FL_MODEL_H
#define FL_MODEL_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_model fl_model;
typedef struct fl_model_builder fl_model_builder;

enum { FL_MAX_DIMS = 8, FL_HASH_BYTES = 32, FL_NAME_BYTES = 128 };

enum {
  FL_DTYPE_F32 = 1,
  FL_DTYPE_U8 = 2,  /**< inputs only; the input node scales it */
  FL_DTYPE_I32 = 3, /**< labels, and inputs that are ids */
  FL_DTYPE_U64 = 4  /**< inputs that are ids of a sparse embedding */
};

/* ---- building ------------------------------------------------------------ */

/** Start an empty model. FL_E_NOMEM.
 *
 * A builder keeps the first error of a call that adds something, with its text:
 * later calls return it, and so does build. Names are 1..127 bytes of printable
 * ASCII, unique among layers and among tensors, a layer's tensors included
 * ("<name>.weight"): FL_E_ARGUMENT. FL_E_TOO_LARGE: more than 2^31 elements in
 * a sample of a layer's output or in all tensors, more than 4096 tensors, or
 * more than 4096 layers and loose tensors. */
FL_API fl_status fl_model_builder_new(fl_model_builder **out,
                                      fl_context *context);
FL_API void fl_model_builder_free(fl_model_builder *builder);

/** Assign what is added from now on to module `module` (default: every layer
 * with parameters starts a module of its own, numbered from 0; loose tensors
 * join the module begun last, 0 at first). Any number; modules need not be in
 * order, nor without gaps. */
FL_API fl_status fl_model_builder_module(fl_model_builder *builder,
                                         uint32_t module);

/** Add a named float32 tensor without a layer (host with its own trainer).
 * `dims`: `n_dims` values >= 1, n_dims 0..FL_MAX_DIMS (0 = scalar; `dims` may
 * be NULL). `trainable`: 0 tensors are kept and hashed, yet no part of updates.
 * FL_E_ARGUMENT: name, n_dims, a dimension of 0. */
FL_API fl_status fl_model_builder_tensor(fl_model_builder *builder,
                                         const char *name, const uint64_t *dims,
                                         uint32_t n_dims, int32_t trainable);

/** Declare the input, the first layer, called "input": one sample's shape, and
 * the affine map value * scale + shift applied on the way in (u8 pixels: scale
 * 1/255; ids are taken as they are). FL_E_ARGUMENT: as for a tensor;
 * FL_E_NOT_FINITE: scale or shift; FL_E_STATE: there is a layer already. */
FL_API fl_status fl_model_builder_input(fl_model_builder *builder,
                                        const uint64_t *dims, uint32_t n_dims,
                                        float scale, float shift);
/** Reshape each sample, of any shape, to one dimension. The layers here fail as
 * those of layers.h do. */
FL_API fl_status fl_model_builder_flatten(fl_model_builder *builder,
                                          const char *name);
/** Fully connected layer with bias, [inputs] to [units], or each token of a
 * sequence [tokens, inputs] alike: y = x W^T + b, tensors "<name>.weight"
 * [units, inputs] and "<name>.bias" [units]. `units` >= 1. */
FL_API fl_status fl_model_builder_dense(fl_model_builder *builder,
                                        const char *name, uint64_t units);
/** max(x, 0), element by element, any shape. */
FL_API fl_status fl_model_builder_relu(fl_model_builder *builder,
                                       const char *name);
/** Loss: softmax cross-entropy over the last dimension of a vector or sequence,
 * mean over all labels of the batch (n, or n * tokens); each is 0..classes-1.
 */
FL_API fl_status fl_model_builder_softmax_cross_entropy(
    fl_model_builder *builder, const char *name);

/** Make the model; weights are zero until fl_model_init_weights or
 * fl_model_set_weights. The builder stays usable only for _free.
 * FL_E_STATE: no tensor, layers that do not end with a loss, a layer whose
 * output no other one takes, an embedding that does not take the input, or
 * another layer that takes it, too; FL_E_TOO_LARGE: a description above
 * 256 KiB; FL_E_NOMEM. */
FL_API fl_status fl_model_builder_build(fl_model_builder *builder,
                                        fl_model **out);

/** Make a model from its description (msgpack, versioned; hostile bytes are
 * fine), its weights zero. FL_E_FORMAT (also what a builder would refuse),
 * FL_E_TRUNCATED, FL_E_VERSION, FL_E_RANGE, FL_E_TOO_LARGE (above 256 KiB, or a
 * limit of the builder's), FL_E_UNSUPPORTED (a layer this build does not know;
 * the error text names it), FL_E_NOMEM. */
FL_API fl_status fl_model_from_description(fl_model **out, fl_context *context,
                                           const uint8_t *data, size_t n);
/** Write the description, canonical: the same model gives the same bytes.
 * FL_E_SIZE; `needed` must not be NULL. */
FL_API fl_status fl_model_copy_description(const fl_model *model,
                                           uint8_t *buffer, size_t capacity,
                                           size_t *needed);
/** Free a model, and with it everything borrowed from it. */
FL_API void fl_model_free(fl_model *model);

/* ---- tensors ----------------------------------------------------------------
 */

typedef struct fl_tensor_info {
  uint32_t struct_size;
  uint32_t dtype;   /**< FL_DTYPE_F32 */
  const char *name; /**< borrowed from the model */
  uint32_t module;
  uint32_t is_trainable; /**< 1: part of the flat weights, frozen now or not */
  uint32_t n_dims;
  uint32_t reserved;
  uint64_t dims[FL_MAX_DIMS];
  uint64_t count; /**< elements */
  /** First element's place in the flat weights (trainable tensors) or in the
   * part behind them (others). */
  uint64_t offset;
} fl_tensor_info;

FL_API fl_status fl_tensor_info_init(fl_tensor_info *info, size_t size);
/** Number of tensors; they are numbered 0..count-1. */
FL_API uint32_t fl_model_tensor_count(const fl_model *model);
/** Describe tensor `index`. FL_E_NOT_FOUND. */
FL_API fl_status fl_model_get_tensor(const fl_model *model, uint32_t index,
                                     fl_tensor_info *info);
/** Index of a tensor by name. FL_E_NOT_FOUND. */
FL_API fl_status fl_model_find_tensor(const fl_model *model, const char *name,
                                      uint32_t *index);
/** Copy one tensor out / in, row-major. FL_E_NOT_FOUND: index; FL_E_DIM:
 * `count` is not the tensor's; FL_E_NOT_FINITE (in) names the value and leaves
 * the tensor as it was. */
FL_API fl_status fl_model_copy_tensor(const fl_model *model, uint32_t index,
                                      float *values, uint64_t count);
FL_API fl_status fl_model_set_tensor(fl_model *model, uint32_t index,
                                     const float *values, uint64_t count);

/** Number of trainable parameters: the length of flat weights and updates. */
FL_API uint64_t fl_model_weight_count(const fl_model *model);
/** Borrow the flat weights, without a copy; they stay where they are until the
 * model is freed. The host may write to them between calls, what is not finite
 * unchecked. `count` may be NULL. */
FL_API fl_status fl_model_get_weights(fl_model *model, float **weights,
                                      uint64_t *count);
/** Copy the flat weights. `count` must be fl_model_weight_count: FL_E_DIM. */
FL_API fl_status fl_model_copy_weights(const fl_model *model, float *weights,
                                       uint64_t count);
/** Replace all trainable weights. `schema` (FL_HASH_BYTES) is the schema hash
 * of the model that they come from, or NULL when the caller vouches for it.
 * FL_E_SCHEMA, FL_E_DIM, FL_E_NOT_FINITE: nothing changed. */
FL_API fl_status fl_model_set_weights(fl_model *model, const uint8_t *schema,
                                      const float *weights, uint64_t count);
/** Begin anew: set all tensors of layers, fixed and frozen ones, too, to
 * initial values, whatever they were: dense weight and bias uniform in
 * +-1/sqrt(inputs) (PyTorch's default), others as layers.h says. Loose tensors,
 * which are 0 in a new model, are left as they are. */
FL_API fl_status fl_model_init_weights(fl_model *model, uint64_t seed);

/** Hash (BLAKE2b-256) over names, shapes, dtypes, modules and trainable flags
 * of the tensors in order. */
FL_API fl_status fl_model_copy_schema(const fl_model *model,
                                      uint8_t hash[FL_HASH_BYTES]);
/** Prove on this very model that what is set is what is got, by name and
 * flat, and restore it, whatever the outcome. FL_E_INTERNAL names the tensor
 * that failed; FL_E_NOMEM: it takes twice the tensors' memory. Worth a call at
 * start: a host that trains elsewhere can do the same round trip. */
FL_API fl_status fl_model_self_test(fl_model *model);

/** Segments: element counts of the runs of the flat weights, in order; what
 * fl_compressor_new wants. */
FL_API uint32_t fl_model_segment_count(const fl_model *model);
/** Copy them. `count` must be fl_model_segment_count: FL_E_DIM. */
FL_API fl_status fl_model_copy_segments(const fl_model *model, uint64_t *sizes,
                                        uint32_t count);
/** Copy the module that each segment belongs to: what is frozen with it.
 * `count` must be fl_model_segment_count: FL_E_DIM. */
FL_API fl_status fl_model_copy_segment_modules(const fl_model *model,
                                               uint32_t *modules,
                                               uint32_t count);

/* ---- training --------------------------------------------------------------
 *
 * What all functions below return besides their own codes, checked before
 * anything is computed: FL_E_STATE: the model has no layers, or nobody has the
 * rows of its sparse embedding; FL_E_EMPTY: no
 * samples; FL_E_ARGUMENT: NULL where the model wants x, y or targets, an
 * x_dtype that it does not take, 2^32 samples or more (steps and fits);
 * FL_E_RANGE: an index, id, label or target out of range; FL_E_NOT_FINITE: a
 * target; FL_E_LIMIT: see fl_model_set_memory_limit; FL_E_NOMEM: a larger batch
 * than before, or the first after a setting, needs more memory. They then have
 * changed nothing.
 */

/** Samples in memory, borrowed for the call. Sample i is x + i * sample size
 * (fl_model_input_count values), row-major, C-contiguous. Training refuses
 * float32 values that are not finite. */
typedef struct fl_dataset {
  uint32_t struct_size;
  uint32_t x_dtype; /**< FL_DTYPE_F32, the default, or _U8; for an embedding
                         _I32, ids 0..rows-1, and nothing else; for a sparse
                         one _U64, any ids, or _I32, ids from 0 on */
  const void *x;    /**< [n, input dims...] */
  const int32_t *y; /**< [n] labels ([n, tokens] for sequences); NULL for
                         predict and for losses that have targets */
  uint64_t n;
  /** Which samples, in which order, each below n, also repeatedly; NULL = all n
   * in order. */
  const uint32_t *indices;
  uint64_t n_indices;
  const float *targets; /**< [n, outputs] for losses of numbers, finite, of
                             binary cross-entropy 0..1; else NULL */
  const uint64_t *ids;  /**< [n], name the samples for what is kept of them
                             (fl_freeze_attach): other samples, in this or
                             another data set, have other ids; NULL = no names */
  uint64_t sample_size; /**< values of one sample of x, where the data says it:
                             other than the model's is FL_E_DIM; 0, the
                             default: as many as the model takes */
} fl_dataset;
FL_API fl_status fl_dataset_init(fl_dataset *data, size_t size);

/** What a fit reports after every `progress_every` steps, and after the last
 * one where it is known; a negative status stops it with that status, a
 * positive one with FL_E_CALLBACK, and the fit can be resumed. The callback may
 * score, read and save the model, not train, set or free it. Runs on the
 * calling thread. */
typedef struct fl_fit_progress {
  uint32_t struct_size;
  uint32_t epoch; /**< from 0 */
  uint64_t step;  /**< steps done in the whole fit, those before `resume`
                       included (fl_model_fit_pull: of this call) */
  uint64_t steps; /**< steps the fit will take; 0 = not known */
  double loss;    /**< mean over the steps since the last report */
} fl_fit_progress;
typedef fl_status (*fl_fit_progress_fn)(const fl_fit_progress *progress,
                                        void *user);

typedef struct fl_fit_options {
  uint32_t struct_size;
  uint32_t epochs;         /**< >= 1, default 1 */
  uint32_t batch_size;     /**< >= 1, default 32; the last one of an epoch has
                                what is left */
  uint32_t shuffle;        /**< 0 or 1; default 1: a new order every epoch, a
                                function of seed and epoch (D0) */
  float learning_rate;     /**< finite, >= 0; default FL_RATE_SCHEDULED (-1),
                                as the optimiser says: SGD at .05 unless
                                fl_model_set_optimiser was called */
  uint32_t progress_every; /**< steps, >= 1; default 100 */
  uint64_t seed;           /**< of the shuffle, and of what dropout drops */
  const fl_cancel *cancel; /**< looked at before every step; may be NULL */
  fl_fit_progress_fn progress; /**< may be NULL */
  void *user;
  /** 1: go on where the model's last fit, or the one that its checkpoint was
   * written in, was stopped, with the same data and options; from the begin
   * when it was not. Default 0: gradients gathered so far are dropped. */
  uint32_t resume;
  uint32_t reserved;
} fl_fit_options;
FL_API fl_status fl_fit_options_init(fl_fit_options *options, size_t size);

typedef struct fl_fit_result {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t steps;   /**< of this call */
  uint64_t samples; /**< of this call, all epochs together */
  double mean_loss; /**< over this call's part of the last epoch, by samples */
} fl_fit_result;
FL_API fl_status fl_fit_result_init(fl_fit_result *result, size_t size);

/** One step on the batch that `data` names: forward, backward, update (SGD, or
 * what fl_model_set_optimiser was given; with its `accumulate` above 1 most
 * steps add to the gradient only).
 *
 * Either the update is made on the way back, tensor by tensor, and gradients
 * never exist as a whole; or they are gathered first: with clip_norm or
 * accumulate set, with a hook, and from fl_model_accumulate on until the next
 * setting that drops what was gathered. A gradient that overflows although the
 * loss is finite is found when gathered. Otherwise the step succeeds and leaves
 * weights and moments that are infinite or NaN; the next step or score whose
 * loss they reach fails with FL_E_NOT_FINITE.
 *
 * @param learning_rate  Finite, >= 0, or FL_RATE_SCHEDULED: FL_E_ARGUMENT.
 * @param loss  Mean over the batch, before the update; may be NULL.
 * @return FL_OK; FL_E_NOT_FINITE: a sample, the loss or the gathered gradient;
 * the hook's status. On any failure the weights, the optimiser's state and the
 * number of updates are unchanged; a gathered gradient is dropped when its
 * update failed, and kept when the batch did. */
FL_API fl_status fl_model_step(fl_model *model, const fl_dataset *data,
                               float learning_rate, double *loss);
/** Train for whole epochs; the data set is checked before the first step.
 * `options` NULL = defaults; `result` may be NULL. A fit that was stopped, by a
 * failure or by the host, can be resumed; what was gathered at its end waits
 * for fl_model_update.
 *
 * @return FL_OK; FL_E_CANCELLED: the weights are those after the last whole
 * step, and `result` is filled; FL_E_OPTIONS; FL_E_ARGUMENT: the learning rate;
 * FL_E_CONFLICT: what is resumed has another seed; progress's status; as
 * fl_model_step, after which the weights are those of the steps before. */
FL_API fl_status fl_model_fit(fl_model *model, const fl_dataset *data,
                              const fl_fit_options *options,
                              fl_fit_result *result);

typedef struct fl_evaluation {
  uint32_t struct_size;
  uint32_t n_classes; /**< set by the call; 0 for losses of numbers */
  double loss;        /**< mean; 0 when nothing counts */
  uint64_t count;     /**< of what counts: samples, or labels of sequences,
                           without those that are ignored */
  uint64_t correct;   /**< top-1, of equal outputs the first; 0 for losses of
                           numbers */
  /** Optional, caller's, [class_capacity]: labels and hits per class, of which
   * the first n_classes are set. */
  uint64_t *class_count;
  uint64_t *class_correct;
  uint32_t class_capacity;
  uint32_t reserved;
} fl_evaluation;
FL_API fl_status fl_evaluation_init(fl_evaluation *evaluation, size_t size);
/** Score the model on labelled samples, in batches of 256 at most (of the
 * largest that was trained, if that is less; of what the memory limit allows).
 * FL_E_SIZE: class_capacity is below the number of classes; FL_E_NOT_FINITE:
 * the loss, and the class counts are then unspecified. */
FL_API fl_status fl_model_evaluate(fl_model *model, const fl_dataset *data,
                                   fl_evaluation *evaluation);
/** Forward only, in batches as fl_model_evaluate: what the loss would get
 * (logits), [samples named, outputs], into `out`. FL_E_DIM: `count` is not that
 * product. They may be infinite or NaN when inputs or weights are. y and
 * targets are not looked at. */
FL_API fl_status fl_model_predict(fl_model *model, const fl_dataset *data,
                                  float *out, uint64_t count);
/** Forward only: the k largest outputs of each sample (of each token for
 * sequences), largest first, equal ones by index, in no order what is NaN.
 * `classes` and `scores` are [samples named * rows of a sample, k]; `count` is
 * that product, else FL_E_DIM. 1 <= k <= classes and <= 1024: FL_E_RANGE.
 * Scores are logits; either pointer may be NULL. */
FL_API fl_status fl_model_predict_top(fl_model *model, const fl_dataset *data,
                                      uint32_t k, uint32_t *classes,
                                      float *scores, uint64_t count);
/** Values per sample of the input, the product of its dims; 0 when there is no
 * graph. A caller that knows the size of its data compares the two: fl_dataset
 * does not say. */
FL_API uint64_t fl_model_input_count(const fl_model *model);
/** Outputs per sample, the product of the loss's input dims (classes; tokens *
 * classes); 0 when there is no graph. */
FL_API uint64_t fl_model_output_count(const fl_model *model);

#ifdef __cplusplus
}
#endif
#endif

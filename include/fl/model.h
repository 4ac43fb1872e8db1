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
  FL_DTYPE_U8 = 2, /**< inputs only; the input node scales it */
  FL_DTYPE_I32 = 3 /**< labels, and inputs that are ids */
};

/* ---- building ------------------------------------------------------------ */

/** Start an empty model. FL_E_NOMEM.
 * A builder keeps the first error: later calls return it, and so does build. */
FL_API fl_status fl_model_builder_new(fl_model_builder **out,
                                      fl_context *context);
FL_API void fl_model_builder_free(fl_model_builder *builder);

/** Assign what is added from now on to module `module` (default: every layer
 * with parameters starts a module of its own, numbered from 0; loose tensors
 * join the module begun last, 0 at first). */
FL_API fl_status fl_model_builder_module(fl_model_builder *builder,
                                         uint32_t module);

/** Add a named float32 tensor without a layer (host with its own trainer).
 * `dims`: `n_dims` values >= 1, n_dims 0..FL_MAX_DIMS (0 = scalar).
 * `trainable`: 0 tensors are kept and hashed, yet no part of updates.
 * FL_E_ARGUMENT: name not unique, not 1..127 bytes of printable ASCII. */
FL_API fl_status fl_model_builder_tensor(fl_model_builder *builder,
                                         const char *name, const uint64_t *dims,
                                         uint32_t n_dims, int32_t trainable);

/** Declare the input: one sample's shape, and the affine map
 * value * scale + shift applied on the way in (u8 pixels: scale 1/255). */
FL_API fl_status fl_model_builder_input(fl_model_builder *builder,
                                        const uint64_t *dims, uint32_t n_dims,
                                        float scale, float shift);
/** Reshape each sample to one dimension. */
FL_API fl_status fl_model_builder_flatten(fl_model_builder *builder,
                                          const char *name);
/** Fully connected layer with bias: y = x W^T + b, tensors "<name>.weight"
 * [units, inputs] and "<name>.bias" [units]. `units` >= 1. */
FL_API fl_status fl_model_builder_dense(fl_model_builder *builder,
                                        const char *name, uint64_t units);
/** max(x, 0), element by element. */
FL_API fl_status fl_model_builder_relu(fl_model_builder *builder,
                                       const char *name);
/** Loss: softmax cross-entropy, mean over the batch. Labels 0..classes-1. */
FL_API fl_status fl_model_builder_softmax_cross_entropy(
    fl_model_builder *builder, const char *name);

/** Make the model; weights are zero until fl_model_init_weights or
 * fl_model_set_weights. The builder stays usable only for _free.
 * FL_E_STATE: no tensor, or layers without input or loss; FL_E_NOMEM. */
FL_API fl_status fl_model_builder_build(fl_model_builder *builder,
                                        fl_model **out);

/** Make a model from its description (msgpack, versioned; hostile bytes are
 * fine). FL_E_FORMAT, FL_E_VERSION, FL_E_TOO_LARGE, FL_E_UNSUPPORTED (a layer
 * this build does not know; the error text names it). */
FL_API fl_status fl_model_from_description(fl_model **out, fl_context *context,
                                           const uint8_t *data, size_t n);
/** Write the description, canonical: the same model gives the same bytes.
 * Determinism: D0. */
FL_API fl_status fl_model_copy_description(const fl_model *model,
                                           uint8_t *buffer, size_t capacity,
                                           size_t *needed);
FL_API void fl_model_free(fl_model *model);

/* ---- tensors ----------------------------------------------------------------
 */

typedef struct fl_tensor_info {
  uint32_t struct_size;
  uint32_t dtype;   /**< FL_DTYPE_* */
  const char *name; /**< borrowed from the model */
  uint32_t module;
  uint32_t is_trainable;
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
/** Copy one tensor out / in. `count` must be the tensor's. FL_E_DIM;
 * FL_E_NOT_FINITE leaves the tensor as it was. */
FL_API fl_status fl_model_copy_tensor(const fl_model *model, uint32_t index,
                                      float *values, uint64_t count);
FL_API fl_status fl_model_set_tensor(fl_model *model, uint32_t index,
                                     const float *values, uint64_t count);

/** Number of trainable parameters: the length of flat weights and updates. */
FL_API uint64_t fl_model_weight_count(const fl_model *model);
/** Borrow the flat weights, without a copy; valid until the model is freed.
 * The host may write to them between calls. */
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
/** Draw initial weights: dense weight and bias uniform in +-1/sqrt(inputs)
 * (PyTorch's default); loose tensors are left as they are.
 * Determinism: D0 for a given seed. */
FL_API fl_status fl_model_init_weights(fl_model *model, uint64_t seed);

/** Hash over names, shapes, dtypes, modules and trainable flags in order.
 * Determinism: D0. */
FL_API fl_status fl_model_copy_schema(const fl_model *model,
                                      uint8_t hash[FL_HASH_BYTES]);
/** Prove on this very model that what is set is what is got, by name and
 * flat, and restore it. FL_E_INTERNAL names the tensor that failed. Worth a
 * call at start: a host that trains elsewhere can do the same round trip. */
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
 */

/** Samples in memory, borrowed for the call. Sample i is x + i * sample size,
 * row-major, C-contiguous. */
typedef struct fl_dataset {
  uint32_t struct_size;
  uint32_t x_dtype; /**< FL_DTYPE_F32, _U8, or _I32 where ids are wanted */
  const void *x;    /**< [n, input dims...] */
  const int32_t *y; /**< [n] labels ([n, tokens] for sequences); NULL for
                         predict and for losses that have targets */
  uint64_t n;
  /** Which samples, in which order; NULL = all n in order. */
  const uint32_t *indices;
  uint64_t n_indices;
  const float *targets; /**< [n, outputs] for losses of numbers, else NULL */
  uint64_t sample_size; /**< values of one sample of x, where the data says it:
                             other than the model's is FL_E_DIM; 0, the
                             default: as many as the model takes */
} fl_dataset;
FL_API fl_status fl_dataset_init(fl_dataset *data, size_t size);

/** What a fit reports after every `progress_every` steps; a status other than
 * FL_OK stops it with that status. The callback may score and read the model,
 * not free it. */
typedef struct fl_fit_progress {
  uint32_t struct_size;
  uint32_t epoch; /**< from 0 */
  uint64_t step;  /**< steps done in the whole fit */
  uint64_t steps; /**< steps the fit will take */
  double loss;    /**< mean over the steps since the last report */
} fl_fit_progress;
typedef fl_status (*fl_fit_progress_fn)(const fl_fit_progress *progress,
                                        void *user);

typedef struct fl_fit_options {
  uint32_t struct_size;
  uint32_t epochs;         /**< default 1 */
  uint32_t batch_size;     /**< default 32 */
  uint32_t shuffle;        /**< default 1: a new order every epoch */
  float learning_rate;     /**< finite, >= 0; default FL_RATE_SCHEDULED (-1),
                                as the optimiser says: SGD at .05 unless
                                fl_model_set_optimiser was called */
  uint32_t progress_every; /**< steps; default 100 */
  uint64_t seed;           /**< of the shuffle, and of what dropout drops */
  const fl_cancel *cancel; /**< looked at before every step; may be NULL */
  fl_fit_progress_fn progress; /**< may be NULL */
  void *user;
  /** 1: go on where the model's last fit, or the one that its checkpoint was
   * written in, was stopped; with the same data and options. Default 0. */
  uint32_t resume;
  uint32_t reserved;
} fl_fit_options;
FL_API fl_status fl_fit_options_init(fl_fit_options *options, size_t size);

typedef struct fl_fit_result {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t steps;
  uint64_t samples;
  double mean_loss; /**< over the last epoch */
} fl_fit_result;
FL_API fl_status fl_fit_result_init(fl_fit_result *result, size_t size);

/** One step on the batch that `data` names: forward, backward, update (SGD, or
 * what fl_model_set_optimiser was given). `learning_rate`: >= 0, or
 * FL_RATE_SCHEDULED. `loss` may be NULL. FL_E_STATE: no graph; FL_E_EMPTY: no
 * samples; FL_E_RANGE: a label or index out of range; FL_E_NOT_FINITE: the loss
 * is not finite; FL_E_NOMEM: a larger batch than before needs more memory. On
 * any failure the weights are unchanged. Determinism: D1 with the built-in
 * kernels, D2 with BLAS. */
FL_API fl_status fl_model_step(fl_model *model, const fl_dataset *data,
                               float learning_rate, double *loss);
/** Train; labels and indices are checked before the first step. `options` NULL
 * = defaults; `result` may be NULL. On FL_E_CANCELLED the weights are those
 * after the last whole step and `result` is filled. FL_E_CONFLICT: what is
 * resumed has another seed. Errors as for
 * fl_model_step, and FL_E_OPTIONS; those of a later step (FL_E_NOT_FINITE)
 * leave the weights of the steps before it. Determinism: as fl_model_step. */
FL_API fl_status fl_model_fit(fl_model *model, const fl_dataset *data,
                              const fl_fit_options *options,
                              fl_fit_result *result);

typedef struct fl_evaluation {
  uint32_t struct_size;
  uint32_t n_classes; /**< set by the call */
  double loss;        /**< mean; 0 when nothing counts */
  uint64_t count;     /**< of what counts: samples, or labels of sequences,
                           without those that are ignored */
  uint64_t correct;   /**< top-1 */
  /** Optional, caller's, [n_classes capacity below]: samples and hits per
   * class. */
  uint64_t *class_count;
  uint64_t *class_correct;
  uint32_t class_capacity;
  uint32_t reserved;
} fl_evaluation;
FL_API fl_status fl_evaluation_init(fl_evaluation *evaluation, size_t size);
/** Score the model on labelled samples. FL_E_SIZE: class_capacity is below the
 * number of classes; FL_E_STATE, FL_E_EMPTY, FL_E_RANGE, FL_E_NOT_FINITE as for
 * fl_model_step, after which the class counts are unspecified. Determinism: as
 * fl_model_step. */
FL_API fl_status fl_model_evaluate(fl_model *model, const fl_dataset *data,
                                   fl_evaluation *evaluation);
/** Forward only: logits [n, classes] into `out`, `count` = n * classes, else
 * FL_E_DIM. They may be infinite or NaN when inputs or weights are. */
FL_API fl_status fl_model_predict(fl_model *model, const fl_dataset *data,
                                  float *out, uint64_t count);
/** Forward only: the k largest outputs of each sample (of each token for
 * sequences), largest first, equal ones by index. `classes` and `scores` are
 * [n * rows of a sample, k]; `count` is that product, else FL_E_DIM. 1 <= k <=
 * classes and <= 1024: FL_E_RANGE. Scores are logits; either pointer may be
 * NULL. */
FL_API fl_status fl_model_predict_top(fl_model *model, const fl_dataset *data,
                                      uint32_t k, uint32_t *classes,
                                      float *scores, uint64_t count);
/** Values per sample of the input, the product of its dims; 0 when there is no
 * graph. A caller that knows the size of its data compares the two: fl_dataset
 * does not say. */
FL_API uint64_t fl_model_input_count(const fl_model *model);
/** Outputs per sample (classes); 0 when there is no graph. */
FL_API uint64_t fl_model_output_count(const fl_model *model);

#ifdef __cplusplus
}
#endif
#endif

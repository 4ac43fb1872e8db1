/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file layers.h
 * The layers that a model is built of. Each call adds one behind the layer
 * before it; fl_model_builder_from goes back to an earlier one, so that the
 * layers form a graph. Samples are vectors [n], sequences [tokens, width] or
 * images [channels, height, width]; names of tensors, their layout, formulas
 * and defaults are PyTorch's.
 *
 * All calls that add a layer: FL_E_DIM, the input does not have the shape that
 * the layer wants; FL_E_ARGUMENT, a name (see fl_model_builder_new) or an
 * attribute out of range; FL_E_TOO_LARGE; FL_E_STATE, no input yet, or the loss
 * is there already; FL_E_OPTIONS, a struct_size; FL_E_NOMEM. The text names the
 * layer, and the first failure sticks to the builder. `options` NULL =
 * defaults. Tensors' initial values are uniform in +-1/sqrt(inputs of a unit)
 * unless said otherwise. Ownership, thread-safety and determinism: model.h.
 */
#ifndef FL_LAYERS_H
#define FL_LAYERS_H

#include <fl/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Go on from the output of layer `name` ("input" is the model's input).
 * FL_E_NOT_FOUND. */
FL_API fl_status fl_model_builder_from(fl_model_builder *builder,
                                       const char *name);
/** Tensors from here on, loose ones too, are trained (1, the default), or fixed
 * and no part of updates (0). For good: to freeze modules for a while, see
 * fl_model_set_first_active. */
FL_API fl_status fl_model_builder_trainable(fl_model_builder *builder,
                                            int32_t trainable);
/** Residual (He et al., CVPR 2016): this layer's input plus the output of layer
 * `other`, of the same shape. FL_E_NOT_FOUND: no layer `other`. */
FL_API fl_status fl_model_builder_add(fl_model_builder *builder,
                                      const char *name, const char *other);

typedef struct fl_conv2d_options {
  uint32_t struct_size;
  uint32_t filters; /**< output channels, >= 1, no default; a multiple of
                         `groups` */
  uint32_t height;  /**< of the kernel, 1..1024; default 3 */
  uint32_t width;   /**< as height; neither above the padded image's */
  uint32_t stride;  /**< of rows and columns, >= 1, default 1 */
  uint32_t padding; /**< zeros on every side; less than the kernel; default 0 */
  uint32_t groups;  /**< divides the input's channels; >= 1, default 1 */
} fl_conv2d_options;
FL_API fl_status fl_conv2d_options_init(fl_conv2d_options *options,
                                        size_t size);
/** Convolution of an image, with bias: "<name>.weight" [filters, channels /
 * groups, height, width], "<name>.bias" [filters]. Sizes of the output are
 * (size + 2 padding - kernel) / stride + 1, rounded down. */
FL_API fl_status fl_model_builder_conv2d(fl_model_builder *builder,
                                         const char *name,
                                         const fl_conv2d_options *options);

enum { FL_POOL_MAX = 0, FL_POOL_AVERAGE = 1 };

typedef struct fl_pool2d_options {
  uint32_t struct_size;
  uint32_t kind;    /**< FL_POOL_*; default max */
  uint32_t size;    /**< of the square window, 1..15, not above the padded
                         image's; default 2 */
  uint32_t stride;  /**< >= 1; default (0): size */
  uint32_t padding; /**< at most size / 2; zeros that count for the average,
                         and never win the maximum */
} fl_pool2d_options;
FL_API fl_status fl_pool2d_options_init(fl_pool2d_options *options,
                                        size_t size);
/** Maximum or mean of the windows of each channel of an image; sizes of the
 * output as for a convolution. */
FL_API fl_status fl_model_builder_pool2d(fl_model_builder *builder,
                                         const char *name,
                                         const fl_pool2d_options *options);
/** Mean of each channel of an image, [channels], or over a sequence's tokens,
 * [width]. */
FL_API fl_status fl_model_builder_mean(fl_model_builder *builder,
                                       const char *name);

enum {
  FL_ACTIVATION_RELU = 0,
  FL_ACTIVATION_GELU = 1, /**< x Phi(x), not its tanh approximation */
  FL_ACTIVATION_SILU = 2, /**< x sigmoid(x) */
  FL_ACTIVATION_TANH = 3,
  FL_ACTIVATION_SIGMOID = 4
};
/** Element by element, any shape; `activation`: FL_ACTIVATION_*. */
FL_API fl_status fl_model_builder_activation(fl_model_builder *builder,
                                             const char *name,
                                             uint32_t activation);
/** Softmax over the last dimension of a vector or sequence. */
FL_API fl_status fl_model_builder_softmax(fl_model_builder *builder,
                                          const char *name);
/** Zero each element with probability `rate` in training, and scale the others
 * by 1 / (1 - rate) (Srivastava et al., JMLR 2014). 0 <= rate < 1. What is
 * zeroed depends on the seed of the fit (for fl_model_step of the last one,
 * else 0), the updates and batches so far, the layer, and the place in the
 * batch alone. */
FL_API fl_status fl_model_builder_dropout(fl_model_builder *builder,
                                          const char *name, float rate);
/** Rows of a table: ids [tokens] to [tokens, width]. The input must be the
 * model's input with ids 0..rows-1 (fl_dataset.x_dtype FL_DTYPE_I32), which
 * only embeddings may then take: FL_E_STATE when it is built. 1 <= rows <=
 * 2^24, 1 <= width. "<name>.weight" [rows, width], initially uniform in
 * +-sqrt(3) (variance 1, as PyTorch's normal draw). */
FL_API fl_status fl_model_builder_embedding(fl_model_builder *builder,
                                            const char *name, uint64_t rows,
                                            uint64_t width);
/** Rows of any number of ids: ids [fields] to [fields, width]. The input must
 * be the model's input with ids of 64 bits, any of them (fl_dataset.x_dtype
 * FL_DTYPE_U64; or FL_DTYPE_I32, 0 or above), which no other layer, another
 * embedding neither, may then take: FL_E_STATE when it is built. width >= 1.
 *
 * It has no tensor: rows are neither weights nor part of updates, of the schema
 * and of checkpoints. They are an fl_embedding's, see fl_embedding_attach;
 * until then what computes returns FL_E_STATE. Scores read rows; steps make
 * those that are new, and update them batch by batch, all or none: what fails
 * leaves them as they were, but for ids that are new. They are fixed with the
 * model's first module, and by fl_model_builder_trainable. Gradients of rows
 * are not gathered: FL_E_CONFLICT from fl_model_accumulate and from steps with
 * an optimiser's `accumulate` above 1. clip_norm and gradient hooks neither see
 * nor scale them; a hook that ends the step ends it for them, too, and may not
 * score the model (FL_E_STATE). */
FL_API fl_status fl_model_builder_sparse_embedding(fl_model_builder *builder,
                                                   const char *name,
                                                   uint64_t width);
/** Add a trained vector to each position of a sequence: "<name>.weight"
 * [tokens, width], initially uniform with standard deviation .02. */
FL_API fl_status fl_model_builder_positions(fl_model_builder *builder,
                                            const char *name);
/** Factorisation machine (Rendle, ICDM 2010): vectors of 2 fields or more,
 * [fields, width], to the sum of the dot products of all pairs, [1], in linear
 * time. With a dense layer on the same vectors (fl_model_builder_from,
 * fl_model_builder_add) it is DeepFM (Guo et al., IJCAI 2017). */
FL_API fl_status fl_model_builder_factorisation_machine(
    fl_model_builder *builder, const char *name);
/** The dot product of each pair of vectors (DLRM: Naumov et al., 2019),
 * [fields, width] to [fields (fields - 1) / 2]: (1, 0), (2, 0), (2, 1), (3, 0)
 * ...; 2 fields or more. */
FL_API fl_status fl_model_builder_pairwise_dots(fl_model_builder *builder,
                                                const char *name);
/** Normalise over the last dimension of a vector or sequence (Ba et al., 2016),
 * then scale and shift: "<name>.weight" (initially 1), "<name>.bias" (initially
 * 0), both as long as that dimension. 0 < epsilon < 1, PyTorch's is 1e-5. */
FL_API fl_status fl_model_builder_layer_norm(fl_model_builder *builder,
                                             const char *name, float epsilon);
/** Normalise over groups of an image's channels (Wu and He, ECCV 2018), of
 * which there is a multiple of `groups`, 1 or more. Tensors [channels] and
 * epsilon as above. */
FL_API fl_status fl_model_builder_group_norm(fl_model_builder *builder,
                                             const char *name, uint32_t groups,
                                             float epsilon);
/** Multi-head self-attention of a sequence [tokens, width] (Vaswani et al.,
 * 2017): dense layer "<name>.in_proj" to queries, keys and values, attention
 * "<name>.heads", dense layer "<name>.out_proj"; all in one module. `heads`, 1
 * or more, divides the width. `is_causal`: tokens see themselves and those
 * before them only. Memory is linear in the tokens (FlashAttention, Dao et al.,
 * 2022). */
FL_API fl_status fl_model_builder_attention(fl_model_builder *builder,
                                            const char *name, uint32_t heads,
                                            int32_t is_causal);

typedef struct fl_cross_entropy_options {
  uint32_t struct_size;
  int32_t ignore_index;  /**< a label whose samples do not count, of a class or
                              not; default -100 */
  float label_smoothing; /**< 0..1, default 0; the part of the target that is
                              spread over all classes */
} fl_cross_entropy_options;
FL_API fl_status
fl_cross_entropy_options_init(fl_cross_entropy_options *options, size_t size);
/** Loss: softmax cross-entropy over the last dimension of a vector or sequence,
 * mean over what has a label that is not ignored: samples, or tokens of a
 * sequence (labels [n, tokens]). Loss and gradient are 0 where nothing has. */
FL_API fl_status
fl_model_builder_cross_entropy(fl_model_builder *builder, const char *name,
                               const fl_cross_entropy_options *options);
/** Loss: mean of (x - target)^2 over all elements of the batch, any shape but
 * an image; fl_dataset.targets. */
FL_API fl_status fl_model_builder_mean_squared_error(fl_model_builder *builder,
                                                     const char *name);
/** Loss: binary cross-entropy of logits, mean over all elements of the batch,
 * any shape but an image; fl_dataset.targets in 0..1. */
FL_API fl_status fl_model_builder_binary_cross_entropy(
    fl_model_builder *builder, const char *name);

/* ---- what a model is made of ----------------------------------------------
 */

typedef struct fl_layer_info {
  uint32_t struct_size;
  uint32_t module;     /**< of its tensors; 0 without tensors */
  const char *name;    /**< borrowed from the model */
  const char *kind;    /**< "dense", "dense_lora", "gelu", "max_pool2d"; static
                            text */
  uint32_t is_trained; /**< a step changes one of its tensors, or its rows: see
                            also fl_model_set_first_active */
  uint32_t n_tensors;  /**< 0..4 */
  uint32_t first_tensor; /**< of n_tensors, an index for fl_model_get_tensor */
  uint32_t n_inputs;     /**< 0 (the model's input), 1, or 2 (a sum) */
  uint32_t inputs[2];    /**< layers, numbers below its own */
  uint32_t n_dims;
  uint32_t reserved;
  uint64_t dims[FL_MAX_DIMS]; /**< one sample of the output; of the loss: what
                                   fl_model_predict returns */
  uint64_t n_parameters;      /**< elements of all its tensors */
} fl_layer_info;
FL_API fl_status fl_layer_info_init(fl_layer_info *info, size_t size);
/** Number of layers; they are numbered 0..count-1 in order of declaration, from
 * the input to the loss. 0 without a graph. An attention is three layers. */
FL_API uint32_t fl_model_layer_count(const fl_model *model);
/** Describe layer `index`. FL_E_NOT_FOUND. */
FL_API fl_status fl_model_get_layer(const fl_model *model, uint32_t index,
                                    fl_layer_info *info);

/* ---- adapters on an existing model ----------------------------------------
 */

typedef struct fl_lora_options {
  uint32_t struct_size;
  uint32_t rank; /**< >= 1, default 8 */
  float alpha;   /**< above 0, below 1e6; scale is alpha / rank; default 16 */
  uint32_t reserved;
  /** Dense layers whose name contains this text get it; NULL: all but the
   * last one. Borrowed for the call. */
  const char *layers;
  /** Layers whose name contains this text stay trained as they are; NULL: the
   * last dense one (the head); "": none but the adapters. */
  const char *trained;
} fl_lora_options;
FL_API fl_status fl_lora_options_init(fl_lora_options *options, size_t size);
/** Make a model like `base`, with its weights fixed and low-rank updates
 * "<layer>.lora_a" [rank, inputs] and "<layer>.lora_b" [units, rank] (initially
 * zero) added to its dense layers (Hu et al., "LoRA", 2021): y = x W^T + b +
 * alpha / rank x A^T B^T. Only they, and what stays trained, are part of flat
 * weights and updates. `seed` draws lora_a.
 *
 * Weights are copied; the rest of `base` is neither taken over nor changed: the
 * new model has the optimiser of a new one, nothing frozen, no hook, no limit
 * and no gradient. What is fixed in `base` stays fixed, whatever `trained`
 * says; a dense layer that is may get an update, as any other.
 *
 * @return FL_OK; FL_E_NOT_FOUND: there is no dense layer to choose, or no name
 * contains `layers` or `trained`; FL_E_CONFLICT: a layer is to have an update
 * and to stay trained; FL_E_ARGUMENT: rank, alpha, or a name that is too long
 * or there already; FL_E_OPTIONS; FL_E_TOO_LARGE; FL_E_NOMEM. */
FL_API fl_status fl_model_with_lora(fl_model **out, const fl_model *base,
                                    const fl_lora_options *options,
                                    uint64_t seed);

typedef struct fl_adapter_options {
  uint32_t struct_size;
  uint32_t width;      /**< of the bottleneck, >= 1, default 16 */
  uint32_t activation; /**< FL_ACTIVATION_*; default GELU */
  uint32_t reserved;
  /** Dense layers whose name contains this text get one; NULL: those whose
   * output is added to a residual, or where there are none, all but the last
   * one. */
  const char *layers;
  const char *trained; /**< as in fl_lora_options */
} fl_adapter_options;
FL_API fl_status fl_adapter_options_init(fl_adapter_options *options,
                                         size_t size);
/** Make a model like `base`, with its weights fixed and bottleneck adapters
 * behind its dense layers (Houlsby et al., 2019): y + up(act(down(y))), dense
 * layers "<layer>.down" [units to width] and "<layer>.up" (initially zero),
 * between them "<layer>.bend", behind them the sum "<layer>.sum". `seed` draws
 * down; fl_model_init_weights draws up as well. All else, and what is
 * returned, as for fl_model_with_lora (FL_E_ARGUMENT: width, activation). */
FL_API fl_status fl_model_with_adapters(fl_model **out, const fl_model *base,
                                        const fl_adapter_options *options,
                                        uint64_t seed);

/** Fold LoRA's low-rank updates into the weights, W + alpha / rank B A: a new
 * model without them, as fast as `model`'s base, and of the base's schema: what
 * was fixed there is fixed again, and all else is trained. Without updates to
 * fold it is like `model`. That is not changed, and nothing but its weights is
 * taken over. FL_E_NOMEM. */
FL_API fl_status fl_model_merge_lora(fl_model **out, const fl_model *model);

#ifdef __cplusplus
}
#endif
#endif

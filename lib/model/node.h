/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes: what a model is declared of. One const vtable per kind of node says
 * how it is named on the wire, what its output looks like and which tensors it
 * owns, another how it is computed. The one list of them is registry.c, and of
 * computing runs.c.
 *
 * Most kinds are layers: a graph without cycles from the input to the loss,
 * because a layer's inputs are declared before it; order of declaration is
 * order of computation. A kind without `shape` declares tensors only and is no
 * part of the graph. */
#ifndef FLI_NODE_H
#define FLI_NODE_H

#include <fl/model.h>
#include "model/attributes.h"
#include "wire/reader.h"
#include "wire/writer.h"

enum {
  FLI_MAX_NODES = 4096,
  FLI_MAX_TENSORS = 4096,
  FLI_MAX_PARAMETERS = 4,  /* tensors of one node */
  FLI_MAX_INPUTS = 2,      /* of one layer */
  FLI_FIRST_ATTRIBUTE = 16 /* key in a node's map */
};

typedef struct fli_node fli_node;

/* A tensor that a node wants: "<node's name><suffix>". */
typedef struct fli_parameter {
  const char *suffix;
  fli_shape shape; /* count is filled in by the builder */
  int32_t is_trainable;
  /* Initial values: uniform in +-1/sqrt(fan_in), or in +-bound, or all of them
   * `initial`; the first of these that is not 0. */
  uint64_t fan_in;
  float bound;
  float initial;
} fli_parameter;

/* Samples of a data set: those at order[first .. first + n - 1], or at
 * first .. first + n - 1 when order is NULL. */
typedef struct fli_batch {
  const fl_dataset *data;
  const uint32_t *order;
  uint64_t first;
  size_t n;
  size_t n_next;  /* samples of the next batch, which lie behind these; 0: it
                     is not known yet */
  int is_lasting; /* the same data set in every epoch: places are names */
  int is_first;   /* of a call: the host may have changed weights and data */
} fli_batch;

typedef struct fli_sink fli_sink;
struct fli_provider;

/* What a node works on. Buffers are [n, fli_shape_floats of a sample]. */
typedef struct fli_pass {
  fl_context *context; /* for fli_parallel_for only */
  const fli_batch *batch;
  size_t n; /* samples */
  const float *x[FLI_MAX_INPUTS];
  float *y; /* may be x[0] itself for FLI_NODE_IN_PLACE */
  /* backward: gradient of y; and of each x, NULL = not wanted, may be dy for
   * FLI_NODE_IN_PLACE. `adds`: add to what dx holds (FLI_NODE_ADDS only). */
  const float *dy;
  float *dx[FLI_MAX_INPUTS];
  int adds[FLI_MAX_INPUTS];
  float *kept;         /* what `needs` asked to keep from forward to backward */
  float *scratch;      /* what `needs` asked for this direction */
  const float *values; /* all tensors, see fli_node.places */
  fli_sink *sink;      /* backward: see sink.h */
  float *gradient;     /* for sink.c */
  int is_training;
  uint64_t seed; /* of what is drawn, with the number of the step */
  uint64_t step;
  size_t n_finite; /* samples before the first one that is not */
  const struct fli_provider *provider; /* of rows; see provider.h */
  void *provider_user;
  fl_status status; /* of what it did */
  /* Set by the loss: sum over the batch and what to divide it by. */
  double loss;
  double loss_weight;
} fli_pass;

/* Memory beyond input and output for a batch, in floats. */
typedef struct fli_needs {
  uint64_t kept;
  uint64_t forward;
  uint64_t backward;
} fli_needs;

enum {
  FLI_NODE_IN_PLACE = 1,     /* y may overwrite x[0], dx[0] may overwrite dy */
  FLI_NODE_VIEW = 2,         /* same floats in another shape: runs nothing */
  FLI_NODE_KEEPS_INPUT = 4,  /* backward reads x */
  FLI_NODE_KEEPS_OUTPUT = 8, /* backward reads y */
  FLI_NODE_IS_INPUT = 16,    /* begins the graph, has no input itself */
  FLI_NODE_IS_LOSS = 32,     /* ends it; forward writes dx, if wanted */
  FLI_NODE_KEEPS_TO_TRAIN = 64, /* backward reads x if it trains weights */
  FLI_NODE_ADDS = 128,          /* backward can add to dx */
  FLI_NODE_DIRECT = 256,        /* writes gradients as a fli_target says */
  FLI_NODE_HAS_ROWS = 512       /* that are trained, and a provider's */
};

/* Kinds of nodes; a number here means nothing outside of this build. */
enum {
  FLI_OP_TENSOR,
  FLI_OP_INPUT,
  FLI_OP_FLATTEN,
  FLI_OP_DENSE,
  FLI_OP_DENSE_LORA,
  FLI_OP_CONV2D,
  FLI_OP_POOL2D,
  FLI_OP_MEAN,
  FLI_OP_RELU,
  FLI_OP_ACTIVATION,
  FLI_OP_SOFTMAX,
  FLI_OP_DROPOUT,
  FLI_OP_EMBEDDING,
  FLI_OP_SPARSE_EMBEDDING,
  FLI_OP_POSITIONS,
  FLI_OP_LAYER_NORM,
  FLI_OP_GROUP_NORM,
  FLI_OP_ATTENTION,
  FLI_OP_ADD,
  FLI_OP_FACTORISATION_MACHINE,
  FLI_OP_PAIRWISE_DOTS,
  FLI_OP_SOFTMAX_CROSS_ENTROPY,
  FLI_OP_CROSS_ENTROPY,
  FLI_OP_MEAN_SQUARED_ERROR,
  FLI_OP_BINARY_CROSS_ENTROPY,
  FLI_OPS
};

typedef struct fli_node_op {
  uint32_t kind;         /* FLI_OP_*: place in both lists of kinds */
  char name[24];         /* on the wire; no pointer, which would be relocated */
  uint32_t flags;        /* FLI_NODE_*; `shape` may change the node's copy */
  uint32_t n_inputs;     /* layers: 0 (FLI_NODE_IS_INPUT), 1 or 2 */
  uint32_t n_attributes; /* keys FLI_FIRST_ATTRIBUTE.. that pack writes */
  /* Check attributes and inputs, set node->output. NULL: no layer. */
  fl_status (*shape)(fli_node *node);
  /* Tensors wanted; returns their number. May be NULL. */
  uint32_t (*parameters)(const fli_node *node,
                         fli_parameter parameters[FLI_MAX_PARAMETERS]);
  void (*pack)(const fli_node *node, fli_msg_writer *writer);
  /* Read the attribute `key` if it is known; returns whether it is. */
  int (*unpack)(fli_node *node, uint32_t key, fli_msg_reader *reader);
} fli_node_op;

/* How a kind is computed: apart, because a program that does not compute, such
 * as a client whose host has a trainer of its own, still declares models of all
 * kinds. Only runs.c names these, and the linker drops them where nobody calls
 * what is in there. */
typedef struct fli_node_run {
  /* May be NULL: nothing but the buffers. */
  void (*needs)(const fli_node *node, size_t n, fli_needs *needs);
  /* Layers that read the data set itself: whether the `count` samples it names
   * are right. FL_E_ARGUMENT, FL_E_RANGE. May be NULL. */
  fl_status (*check)(const fli_node *node, const fl_dataset *data,
                     uint64_t count);
  void (*forward)(const fli_node *node, fli_pass *pass);
  void (*backward)(const fli_node *node, fli_pass *pass);
} fli_node_run;

struct fli_node {
  const fli_node_op *op;
  const fli_node_run *run; /* NULL: its kind's. Benchmarks put theirs here */
  char name[FL_NAME_BYTES];
  uint32_t module;
  uint32_t flags;
  uint32_t inputs[FLI_MAX_INPUTS]; /* indices of nodes */
  uint32_t position;               /* among the layers, in order */
  uint32_t n_uses;                 /* layers that have it as an input */
  uint32_t last_use;               /* the last of them, an index */
  int is_frozen;                   /* its tensors are no part of updates */
  int was_frozen; /* so were they before LoRA or adapters came: see merge */
  uint32_t n_parameters;
  uint32_t first_tensor;
  uint64_t places[FLI_MAX_PARAMETERS]; /* in the model's values */
  uint64_t counts[FLI_MAX_PARAMETERS]; /* elements */
  fli_shape input;                     /* of inputs[0] */
  fli_shape other;                     /* of inputs[1] */
  fli_shape output;
  fli_shape declared; /* the same, before anything behind it is done here */
  /* Whether a ReLU that comes behind is done here: forward for
   * FLI_RELU_FORWARD, both ways for FLI_RELU_BOTH. */
  int does_relu;
  int is_fused; /* ReLU: forward is done elsewhere */
  /* Convolution: the pooling behind it, which is done here; `output` is what
   * comes out of that, its `input` what goes in. Or NULL. */
  const fli_node *pool;
  int is_parallel; /* the host has threads: memory for several lanes */
  /* Which of its tensors are trained now, as bits (1: its rows); and whether a
   * gradient of its output is needed for that or for what comes before. */
  uint32_t trained;
  int carries;
  fli_attributes attributes;
};

enum { FLI_RELU_FORWARD = 1, FLI_RELU_BOTH = 2 };

extern const fli_node_op fli_op_tensor;
extern const fli_node_op fli_op_input;
extern const fli_node_op fli_op_flatten;
extern const fli_node_op fli_op_dense;
extern const fli_node_op fli_op_dense_lora;
extern const fli_node_op fli_op_conv2d;
extern const fli_node_op fli_op_pool2d;
extern const fli_node_op fli_op_mean;
extern const fli_node_op fli_op_relu;
extern const fli_node_op fli_op_activation;
extern const fli_node_op fli_op_softmax;
extern const fli_node_op fli_op_dropout;
extern const fli_node_op fli_op_embedding;
extern const fli_node_op fli_op_sparse_embedding;
extern const fli_node_op fli_op_positions;
extern const fli_node_op fli_op_layer_norm;
extern const fli_node_op fli_op_group_norm;
extern const fli_node_op fli_op_attention;
extern const fli_node_op fli_op_add;
extern const fli_node_op fli_op_factorisation_machine;
extern const fli_node_op fli_op_pairwise_dots;
extern const fli_node_op fli_op_softmax_cross_entropy;
extern const fli_node_op fli_op_cross_entropy;
extern const fli_node_op fli_op_mean_squared_error;
extern const fli_node_op fli_op_binary_cross_entropy;

extern const fli_node_run fli_run_input;
extern const fli_node_run fli_run_flatten;
extern const fli_node_run fli_run_dense;
extern const fli_node_run fli_run_dense_lora;
extern const fli_node_run fli_run_conv2d;
extern const fli_node_run fli_run_pool2d;
extern const fli_node_run fli_run_mean;
extern const fli_node_run fli_run_relu;
extern const fli_node_run fli_run_activation;
extern const fli_node_run fli_run_softmax;
extern const fli_node_run fli_run_dropout;
extern const fli_node_run fli_run_embedding;
extern const fli_node_run fli_run_sparse_embedding;
extern const fli_node_run fli_run_positions;
extern const fli_node_run fli_run_layer_norm;
extern const fli_node_run fli_run_group_norm;
extern const fli_node_run fli_run_attention;
extern const fli_node_run fli_run_add;
extern const fli_node_run fli_run_factorisation_machine;
extern const fli_node_run fli_run_pairwise_dots;
extern const fli_node_run fli_run_softmax_cross_entropy;
extern const fli_node_run fli_run_cross_entropy;
extern const fli_node_run fli_run_mean_squared_error;
extern const fli_node_run fli_run_binary_cross_entropy;

/* runs.c: how to compute a node; all members are NULL for what is no layer. */
const fli_node_run *fli_node_run_of(const fli_node *node);

/* The kind of that name, or NULL. */
const fli_node_op *fli_node_op_find(const char *name);

/* Check 1 <= dims <= FLI_MAX_DIM, n_dims and the number of elements; sets
 * shape->count. FL_E_ARGUMENT, FL_E_TOO_LARGE; `name` is for the text. */
fl_status fli_shape_check(fli_shape *shape, const char *name);
/* FL_E_DIM: the node's input has not the number of dimensions it wants. */
fl_status fli_refuse_dims(const fli_node *node, const char *want);
/* Whether dims agree. */
int fli_shape_is(const fli_shape *a, const fli_shape *b);
/* Dimensions as an array. */
void fli_shape_pack(const fli_shape *shape, fli_msg_writer *writer);
void fli_shape_unpack(fli_shape *shape, fli_msg_reader *reader);

/* Sample that the data set names at place i. */
static inline uint64_t fli_dataset_sample(const fl_dataset *data, uint64_t i)
{
  return data->indices ? data->indices[i] : i;
}

/* Index in the data set of the batch's sample k. */
static inline uint64_t fli_batch_sample(const fli_batch *batch, size_t k)
{
  return batch->order ? batch->order[batch->first + k] : batch->first + k;
}

/* First value of one of the node's tensors. */
static inline const float *fli_value(const fli_pass *pass, const fli_node *node,
                                     uint32_t parameter)
{
  return pass->values + node->places[parameter];
}

/* Name of the batch's sample k. Returns 0 when it has none. */
static inline int fli_batch_id(const fli_batch *batch, size_t k, uint64_t *id)
{
  uint64_t sample = fli_batch_sample(batch, k);
  *id = batch->data->ids ? batch->data->ids[sample] : sample;
  return batch->data->ids != NULL || batch->is_lasting;
}

static inline int fli_is_trained(const fli_node *node, uint32_t parameter)
{
  return (node->trained >> parameter) & 1;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes: what a model is declared of. One const vtable per kind of node says
 * how it is named on the wire, what its output looks like, which tensors it
 * owns, and how it runs. The registry (registry.c) is the one list of them.
 *
 * Most kinds are layers: they form a chain from the input to the loss, in
 * order of declaration. A kind without `shape` declares tensors only and is no
 * part of the chain. */
#ifndef FLI_NODE_H
#define FLI_NODE_H

#include <fl/model.h>
#include "wire/reader.h"
#include "wire/writer.h"

enum {
  FLI_MAX_NODES = 4096,
  FLI_MAX_TENSORS = 4096,
  FLI_MAX_PARAMETERS = 4,  /* tensors of one node */
  FLI_FIRST_ATTRIBUTE = 16 /* key in a node's map */
};

/* Largest dimension, and largest number of elements of anything counted. */
#define FLI_MAX_DIM (UINT64_C(1) << 32)
#define FLI_MAX_ELEMENTS (UINT64_C(1) << 31)

/* Shape of one sample, or of a tensor; count = product of dims. */
typedef struct fli_shape {
  uint32_t n_dims;
  uint64_t dims[FL_MAX_DIMS];
  uint64_t count;
} fli_shape;

typedef struct fli_node fli_node;

/* A tensor that a node wants: "<node's name><suffix>". */
typedef struct fli_parameter {
  const char *suffix;
  fli_shape shape; /* count is filled in by the builder */
  int32_t is_trainable;
  uint64_t fan_in; /* initial values uniform in +-1/sqrt(fan_in); 0 = zeros */
} fli_parameter;

/* Samples of a data set: those at order[first .. first + n - 1], or at
 * first .. first + n - 1 when order is NULL. */
typedef struct fli_batch {
  const fl_dataset *data;
  const uint32_t *order;
  uint64_t first;
  size_t n;
} fli_batch;

/* Where gradients go: target = keep * target + scale * gradient, `target`
 * being laid out like the flat weights. With the weights themselves as the
 * target and scale = -rate this is the SGD update, without a gradient ever
 * being stored. */
typedef struct fli_sink {
  float *target;
  float scale;
  float keep;
} fli_sink;

/* What a node works on. Buffers are [batch->n, elements of one sample]. */
typedef struct fli_pass {
  const fli_batch *batch;
  const float *x;       /* the previous node's output */
  float *y;             /* may be x itself for FLI_NODE_IN_PLACE */
  const float *dy;      /* backward: gradient of y */
  float *dx;            /* gradient of x; NULL = not wanted; may be dy */
  const float *weights; /* flat */
  fli_sink sink;        /* backward */
  double loss;          /* sum over the batch; set by the loss */
} fli_pass;

enum {
  FLI_NODE_IN_PLACE = 1,     /* y may overwrite x, dx may overwrite dy */
  FLI_NODE_VIEW = 2,         /* same elements in another shape: runs nothing */
  FLI_NODE_KEEPS_INPUT = 4,  /* backward reads x */
  FLI_NODE_KEEPS_OUTPUT = 8, /* backward reads y */
  FLI_NODE_IS_INPUT = 16,    /* begins the chain */
  FLI_NODE_IS_LOSS = 32      /* ends the chain; forward writes dx, if wanted */
};

typedef struct fli_node_op {
  const char *name;      /* on the wire */
  uint32_t flags;        /* FLI_NODE_* */
  uint32_t n_attributes; /* keys FLI_FIRST_ATTRIBUTE.. that pack writes */
  /* Check attributes and input, set node->output. NULL: no layer. */
  fl_status (*shape)(fli_node *node);
  /* Tensors wanted; returns their number. May be NULL. */
  uint32_t (*parameters)(const fli_node *node,
                         fli_parameter parameters[FLI_MAX_PARAMETERS]);
  void (*pack)(const fli_node *node, fli_msg_writer *writer);
  /* Read the attribute `key` if it is known; returns whether it is. */
  int (*unpack)(fli_node *node, uint32_t key, fli_msg_reader *reader);
  void (*forward)(const fli_node *node, fli_pass *pass);
  void (*backward)(const fli_node *node, const fli_pass *pass);
} fli_node_op;

struct fli_node {
  const fli_node_op *op;
  char name[FL_NAME_BYTES];
  uint32_t module;
  uint32_t n_parameters;
  uint64_t parameters[FLI_MAX_PARAMETERS]; /* offsets in the flat weights */
  fli_shape input;
  fli_shape output;
  int does_relu; /* dense: the ReLU behind it is done here ... */
  int is_fused;  /* ReLU: ... and has nothing left to do forward */
  union {
    struct {
      fli_shape shape;
      float scale;
      float shift;
    } input;
    struct {
      uint64_t units;
    } dense;
    struct {
      fli_shape shape;
      int32_t is_trainable;
    } tensor;
  } attributes;
};

extern const fli_node_op fli_op_tensor;
extern const fli_node_op fli_op_input;
extern const fli_node_op fli_op_flatten;
extern const fli_node_op fli_op_dense;
extern const fli_node_op fli_op_relu;
extern const fli_node_op fli_op_softmax_cross_entropy;

/* The kind of that name, or NULL. */
const fli_node_op *fli_node_op_find(const char *name);

/* Check 1 <= dims <= FLI_MAX_DIM, n_dims and the number of elements; sets
 * shape->count. FL_E_ARGUMENT, FL_E_TOO_LARGE; `name` is for the text. */
fl_status fli_shape_check(fli_shape *shape, const char *name);
/* Dimensions as an array. */
void fli_shape_pack(const fli_shape *shape, fli_msg_writer *writer);
void fli_shape_unpack(fli_shape *shape, fli_msg_reader *reader);

/* Index in the data set of the batch's sample k. */
static inline uint64_t fli_batch_sample(const fli_batch *batch, size_t k)
{
  return batch->order ? batch->order[batch->first + k] : batch->first + k;
}

#endif

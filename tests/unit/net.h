/* SPDX-License-Identifier: Apache-2.0 */
/* A model and, declared by the same calls, the oracle of what it computes;
 * net_check compares losses, outputs and the gradient of every weight. Layers
 * have names "l0", "l1" ... by their number; `from` is the number of the layer
 * that the next one takes. */
#ifndef NET_H
#define NET_H

#include <fl/train.h>

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/nn/nn.h"
#include "model/builder.h"
#include "oracle.h"

enum { NET_LAYERS = 40, NET_TENSORS = 48, NET_SEED = 23 };
typedef enum net_loss { NET_CLASSES, NET_SQUARES, NET_BINARY } net_loss;

typedef struct net {
  fl_model_builder *builder;
  fl_model *model;
  oracle_layer layers[NET_LAYERS];
  size_t n_layers;
  size_t from;
  size_t n_tensors;
  double *tensors[NET_TENSORS];
  net_loss loss;
  fl_cross_entropy_options classes;
  int has_dropout;
  int has_no_gradient; /* for some tensor: it cancels out */
  uint64_t rows;       /* of an embedding: the input is ids */
  size_t n;            /* samples */
  float *x;
  int32_t *ids;
  int32_t *labels;
  float *targets;
  unsigned char *masks[NET_LAYERS]; /* [n, outputs] */
  double *values[NET_LAYERS];       /* of one sample */
} net;

static inline const char *net_name(size_t layer)
{
  static char names[NET_LAYERS][24];
  (void)snprintf(names[layer], sizeof names[layer], "l%zu", layer);
  return names[layer];
}

/* Begin the next layer of the oracle, with the shape of its input. */
static inline oracle_layer *net_next(net *t, oracle_kind kind, size_t n_tensors)
{
  cr_assert_lt(t->n_layers, NET_LAYERS);
  oracle_layer *l = &t->layers[t->n_layers];
  *l = (oracle_layer){.kind = kind, .x = t->from, .other = t->from};
  l->first_tensor = t->n_tensors;
  if (t->n_layers > 0) l->in = t->layers[t->from].out;
  l->out = l->in;
  t->n_tensors += n_tensors;
  t->from = t->n_layers++;
  return l;
}

static inline const char *net_new(const net *t)
{
  return net_name(t->n_layers);
}

static inline net *net_begin(fl_context *context, const uint64_t *dims,
                             uint32_t n_dims)
{
  net *t = calloc(1, sizeof *t);
  cr_assert_not_null(t);
  cr_assert_eq(fl_model_builder_new(&t->builder, context), FL_OK);
  cr_assert_eq(fl_model_builder_input(t->builder, dims, n_dims, 1, 0), FL_OK);
  oracle_layer *l = net_next(t, ORACLE_INPUT, 0);
  l->in.n_dims = n_dims;
  for (size_t i = 0; i < n_dims; i++) {
    l->in.dims[i] = (size_t)dims[i];
  }
  l->out = l->in;
  return t;
}

static inline void net_from(net *t, size_t layer)
{
  const char *name = layer == 0 ? "input" : net_name(layer);
  cr_assert_eq(fl_model_builder_from(t->builder, name), FL_OK);
  t->from = layer;
}

static inline size_t net_dense(net *t, uint64_t units)
{
  cr_assert_eq(fl_model_builder_dense(t->builder, net_new(t), units), FL_OK);
  oracle_layer *l = net_next(t, ORACLE_DENSE, 2);
  l->out.dims[l->out.n_dims - 1] = (size_t)units;
  return t->from;
}

static inline size_t net_lora(net *t, uint64_t units, uint64_t rank,
                              float alpha)
{
  fli_node node;
  cr_assert_eq(
      fli_builder_begin(t->builder, &node, &fli_op_dense_lora, net_new(t)),
      FL_OK);
  node.attributes.dense.units = units;
  node.attributes.dense.rank = rank;
  node.attributes.dense.alpha = alpha;
  cr_assert_eq(fli_builder_add(t->builder, &node), FL_OK);
  oracle_layer *l = net_next(t, ORACLE_LORA, 4);
  l->out.dims[l->out.n_dims - 1] = (size_t)units;
  l->rank = (size_t)rank;
  l->value = (double)alpha / (double)rank;
  return t->from;
}

static inline size_t net_conv(net *t, const fl_conv2d_options *options)
{
  cr_assert_eq(fl_model_builder_conv2d(t->builder, net_new(t), options), FL_OK,
               "%s", fl_last_error());
  oracle_layer *l = net_next(t, ORACLE_CONV, 2);
  const fl_conv2d_options *o = options;
  l->conv = *o;
  l->out.dims[0] = o->filters;
  l->out.dims[1] = (l->in.dims[1] + 2 * o->padding - o->height) / o->stride + 1;
  l->out.dims[2] = (l->in.dims[2] + 2 * o->padding - o->width) / o->stride + 1;
  return t->from;
}

static inline fl_conv2d_options
net_conv_options(uint32_t filters, uint32_t kernel, uint32_t padding)
{
  fl_conv2d_options o;
  cr_assert_eq(fl_conv2d_options_init(&o, sizeof o), FL_OK);
  o.filters = filters;
  o.height = o.width = kernel;
  o.padding = padding;
  return o;
}

static inline size_t net_pool(net *t, uint32_t kind, uint32_t size,
                              uint32_t stride, uint32_t padding)
{
  fl_pool2d_options o;
  cr_assert_eq(fl_pool2d_options_init(&o, sizeof o), FL_OK);
  o.kind = kind;
  o.size = size;
  o.stride = stride;
  o.padding = padding;
  cr_assert_eq(fl_model_builder_pool2d(t->builder, net_new(t), &o), FL_OK, "%s",
               fl_last_error());
  oracle_layer *l = net_next(t, ORACLE_POOL, 0);
  if (stride == 0) stride = size;
  l->pool = o;
  l->out.dims[1] = (l->in.dims[1] + 2 * padding - size) / stride + 1;
  l->out.dims[2] = (l->in.dims[2] + 2 * padding - size) / stride + 1;
  return t->from;
}

static inline size_t net_mean(net *t)
{
  cr_assert_eq(fl_model_builder_mean(t->builder, net_new(t)), FL_OK);
  oracle_layer *l = net_next(t, ORACLE_MEAN, 0);
  size_t n = l->in.n_dims == 3 ? l->in.dims[0] : l->in.dims[1];
  l->out = (oracle_shape){1, {n}};
  return t->from;
}

static inline size_t net_flatten(net *t)
{
  cr_assert_eq(fl_model_builder_flatten(t->builder, net_new(t)), FL_OK);
  oracle_layer *l = net_next(t, ORACLE_FLATTEN, 0);
  l->out = (oracle_shape){1, {oracle_count(&l->in)}};
  return t->from;
}

static inline size_t net_activation(net *t, uint32_t kind)
{
  cr_assert_eq(fl_model_builder_activation(t->builder, net_new(t), kind),
               FL_OK);
  net_next(t, ORACLE_ACTIVATION, 0)->activation = kind;
  return t->from;
}

static inline size_t net_softmax(net *t)
{
  cr_assert_eq(fl_model_builder_softmax(t->builder, net_new(t)), FL_OK);
  (void)net_next(t, ORACLE_SOFTMAX, 0);
  return t->from;
}

static inline size_t net_dropout(net *t, float rate)
{
  cr_assert_eq(fl_model_builder_dropout(t->builder, net_new(t), rate), FL_OK);
  oracle_layer *l = net_next(t, ORACLE_DROPOUT, 0);
  l->rate = rate;
  l->value = 1.0 / (1.0 - (double)rate);
  t->has_dropout = 1;
  return t->from;
}

static inline size_t net_embedding(net *t, uint64_t rows, uint64_t width)
{
  cr_assert_eq(fl_model_builder_embedding(t->builder, net_new(t), rows, width),
               FL_OK);
  oracle_layer *l = net_next(t, ORACLE_EMBEDDING, 1);
  l->out = (oracle_shape){2, {l->in.dims[0], (size_t)width}};
  t->rows = rows;
  return t->from;
}

static inline size_t net_positions(net *t)
{
  cr_assert_eq(fl_model_builder_positions(t->builder, net_new(t)), FL_OK);
  (void)net_next(t, ORACLE_POSITIONS, 1);
  return t->from;
}

static inline size_t net_layer_norm(net *t, float epsilon)
{
  cr_assert_eq(fl_model_builder_layer_norm(t->builder, net_new(t), epsilon),
               FL_OK);
  net_next(t, ORACLE_LAYER_NORM, 2)->value = (double)epsilon;
  return t->from;
}

static inline size_t net_group_norm(net *t, uint32_t groups, float epsilon)
{
  cr_assert_eq(
      fl_model_builder_group_norm(t->builder, net_new(t), groups, epsilon),
      FL_OK);
  oracle_layer *l = net_next(t, ORACLE_GROUP_NORM, 2);
  l->value = (double)epsilon;
  l->groups = groups;
  return t->from;
}

/* The public call makes three layers, with names of its own. */
static inline size_t net_attention(net *t, uint32_t heads, int32_t is_causal)
{
  cr_assert_eq(
      fl_model_builder_attention(t->builder, net_new(t), heads, is_causal),
      FL_OK);
  size_t width = t->layers[t->from].out.dims[1];
  net_next(t, ORACLE_DENSE, 2)->out.dims[1] = 3 * width;
  oracle_layer *l = net_next(t, ORACLE_HEADS, 0);
  l->groups = heads;
  l->is_causal = is_causal;
  l->out.dims[1] = width;
  (void)net_next(t, ORACLE_DENSE, 2);
  return t->from;
}

static inline size_t net_machine(net *t)
{
  cr_assert_eq(fl_model_builder_factorisation_machine(t->builder, net_new(t)),
               FL_OK);
  net_next(t, ORACLE_MACHINE, 0)->out = (oracle_shape){1, {1}};
  return t->from;
}

static inline size_t net_dots(net *t)
{
  cr_assert_eq(fl_model_builder_pairwise_dots(t->builder, net_new(t)), FL_OK);
  oracle_layer *l = net_next(t, ORACLE_DOTS, 0);
  l->out = (oracle_shape){1, {l->in.dims[0] * (l->in.dims[0] - 1) / 2}};
  return t->from;
}

/* `other` is a layer with a name "l<number>", not part of an attention. */
static inline size_t net_add(net *t, size_t other)
{
  cr_assert_eq(fl_model_builder_add(t->builder, net_new(t), net_name(other)),
               FL_OK, "%s", fl_last_error());
  net_next(t, ORACLE_ADD, 0)->other = other;
  return t->from;
}

/* ---- inputs whose gradient is seen in a weight of its own ---------------- */

static inline net *net_vector(size_t n)
{
  const uint64_t dims[1] = {3};
  net *t = net_begin(NULL, dims, 1);
  (void)net_dense(t, n);
  return t;
}

static inline net *net_sequence(size_t tokens, size_t width)
{
  const uint64_t dims[2] = {tokens, width};
  net *t = net_begin(NULL, dims, 2);
  (void)net_positions(t);
  return t;
}

/* A convolution of one pixel makes the image: each weight is seen once. */
static inline net *net_image(uint32_t channels, uint32_t height, uint32_t width)
{
  const uint64_t dims[3] = {2, 1, 1};
  net *t = net_begin(NULL, dims, 3);
  uint32_t padding = (height > width ? height : width) - 1;
  fl_conv2d_options o = net_conv_options(channels, 1, padding);
  o.height = 2 * padding + 2 - height;
  o.width = 2 * padding + 2 - width;
  (void)net_conv(t, &o);
  return t;
}

#endif

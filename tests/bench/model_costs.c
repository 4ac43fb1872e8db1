/* SPDX-License-Identifier: Apache-2.0 */
/* Costs of a model's layers. For the profile the linker sends calls of
 * fli_node_run_of here (--wrap), and layers of the model at hand get functions
 * that look at the clock around their own. */
#include "model_costs.h"

#include <stdio.h>
#include <string.h>

enum { LAYERS_MAX = 256 };

static double dense_flops(const fli_node *node)
{
  double inputs = (double)node->input.dims[node->input.n_dims - 1];
  double rows = (double)node->input.count / inputs;
  return 2.0 * rows * inputs * (double)node->attributes.dense.units;
}

/* Of a product with one of the two factors of a low-rank update: with the
 * other side of the layer, units or inputs. */
static double factor_flops(const fli_node *node, double side)
{
  double inputs = (double)node->input.dims[node->input.n_dims - 1];
  double rows = (double)node->input.count / inputs;
  return 2.0 * rows * (double)node->attributes.dense.rank * side;
}

static double low_rank_flops(const fli_node *node)
{
  return factor_flops(node, (double)node->attributes.dense.units) +
         factor_flops(node, (double)node->input.dims[node->input.n_dims - 1]);
}

static double conv_flops(const fli_node *node)
{
  const fli_shape *out = node->pool ? &node->pool->input : &node->output;
  double channels =
      (double)node->input.dims[0] / (double)node->attributes.conv.groups;
  return 2.0 * (double)out->count * channels *
         (double)node->attributes.conv.height *
         (double)node->attributes.conv.width;
}

/* Scores and sums of values. */
static double attention_flops(const fli_node *node)
{
  return 4.0 * (double)node->output.count * (double)node->output.dims[0];
}

/* Of a sample, forward; 0 for layers that do little. */
static double forward_flops(const fli_node *node)
{
  if (node->op == &fli_op_dense) return dense_flops(node);
  if (node->op == &fli_op_dense_lora)
    return dense_flops(node) + low_rank_flops(node);
  if (node->op == &fli_op_conv2d) return conv_flops(node);
  if (node->op == &fli_op_attention) return attention_flops(node);
  return 0.0;
}

/* A product with the second factor comes first, whatever is wanted; the weights
 * are fixed. */
static double low_rank_backward(const fli_node *node, int carries)
{
  double inputs = (double)node->input.dims[node->input.n_dims - 1];
  double units = (double)node->attributes.dense.units;
  double sum = 0.0;
  if (node->trained != 0) sum += low_rank_flops(node);
  if (carries) sum += dense_flops(node) + factor_flops(node, inputs);
  if (sum > 0.0) sum += factor_flops(node, units);
  return sum;
}

/* Gradients of weights and of inputs cost what forward does, each; attention
 * has gradients of two factors in each of its products. */
static double backward_flops(const fl_model *model, const fli_node *node)
{
  double forward = forward_flops(node);
  int carries = model->nodes[node->inputs[0]].carries;
  if (node->op == &fli_op_dense_lora) return low_rank_backward(node, carries);
  if (node->op == &fli_op_attention) return carries ? 2.0 * forward : 0.0;
  return forward * ((node->trained != 0) + (carries != 0));
}

double model_flops(const fl_model *model, size_t batch, int is_training)
{
  double sum = 0.0;
  for (uint32_t i = 1; i < model->n_chain; i++) {
    const fli_node *node = &model->nodes[model->chain[i]];
    sum += forward_flops(node);
    if (is_training) sum += backward_flops(model, node);
  }
  return sum * (double)batch;
}

typedef struct layer {
  const fli_node_run *own;
  fli_node_run timed;
  double us[2]; /* [is_backward] */
} layer;

static struct {
  const fl_model *model; /* NULL: nothing is timed */
  double (*clock_us)(void);
  layer layers[LAYERS_MAX];
} profile;

static layer *layer_of(const fli_node *node)
{
  return &profile.layers[node->position];
}

static void timed_forward(const fli_node *node, fli_pass *pass)
{
  double begin = profile.clock_us();
  layer_of(node)->own->forward(node, pass);
  layer_of(node)->us[0] += profile.clock_us() - begin;
}

static void timed_backward(const fli_node *node, fli_pass *pass)
{
  double begin = profile.clock_us();
  layer_of(node)->own->backward(node, pass);
  layer_of(node)->us[1] += profile.clock_us() - begin;
}

/* The linker's names for what is called, and for what was meant. */
const fli_node_run *__real_fli_node_run_of(const fli_node *node);
const fli_node_run *__wrap_fli_node_run_of(const fli_node *node);

const fli_node_run *__wrap_fli_node_run_of(const fli_node *node)
{
  const fl_model *model = profile.model;
  int is_timed = model && node >= model->nodes &&
                 node < model->nodes + model->n_nodes && node->op->shape;
  return is_timed ? &layer_of(node)->timed : __real_fli_node_run_of(node);
}

static size_t n_layers(const fl_model *model)
{
  return model->n_chain < LAYERS_MAX ? model->n_chain : LAYERS_MAX;
}

void profile_begin(const fl_model *model, double (*clock_us)(void))
{
  memset(&profile, 0, sizeof profile);
  profile.clock_us = clock_us;
  for (size_t i = 0; i < n_layers(model); i++) {
    layer *l = &profile.layers[i];
    l->own = __real_fli_node_run_of(&model->nodes[model->chain[i]]);
    l->timed = *l->own;
    if (l->own->forward) l->timed.forward = timed_forward;
    if (l->own->backward) l->timed.backward = timed_backward;
  }
  if (model->n_chain <= LAYERS_MAX) profile.model = model;
}

double profile_us(uint32_t position, int is_backward)
{
  return position < LAYERS_MAX ? profile.layers[position].us[is_backward] : 0.0;
}

void profile_stop(void)
{
  profile.model = NULL;
}

void profile_end(uint64_t steps, const char *prefix, const char *suffix)
{
  const fl_model *model = profile.model;
  for (size_t i = 0; model && i < n_layers(model); i++) {
    const fli_node *node = &model->nodes[model->chain[i]];
    const layer *l = &profile.layers[i];
    printf("%s_%02zu_%s_%s_us%s %.1f %.1f\n", prefix, i, node->op->name,
           node->name, suffix, l->us[0] / (double)steps,
           l->us[1] / (double)steps);
  }
  profile_stop();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Kind "attention": queries, keys and values [tokens, 3 width] to [tokens,
 * width], each of several heads for itself (Vaswani et al., 2017, section
 * 3.2); the dense layers around it are nodes of their own. Attributes: 16 =
 * heads, 17 = is it causal. A batch is cut into ranges of RANGE samples. */
#include "base/context.h"
#include "base/error.h"
#include "linalg/attention.h"
#include "model/node.h"

enum { RANGE = 8, LINE = 16 };

static fl_status attention_shape(fli_node *node)
{
  const fli_shape *in = &node->input;
  uint32_t heads = node->attributes.attention.heads;
  if (in->n_dims != 2 || in->dims[1] % 3 != 0) {
    return fli_error(FL_E_DIM,
                     "attention %s: wants a sequence of queries, keys and "
                     "values, [tokens, 3 width]",
                     node->name);
  }
  uint64_t width = in->dims[1] / 3;
  if (heads == 0 || width % heads != 0) {
    return fli_error(FL_E_ARGUMENT,
                     "attention %s: got %u heads, want a divisor of the width",
                     node->name, heads);
  }
  node->output = (fli_shape){.n_dims = 2, .dims = {in->dims[0], width}};
  return fli_shape_check(&node->output, node->name);
}

static void attention_pack(const fli_node *node, fli_msg_writer *writer)
{
  fli_field_u64(writer, FLI_FIRST_ATTRIBUTE, node->attributes.attention.heads);
  fli_writer_u64(writer, FLI_FIRST_ATTRIBUTE + 1);
  fli_writer_bool(writer, node->attributes.attention.is_causal);
}

static int attention_unpack(fli_node *node, uint32_t key,
                            fli_msg_reader *reader)
{
  switch (key) {
  case FLI_FIRST_ATTRIBUTE:
    node->attributes.attention.heads = fli_reader_u32(reader);
    return 1;
  case FLI_FIRST_ATTRIBUTE + 1:
    node->attributes.attention.is_causal = fli_reader_bool(reader);
    return 1;
  default: return 0;
  }
}

static fli_attention attention_of(const fli_node *node)
{
  size_t heads = node->attributes.attention.heads;
  fli_attention attention = {
      .tokens = (size_t)node->output.dims[0],
      .heads = heads,
      .head_width = (size_t)node->output.dims[1] / heads,
      .is_causal = node->attributes.attention.is_causal,
  };
  fli_attention_init(&attention);
  return attention;
}

static size_t lane_floats(const fli_attention *attention)
{
  return (attention->n_scratch + LINE - 1) / LINE * LINE;
}

static size_t ranges_of(size_t n)
{
  return (n + RANGE - 1) / RANGE;
}

static void attention_needs(const fli_node *node, size_t n, fli_needs *needs)
{
  fli_attention attention = attention_of(node);
  uint64_t lanes = node->is_parallel ? ranges_of(n) : 1;
  needs->kept = (uint64_t)attention.n_kept * n;
  needs->forward = lanes * lane_floats(&attention);
  needs->backward = needs->forward;
}

typedef struct attention_job {
  const fli_node *node;
  const fli_pass *pass;
  fli_attention attention;
} attention_job;

static fli_attention_range range_of(const attention_job *job, size_t index)
{
  const fli_pass *pass = job->pass;
  size_t first = index * RANGE;
  size_t x = first * (size_t)job->node->input.count;
  size_t y = first * (size_t)job->node->output.count;
  size_t lane = job->node->is_parallel ? index : 0;
  return (fli_attention_range){
      .n = pass->n - first < RANGE ? pass->n - first : RANGE,
      .qkv = pass->x[0] + x,
      .y = pass->y + y,
      .kept = pass->kept + first * job->attention.n_kept,
      .dy = pass->dy ? pass->dy + y : NULL,
      .dqkv = pass->dx[0] ? pass->dx[0] + x : NULL,
      .scratch = pass->scratch + lane * lane_floats(&job->attention),
  };
}

static void forward_range(void *arg, uint64_t index)
{
  const attention_job *job = arg;
  fli_attention_range range = range_of(job, (size_t)index);
  fli_attention_forward(&job->attention, &range);
}

static void backward_range(void *arg, uint64_t index)
{
  const attention_job *job = arg;
  fli_attention_range range = range_of(job, (size_t)index);
  fli_attention_backward(&job->attention, &range);
}

static void attention_forward(const fli_node *node, fli_pass *pass)
{
  attention_job job = {
      .node = node, .pass = pass, .attention = attention_of(node)};
  fli_parallel_all(pass->context, ranges_of(pass->n), forward_range, &job);
}

static void attention_backward(const fli_node *node, fli_pass *pass)
{
  attention_job job = {
      .node = node, .pass = pass, .attention = attention_of(node)};
  if (!pass->dx[0]) return;
  fli_parallel_all(pass->context, ranges_of(pass->n), backward_range, &job);
}

const fli_node_op fli_op_attention = {
    .kind = FLI_OP_ATTENTION,
    .name = "attention",
    .flags = FLI_NODE_KEEPS_INPUT | FLI_NODE_KEEPS_OUTPUT,
    .n_inputs = 1,
    .n_attributes = 2,
    .shape = attention_shape,
    .pack = attention_pack,
    .unpack = attention_unpack,
};

const fli_node_run fli_run_attention = {
    .needs = attention_needs,
    .forward = attention_forward,
    .backward = attention_backward,
};

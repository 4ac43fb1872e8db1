/* SPDX-License-Identifier: Apache-2.0 */
/* Placing buffers by lifetime. Time runs 0 .. n-1 forward through the layers
 * and, when training, n .. 2n-1 back. Each buffer gets the lowest place where
 * it overlaps none of the buffers that live at the same time (first fit over
 * those placed before, kept sorted by place). */
#include "model/plan.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/size.h"
#include "model/model.h"

enum {
  LINE = FLI_ALIGNMENT / sizeof(float), /* buffers begin at multiples of it */
  BUFFERS_PER_NODE = 8
};

typedef struct buffer {
  size_t n_floats;
  size_t at;
  uint32_t born; /* first and last time of use */
  uint32_t dies;
} buffer;

/* Buffers while a plan is made. */
typedef struct planner {
  const fl_model *model;
  int is_training;
  size_t batch;
  uint32_t n_buffers;
  buffer *buffers;  /* at most BUFFERS_PER_NODE per layer */
  uint32_t *placed; /* indices of buffers, by place */
  uint32_t n_placed;
  size_t n_floats;
  fli_places *places; /* indices of buffers until they have places */
} planner;

static const fli_node *layer(const planner *p, uint32_t position)
{
  return &p->model->nodes[p->model->chain[position]];
}

static const fli_node *input_of(const planner *p, const fli_node *node,
                                uint32_t k)
{
  return &p->model->nodes[node->inputs[k]];
}

static uint32_t time_back(const planner *p, const fli_node *node)
{
  return 2 * p->model->n_chain - 1 - node->position;
}

/* A buffer of n floats in use from `born` to `dies`. */
static fl_status new_buffer(planner *p, uint64_t n, uint32_t born,
                            uint32_t dies, size_t *index)
{
  size_t n_floats = 0;
  size_t bytes = 0;
  if (!fli_to_size(n, &n_floats) || !fli_add_size(n_floats, LINE - 1, &bytes) ||
      !fli_mul_size(bytes, sizeof(float), &bytes)) {
    return fli_nomem(SIZE_MAX);
  }
  n_floats = (n_floats + LINE - 1) / LINE * LINE;
  p->buffers[p->n_buffers] =
      (buffer){.n_floats = n_floats, .born = born, .dies = dies};
  *index = p->n_buffers++;
  return FL_OK;
}

static fl_status new_values(planner *p, const fli_node *node, uint32_t time,
                            size_t *index)
{
  uint64_t n = fli_shape_floats(&node->output); /* <= 2^32 */
  if (p->batch > UINT64_MAX / 2 / n) return fli_nomem(SIZE_MAX);
  return new_buffer(p, n * p->batch, time, time, index);
}

static void use_at(planner *p, size_t index, uint32_t time)
{
  if (p->buffers[index].dies < time) p->buffers[index].dies = time;
}

/* Whether a node's way back happens and reads its input, its output. */
static int keeps_input(const planner *p, const fli_node *node)
{
  if (!p->is_training || !node->carries) return 0;
  if (node->flags & FLI_NODE_KEEPS_INPUT) return 1;
  return node->trained != 0 && (node->flags & FLI_NODE_KEEPS_TO_TRAIN) != 0;
}

static int keeps_output(const planner *p, const fli_node *node)
{
  return p->is_training && node->carries &&
         (node->flags & FLI_NODE_KEEPS_OUTPUT) != 0;
}

/* Whether the layer may work in its input's memory: nobody else reads what is
 * there, through views neither. */
static int shares_input(const planner *p, const fli_node *node)
{
  if (node->flags & FLI_NODE_VIEW) return 1;
  if (!(node->flags & FLI_NODE_IN_PLACE) || keeps_input(p, node)) return 0;
  for (const fli_node *from = input_of(p, node, 0);;) {
    if (from->n_uses != 1 || keeps_output(p, from)) return 0;
    if (!(from->flags & FLI_NODE_VIEW)) return 1;
    from = input_of(p, from, 0);
  }
}

static fl_status plan_output(planner *p, uint32_t position)
{
  const fli_node *node = layer(p, position);
  fli_places *places = &p->places[p->model->chain[position]];
  for (uint32_t k = 0; k < node->op->n_inputs; k++) {
    size_t input = p->places[node->inputs[k]].output;
    use_at(p, input, position);
    if (keeps_input(p, node)) use_at(p, input, time_back(p, node));
  }
  if (node->op->n_inputs > 0 && shares_input(p, node)) {
    places->output = p->places[node->inputs[0]].output;
  } else {
    fl_status st = new_values(p, node, position, &places->output);
    if (st != FL_OK) return st;
  }
  if (keeps_output(p, node)) {
    use_at(p, places->output, time_back(p, node));
  }
  return FL_OK;
}

static fl_status plan_needs(planner *p, uint32_t position)
{
  fl_status st = FL_OK;
  const fli_node *node = layer(p, position);
  const fli_node_run *run = fli_node_run_of(node);
  fli_places *places = &p->places[p->model->chain[position]];
  int goes_back = p->is_training && node->carries;
  uint32_t back = time_back(p, node);
  uint32_t last = goes_back ? back : position;
  fli_needs needs = {0};
  if (run->needs) run->needs(node, p->batch, &needs);
  if (needs.kept > 0) {
    FLI_TRY(new_buffer(p, needs.kept, position, last, &places->kept));
  }
  if (needs.forward > 0) {
    FLI_TRY(
        new_buffer(p, needs.forward, position, position, &places->scratch[0]));
  }
  if (!goes_back) return FL_OK;
  if (needs.backward > 0) {
    FLI_TRY(new_buffer(p, needs.backward, back, back, &places->scratch[1]));
  }
  uint64_t n = fli_sink_floats(p->model, node);
  if (n > 0) FLI_TRY(new_buffer(p, n, back, back, &places->tensor));
out:
  return st;
}

/* Gradient of a layer's output: its last user makes it on the way back (the
 * loss on its way forward), in its own gradient's memory if it may. */
static fl_status plan_gradient(planner *p, uint32_t position)
{
  const fli_node *node = layer(p, position);
  uint32_t index = p->model->chain[position];
  const fli_node *user = &p->model->nodes[node->last_use];
  int is_loss = (user->flags & FLI_NODE_IS_LOSS) != 0;
  uint32_t made_at = is_loss ? user->position : time_back(p, user);
  fli_places *places = &p->places[index];
  if (!node->carries) return FL_OK;
  if (!is_loss && user->inputs[0] == index &&
      user->flags & (FLI_NODE_VIEW | FLI_NODE_IN_PLACE)) {
    places->gradient = p->places[node->last_use].gradient;
  } else {
    fl_status st = new_values(p, node, made_at, &places->gradient);
    if (st != FL_OK) return st;
  }
  use_at(p, places->gradient, time_back(p, node));
  return FL_OK;
}

/* Where the node cannot add to a gradient that has been begun. */
static fl_status plan_extra(planner *p, uint32_t position)
{
  const fli_node *node = layer(p, position);
  uint32_t index = p->model->chain[position];
  if (!node->carries || node->flags & (FLI_NODE_ADDS | FLI_NODE_IS_LOSS)) {
    return FL_OK;
  }
  for (uint32_t k = 0; k < node->op->n_inputs; k++) {
    const fli_node *input = input_of(p, node, k);
    if (!input->carries || input->last_use == index) continue;
    fl_status st =
        new_values(p, input, time_back(p, node), &p->places[index].extra[k]);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

static void place(planner *p, uint32_t index)
{
  buffer *b = &p->buffers[index];
  uint32_t k = 0;
  b->at = 0;
  for (uint32_t i = 0; i < p->n_placed; i++) {
    const buffer *other = &p->buffers[p->placed[i]];
    if (other->dies < b->born || b->dies < other->born) continue;
    if (other->at >= b->at && other->at - b->at >= b->n_floats) break;
    if (other->at + other->n_floats > b->at) {
      b->at = other->at + other->n_floats;
    }
  }
  while (k < p->n_placed && p->buffers[p->placed[k]].at <= b->at) {
    k++;
  }
  memmove(&p->placed[k + 1], &p->placed[k],
          (p->n_placed - k) * sizeof *p->placed);
  p->placed[k] = index;
  p->n_placed++;
  if (p->n_floats < b->at + b->n_floats) p->n_floats = b->at + b->n_floats;
}

/* All sizes together must be addressable; then no sum of places overflows. */
static fl_status place_all(planner *p)
{
  size_t sum = 0;
  size_t bytes = 0;
  for (uint32_t i = 0; i < p->n_buffers; i++) {
    if (!fli_add_size(sum, p->buffers[i].n_floats, &sum) ||
        !fli_mul_size(sum, sizeof(float), &bytes)) {
      return fli_nomem(SIZE_MAX);
    }
  }
  for (uint32_t i = 0; i < p->n_buffers; i++) {
    place(p, i);
  }
  return FL_OK;
}

static size_t place_of(const planner *p, size_t index)
{
  return index == FLI_NOWHERE ? FLI_NOWHERE : p->buffers[index].at;
}

static void set_places(planner *p)
{
  for (uint32_t i = 0; i < p->model->n_nodes; i++) {
    fli_places *places = &p->places[i];
    *places = (fli_places){
        .output = place_of(p, places->output),
        .gradient = place_of(p, places->gradient),
        .kept = place_of(p, places->kept),
        .scratch = {place_of(p, places->scratch[0]),
                    place_of(p, places->scratch[1])},
        .tensor = place_of(p, places->tensor),
        .extra = {place_of(p, places->extra[0]), place_of(p, places->extra[1])},
    };
  }
}

static fl_status fill_plan(planner *p)
{
  fl_status st = FL_OK;
  uint32_t n = p->model->n_chain;
  for (uint32_t i = 0; i < p->model->n_nodes; i++) {
    p->places[i] = (fli_places){FLI_NOWHERE, FLI_NOWHERE,
                                FLI_NOWHERE, {FLI_NOWHERE, FLI_NOWHERE},
                                FLI_NOWHERE, {FLI_NOWHERE, FLI_NOWHERE}};
  }
  for (uint32_t i = 0; i < n; i++) {
    FLI_TRY(plan_output(p, i));
    FLI_TRY(plan_needs(p, i));
  }
  /* What the last layer was given (the logits) is read after the pass. */
  use_at(p, p->places[p->model->chain[n - 1]].output, 2 * n);
  for (uint32_t i = n - 1; i-- > 0 && p->is_training;) {
    FLI_TRY(plan_gradient(p, i));
    FLI_TRY(plan_extra(p, i));
  }
  FLI_TRY(place_all(p));
  set_places(p);
out:
  return st;
}

void fli_plan_free(const fl_model *model, fli_plan *plan)
{
  fli_free(model->context, plan->places, model->n_nodes * sizeof *plan->places);
  *plan = (fli_plan){0};
}

fl_status fli_plan_make(const fl_model *model, size_t batch, int is_training,
                        fli_plan *out)
{
  fl_status st = FL_OK;
  size_t n = (size_t)BUFFERS_PER_NODE * model->n_chain;
  fl_context *context = model->context;
  fli_plan plan = {.batch = batch};
  planner p = {.model = model, .is_training = is_training, .batch = batch};
  p.buffers = fli_alloc(context, n, sizeof *p.buffers);
  p.placed = fli_alloc(context, n, sizeof *p.placed);
  plan.places = fli_alloc(context, model->n_nodes, sizeof *plan.places);
  p.places = plan.places;
  if (!p.buffers || !p.placed || !p.places) {
    st = fli_nomem(n * sizeof *p.buffers);
    goto out;
  }
  FLI_TRY(fill_plan(&p));
  plan.n_floats = p.n_floats;
out:
  fli_free(context, p.buffers, n * sizeof *p.buffers);
  fli_free(context, p.placed, n * sizeof *p.placed);
  if (st != FL_OK) {
    fli_plan_free(model, &plan);
  } else {
    *out = plan;
  }
  return st;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Placing buffers by lifetime. Time runs 0 .. n-1 forward through the chain
 * and, when training, n .. 2n-1 back. Each buffer gets the lowest place where
 * it overlaps none of the buffers that live at the same time (first fit over
 * those placed before, kept sorted by place). */
#include "model/plan.h"

#include <assert.h>
#include <string.h>

#include "base/error.h"
#include "base/size.h"
#include "model/model.h"

/* Floats of a cache line: buffers begin at multiples of it. */
enum { LINE = FLI_ALIGNMENT / sizeof(float) };

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
  uint32_t n_buffers;
  buffer *buffers;  /* at most two per layer */
  uint32_t *placed; /* indices of buffers, by place */
  uint32_t n_placed;
  size_t n_floats;
} planner;

static const fli_node *layer(const fl_model *model, uint32_t i)
{
  return &model->nodes[model->chain[i]];
}

uint32_t fli_first_trained(const fl_model *model)
{
  for (uint32_t i = 0; i < model->n_chain; i++) {
    if (layer(model, i)->op->parameters) return i;
  }
  return model->n_chain;
}

static fl_status buffer_floats(const fli_node *node, size_t batch, size_t *out)
{
  size_t n = 0;
  size_t bytes = 0;
  if (!fli_to_size(node->output.count, &n) || !fli_mul_size(n, batch, &n) ||
      !fli_add_size(n, LINE - 1, &n) ||
      !fli_mul_size(n, sizeof(float), &bytes)) {
    return fli_nomem(SIZE_MAX);
  }
  *out = n / LINE * LINE;
  return FL_OK;
}

static uint32_t new_buffer(planner *p, size_t n_floats, uint32_t born)
{
  p->buffers[p->n_buffers] =
      (buffer){.n_floats = n_floats, .born = born, .dies = born};
  return p->n_buffers++;
}

static void use_at(planner *p, uint32_t index, uint32_t time)
{
  if (p->buffers[index].dies < time) p->buffers[index].dies = time;
}

/* Whether layer i may work in its input's memory. */
static int shares_input(const fl_model *model, uint32_t i)
{
  uint32_t flags = layer(model, i)->op->flags;
  if (flags & FLI_NODE_VIEW) return 1;
  if (!(flags & FLI_NODE_IN_PLACE)) return 0;
  /* Views in between do not hide a layer that wants its output kept. */
  for (uint32_t j = i; j > 0; j--) {
    uint32_t before = layer(model, j - 1)->op->flags;
    if (before & FLI_NODE_KEEPS_OUTPUT) return 0;
    if (!(before & FLI_NODE_VIEW)) break;
  }
  return 1;
}

/* Which buffer holds each layer's output; indices are left in plan->output
 * until the buffers have places. */
static fl_status plan_outputs(planner *p, fli_plan *plan)
{
  uint32_t n = p->model->n_chain;
  for (uint32_t i = 0; i < n; i++) {
    const fli_node *node = layer(p->model, i);
    uint32_t back = 2 * n - 1 - i;
    if (i > 0) {
      use_at(p, (uint32_t)plan->output[i - 1], i);
      if (p->is_training && node->op->flags & FLI_NODE_KEEPS_INPUT) {
        use_at(p, (uint32_t)plan->output[i - 1], back);
      }
    }
    if (i > 0 && shares_input(p->model, i)) {
      plan->output[i] = plan->output[i - 1];
    } else {
      size_t n_floats = 0;
      fl_status st = buffer_floats(node, plan->batch, &n_floats);
      if (st != FL_OK) return st;
      plan->output[i] = new_buffer(p, n_floats, i);
    }
    if (p->is_training && node->op->flags & FLI_NODE_KEEPS_OUTPUT) {
      use_at(p, (uint32_t)plan->output[i], back);
    }
  }
  return FL_OK;
}

/* Gradient of each layer's output, from the loss down to the first layer with
 * weights. The loss makes its own forward. */
static fl_status plan_gradients(planner *p, fli_plan *plan)
{
  uint32_t n = p->model->n_chain;
  uint32_t first = fli_first_trained(p->model);
  for (uint32_t i = 0; i < n; i++) {
    plan->gradient[i] = FLI_NOWHERE;
  }
  if (!p->is_training || first == n) return FL_OK;
  for (uint32_t i = n - 1; i-- > first;) {
    uint32_t above = layer(p->model, i + 1)->op->flags;
    uint32_t made_at = i + 1 == n - 1 ? n - 1 : 2 * n - 2 - i;
    if (i + 1 < n - 1 && above & (FLI_NODE_VIEW | FLI_NODE_IN_PLACE)) {
      plan->gradient[i] = plan->gradient[i + 1];
    } else {
      size_t n_floats = 0;
      fl_status st = buffer_floats(layer(p->model, i), plan->batch, &n_floats);
      if (st != FL_OK) return st;
      plan->gradient[i] = new_buffer(p, n_floats, made_at);
    }
    use_at(p, (uint32_t)plan->gradient[i], 2 * n - 1 - i);
  }
  return FL_OK;
}

static fl_status place(planner *p, uint32_t index)
{
  buffer *b = &p->buffers[index];
  uint32_t k = 0;
  size_t end = 0;
  b->at = 0;
  for (uint32_t i = 0; i < p->n_placed; i++) {
    const buffer *other = &p->buffers[p->placed[i]];
    if (other->dies < b->born || b->dies < other->born) continue;
    if (other->at >= b->at && other->at - b->at >= b->n_floats) break;
    if (other->at + other->n_floats > b->at) {
      b->at = other->at + other->n_floats;
    }
  }
  if (!fli_add_size(b->at, b->n_floats, &end)) return fli_nomem(SIZE_MAX);
  while (k < p->n_placed && p->buffers[p->placed[k]].at <= b->at) {
    k++;
  }
  memmove(&p->placed[k + 1], &p->placed[k],
          (p->n_placed - k) * sizeof *p->placed);
  p->placed[k] = index;
  p->n_placed++;
  if (p->n_floats < end) p->n_floats = end;
  return FL_OK;
}

static void plan_free(fl_context *context, fli_plan *plan, uint32_t n)
{
  fli_free(context, plan->output, n * sizeof *plan->output);
  fli_free(context, plan->gradient, n * sizeof *plan->gradient);
  *plan = (fli_plan){0};
}

static fl_status fill_plan(planner *p, fli_plan *plan)
{
  fl_status st = FL_OK;
  uint32_t n = p->model->n_chain;
  FLI_TRY(plan_outputs(p, plan));
  /* What the last layer was given (the logits) is read after the pass. */
  use_at(p, (uint32_t)plan->output[n - 1], 2 * n);
  FLI_TRY(plan_gradients(p, plan));
  for (uint32_t i = 0; i < p->n_buffers; i++) {
    FLI_TRY(place(p, i));
  }
  for (uint32_t i = 0; i < n; i++) {
    plan->output[i] = p->buffers[plan->output[i]].at;
    if (plan->gradient[i] != FLI_NOWHERE) {
      plan->gradient[i] = p->buffers[plan->gradient[i]].at;
    }
  }
  plan->n_floats = p->n_floats;
out:
  return st;
}

static fl_status make_plan(const fl_model *model, size_t batch, int is_training,
                           fli_plan *out)
{
  fl_status st = FL_OK;
  uint32_t n = model->n_chain;
  fl_context *context = model->context;
  planner p = {.model = model, .is_training = is_training};
  fli_plan plan = {.batch = batch};
  p.buffers = fli_alloc(context, 2 * (size_t)n, sizeof *p.buffers);
  p.placed = fli_alloc(context, 2 * (size_t)n, sizeof *p.placed);
  plan.output = fli_alloc(context, n, sizeof *plan.output);
  plan.gradient = fli_alloc(context, n, sizeof *plan.gradient);
  if (!p.buffers || !p.placed || !plan.output || !plan.gradient) {
    st = fli_nomem(2 * n * sizeof *p.buffers);
    goto out;
  }
  FLI_TRY(fill_plan(&p, &plan));
out:
  fli_free(context, p.buffers, 2 * (size_t)n * sizeof *p.buffers);
  fli_free(context, p.placed, 2 * (size_t)n * sizeof *p.placed);
  if (st != FL_OK) {
    plan_free(context, &plan, n);
  } else {
    *out = plan;
  }
  return st;
}

static fl_status reserve_block(fl_model *model, size_t n_floats)
{
  fli_workspace *w = &model->workspace;
  if (n_floats <= w->n_floats) return FL_OK;
  float *block = fli_alloc(model->context, n_floats, sizeof *block);
  if (!block) return fli_nomem(n_floats * sizeof *block);
  fli_free(model->context, w->block, w->n_floats * sizeof *w->block);
  w->block = block;
  w->n_floats = n_floats;
  return FL_OK;
}

static fl_status reserve_gradient(fl_model *model)
{
  fli_workspace *w = &model->workspace;
  if (w->gradient || !model->observer.gradient) return FL_OK;
  w->gradient =
      fli_alloc(model->context, (size_t)model->n_weights, sizeof *w->gradient);
  if (w->gradient) return FL_OK;
  return fli_nomem((size_t)model->n_weights * sizeof *w->gradient);
}

fl_status fli_workspace_reserve(fl_model *model, size_t batch, int is_training)
{
  fl_status st = FL_OK;
  fli_plan *current = &model->workspace.plans[is_training];
  fli_plan plan = {0};
  assert(is_training == 0 || is_training == 1);
  if (is_training) FLI_TRY(reserve_gradient(model));
  if (batch <= current->batch) return FL_OK;
  FLI_TRY(make_plan(model, batch, is_training, &plan));
  st = reserve_block(model, plan.n_floats);
  if (st != FL_OK) {
    plan_free(model->context, &plan, model->n_chain);
    return st;
  }
  plan_free(model->context, current, model->n_chain);
  *current = plan;
out:
  return st;
}

void fli_workspace_free(fl_model *model)
{
  fli_workspace *w = &model->workspace;
  plan_free(model->context, &w->plans[0], model->n_chain);
  plan_free(model->context, &w->plans[1], model->n_chain);
  fli_free(model->context, w->block, w->n_floats * sizeof *w->block);
  fli_free(model->context, w->gradient,
           (size_t)model->n_weights * sizeof *w->gradient);
}

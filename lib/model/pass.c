/* SPDX-License-Identifier: Apache-2.0 */
/* Running the graph over one batch: forward to the loss, and back down to
 * where nothing is trained any more. Buffers come from the plan; here nothing
 * is allocated. */
#include "model/model.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "kernels/nn/nn.h"

static float *at(const fl_model *model, size_t place)
{
  return place == FLI_NOWHERE ? NULL : model->workspace.block + place;
}

const fli_node *fli_model_loss(const fl_model *model)
{
  if (model->n_chain == 0) return NULL;
  return &model->nodes[model->chain[model->n_chain - 1]];
}

const fli_node *fli_model_input(const fl_model *model)
{
  return model->n_chain == 0 ? NULL : &model->nodes[model->chain[0]];
}

const float *fli_logits(const fl_model *model, int is_training)
{
  const fli_plan *plan = &model->workspace.plans[is_training];
  return at(model, plan->places[model->chain[model->n_chain - 1]].output);
}

/* What forward and backward have in common. */
static fli_pass begin_pass(const fl_model *model, const fli_batch *batch)
{
  return (fli_pass){.context = model->context,
                    .batch = batch,
                    .n = batch->n,
                    .values = model->values,
                    .provider = model->provider,
                    .provider_user = model->provider_user,
                    .seed = model->place.seed,
                    .step = (model->optimiser.updates << 20) +
                            model->workspace.n_batches};
}

static void set_buffers(const fl_model *model, const fli_plan *plan,
                        uint32_t index, fli_pass *pass, int is_backward)
{
  const fli_node *node = &model->nodes[index];
  const fli_places *places = &plan->places[index];
  for (uint32_t k = 0; k < node->op->n_inputs; k++) {
    pass->x[k] = at(model, plan->places[node->inputs[k]].output);
  }
  pass->y = at(model, places->output);
  pass->kept = at(model, places->kept);
  pass->scratch = at(model, places->scratch[is_backward]);
}

/* One layer forward; of the loss only with has_loss. */
static void node_forward(const fl_model *model, const fli_plan *plan,
                         uint32_t index, int has_loss, fli_pass *pass)
{
  const fli_node *node = &model->nodes[index];
  const fli_node_run *run = fli_node_run_of(node);
  int is_loss = (node->flags & FLI_NODE_IS_LOSS) != 0;
  if (!run->forward || (is_loss && !has_loss)) return;
  if (node->flags & FLI_NODE_VIEW && !is_loss) return;
  set_buffers(model, plan, index, pass, 0);
  pass->dx[0] =
      is_loss ? at(model, plan->places[node->inputs[0]].gradient) : NULL;
  run->forward(node, pass);
}

/* Where the frozen modules end, whose layers run as in inference; 0 when
 * nothing is frozen. */
static uint32_t frozen_end(const fl_model *model)
{
  uint32_t i = 0;
  if (model->first_active == 0) return 0;
  while (i < model->n_chain && !model->nodes[model->chain[i]].carries) {
    i++;
  }
  return i;
}

/* Show the observer what crosses its cuts in front of layer `position`. */
static void tap(const fl_model *model, const fli_pass *pass, uint32_t position,
                uint32_t *next)
{
  const fli_watch *watch = &model->watch;
  const fli_observer *observer = &model->observer;
  while (*next < watch->n_taps && watch->taps[*next].position == position) {
    const fli_places *places = model->workspace.plans[1].places;
    observer->tap(observer->user, *next, pass->batch,
                  at(model, places[watch->taps[*next].node].output));
    ++*next;
  }
}

/* Where to begin: behind the frozen part when the observer has kept what comes
 * out of it. */
static uint32_t begin_training(const fl_model *model, fli_pass *pass)
{
  const fli_watch *watch = &model->watch;
  const fli_observer *observer = &model->observer;
  if (!watch->loads || watch->n_taps == 0) return 0;
  const fli_places *places = model->workspace.plans[1].places;
  if (!observer->load(observer->user, pass->batch,
                      at(model, places[watch->taps[0].node].output))) {
    return 0;
  }
  pass->n_finite = pass->n; /* samples that are not are never kept */
  return watch->taps[0].position;
}

fl_status fli_forward(fl_model *model, const fli_batch *batch, int is_training,
                      double *loss)
{
  const fli_plan *plan = &model->workspace.plans[is_training];
  fli_pass pass = begin_pass(model, batch);
  uint32_t tapped = 0;
  fl_status st = fli_rows_check(model); /* a callback may have taken them */
  if (st != FL_OK) return st;
  assert(model->n_chain > 0 && batch->n > 0 && batch->n <= plan->batch);
  uint32_t frozen = is_training ? frozen_end(model) : 0;
  uint32_t first = is_training ? begin_training(model, &pass) : 0;
  for (uint32_t i = first; i < model->n_chain; i++) {
    if (is_training) tap(model, &pass, i, &tapped);
    /* The input looks for what is not finite in training. */
    pass.is_training = is_training && (i == 0 || i >= frozen);
    node_forward(model, plan, model->chain[i], loss != NULL, &pass);
    if (pass.status != FL_OK) return pass.status;
  }
  if (is_training && pass.n_finite < batch->n) {
    return fli_error(FL_E_NOT_FINITE,
                     "data set: sample %zu of the batch has a value that is "
                     "not finite",
                     pass.n_finite);
  }
  if (!loss) return FL_OK;
  *loss = pass.loss_weight > 0.0 ? pass.loss / pass.loss_weight : 0.0;
  if (!isfinite(*loss)) {
    return fli_error(FL_E_NOT_FINITE,
                     "loss: is not finite; inputs or weights are NaN, "
                     "infinite or too large");
  }
  return FL_OK;
}

fl_status fli_forward_part(fl_model *model, const fli_cut *from,
                           const fli_cut *to, const float *x, size_t n,
                           const float **y)
{
  const fli_plan *plan = &model->workspace.plans[0];
  const fli_batch batch = {.n = n};
  uint32_t end = to ? to->position : model->n_chain - 1;
  uint32_t last =
      to ? to->node : model->nodes[model->chain[model->n_chain - 1]].inputs[0];
  fl_status st = fli_workspace_reserve(model, n, 0);
  if (st != FL_OK) return st;
  fli_pass pass = begin_pass(model, &batch);
  memcpy(at(model, plan->places[from->node].output), x,
         n * (size_t)from->n_values * sizeof *x);
  for (uint32_t i = from->position; i < end; i++) {
    node_forward(model, plan, model->chain[i], 0, &pass);
  }
  *y = at(model, plan->places[last].output);
  return FL_OK;
}

fl_status fli_forward_layer(fl_model *model, uint32_t node, const float *x,
                            size_t n, const float **y)
{
  const fli_node *layer = &model->nodes[node];
  const fli_places *places = NULL;
  const fli_batch batch = {.n = n};
  fl_status st = fli_workspace_reserve(model, n, 0);
  if (st != FL_OK) return st;
  places = model->workspace.plans[0].places;
  fli_pass pass = begin_pass(model, &batch);
  memcpy(at(model, places[layer->inputs[0]].output), x,
         n * (size_t)fli_shape_floats(&layer->input) * sizeof *x);
  node_forward(model, &model->workspace.plans[0], node, 0, &pass);
  *y = at(model, places[node].output);
  return FL_OK;
}

/* Back through one node. Of the users of an input the last one comes first and
 * overwrites; the others add to what is there. */
static void node_backward(fl_model *model, uint32_t index, fli_pass *pass)
{
  const fli_plan *plan = &model->workspace.plans[1];
  const fli_node *node = &model->nodes[index];
  const fli_places *places = &plan->places[index];
  set_buffers(model, plan, index, pass, 1);
  pass->dy = at(model, places->gradient);
  pass->gradient = at(model, places->tensor);
  for (uint32_t k = 0; k < node->op->n_inputs; k++) {
    const fli_node *input = &model->nodes[node->inputs[k]];
    float *dx = at(model, plan->places[node->inputs[k]].gradient);
    int is_first = input->last_use == index &&
                   !(k == 1 && node->inputs[0] == node->inputs[1]);
    pass->adds[k] = !is_first && (node->flags & FLI_NODE_ADDS) != 0;
    pass->dx[k] = is_first || pass->adds[k] ? dx : at(model, places->extra[k]);
    if (!input->carries) pass->dx[k] = NULL;
  }
  fli_node_run_of(node)->backward(node, pass);
  for (uint32_t k = 0; k < node->op->n_inputs; k++) {
    if (!pass->dx[k] || places->extra[k] == FLI_NOWHERE) continue;
    const fli_node *input = &model->nodes[node->inputs[k]];
    float *sum = at(model, plan->places[node->inputs[k]].gradient);
    flk_nn()->vector.add(sum, sum, pass->dx[k],
                         pass->n * (size_t)fli_shape_floats(&input->output));
  }
}

/* A view whose gradient is its input's, too. */
static int is_the_same(const fl_model *model, uint32_t index)
{
  const fli_places *places = model->workspace.plans[1].places;
  const fli_node *node = &model->nodes[index];
  return (node->flags & FLI_NODE_VIEW) != 0 &&
         places[index].gradient == places[node->inputs[0]].gradient;
}

void fli_backward(fl_model *model, const fli_batch *batch, fli_sink *sink)
{
  fli_pass pass = begin_pass(model, batch);
  pass.sink = sink;
  pass.is_training = 1;
  /* The loss has written its gradient on the way forward. */
  for (uint32_t i = model->n_chain - 1; i-- > 0;) {
    uint32_t index = model->chain[i];
    const fli_node *node = &model->nodes[index];
    if (!node->carries || !fli_node_run_of(node)->backward) continue;
    if (is_the_same(model, index)) continue;
    node_backward(model, index, &pass);
  }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Running the chain of layers over one batch: forward to the loss, and back
 * down to the lowest layer that has weights. Buffers come from the plan; here
 * nothing is allocated. */
#include "model/model.h"

#include <assert.h>
#include <math.h>

#include "base/error.h"

static float *at(const fl_model *model, size_t place)
{
  return place == FLI_NOWHERE ? NULL : model->workspace.block + place;
}

uint64_t fli_model_classes(const fl_model *model)
{
  if (model->n_chain == 0) return 0;
  return model->nodes[model->chain[model->n_chain - 1]].output.count;
}

const float *fli_logits(const fl_model *model, int is_training)
{
  const fli_plan *plan = &model->workspace.plans[is_training];
  return at(model, plan->output[model->n_chain - 1]);
}

fl_status fli_forward(fl_model *model, const fli_batch *batch, int is_training,
                      double *loss)
{
  const fli_plan *plan = &model->workspace.plans[is_training];
  uint32_t n = model->n_chain;
  fli_pass pass = {.batch = batch, .weights = model->values};
  assert(n > 0 && batch->n > 0 && batch->n <= plan->batch);
  for (uint32_t i = 0; i < n; i++) {
    const fli_node *node = &model->nodes[model->chain[i]];
    int is_loss = (node->op->flags & FLI_NODE_IS_LOSS) != 0;
    if (!node->op->forward || (is_loss && !loss)) continue;
    pass.x = i > 0 ? at(model, plan->output[i - 1]) : NULL;
    pass.y = at(model, plan->output[i]);
    pass.dx = is_loss && i > 0 ? at(model, plan->gradient[i - 1]) : NULL;
    node->op->forward(node, &pass);
  }
  if (!loss) return FL_OK;
  *loss = pass.loss / (double)batch->n;
  if (!isfinite(*loss)) {
    return fli_error(FL_E_NOT_FINITE,
                     "loss: is not finite; inputs or weights are NaN, "
                     "infinite or too large");
  }
  return FL_OK;
}

void fli_backward(fl_model *model, const fli_batch *batch, fli_sink sink)
{
  const fli_plan *plan = &model->workspace.plans[1];
  uint32_t first = fli_first_trained(model);
  fli_pass pass = {.batch = batch, .weights = model->values, .sink = sink};
  /* The loss has written its gradient on the way forward. */
  for (uint32_t i = model->n_chain - 1; i-- > first;) {
    const fli_node *node = &model->nodes[model->chain[i]];
    if (!node->op->backward) continue;
    pass.x = i > 0 ? at(model, plan->output[i - 1]) : NULL;
    pass.y = at(model, plan->output[i]);
    pass.dy = at(model, plan->gradient[i]);
    pass.dx = i > first ? at(model, plan->gradient[i - 1]) : NULL;
    node->op->backward(node, &pass);
  }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Rows that are not the model's but a provider's, and their part in a step.
 * They are updated when nothing else can fail any more, before the first of the
 * model's own weights changes: gradients are gathered for that, so that all of
 * them have been looked at. */
#include "model/rows.h"

#include "base/error.h"
#include "kernels/kernels.h"
#include "model/model.h"

/* The ids are the model's input, which nothing else takes: its only user is
 * the second layer. */
const fli_node *fli_model_sparse(const fl_model *model)
{
  if (model->n_chain < 2) return NULL;
  const fli_node *node = &model->nodes[model->chain[1]];
  return node->flags & FLI_NODE_HAS_ROWS ? node : NULL;
}

fl_status fli_model_get_rows(const fl_model *model, size_t *fields,
                             size_t *width)
{
  const fli_node *node = fli_model_sparse(model);
  if (!node) {
    return fli_error(FL_E_NOT_FOUND, "model: has no sparse embedding");
  }
  *fields = (size_t)node->input.count;
  *width = (size_t)node->attributes.sparse.width;
  return FL_OK;
}

fl_status fli_model_check_no_provider(const fl_model *model)
{
  if (!model->provider) return FL_OK;
  return fli_error(FL_E_STATE, "model: an embedding is attached already");
}

void fli_model_set_provider(fl_model *model, const fli_provider *provider,
                            void *user)
{
  model->provider = provider;
  model->provider_user = user;
  if (model->is_shown) return; /* the step needs its plan and its marks */
  (void)fli_model_mark(model, model->first_active);
  fli_workspace_forget(model);
}

int fli_model_trains_rows(const fl_model *model)
{
  const fli_node *node = model->provider ? fli_model_sparse(model) : NULL;
  return node && node->trained != 0;
}

fl_status fli_rows_check(const fl_model *model)
{
  const fli_node *node = model->provider ? NULL : fli_model_sparse(model);
  if (!node) return FL_OK;
  return fli_error(FL_E_STATE,
                   "sparse_embedding %s: has no rows, attach an embedding",
                   node->name);
}

fl_status fli_rows_check_batches(const fl_model *model, uint32_t accumulate)
{
  if (!fli_model_trains_rows(model)) return FL_OK;
  if (accumulate == 1 && model->workspace.n_batches == 0) return FL_OK;
  return fli_error(FL_E_CONFLICT,
                   "sparse_embedding %s: rows are updated batch by batch, "
                   "their gradients are not gathered",
                   fli_model_sparse(model)->name);
}

fl_status fli_rows_update(fl_model *model, size_t n, float rate)
{
  const fli_node *node = fli_model_sparse(model);
  if (!fli_model_trains_rows(model)) return FL_OK;
  const fli_workspace *w = &model->workspace;
  const fli_places *places = &w->plans[1].places[model->chain[1]];
  const float *gradient = w->block + places->gradient;
  size_t count = n * (size_t)node->output.count;
  size_t at = flk_kernels()->find_not_finite(gradient, count);
  if (at < count) {
    return fli_error(FL_E_NOT_FINITE,
                     "sparse_embedding %s: gradient of sample %zu of the batch "
                     "is not finite",
                     node->name, at / (size_t)node->output.count);
  }
  fli_ids ids = fli_sparse_ids(node, w->block + places->kept, n);
  return model->provider->backward(model->provider_user, &ids, gradient, rate);
}

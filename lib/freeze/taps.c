/* SPDX-License-Identifier: Apache-2.0 */
/* Taps: values of samples on their way forward, taken down for when the step is
 * over. */
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "freeze/attach.h"
#include "freeze/freeze.h"

/* The layer with an adapter's weights: a dense one with a low-rank update, or
 * the last one of a bottleneck, in front of a sum. In a model whose other
 * layers are fixed, what is trained there is an adapter. */
static const fli_node *layer_of(const fl_model *model, const fli_node *node)
{
  if (node->op == &fli_op_dense_lora) return node;
  if (node->op != &fli_op_add) return NULL;
  const fli_node *up = &model->nodes[node->inputs[0]];
  if (up->op != &fli_op_dense) return NULL;
  return model->tensors[up->first_tensor].is_trainable ? up : NULL;
}

/* Features are vectors: of a sample, or of each of its tokens. */
static int find_adapter(const fl_model *model, uint32_t index,
                        fli_adapter *adapter)
{
  const fli_node *node = &model->nodes[index];
  const fli_node *layer = layer_of(model, node);
  if (!layer || node->output.n_dims > 2) return 0;
  *adapter = (fli_adapter){.module = layer->module,
                           .node = index,
                           .is_low_rank = node->op == &fli_op_dense_lora,
                           .width = node->output.dims[node->output.n_dims - 1]};
  return 1;
}

static fl_status find_adapters(fli_attachment *a)
{
  const fl_model *model = a->model;
  fl_context *context = a->freeze->context;
  fli_adapter adapter;
  uint32_t n = 0;
  for (uint32_t i = 0; i < model->n_chain; i++) {
    n += (uint32_t)find_adapter(model, model->chain[i], &adapter);
  }
  if (n == 0) {
    return fli_error(FL_E_NOT_FOUND, "freeze: the model has no adapters, which "
                                     "criterion CKA is about");
  }
  a->adapters = fli_alloc(context, n, sizeof *a->adapters);
  if (!a->adapters) return fli_nomem(n * sizeof *a->adapters);
  a->n_adapters = n;
  n = 0;
  for (uint32_t i = 0; i < model->n_chain; i++) {
    if (!find_adapter(model, model->chain[i], &adapter)) continue;
    adapter.rows = FLI_PAIR_ROWS + 2 * n;
    a->adapters[n++] = adapter;
  }
  return FL_OK;
}

fl_status fli_taps_init(fli_attachment *a)
{
  fl_status st = FL_OK;
  fl_context *context = a->freeze->context;
  if (a->freeze->options.criterion == FL_FREEZE_CKA) {
    FLI_TRY(find_adapters(a));
  }
  uint32_t n = FLI_PAIR_ROWS + 2 * a->n_adapters + 1; /* the cache's */
  a->n_places = n;
  a->rows = fli_alloc(context, n, sizeof *a->rows);
  a->taps = fli_alloc(context, n, sizeof *a->taps);
  a->of_tap = fli_alloc(context, n, sizeof *a->of_tap);
  if (!a->rows || !a->taps || !a->of_tap) {
    st = fli_nomem(n * (sizeof *a->rows + sizeof *a->taps));
  }
out:
  return st;
}

void fli_taps_clear(fli_attachment *a)
{
  fl_context *context = a->freeze->context;
  for (uint32_t i = 0; i < a->n_places && a->rows; i++) {
    fli_rows *rows = &a->rows[i];
    fli_free(context, rows->values, rows->n_floats * sizeof *rows->values);
    *rows = (fli_rows){0};
  }
}

void fli_taps_free(fli_attachment *a)
{
  fl_context *context = a->freeze->context;
  fli_taps_clear(a);
  fli_free(context, a->rows, a->n_places * sizeof *a->rows);
  fli_free(context, a->taps, a->n_places * sizeof *a->taps);
  fli_free(context, a->of_tap, a->n_places * sizeof *a->of_tap);
  fli_free(context, a->adapters, a->n_adapters * sizeof *a->adapters);
}

int fli_taps_add(fli_attachment *a, fli_watch *watch, const fli_cut *cut,
                 uint32_t which, size_t samples)
{
  uint32_t i = watch->n_taps;
  if (which != FLI_NO_ROWS) {
    fli_rows *rows = &a->rows[which];
    size_t n = samples * (size_t)cut->n_values;
    *rows = (fli_rows){.cut = *cut, .n_floats = n};
    rows->values = fli_alloc(a->freeze->context, n, sizeof *rows->values);
    if (!rows->values) {
      rows->n_floats = 0;
      return 0;
    }
  }
  while (i > 0 && a->taps[i - 1].position > cut->position) {
    a->taps[i] = a->taps[i - 1];
    a->of_tap[i] = a->of_tap[i - 1];
    i--;
  }
  a->taps[i] = *cut;
  a->of_tap[i] = which;
  watch->taps = a->taps;
  watch->n_taps++;
  return 1;
}

void fli_taps_take(fli_attachment *a, uint32_t index, const fli_batch *batch,
                   const float *values)
{
  uint32_t which = a->of_tap[index];
  if (which == FLI_NO_ROWS) return;
  fli_rows *rows = &a->rows[which];
  size_t room = rows->n_floats / (size_t)rows->cut.n_values;
  size_t n = batch->n < room ? batch->n : room;
  memcpy(rows->values, values, n * (size_t)rows->cut.n_values * sizeof *values);
  rows->is_there = 1;
  a->n_batch = batch->n;
}

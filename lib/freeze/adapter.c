/* SPDX-License-Identifier: Apache-2.0 */
/* Features before and after the adapters of a model, for SAFE. A bottleneck's
 * are both sides of its sum; a low-rank update's are what its layer gives
 * without and with the update, which is computed when the step is over. */
#include <string.h>

#include "base/context.h"
#include "freeze/attach.h"
#include "freeze/freeze.h"

enum { LORA_B = 3 }; /* among the layer's tensors; zeros: no update */

static uint64_t tokens_of(const fli_attachment *a, const fli_adapter *adapter)
{
  return a->model->nodes[adapter->node].output.count / adapter->width;
}

static fli_cut tap_of(const fl_model *model, uint32_t position, uint32_t node)
{
  return (fli_cut){.position = position,
                   .node = node,
                   .n_values = fli_shape_floats(&model->nodes[node].output)};
}

static int watch_adapter(fli_attachment *a, fli_watch *watch,
                         const fli_adapter *adapter)
{
  const fl_model *model = a->model;
  const fli_node *node = &model->nodes[adapter->node];
  size_t samples = a->request.rows / (size_t)tokens_of(a, adapter);
  if (samples == 0) samples = 1;
  uint32_t before = node->inputs[adapter->is_low_rank ? 0 : 1];
  fli_cut cut = tap_of(model, node->position, before);
  if (!fli_taps_add(a, watch, &cut, adapter->rows, samples)) return 0;
  if (adapter->is_low_rank) return 1;
  cut = tap_of(model, node->position + 1, adapter->node);
  return fli_taps_add(a, watch, &cut, adapter->rows + 1, samples);
}

void fli_adapters_watch(fli_attachment *a, fli_watch *watch)
{
  for (uint32_t i = 0; i < a->n_adapters; i++) {
    const fli_adapter *adapter = &a->adapters[i];
    if (a->freeze->state.frozen[adapter->module]) continue;
    if (!watch_adapter(a, watch, adapter)) return;
  }
}

/* Of a sample with more tokens than can be compared every k-th: those are moved
 * to the front. Returns how many they are. */
static uint32_t thin_out(const fli_attachment *a, const fli_adapter *adapter,
                         size_t samples, float *values)
{
  const size_t width = (size_t)adapter->width;
  const size_t rows = samples * (size_t)tokens_of(a, adapter);
  const size_t step = (rows - 1) / FLI_FREEZE_ROWS_MAX + 1;
  const size_t n = (rows - 1) / step + 1;
  for (size_t i = 1; step > 1 && i < n; i++) {
    memcpy(values + i * width, values + i * step * width,
           width * sizeof *values);
  }
  return (uint32_t)n;
}

static void push(fli_attachment *a, const fli_adapter *adapter, size_t samples,
                 float *before, float *after)
{
  (void)thin_out(a, adapter, samples, before);
  const uint32_t rows = thin_out(a, adapter, samples, after);
  (void)fl_freeze_push_features(a->freeze, adapter->module, before,
                                adapter->width, after, adapter->width, rows);
}

static size_t samples_there(const fli_rows *rows, size_t batch)
{
  size_t room = rows->n_floats / (size_t)rows->cut.n_values;
  return batch < room ? batch : room;
}

/* What the layer gives for x, copied into y. */
static int run_layer(fl_model *model, uint32_t node, const fli_rows *x,
                     size_t samples, float *y)
{
  const float *out = NULL;
  if (fli_forward_layer(model, node, x->values, samples, &out) != FL_OK) {
    return 0;
  }
  memcpy(y, out, samples * (size_t)model->nodes[node].output.count * sizeof *y);
  return 1;
}

/* The layer with its update and without, one behind the other in y. */
static int run_both(fli_attachment *a, const fli_adapter *adapter,
                    size_t samples, float *y, float *kept)
{
  fl_model *model = a->model;
  const fli_node *node = &model->nodes[adapter->node];
  const fli_rows *x = &a->rows[adapter->rows];
  float *b = model->values + node->places[LORA_B];
  size_t n = (size_t)node->counts[LORA_B];
  size_t n_y = samples * (size_t)node->output.count;
  if (!run_layer(model, adapter->node, x, samples, y + n_y)) return 0;
  memcpy(kept, b, n * sizeof *b);
  memset(b, 0, n * sizeof *b);
  int is_done = run_layer(model, adapter->node, x, samples, y);
  memcpy(b, kept, n * sizeof *b);
  return is_done;
}

static void push_low_rank(fli_attachment *a, const fli_adapter *adapter,
                          size_t samples)
{
  fl_context *context = a->freeze->context;
  const fli_node *node = &a->model->nodes[adapter->node];
  size_t n_y = samples * (size_t)node->output.count;
  size_t n = 2 * n_y + (size_t)node->counts[LORA_B];
  float *y = fli_alloc(context, n, sizeof *y);
  if (!y) return;
  if (run_both(a, adapter, samples, y, y + 2 * n_y)) {
    push(a, adapter, samples, y, y + n_y);
  }
  fli_free(context, y, n * sizeof *y);
}

void fli_adapters_push(fli_attachment *a)
{
  for (uint32_t i = 0; i < a->n_adapters; i++) {
    const fli_adapter *adapter = &a->adapters[i];
    const fli_rows *before = &a->rows[adapter->rows];
    const fli_rows *after = before + 1;
    if (!before->is_there) continue;
    size_t samples = samples_there(before, a->n_batch);
    if (adapter->is_low_rank) {
      push_low_rank(a, adapter, samples);
    } else if (after->is_there) {
      push(a, adapter, samples, before->values, after->values);
    }
  }
}

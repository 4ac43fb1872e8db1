/* SPDX-License-Identifier: Apache-2.0 */
/* Plasticity of the front module, and of the last one where the criterion wants
 * that: outputs that a step has shown beside those of the snapshot for the same
 * inputs. Without a lag it is measured before that step ends. With one it is a
 * task of its own from there on, on a thread that the host has for it, or at
 * once where it has none: what is found is the same, and counts at the same
 * step. What cannot be measured for want of memory is an evaluation less. */
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "freeze/attach.h"
#include "freeze/freeze.h"
#include "freeze/snapshot.h"

/* The snapshot's own context: a task must not meet the training's threads. */
static fl_status find_context(fli_attachment *a, fl_context **context)
{
  fli_late *late = &a->late;
  fl_status st = FL_OK;
  *context = a->model->context;
  if (a->freeze->options.lag == 0) return FL_OK;
  if (!late->context) st = fli_context_alone(&late->context, *context);
  *context = late->context;
  return st;
}

int fli_late_snapshot(fli_attachment *a)
{
  fl_context *context = NULL;
  fl_model **snapshot = &a->late.snapshot;
  fli_late_settle(a);
  fl_status st = find_context(a, &context);
  if (st == FL_OK) {
    st = fli_snapshot_take(snapshot, context, a->model, a->request.module);
  }
  if (st == FL_OK && a->request.wants & FL_FREEZE_WANTS_LAST_PAIR) {
    st = fli_snapshot_take(snapshot, context, a->model, a->request.last);
  }
  return st == FL_OK;
}

/* P of the rows, < 0 when it is not to be had. */
static double measure(const fli_late *late, uint32_t in)
{
  const fli_rows *x = &late->rows[in];
  const fli_rows *y = &late->rows[in + 1];
  const float *snapshot = NULL;
  double found = -1;
  if (!x->is_there || !y->is_there || late->n < 2) return -1;
  if (fli_forward_part(late->snapshot, &x->cut, &y->cut, x->values, late->n,
                       &snapshot) != FL_OK ||
      fl_plasticity(late->snapshot->context, y->values, snapshot,
                    (uint32_t)late->n, y->cut.n_values, &found) != FL_OK) {
    return -1;
  }
  return found;
}

static void run(void *arg, uint64_t index)
{
  fli_late *late = arg;
  (void)index;
  late->found.front = measure(late, FLI_PAIR_IN);
  late->found.last = measure(late, FLI_PAIR_LAST_IN);
}

void fli_late_begin(fli_attachment *a)
{
  fli_late *late = &a->late;
  fl_context *context = a->model->context;
  if (!a->rows[FLI_PAIR_IN].is_there) return;
  memcpy(late->rows, a->rows, sizeof late->rows);
  memset(a->rows, 0, sizeof late->rows);
  late->is_there = 1;
  late->step = a->request.step;
  late->n = a->n_batch < a->request.rows ? a->n_batch : a->request.rows;
  if (a->freeze->options.lag > 0 &&
      fli_beside_start(context, &late->beside, run, late)) {
    return;
  }
  run(late, 0);
  fli_clear_error();
}

void fli_late_drop(fli_attachment *a)
{
  fli_late *late = &a->late;
  if (!late->is_there) return;
  fli_beside_finish(a->model->context, &late->beside);
  for (uint32_t i = 0; i < FLI_PAIR_ROWS; i++) {
    fli_rows *rows = &late->rows[i];
    fli_free(a->freeze->context, rows->values,
             rows->n_floats * sizeof *rows->values);
    *rows = (fli_rows){0};
  }
  late->is_there = 0;
}

void fli_late_settle(fli_attachment *a)
{
  fli_late *late = &a->late;
  if (!late->is_there) return;
  fli_late_drop(a);
  fli_freeze_show_pairs(a->freeze, late->step, &late->found);
}

void fli_late_free(fli_attachment *a)
{
  fli_late_drop(a);
  fl_model_free(a->late.snapshot);
  fli_context_unref(a->late.context);
}

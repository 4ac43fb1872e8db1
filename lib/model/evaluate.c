/* SPDX-License-Identifier: Apache-2.0 */
/* Forward only, in batches that bound the memory whatever the size of the data
 * set: scores and logits. */
#include "model/model.h"

#include <inttypes.h>
#include <string.h>

#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"

enum { BATCH = 256, MAX_TOP = 1024 };

fl_status fl_evaluation_init(fl_evaluation *evaluation, size_t size)
{
  static const fl_evaluation defaults = {0};
  fli_clear_error();
  return fli_options_init(evaluation, size, &defaults, sizeof defaults);
}

uint64_t fl_model_input_count(const fl_model *model)
{
  const fli_node *input = model ? fli_model_input(model) : NULL;
  return input ? input->output.count : 0;
}

uint64_t fl_model_output_count(const fl_model *model)
{
  const fli_node *loss = model ? fli_model_loss(model) : NULL;
  return loss ? loss->output.count : 0;
}

static size_t next_batch(uint64_t count, uint64_t first, size_t batch)
{
  return count - first < batch ? (size_t)(count - first) : batch;
}

/* Have room for the batches of `count` samples: those of training, if there
 * was any, so that scoring in between takes no more memory; else what the limit
 * allows. */
static fl_status reserve(fl_model *model, uint64_t count, size_t *batch)
{
  fl_status st = FL_OK;
  size_t trained = model->workspace.plans[1].batch;
  if (model->is_shown && fli_model_trains_rows(model)) {
    return fli_error(FL_E_STATE,
                     "model: is in the middle of a step that trains "
                     "rows: a gradient hook may not score it");
  }
  *batch =
      next_batch(count, 0, trained > 0 && trained < BATCH ? trained : BATCH);
  FLI_TRY(fli_workspace_fit(model, batch));
  FLI_TRY(fli_workspace_reserve(model, *batch, 0));
out:
  return st;
}

/* The first of the largest. */
static size_t largest(const float *row, size_t n)
{
  size_t best = 0;
  for (size_t j = 1; j < n; j++) {
    if (row[j] > row[best]) best = j;
  }
  return best;
}

/* Whether the loss is one of classes, and how many there are. */
static uint64_t classes_of(const fl_model *model)
{
  const fli_node *loss = fli_model_loss(model);
  if (loss->op != &fli_op_softmax_cross_entropy &&
      loss->op != &fli_op_cross_entropy) {
    return 0;
  }
  return loss->input.dims[loss->input.n_dims - 1];
}

/* Labels are checked: what is no class is ignored, and a class may be, too. */
static int is_ignored(const fli_node *loss, int32_t label)
{
  return loss->op == &fli_op_cross_entropy &&
         label == loss->attributes.cross_entropy.ignore;
}

/* Returns how many labels count. */
static uint64_t score_batch(const fl_model *model, const fli_batch *batch,
                            fl_evaluation *evaluation)
{
  const fli_node *loss = fli_model_loss(model);
  size_t classes = evaluation->n_classes;
  size_t labels = (size_t)fl_model_output_count(model) / classes;
  const float *logits = fli_logits(model, 0);
  uint64_t count = 0;
  for (size_t k = 0; k < batch->n * labels; k++) {
    size_t sample = (size_t)fli_batch_sample(batch, k / labels);
    int32_t label = batch->data->y[sample * labels + k % labels];
    if (is_ignored(loss, label)) continue;
    int is_hit = largest(logits + k * classes, classes) == (size_t)label;
    count++;
    evaluation->correct += (uint64_t)is_hit;
    if (evaluation->class_count) evaluation->class_count[label]++;
    if (evaluation->class_correct) {
      evaluation->class_correct[label] += (uint64_t)is_hit;
    }
  }
  return count;
}

/* A batch's loss is a mean over what counts in it. */
static fl_status evaluate_all(fl_model *model, const fl_dataset *data,
                              uint64_t count, size_t at_once,
                              fl_evaluation *evaluation)
{
  fl_status st = FL_OK;
  double sum = 0.0;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  evaluation->count = 0;
  for (uint64_t first = 0; first < count; first += at_once) {
    fli_batch batch = {.data = data,
                       .order = data->indices,
                       .first = first,
                       .n = next_batch(count, first, at_once)};
    double loss = 0.0;
    FLI_TRY(fli_forward(model, &batch, 0, &loss));
    uint64_t n = evaluation->n_classes > 0
                     ? score_batch(model, &batch, evaluation)
                     : batch.n;
    sum += loss * (double)n;
    evaluation->count += n;
  }
  evaluation->loss =
      evaluation->count > 0 ? sum / (double)evaluation->count : 0.0;
out:
  fli_fpguard_leave(&guard);
  return st;
}

static fl_status check_class_room(const fl_evaluation *evaluation,
                                  uint64_t classes)
{
  int wants_classes = evaluation->class_count || evaluation->class_correct;
  if (!wants_classes || evaluation->class_capacity >= classes) return FL_OK;
  return fli_error(FL_E_SIZE,
                   "evaluation: got room for %u classes, want %" PRIu64,
                   evaluation->class_capacity, classes);
}

fl_status fl_model_evaluate(fl_model *model, const fl_dataset *data,
                            fl_evaluation *evaluation)
{
  fl_status st = FL_OK;
  fl_dataset loaded;
  fl_evaluation full = {0};
  uint64_t count = 0;
  size_t batch = 0;
  fli_clear_error();
  if (!evaluation) return fli_error(FL_E_ARGUMENT, "evaluation: is NULL");
  FLI_TRY(fli_dataset_load(model, data, 1, &loaded, &count));
  FLI_TRY(fli_options_load(&full, sizeof full, evaluation, "fl_evaluation"));
  uint64_t classes = classes_of(model);
  FLI_TRY(check_class_room(&full, classes));
  FLI_TRY(reserve(model, count, &batch));
  size_t bytes = (size_t)classes * sizeof(uint64_t);
  if (full.class_count) memset(full.class_count, 0, bytes);
  if (full.class_correct) memset(full.class_correct, 0, bytes);
  full.n_classes = (uint32_t)classes;
  full.correct = 0;
  FLI_TRY(evaluate_all(model, &loaded, count, batch, &full));
  FLI_TRY(fli_options_store(evaluation, &full, sizeof full, "fl_evaluation"));
out:
  return st;
}

/* Where a prediction goes: logits as they are, or the k largest of each row. */
typedef struct prediction {
  float *out;
  uint32_t *classes; /* with k > 0 */
  size_t k;
  size_t n_classes; /* of a row */
} prediction;

/* The k largest of a row, largest first, by insertion: k is small. */
static void keep_largest(const float *row, size_t n, size_t k, uint32_t *best)
{
  size_t n_best = 0;
  for (size_t j = 0; j < n; j++) {
    size_t at = n_best;
    while (at > 0 && row[j] > row[best[at - 1]]) {
      at--;
    }
    if (at == k) continue;
    if (n_best < k) n_best++;
    for (size_t i = n_best - 1; i > at; i--) {
      best[i] = best[i - 1];
    }
    best[at] = (uint32_t)j;
  }
}

/* `rows` rows of logits, the first of them number `first`. */
static void put_rows(const prediction *p, const float *logits, size_t first,
                     size_t rows)
{
  size_t n = p->n_classes;
  uint32_t best[MAX_TOP];
  if (p->k == 0) {
    memcpy(p->out + first * n, logits, rows * n * sizeof *logits);
    return;
  }
  for (size_t r = 0; r < rows; r++) {
    const float *row = logits + r * n;
    keep_largest(row, n, p->k, best);
    for (size_t i = 0; i < p->k; i++) {
      size_t at = (first + r) * p->k + i;
      if (p->classes) p->classes[at] = best[i];
      if (p->out) p->out[at] = row[best[i]];
    }
  }
}

static fl_status predict_all(fl_model *model, const fl_dataset *data,
                             uint64_t n, size_t at_once, const prediction *p)
{
  fl_status st = FL_OK;
  size_t per_sample = (size_t)fl_model_output_count(model) / p->n_classes;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  for (uint64_t first = 0; first < n && st == FL_OK; first += at_once) {
    fli_batch batch = {.data = data,
                       .order = data->indices,
                       .first = first,
                       .n = next_batch(n, first, at_once)};
    st = fli_forward(model, &batch, 0, NULL);
    if (st == FL_OK) {
      put_rows(p, fli_logits(model, 0), (size_t)first * per_sample,
               batch.n * per_sample);
    }
  }
  fli_fpguard_leave(&guard);
  return st;
}

static fl_status predict(fl_model *model, const fl_dataset *data,
                         const prediction *p, uint64_t per_sample,
                         uint64_t count)
{
  fl_status st = FL_OK;
  fl_dataset loaded;
  uint64_t n = 0;
  size_t batch = 0;
  FLI_TRY(fli_dataset_load(model, data, 0, &loaded, &n));
  if (count % per_sample != 0 || count / per_sample != n) {
    return fli_error(FL_E_DIM,
                     "predict: got room for %" PRIu64 " values, want %" PRIu64
                     " x %" PRIu64,
                     count, n, per_sample);
  }
  FLI_TRY(reserve(model, n, &batch));
  FLI_TRY(predict_all(model, &loaded, n, batch, p));
out:
  return st;
}

/* FL_E_ARGUMENT, FL_E_STATE: nothing to predict with. */
static fl_status check_graph(const fl_model *model)
{
  if (!model) return fli_error(FL_E_ARGUMENT, "model: is NULL");
  if (model->n_chain > 0) return FL_OK;
  return fli_error(FL_E_STATE, "model: has tensors only, no layers");
}

fl_status fl_model_predict(fl_model *model, const fl_dataset *data, float *out,
                           uint64_t count)
{
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "predict: out is NULL");
  fl_status st = check_graph(model);
  if (st != FL_OK) return st;
  uint64_t n = fl_model_output_count(model);
  prediction p = {.out = out, .n_classes = (size_t)n};
  return predict(model, data, &p, n, count);
}

fl_status fl_model_predict_top(fl_model *model, const fl_dataset *data,
                               uint32_t k, uint32_t *classes, float *scores,
                               uint64_t count)
{
  fli_clear_error();
  fl_status st = check_graph(model);
  if (st != FL_OK) return st;
  const fli_shape *shape = &fli_model_loss(model)->input;
  uint64_t n = shape->n_dims > 0 ? shape->dims[shape->n_dims - 1] : 1;
  if (k == 0 || k > n || k > MAX_TOP) {
    return fli_error(FL_E_RANGE,
                     "predict_top: got k = %u, want 1..%d, at most the %" PRIu64
                     " classes",
                     k, MAX_TOP, n);
  }
  prediction p = {
      .out = scores, .classes = classes, .k = k, .n_classes = (size_t)n};
  return predict(model, data, &p, shape->count / n * k, count);
}

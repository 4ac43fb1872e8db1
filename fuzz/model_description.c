/* SPDX-License-Identifier: Apache-2.0 */
/* A model's description from a peer. What is accepted is described by canonical
 * bytes, which give the same model and the same bytes again; its set/get
 * self-test passes; its memory can be planned; and one that does not compute
 * for long survives training and prediction. All memory stays below a cap. */
#include "fuzz.h"

#include <fl/train.h>

#include "array_rows.h"
#include "model/model.h"

enum { MAX_ELEMENTS = 1 << 16, MAX_SAMPLE = 1 << 12, SAMPLES = 3 };
#define MEMORY_CAP (UINT64_C(8) << 20)
#define MAX_COST (UINT64_C(1) << 26) /* multiplications, about */

static void check_canonical(const fl_model *model)
{
  fl_model *again = NULL;
  const fli_bytes *first = &model->description;
  FUZZ_CHECK(fl_model_from_description(&again, NULL, first->data,
                                       first->size) == FL_OK);
  FUZZ_CHECK(again->description.size == first->size);
  FUZZ_CHECK(memcmp(again->description.data, first->data, first->size) == 0);
  FUZZ_CHECK(memcmp(again->schema, model->schema, FL_HASH_BYTES) == 0);
  FUZZ_CHECK(fl_model_weight_count(again) == fl_model_weight_count(model));
  fl_model_free(again);
}

/* Whether a step is a matter of milliseconds. */
static int is_cheap(const fl_model *model)
{
  double cost = 0.0;
  for (uint32_t i = 0; i < model->n_chain; i++) {
    const fli_node *node = &model->nodes[model->chain[i]];
    double outputs = (double)fli_shape_floats(&node->output);
    double each = 256.0; /* the largest window of a pool, and a bit */
    for (uint32_t p = 0; p < node->n_parameters; p++) {
      each += (double)node->counts[p];
    }
    if (node->op == &fli_op_pairwise_dots) each += (double)node->input.dims[1];
    if (node->op == &fli_op_attention) each += (double)node->output.dims[0];
    cost += outputs * each;
  }
  return cost < (double)MAX_COST;
}

static void check_plan(const fl_model *model)
{
  fl_memory_plan plan;
  for (int32_t is_training = 0; is_training <= 1; is_training++) {
    FUZZ_CHECK(fl_memory_plan_init(&plan, sizeof plan) == FL_OK);
    fl_status st = fl_model_plan_memory(model, SAMPLES, is_training, &plan);
    FUZZ_CHECK(st == FL_OK || st == FL_E_NOMEM || st == FL_E_TOO_LARGE);
    if (st != FL_OK) continue;
    FUZZ_CHECK(plan.peak >= plan.activations);
    FUZZ_CHECK(plan.peak == plan.weights + plan.gradients + plan.optimiser +
                                plan.activations);
  }
}

/* Steps with each way of updating, and a prediction. */
static void train(fl_model *model, const fl_dataset *data)
{
  static const uint32_t optimisers[] = {FL_OPTIMISER_SGD, FL_OPTIMISER_ADAM,
                                        FL_OPTIMISER_SGD};
  size_t n = (size_t)fl_model_output_count(model) * SAMPLES;
  float *out = calloc(n, sizeof *out);
  FUZZ_CHECK(out != NULL);
  FUZZ_CHECK(fl_model_init_weights(model, 1) == FL_OK);
  for (size_t i = 0; i < sizeof optimisers / sizeof optimisers[0]; i++) {
    fl_optimiser_options o;
    FUZZ_CHECK(fl_optimiser_options_init(&o, sizeof o) == FL_OK);
    o.kind = optimisers[i];
    o.clip_norm = i == 2 ? 1.0f : 0.0f;
    fl_status st = fl_model_set_optimiser(model, &o);
    if (st == FL_OK) {
      st = fl_model_step(model, data, FL_RATE_SCHEDULED, NULL);
    }
    FUZZ_CHECK(st == FL_OK || st == FL_E_NOT_FINITE || st == FL_E_NOMEM);
  }
  fl_status st = fl_model_predict(model, data, out, n);
  FUZZ_CHECK(st == FL_OK || st == FL_E_NOMEM);
  free(out);
}

static void check_training(fl_model *model)
{
  if (model->n_chain == 0 || model->n_weights == 0) return;
  const fli_node *input = fli_model_input(model);
  size_t size = (size_t)input->output.count;
  size_t outputs = (size_t)fl_model_output_count(model);
  if (size > MAX_SAMPLE || outputs > MAX_SAMPLE || !is_cheap(model)) return;
  int takes_ids = input->attributes.input.takes_ids;
  int32_t *labels = calloc(outputs * SAMPLES, sizeof *labels);
  float *targets = calloc(outputs * SAMPLES, sizeof *targets);
  int32_t *ids = calloc(size * SAMPLES, sizeof *ids);
  array_rows *rows = NULL;
  uint8_t *x = calloc(size * SAMPLES, 1);
  fl_dataset data;
  FUZZ_CHECK(x && ids && labels && targets);
  for (size_t i = 0; i < size * SAMPLES; i++) {
    x[i] = (uint8_t)(i * 37);
  }
  FUZZ_CHECK(fl_dataset_init(&data, sizeof data) == FL_OK);
  data.x_dtype = takes_ids ? FL_DTYPE_I32 : FL_DTYPE_U8;
  data.x = takes_ids ? (const void *)ids : x;
  data.y = labels;
  data.targets = targets;
  data.n = SAMPLES;
  if (takes_ids == FLI_IDS_ANY) {
    FUZZ_CHECK(fl_model_step(model, &data, .1f, NULL) == FL_E_STATE);
    rows = array_rows_new(3, (size_t)fli_model_sparse(model)->output.dims[1],
                          NULL);
    FUZZ_CHECK(rows);
    fli_model_set_provider(model, &array_rows_provider, rows);
  }
  train(model, &data);
  fli_model_set_provider(model, NULL, NULL);
  array_rows_free(rows);
  free(x);
  free(ids);
  free(labels);
  free(targets);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fl_model *model = NULL;
  fl_context *context = NULL;
  fl_context_options options;
  uint64_t peak = 0;
  uint8_t *copy = fuzz_exact_copy(data, n);
  FUZZ_CHECK(fl_context_options_init(&options, sizeof options) == FL_OK);
  options.memory_cap = MEMORY_CAP;
  FUZZ_CHECK(fl_context_new(&context, &options) == FL_OK);
  fl_status st =
      fli_model_from_description_capped(&model, context, copy, n, MAX_ELEMENTS);
  free(copy);
  FUZZ_CHECK((st == FL_OK) == (model != NULL));
  if (model) {
    FUZZ_CHECK(model->n_weights + model->n_fixed <= MAX_ELEMENTS);
    check_canonical(model);
    FUZZ_CHECK(fl_model_self_test(model) == FL_OK);
    if (model->n_chain > 0) check_plan(model);
    check_training(model);
  }
  fl_model_free(model);
  FUZZ_CHECK(fl_context_get_memory(context, NULL, &peak) == FL_OK);
  FUZZ_CHECK(peak <= MEMORY_CAP);
  fl_context_free(context);
  return 0;
}

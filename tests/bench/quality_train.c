/* SPDX-License-Identifier: Apache-2.0 */
/* One training of a factorisation machine with a net beside it, in the order of
 * time: rows of a store, and what a test of the last rows gives. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "quality.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <fl/layers.h>
#include <fl/train.h>

#include "base/rng.h"
#include "common/auc.h"

enum {
  HIDDEN = 64,
  COUNTER_BYTES = 1, /* of a sketch */
  EXACT_COUNTERS = 4 /* per value: hardly two meet in both rows */
};
/* Key, place and utilities of an id at the load that buckets have. */
#define ENTRY_BYTES 17.8

typedef struct trainer {
  const struct clicks *clicks;
  const quality_recipe *recipe;
  const quality_method *method;
  fl_context *context; /* of the store alone: its memory is what is counted */
  fl_embedding *store;
  fl_model *model;
  uint64_t *ids;  /* [batch, fields] */
  float *targets; /* [batch] */
  uint32_t *order;
} trainer;

static void *get(size_t n, size_t size)
{
  void *p = calloc(n, size);
  if (!p) quality_must(FL_E_NOMEM, "memory");
  return p;
}

static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* How many rows a field's values are folded to. */
static uint64_t rows_of_field(const quality_method *method,
                              const struct clicks_field *field)
{
  double share = method->hash * field->n_values;
  if (method->hash <= 0.0 || field->n_values < method->fold_at)
    return field->n_values;
  return share > 1.0 ? (uint64_t)share : 1;
}

/* ---- the store ----------------------------------------------------------- */

static int is_bounded(const quality_method *method)
{
  return method->keep > 0.0 || method->as_dim > 0 || method->budget > 0;
}

static uint64_t sketch_counters(const trainer *t)
{
  double values = (double)clicks_count_values(t->clicks);
  if (!is_bounded(t->method)) return 0;
  if (t->method->memory == QUALITY_EXACT)
    return (uint64_t)(EXACT_COUNTERS * values);
  return (uint64_t)(2.0 * t->recipe->sketch * values);
}

/* With keep: the rows' payload, an accumulator and an entry each, and the
 * sketch. */
static uint64_t budget_of(const trainer *t)
{
  const quality_method *method = t->method;
  double rows = method->keep * (double)clicks_count_values(t->clicks);
  if (method->budget > 0) return method->budget;
  if (method->as_dim > 0)
    return quality_array_bytes(t->clicks, method, method->as_dim);
  if (method->keep <= 0.0) return 0;
  return (uint64_t)(rows * (4.0 * (method->dim + 1) + ENTRY_BYTES)) +
         COUNTER_BYTES * sketch_counters(t);
}

static void make_store(trainer *t, uint64_t seed)
{
  fl_embedding_options options;
  fl_embedding_table_options table;
  static const uint8_t secret[16] = {1, 2, 3};
  uint32_t index;
  quality_must(fl_context_new(&t->context, NULL), "context");
  quality_must(fl_embedding_options_init(&options, sizeof options), "options");
  options.byte_budget = budget_of(t);
  options.seed = seed;
  options.decay = t->recipe->decay;
  options.hysteresis = t->recipe->hysteresis;
  options.secret = secret; /* every run is the same */
  quality_must(fl_embedding_new(&t->store, t->context, &options), "store");
  quality_must(fl_embedding_table_options_init(&table, sizeof table), "table");
  table.dim = t->method->dim;
  table.chunks = t->method->chunks;
  table.sketch_counters = sketch_counters(t);
  quality_must(fl_embedding_add_table(t->store, &table, &index), "table");
}

/* ---- the model ----------------------------------------------------------- */

static void make_model(trainer *t, uint64_t seed)
{
  fl_model_builder *b = NULL;
  fl_optimiser_options adam;
  uint64_t fields = t->clicks->n_fields;
  quality_must(fl_model_builder_new(&b, NULL), "builder");
  (void)fl_model_builder_input(b, &fields, 1, 1.0f, 0.0f);
  (void)fl_model_builder_sparse_embedding(b, "rows", t->method->dim);
  (void)fl_model_builder_factorisation_machine(b, "pairs");
  (void)fl_model_builder_from(b, "rows");
  (void)fl_model_builder_flatten(b, "flat");
  (void)fl_model_builder_dense(b, "hidden", HIDDEN);
  (void)fl_model_builder_relu(b, "relu");
  (void)fl_model_builder_dense(b, "out", 1);
  (void)fl_model_builder_add(b, "sum", "pairs");
  quality_must(fl_model_builder_binary_cross_entropy(b, "loss"), "layers");
  quality_must(fl_model_builder_build(b, &t->model), "model");
  fl_model_builder_free(b);
  quality_must(fl_model_init_weights(t->model, seed), "weights");
  quality_must(fl_optimiser_options_init(&adam, sizeof adam), "optimiser");
  adam.kind = FL_OPTIMISER_ADAM;
  adam.learning_rate = t->recipe->rate;
  quality_must(fl_model_set_optimiser(t->model, &adam), "optimiser");
}

/* Rows have a rate of their own. */
static void attach(trainer *t)
{
  fl_embedding_attach_options options;
  quality_must(fl_embedding_attach_options_init(&options, sizeof options),
               "attach");
  options.rate = t->recipe->rows_rate;
  quality_must(fl_embedding_attach(t->store, t->model, &options), "attach");
}

/* ---- batches ------------------------------------------------------------- */

/* Fold a value of a field into fewer: the hashing trick. */
static uint64_t fold(const trainer *t, uint64_t id)
{
  uint64_t field = id >> 32, value = id & UINT32_MAX;
  uint64_t rows = rows_of_field(t->method, &t->clicks->fields[field]);
  if (rows == t->clicks->fields[field].n_values) return id;
  return field << 32 | value * UINT64_C(2654435761) % 4294967291u % rows;
}

static fl_dataset batch_of(const trainer *t, const uint32_t *rows, uint64_t n)
{
  fl_dataset data;
  uint64_t n_ids = n * t->clicks->n_fields;
  clicks_ids(t->clicks, rows, n, t->ids);
  for (uint64_t i = 0; i < n_ids; i++)
    t->ids[i] = fold(t, t->ids[i]);
  for (uint64_t i = 0; i < n; i++)
    t->targets[i] = t->clicks->labels[rows[i]];
  quality_must(fl_dataset_init(&data, sizeof data), "batch");
  data.x_dtype = FL_DTYPE_U64;
  data.x = t->ids;
  data.targets = t->targets;
  data.n = n;
  return data;
}

/* In the order of time, but shuffled within windows. */
static void make_order(trainer *t, uint64_t seed)
{
  fli_rng rng;
  uint64_t n = t->clicks->n_train;
  uint64_t window = (uint64_t)t->recipe->batch * t->recipe->window;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 1, 0);
  for (uint64_t i = 0; i < n; i++)
    t->order[i] = (uint32_t)i;
  for (uint64_t first = 0; first < n; first += window) {
    uint64_t left = n - first;
    fli_rng_shuffle(&rng, t->order + first,
                    (uint32_t)(left < window ? left : window));
  }
}

static int is_adjusted_at(const trainer *t, uint64_t step)
{
  return step == 3 || step == 6 || step == 9 || step == 30 || step == 60 ||
         step == 90 || step % t->recipe->adjust_every == 0;
}

static void adjust(const trainer *t, quality_result *result)
{
  fl_embedding_report report;
  double begin = now();
  quality_must(fl_embedding_report_init(&report, sizeof report), "report");
  quality_must(fl_embedding_adjust(t->store, &report), "adjust");
  result->adjusting += now() - begin;
  result->evicted += report.evicted;
  result->grown += report.grown;
}

static void train(const trainer *t, quality_result *result)
{
  uint64_t step = 0, n = t->clicks->n_train, batch = t->recipe->batch;
  for (uint64_t first = 0; first < n; first += batch) {
    uint64_t left = n - first;
    fl_dataset data =
        batch_of(t, t->order + first, left < batch ? left : batch);
    quality_must(fl_model_step(t->model, &data, FL_RATE_SCHEDULED, NULL),
                 "step");
    if (is_adjusted_at(t, ++step) && is_bounded(t->method)) adjust(t, result);
  }
}

static double test(const trainer *t)
{
  uint64_t n = t->clicks->n_rows - t->clicks->n_train;
  float *scores = get(n, sizeof *scores);
  double auc = 0;
  for (uint64_t first = 0; first < n; first += t->recipe->batch) {
    uint64_t left = n - first, batch = t->recipe->batch;
    if (left < batch) batch = left;
    for (uint64_t i = 0; i < batch; i++)
      t->order[i] = (uint32_t)(t->clicks->n_train + first + i);
    fl_dataset data = batch_of(t, t->order, batch);
    quality_must(fl_model_predict(t->model, &data, scores + first, batch),
                 "predict");
  }
  if (auc_of(scores, t->clicks->labels + t->clicks->n_train, n, &auc) != 0)
    quality_must(FL_E_EMPTY, "test rows of one label");
  free(scores);
  return auc;
}

uint64_t quality_array_bytes(const struct clicks *clicks,
                             const quality_method *method, uint32_t dim)
{
  uint64_t rows = 0;
  for (uint32_t i = 0; i < clicks->n_fields; i++)
    rows += rows_of_field(method, &clicks->fields[i]);
  return rows * 4 * (dim + 1);
}

static void measure(const trainer *t, quality_result *result)
{
  fl_embedding_statistics statistics;
  quality_must(fl_embedding_statistics_init(&statistics, sizeof statistics),
               "statistics");
  quality_must(fl_embedding_get_statistics(t->store, FL_AUTO, &statistics),
               "statistics");
  result->bytes = statistics.bytes_used;
  result->scratch = statistics.bytes_scratch;
  quality_must(fl_context_get_memory(t->context, NULL, &result->peak),
               "memory");
}

void quality_train(const struct clicks *clicks, const quality_recipe *recipe,
                   const quality_method *method, uint64_t seed,
                   quality_result *result)
{
  trainer t = {.clicks = clicks, .recipe = recipe, .method = method};
  uint64_t n =
      clicks->n_train > recipe->batch ? clicks->n_train : recipe->batch;
  *result = (quality_result){0};
  t.ids = get((size_t)recipe->batch * clicks->n_fields, sizeof *t.ids);
  t.targets = get(recipe->batch, sizeof *t.targets);
  t.order = get((size_t)n, sizeof *t.order);
  make_store(&t, seed);
  make_model(&t, seed);
  attach(&t);
  make_order(&t, seed);
  double begin = now();
  train(&t, result);
  result->seconds = now() - begin;
  result->auc = test(&t);
  result->budget = budget_of(&t);
  measure(&t, result);
  fl_model_free(t.model);
  fl_embedding_free(t.store);
  fl_context_free(t.context);
  free(t.ids);
  free(t.targets);
  free(t.order);
}

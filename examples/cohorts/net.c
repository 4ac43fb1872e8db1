/* SPDX-License-Identifier: Apache-2.0 */
/* The clients' model, a perceptron 784-64-10, its training and its scores. */
#include "cohorts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MODEL = 3000, BATCH = 10 };

#define RATE .05f
#define MEAN .2860
#define DEVIATION .3530

fl_model *net_new(void)
{
  const uint64_t dims[] = {COHORTS_PIXELS};
  fl_model_builder *b = NULL;
  fl_model *net = NULL;
  cohorts_must(fl_model_builder_new(&b, NULL), "model");
  cohorts_must(fl_model_builder_input(b, dims, 1,
                                      (float)(1.0 / (255.0 * DEVIATION)),
                                      (float)(-MEAN / DEVIATION)),
               "input");
  cohorts_must(fl_model_builder_dense(b, "hidden", COHORTS_HIDDEN), "hidden");
  cohorts_must(fl_model_builder_relu(b, "relu"), "relu");
  cohorts_must(fl_model_builder_dense(b, "out", COHORTS_CLASSES), "out");
  cohorts_must(fl_model_builder_softmax_cross_entropy(b, "loss"), "loss");
  cohorts_must(fl_model_builder_build(b, &net), "model");
  fl_model_builder_free(b);
  if (fl_model_weight_count(net) != COHORTS_WEIGHTS)
    cohorts_must(FL_E_DIM, "weights");
  return net;
}

/* Uniform after Glorot and Bengio; biases 0. */
void net_draw(float *weights, uint64_t seed)
{
  const double a = sqrt(6.0 / (double)(COHORTS_PIXELS + COHORTS_HIDDEN));
  const double b = sqrt(6.0 / (double)(COHORTS_HIDDEN + COHORTS_CLASSES));
  float *second = weights + COHORTS_HIDDEN * (COHORTS_PIXELS + 1);
  stream r = stream_of(MODEL, seed);
  memset(weights, 0, COHORTS_WEIGHTS * sizeof *weights);
  for (uint32_t i = 0; i < COHORTS_HIDDEN * COHORTS_PIXELS; i++)
    weights[i] = (float)(stream_unit(&r) * 2.0 * a - a);
  for (uint32_t i = 0; i < COHORTS_CLASSES * COHORTS_HIDDEN; i++)
    second[i] = (float)(stream_unit(&r) * 2.0 * b - b);
}

static float *put(fl_model *net, const float *weights)
{
  float *own = NULL;
  cohorts_must(fl_model_get_weights(net, &own, NULL), "weights");
  memcpy(own, weights, COHORTS_WEIGHTS * sizeof *own);
  return own;
}

double net_train(fl_model *net, const world *w, uint32_t client,
                 const float *weights, float *update)
{
  fl_fit_options options;
  fl_fit_result first;
  fl_dataset data = world_client(w, client);
  const float *own = put(net, weights);
  cohorts_must(fl_fit_options_init(&options, sizeof options), "fit");
  cohorts_must(fl_fit_result_init(&first, sizeof first), "fit");
  options.batch_size = BATCH;
  options.shuffle = 0;
  options.learning_rate = RATE;
  cohorts_must(fl_model_fit(net, &data, &options, &first), "fit");
  cohorts_must(fl_model_fit(net, &data, &options, NULL), "fit");
  for (uint32_t i = 0; i < COHORTS_WEIGHTS; i++)
    update[i] = own[i] - weights[i];
  return first.mean_loss;
}

double net_loss(fl_model *net, const world *w, uint32_t client,
                const float *weights)
{
  fl_evaluation evaluation;
  fl_dataset data = world_client(w, client);
  (void)put(net, weights);
  cohorts_must(fl_evaluation_init(&evaluation, sizeof evaluation), "loss");
  cohorts_must(fl_model_evaluate(net, &data, &evaluation), "loss");
  return evaluation.loss;
}

/* ---- scores -------------------------------------------------------------- */

static void classify(fl_model *net, const world *w, const float *weights,
                     uint32_t group, uint32_t *classes)
{
  fl_dataset data = w->images->test.data;
  (void)put(net, weights);
  data.y = NULL;
  data.sample_size = 0;
  if (w->turned[group]) data.x = w->turned[group];
  cohorts_must(
      fl_model_predict_top(net, &data, 1, classes, NULL, w->images->test.n),
      "classes");
}

static double score_client(const world *w, uint32_t client,
                           const uint32_t *classes)
{
  static const uint32_t shifts[COHORTS_GROUPS] = {0, 2, 5, 7};
  const uint32_t by = w->is_shifted ? shifts[w->group[client]] : 0;
  uint32_t hits = 0;
  for (uint32_t j = 0; j < COHORTS_TEST; j++) {
    uint32_t place = w->tests[client * COHORTS_TEST + j];
    hits += classes[place] ==
            (w->images->test.labels[place] + by) % COHORTS_CLASSES;
  }
  return (double)hits / COHORTS_TEST;
}

void net_score(fl_model *net, const world *w, float *const *models,
               const uint32_t *assign, double *accuracy)
{
  uint32_t *classes[COHORTS_CAP][COHORTS_GROUPS] = {{NULL}};
  for (uint32_t i = 0; i < w->n; i++) {
    uint32_t model = assign[i], group = w->is_turned ? w->group[i] : 0;
    uint32_t **known = &classes[model][group];
    if (!*known) {
      *known = cohorts_get(w->images->test.n, sizeof **known);
      classify(net, w, models[model], group, *known);
    }
    accuracy[i] = score_client(w, i, *known);
  }
  for (uint32_t m = 0; m < COHORTS_CAP; m++) {
    for (uint32_t g = 0; g < COHORTS_GROUPS; g++)
      free(classes[m][g]);
  }
}

static double pairs(double n)
{
  return n * (n - 1.0) / 2.0;
}

/* Hubert and Arabie's adjusted Rand index. */
static double ari_of(const world *w, const uint32_t *assign)
{
  static double table[COHORTS_GROUPS][COHORTS_CAP];
  double rows[COHORTS_GROUPS] = {0}, columns[COHORTS_CAP] = {0};
  double together = 0.0, a = 0.0, b = 0.0;
  memset(table, 0, sizeof table);
  for (uint32_t i = 0; i < w->n; i++) {
    table[w->group[i]][assign[i]] += 1.0;
    rows[w->group[i]] += 1.0;
    columns[assign[i]] += 1.0;
  }
  for (uint32_t g = 0; g < COHORTS_GROUPS; g++) {
    a += pairs(rows[g]);
    for (uint32_t m = 0; m < COHORTS_CAP; m++)
      together += pairs(table[g][m]);
  }
  for (uint32_t m = 0; m < COHORTS_CAP; m++)
    b += pairs(columns[m]);
  double chance = a * b / pairs(w->n), most = (a + b) / 2.0;
  return most == chance ? 1.0 : (together - chance) / (most - chance);
}

static int ascending(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

figures figures_of(const world *w, const uint32_t *assign,
                   const double *accuracy)
{
  figures f = {.ari = ari_of(w, assign)};
  double *sorted = cohorts_get(w->n, sizeof *sorted), squares = 0.0;
  uint32_t honest = 0;
  for (uint32_t i = 0; i < w->n; i++) {
    f.mean += accuracy[i];
    squares += accuracy[i] * accuracy[i];
    sorted[i] = accuracy[i];
    if (w->is_corrupt[i]) continue;
    f.honest += accuracy[i];
    honest++;
  }
  f.jain = f.mean * f.mean / (w->n * squares);
  f.mean /= w->n;
  f.honest /= honest;
  qsort(sorted, w->n, sizeof *sorted, ascending);
  for (uint32_t i = 0; i < w->n / 10; i++)
    f.worst10 += sorted[i] / (w->n / 10);
  free(sorted);
  return f;
}

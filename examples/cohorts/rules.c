/* SPDX-License-Identifier: Apache-2.0 */
/* What rules share, and the two that look at no numbers: one
 * model for all, and a model for each true group. */
#include "cohorts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PARTICIPANTS = 4000, NOISE = 10000, FLIPPED = 2 };

void run_init(run *r)
{
  cohorts_must(fl_cohort_options_init(&r->options, sizeof r->options),
               "options");
  r->per_round = 50;
  r->evaluated = 40;
  r->codec = FL_CODEC_THC;
  r->rounds = 200;
}

void run_open(run *r, world *w)
{
  r->w = w;
  r->net = net_new();
  r->update = cohorts_get(COHORTS_WEIGHTS, sizeof *r->update);
  r->order = cohorts_get(w->n, sizeof *r->order);
  r->assign = cohorts_get(w->n, sizeof *r->assign);
  r->participants = stream_of(PARTICIPANTS, w->seed);
}

void run_close(run *r)
{
  for (uint32_t m = 0; m < COHORTS_CAP; m++) {
    free(r->models[m]);
    free(r->sums[m]);
    free(r->joined[m]);
  }
  if (r->server) {
    serve_close(r);
  } else {
    fl_cohort_set_free(r->set);
  }
  fl_sketcher_free(r->sketcher);
  fl_model_free(r->net);
  free(r->update);
  free(r->feature);
  free(r->order);
  free(r->asked);
  free(r->assign);
}

figures run_score(run *r, const rule *how, uint32_t *leaves)
{
  float *models[COHORTS_CAP] = {NULL};
  double *accuracy = cohorts_get(r->w->n, sizeof *accuracy);
  how->view(r, models);
  net_score(r->net, r->w, models, r->assign, accuracy);
  figures f = figures_of(r->w, r->assign, accuracy);
  *leaves = 0;
  for (uint32_t m = 0; m < COHORTS_CAP; m++)
    *leaves += models[m] != NULL;
  free(accuracy);
  return f;
}

void run_model(run *r, uint32_t model, const float *weights)
{
  const size_t bytes = COHORTS_WEIGHTS * sizeof *weights;
  if (!r->models[model]) {
    r->models[model] = cohorts_get(COHORTS_WEIGHTS, sizeof *weights);
    r->sums[model] = cohorts_get(COHORTS_WEIGHTS, sizeof *weights);
  }
  memcpy(r->models[model], weights, bytes);
}

void run_pick(run *r, uint32_t k)
{
  for (uint32_t i = 0; i < r->w->n; i++)
    r->order[i] = i;
  stream_pick(&r->participants, r->order, r->w->n, k);
}

/* Uniform noise of the same length, or the other way. */
void run_corrupt(const run *r, uint32_t client)
{
  double length = 0.0, noise = 0.0;
  float *u = r->update;
  if (r->w->is_corrupt[client] == FLIPPED) {
    for (uint32_t i = 0; i < COHORTS_WEIGHTS; i++)
      u[i] = -u[i];
    return;
  }
  stream s = stream_of(NOISE + r->up * 1000003u, r->w->seed);
  for (uint32_t i = 0; i < COHORTS_WEIGHTS; i++) {
    length += (double)u[i] * (double)u[i];
    u[i] = (float)(stream_unit(&s) - .5);
    noise += (double)u[i] * (double)u[i];
  }
  const float scale = (float)sqrt(length / noise);
  for (uint32_t i = 0; i < COHORTS_WEIGHTS; i++)
    u[i] *= scale;
}

double run_train(run *r, uint32_t client, uint32_t model)
{
  double loss = net_train(r->net, r->w, client, r->models[model], r->update);
  if (r->is_corrupting && r->w->is_corrupt[client]) run_corrupt(r, client);
  float *sum = r->sums[model];
  for (uint32_t i = 0; i < COHORTS_WEIGHTS; i++)
    sum[i] += r->update[i];
  r->counts[model]++;
  r->down++;
  r->up++;
  return loss;
}

void run_average(run *r)
{
  for (uint32_t m = 0; m < COHORTS_CAP; m++) {
    if (r->counts[m] == 0) continue;
    const float n = (float)r->counts[m];
    for (uint32_t i = 0; i < COHORTS_WEIGHTS; i++)
      r->models[m][i] += r->sums[m][i] / n;
    memset(r->sums[m], 0, COHORTS_WEIGHTS * sizeof(float));
    r->counts[m] = 0;
  }
}

static void same_models(run *r, float **models)
{
  memcpy(models, r->models, sizeof r->models);
}

static void begin_with(run *r, uint32_t n)
{
  float *weights = cohorts_get(COHORTS_WEIGHTS, sizeof *weights);
  net_draw(weights, r->w->seed);
  for (uint32_t m = 0; m < n; m++)
    run_model(r, m, weights);
  free(weights);
}

static void begin_one(run *r)
{
  begin_with(r, 1);
}

static void begin_groups(run *r)
{
  begin_with(r, COHORTS_GROUPS);
}

static void train_all(run *r)
{
  run_pick(r, r->per_round);
  for (uint32_t i = 0; i < r->per_round; i++)
    (void)run_train(r, r->order[i], r->assign[r->order[i]]);
  run_average(r);
}

static void round_one(run *r, uint32_t t)
{
  (void)t;
  train_all(r);
}

static void round_groups(run *r, uint32_t t)
{
  (void)t;
  memcpy(r->assign, r->w->group, r->w->n * sizeof *r->assign);
  train_all(r);
}

static const rule rule_fedavg = {"fedavg", begin_one, round_one, same_models};
static const rule rule_oracle = {"oracle", begin_groups, round_groups,
                                 same_models};

const rule *rule_find(const char *name)
{
  static const rule *const rules[] = {&rule_sketch, &rule_auxo, &rule_loss,
                                      &rule_fedavg, &rule_oracle};
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
    if (strcmp(rules[i]->name, name) == 0) return rules[i];
  }
  return NULL;
}

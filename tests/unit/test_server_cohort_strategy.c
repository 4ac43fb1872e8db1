/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs with cohorts and a strategy: each cohort's model takes steps of its own,
 * with a state of its own. */
#include <criterion/criterion.h>

#include "server/cohorts.h"
#include "strategy/strategy.h"

#define CW_MUST(call) cr_assert_eq((call), FL_OK, "%s", fl_last_error())
#include "cohort_world.h"

typedef struct setup {
  const char *name; /* of the strategy; NULL: the job's own momentum */
  uint32_t codec;
  uint32_t scale_mode;
  float rate; /* 0: the strategy's */
} setup;

static void begin(cw_world *w, const setup *s, fl_strategy_options *strategy,
                  uint32_t n_clients)
{
  cw_init(w, s->codec, n_clients, 2);
  w->job.scale_mode = s->scale_mode;
  if (!s->name) {
    w->job.server_momentum = .5f;
    w->job.server_learning_rate = s->rate > 0.0f ? s->rate : 1.0f;
    return;
  }
  CW_MUST(fl_strategy_options_named(strategy, sizeof *strategy, s->name));
  if (s->rate > 0.0f) strategy->rate = s->rate;
  /* A mean over 320 squares is small beside what a step moves. */
  if (strategy->rule == FL_RULE_FAIR) strategy->fairness = .001f;
  w->job.strategy = strategy;
  w->job.min_participants = 2 * strategy->byzantine + 3;
}

/* Every client's mean square of what its model still lacks. */
static double worst_loss(const cw_world *w)
{
  static float weights[CW_WEIGHTS];
  double worst = 0.0;
  for (uint32_t i = 0; i < w->n_clients; i++) {
    CW_MUST(fl_server_copy_cohort(w->server, 0, cw_cohort(w, i), weights,
                                  CW_WEIGHTS, NULL));
    const double loss = cw_loss(&w->clients[i], weights);
    if (loss > worst) worst = loss;
  }
  return worst;
}

static const setup setups[] = {
    {"fedavgm", FL_CODEC_F32, FL_SCALE_EXCHANGED, .2f},
    {"fedprox", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0},
    {"fedadam", FL_CODEC_THC, FL_SCALE_EXCHANGED, .05f},
    {"fedyogi", FL_CODEC_F32, FL_SCALE_EXCHANGED, .05f},
    {"fedadagrad", FL_CODEC_BF16, FL_SCALE_EXCHANGED, .2f},
    {"fednova", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0},
    {"q-fedavg", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0},
    {"median", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0},
    {"trimmed-mean", FL_CODEC_F32, FL_SCALE_EXCHANGED, 0},
    {"multi-krum", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0},
    {"geometric-median", FL_CODEC_F32, FL_SCALE_EXCHANGED, 0},
    {NULL, FL_CODEC_F32, FL_SCALE_EXCHANGED, .5f},
    {NULL, FL_CODEC_THC, FL_SCALE_EXCHANGED, .5f},
    {"fedavg", FL_CODEC_THC, FL_SCALE_PUBLIC, 0},
};

static void finds_two_groups(const setup *s)
{
  static cw_world w;
  fl_strategy_options strategy;
  const char *name = s->name ? s->name : "momentum of the job";
  begin(&w, s, &strategy, 120);
  cw_start(&w);
  cw_run(&w, UINT32_MAX);
  cr_assert(w.is_finished, "%s", name);
  cr_assert_eq(w.finished, 60u, "%s: %u rounds", name, w.finished);
  cr_assert_eq(fl_cohort_set_count(cw_set(&w)), 2u, "%s: %u cohorts", name,
               fl_cohort_set_count(cw_set(&w)));
  cr_assert(cw_is_sorted(&w), "%s", name);
  cr_assert_lt(worst_loss(&w), .06, "%s: loss %g", name, worst_loss(&w));
  cr_assert_eq(w.rejected, 0u, "%s", name);
  cw_free(&w);
}

Test(server_cohort_strategy, two_groups_are_found_with_any)
{
  for (size_t i = 0; i < sizeof setups / sizeof *setups; i++)
    finds_two_groups(&setups[i]);
}

/* ---- a state for each ---------------------------------------------------- */

static const fl_strategy *strategy_of(const cw_world *w, uint32_t cohort)
{
  const fli_job *leaf = fli_cohorts_leaf(w->server->jobs[0], cohort);
  cr_assert_not_null(leaf);
  return leaf->strategy;
}

static const setup adam = {"fedadam", FL_CODEC_THC, FL_SCALE_EXCHANGED, .05f};

Test(server_cohort_strategy, a_split_begins_with_its_parents_moments)
{
  static cw_world w;
  fl_strategy_options options;
  const size_t size = CW_WEIGHTS * sizeof(float);
  begin(&w, &adam, &options, 120);
  cw_start(&w);
  while (w.changes[FL_COHORT_TRIAL] == 0 && w.finished < 60)
    cw_run(&w, w.finished + 1);
  const fl_strategy *parent = strategy_of(&w, 0), *child = strategy_of(&w, 1);
  cr_assert_gt(parent->steps, 0u);
  cr_assert_eq(child->steps, parent->steps);
  cr_assert_arr_eq(child->momentum, parent->momentum, size);
  cr_assert_arr_eq(child->second, parent->second, size);
  cw_run(&w, UINT32_MAX);
  child = strategy_of(&w, 1);
  cr_assert_arr_neq(child->momentum, strategy_of(&w, 0)->momentum, size);
  cw_free(&w);
}

/* ---- snapshots ----------------------------------------------------------- */

/* `every` exchanges the server is killed; 0: never. */
static void run_with_kills(cw_world *w, const setup *s, uint32_t every)
{
  fl_strategy_options options;
  begin(w, s, &options, 60);
  w->job.rounds = 45;
  w->job.participants = 12;
  cw_run_with_kills(w, every);
  cr_assert(w->is_finished);
}

static void ends_as_undisturbed(const setup *s)
{
  static cw_world calm, w;
  static float a[CW_WEIGHTS], b[CW_WEIGHTS];
  run_with_kills(&calm, s, 0);
  run_with_kills(&w, s, 1009);
  cr_assert_eq(calm.changes[FL_COHORT_KEPT], 1u, "%s", s->name);
  for (uint32_t m = 0; m < 2; m++) {
    CW_MUST(fl_server_copy_cohort(calm.server, 0, m, a, CW_WEIGHTS, NULL));
    CW_MUST(fl_server_copy_cohort(w.server, 0, m, b, CW_WEIGHTS, NULL));
    cr_assert_arr_eq(a, b, sizeof a, "%s, cohort %u", s->name, m);
  }
  cw_free(&calm);
  cw_free(&w);
}

Test(server_cohort_strategy, killed_at_any_time_it_ends_with_the_same_models)
{
  static const setup median = {"median", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0};
  ends_as_undisturbed(&adam);
  ends_as_undisturbed(&median);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs with a strategy: the model is what fl_strategy makes of the same
 * updates, killed servers go on as if nothing had been, a step that is refused
 * aborts the round, and what excludes each other is refused at once. */
#include <criterion/criterion.h>

#include "server/server.h"
#include "server_fixture.h"

enum { CLIENTS = 5, ROUNDS = 3 };

static const char *const ids[CLIENTS] = {"abe", "bea", "cay", "dot", "eve"};
static const uint64_t samples[CLIENTS] = {10, 25, 70, 40, 64};

typedef struct setting {
  const char *name;
  uint32_t codec;
  float clip;
  double tolerance; /* of the model, against one without a codec */
} setting;

static const setting settings[] = {
    {"fedadam", FL_CODEC_F32, 0.0f, 1e-5},
    {"fedadam", FL_CODEC_THC, 0.0f, 0.5},
    {"fedyogi", FL_CODEC_BF16, 0.0f, 0.1},
    {"fedadagrad", FL_CODEC_F32, 0.0f, 1e-5},
    {"fedavgm", FL_CODEC_F32, 0.0f, 1e-5},
    {"fedprox", FL_CODEC_F32, 0.0f, 1e-5},
    {"fednova", FL_CODEC_F32, 0.0f, 1e-5},
    {"q-fedavg", FL_CODEC_F32, 0.0f, 1e-5},
    {"fedavg", FL_CODEC_F32, 3.0f, 1e-5},
    {"median", FL_CODEC_F32, 0.0f, 1e-5},
    {"median", FL_CODEC_THC, 0.0f, 1.0},
    {"trimmed-mean", FL_CODEC_F32, 3.0f, 1e-5},
    {"krum", FL_CODEC_BF16, 0.0f, 0.1},
    {"multi-krum", FL_CODEC_F32, 0.0f, 1e-5},
    {"geometric-median", FL_CODEC_F32, 0.0f, 1e-4},
};
enum { SETTINGS = sizeof settings / sizeof *settings };

static fl_strategy_options options_of(const setting *how)
{
  fl_strategy_options options;
  cr_assert_eq(fl_strategy_options_named(&options, sizeof options, how->name),
               FL_OK);
  options.clip = how->clip;
  options.clip_adapts = how->clip > 0.0f;
  return options;
}

static void begin(sv_world *world, const setting *how,
                  const fl_strategy_options *options)
{
  sv_init(world, NULL, how->codec);
  world->job_options.rounds = ROUNDS;
  world->job_options.min_clients = CLIENTS;
  world->job_options.min_participants = CLIENTS;
  world->job_options.batch_size = 8;
  world->job_options.epochs = 2;
  world->job_options.strategy = options;
  sv_start(world);
  for (size_t i = 0; i < CLIENTS; i++) {
    sv_client *client = sv_add(world, ids[i], samples[i]);
    client->loss = 0.5 + (double)i;
  }
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
}

static void weights_of(const sv_world *world, float weights[SV_WEIGHTS])
{
  uint64_t version = 0;
  cr_assert_eq(
      fl_server_copy_weights(world->server, 0, weights, SV_WEIGHTS, &version),
      FL_OK);
}

/* The same rounds without a server. */
static void expect(const sv_world *world, const fl_strategy_options *options,
                   float weights[SV_WEIGHTS])
{
  static float updates[CLIENTS][SV_WEIGHTS];
  const float *rows[CLIENTS];
  uint64_t steps[CLIENTS];
  double losses[CLIENTS];
  fl_strategy *strategy = NULL;
  fl_strategy_round round;
  cr_assert_eq(fl_model_copy_weights(world->model, weights, SV_WEIGHTS), FL_OK);
  cr_assert_eq(fl_strategy_new(&strategy, NULL, options, SV_WEIGHTS), FL_OK);
  cr_assert_eq(fl_strategy_round_init(&round, sizeof round), FL_OK);
  for (uint64_t r = 1; r <= ROUNDS; r++) {
    for (size_t k = 0; k < CLIENTS; k++) {
      rows[k] = updates[k];
      steps[k] = 2 * ((samples[k] + 7) / 8);
      losses[k] = 0.5 + (double)k;
      for (size_t i = 0; i < SV_WEIGHTS; i++)
        updates[k][i] = sv_train(&world->clients[k], r, i);
    }
    round.count = CLIENTS;
    round.rows = rows;
    round.samples = samples;
    round.steps = steps;
    round.losses = losses;
    cr_assert_eq(fl_strategy_step(strategy, &round, weights, SV_WEIGHTS),
                 FL_OK);
  }
  fl_strategy_free(strategy);
}

Test(server_strategy, model_is_what_the_strategy_makes_of_the_updates)
{
  for (size_t s = 0; s < SETTINGS; s++) {
    const fl_strategy_options options = options_of(&settings[s]);
    sv_world world;
    float got[SV_WEIGHTS], want[SV_WEIGHTS];
    begin(&world, &settings[s], &options);
    sv_run(&world);
    cr_assert(sv_is_finished(&world), "%s", settings[s].name);
    weights_of(&world, got);
    expect(&world, &options, want);
    for (size_t i = 0; i < SV_WEIGHTS; i++) {
      const double off = fabs((double)got[i] - (double)want[i]);
      cr_assert_leq(off, settings[s].tolerance, "%s %u: %zu: %g, want %g",
                    settings[s].name, settings[s].codec, i, (double)got[i],
                    (double)want[i]);
    }
    sv_free(&world);
  }
}

/* Restart after `kill_at` steps; the number of all. */
static size_t run_killed(const setting *how, size_t kill_at,
                         float weights[SV_WEIGHTS])
{
  const fl_strategy_options options = options_of(how);
  sv_world world;
  begin(&world, how, &options);
  const size_t steps = sv_play_killed(&world, kill_at);
  weights_of(&world, weights);
  sv_free(&world);
  return steps;
}

Test(server_strategy, killed_after_any_step_ends_with_the_same_model)
{
  const setting some[] = {settings[1], settings[4], settings[11], settings[12]};
  for (size_t s = 0; s < sizeof some / sizeof *some; s++) {
    float want[SV_WEIGHTS], got[SV_WEIGHTS];
    const size_t steps = run_killed(&some[s], SIZE_MAX, want);
    for (size_t kill_at = 0; kill_at < steps; kill_at += 3) {
      run_killed(&some[s], kill_at, got);
      cr_assert_arr_eq(got, want, sizeof want, "%s, killed at %zu",
                       some[s].name, kill_at);
    }
  }
}

Test(server_strategy, losses_that_are_none_do_not_stop_fair)
{
  const setting fair = {"q-fedavg", FL_CODEC_F32, 0.0f, 0.0};
  const fl_strategy_options options = options_of(&fair);
  sv_world world;
  begin(&world, &fair, &options);
  world.clients[1].loss = -5.0;
  world.clients[2].loss = 1e300;
  world.clients[3].loss = (double)NAN;
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  sv_free(&world);
}

/* ---- functions of the host ---- */

typedef struct host {
  int calls;
  int fails_at;
} host;

static fl_status score(void *user, const float *weights, uint64_t n,
                       double *loss)
{
  host *h = user;
  cr_assert_not_null(weights);
  cr_assert_eq(n, (uint64_t)SV_WEIGHTS);
  *loss = ++h->calls == h->fails_at ? 100.0 : 1.0;
  return FL_OK;
}

static fl_status combine(void *user, const fl_strategy_round *round, float *out,
                         uint64_t n)
{
  host *h = user;
  const float *values = out;
  if (++h->calls == h->fails_at) return FL_E_IO;
  cr_assert_eq(round->count, (uint32_t)CLIENTS);
  if (!round->rows) return round->read(round->user, 2, 0, n, out, &values);
  memcpy(out, round->rows[2], (size_t)n * sizeof *out);
  return FL_OK;
}

static void aborts_once(const fl_strategy_options *options, const host *h)
{
  const setting plain = {"fedavg", FL_CODEC_F32, 0.0f, 0.0};
  const sv_event *last = NULL;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  sv_world world;
  float before[SV_WEIGHTS], after[SV_WEIGHTS];
  begin(&world, &plain, options);
  weights_of(&world, before);
  sv_run(&world);
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, &last), 1u);
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_FINISHED, NULL),
               (uint32_t)h->fails_at - 1);
  weights_of(&world, after);
  if (h->fails_at == 1) cr_assert_arr_eq(before, after, sizeof before);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_server_save(world.server, &writer), FL_E_UNSUPPORTED);
  fl_buffer_free(buffer);
  sv_tick(&world, 10 * SV_SECOND_NS);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  cr_assert_eq(h->calls, ROUNDS + 1);
  sv_free(&world);
}

Test(server_strategy, what_the_gate_refuses_aborts_the_round_and_is_tried_again)
{
  const setting plain = {"fedavg", FL_CODEC_F32, 0.0f, 0.0};
  fl_strategy_options options = options_of(&plain);
  host h = {.fails_at = 2};
  options.score = score;
  options.user = &h;
  aborts_once(&options, &h);
}

Test(server_strategy, a_rule_of_the_host_gets_the_updates_and_may_fail)
{
  const setting plain = {"fedavg", FL_CODEC_F32, 0.0f, 0.0};
  fl_strategy_options options = options_of(&plain);
  for (int fails_at = 1; fails_at <= 2; fails_at++) {
    host h = {.fails_at = fails_at};
    options.rule = FL_RULE_HOST;
    options.combine = combine;
    options.user = &h;
    aborts_once(&options, &h);
  }
}

/* ---- options ---- */

typedef void (*change)(fl_job_options *job, fl_strategy_options *rule);

static fl_status add_with(const char *name, change change_it)
{
  const setting how = {name, FL_CODEC_F32, 0.0f, 0.0};
  fl_strategy_options rule = options_of(&how);
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_BF16);
  world.job_options.strategy = &rule;
  world.job_options.min_participants = 7;
  change_it(&world.job_options, &rule);
  cr_assert_eq(fl_server_new(&world.server, NULL, NULL), FL_OK);
  const fl_status st =
      fl_server_add_job(world.server, world.model, &world.job_options, NULL);
  sv_free(&world);
  return st;
}

#define CHANGE(name, statement)                                    \
  static void name(fl_job_options *job, fl_strategy_options *rule) \
  {                                                                \
    (void)job;                                                     \
    (void)rule;                                                    \
    statement;                                                     \
  }
CHANGE(nothing, )
CHANGE(two_rates, job->server_learning_rate = 0.5f)
CHANGE(two_momenta, job->server_momentum = 0.5f)
CHANGE(bad_rule, rule->rule = 77)
CHANGE(feedback, job->error_feedback = 1)
CHANGE(too_few, rule->byzantine = 3)
CHANGE(capped_uniform, rule->is_uniform = 1; job->weight_cap = 5)
static fl_freeze_options freezing;
CHANGE(frozen, job->freeze = &freezing;
       (void)fl_freeze_options_init(&freezing, sizeof freezing))

Test(server_strategy, what_excludes_each_other_is_refused)
{
  cr_expect_eq(add_with("fedadam", nothing), FL_OK);
  cr_expect_eq(add_with("krum", nothing), FL_OK);
  cr_expect_eq(add_with("fedadam", feedback), FL_OK);
  cr_expect_eq(add_with("fedadam", two_rates), FL_E_CONFLICT);
  cr_expect_eq(add_with("fedadam", two_momenta), FL_E_CONFLICT);
  cr_expect_eq(add_with("fedadam", bad_rule), FL_E_OPTIONS);
  cr_expect_eq(add_with("fedavg", capped_uniform), FL_E_CONFLICT);
  cr_expect_eq(add_with("median", feedback), FL_E_CONFLICT);
  cr_expect_eq(add_with("median", frozen), FL_E_CONFLICT);
  cr_expect_eq(add_with("krum", too_few), FL_E_CONFLICT);
  cr_expect_eq(add_with("scaffold", nothing), FL_OK);
  cr_expect_eq(add_with("scaffold", feedback), FL_E_CONFLICT);
  cr_expect_eq(add_with("scaffold", frozen), FL_E_CONFLICT);
}

static fl_status any_score(void *user, const float *weights, uint64_t n,
                           double *loss)
{
  (void)user;
  (void)weights;
  (void)n;
  *loss = 1.0;
  return FL_OK;
}

/* The store could not keep its functions, and nothing would be sent again. */
Test(server_strategy, functions_of_the_host_do_not_go_with_a_store)
{
  const setting how = {"fedadam", FL_CODEC_F32, 0.0f, 0.0};
  fl_strategy_options rule = options_of(&how);
  for (int i = 0; i < 2; i++) {
    fl_store *store = NULL;
    sv_world world;
    sv_init(&world, NULL, FL_CODEC_F32);
    cr_assert_eq(fl_store_memory_new(&store, NULL), FL_OK);
    world.options.store = store;
    world.job_options.strategy = &rule;
    rule.score = i == 0 ? NULL : any_score;
    cr_assert_eq(fl_server_new(&world.server, NULL, &world.options), FL_OK);
    cr_expect_eq(
        fl_server_add_job(world.server, world.model, &world.job_options, NULL),
        i == 0 ? FL_OK : FL_E_CONFLICT);
    sv_free(&world);
    fl_store_free(store);
  }
}

/* Nobody trains a segment that is frozen: no step of old momentum there. */
Test(server_strategy, adaptive_rules_leave_frozen_modules_alone)
{
  const setting adam = {"fedadam", FL_CODEC_F32, 0.0f, 0.0};
  const fl_strategy_options options = options_of(&adam);
  const fl_freeze_fixed plan[] = {{.step = 2, .first_active = 1}};
  fl_freeze_options freeze;
  sv_world world;
  float at_first[SV_WEIGHTS], at_last[SV_WEIGHTS];
  cr_assert_eq(fl_freeze_options_init(&freeze, sizeof freeze), FL_OK);
  freeze.criterion = FL_FREEZE_FIXED;
  freeze.fixed = plan;
  freeze.n_fixed = 1;
  freeze.max_frozen = 1;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.rounds = ROUNDS;
  world.job_options.freeze = &freeze;
  world.job_options.strategy = &options;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  while (sv_status(&world).model_version == 0) {
    for (size_t k = 0; k < 3; k++) {
      sv_pull(&world.clients[k]);
      sv_answer(&world.clients[k]);
    }
  }
  weights_of(&world, at_first);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  weights_of(&world, at_last);
  cr_assert_arr_eq(at_first, at_last, SV_FIRST * sizeof(float));
  cr_assert_neq(at_first[SV_FIRST], at_last[SV_FIRST]);
  sv_free(&world);
}

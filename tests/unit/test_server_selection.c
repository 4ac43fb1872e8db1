/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs that choose whom they ask: what they learn of clients and go by, what a
 * host's function may do, kills, and what excludes each other. */
#include <criterion/criterion.h>

#include "server/selector.h"
#include "server_fixture.h"

enum { CLIENTS = 6, ASKED = 2, ROUNDS = 8 };

static const char *const ids[CLIENTS] = {"abe", "bea", "cay",
                                         "dot", "eve", "fay"};

static void begin(sv_world *world, const fl_selection_options *selection,
                  const fl_store *store)
{
  sv_init(world, NULL, FL_CODEC_F32);
  world->job_options.rounds = ROUNDS;
  world->job_options.min_clients = CLIENTS;
  world->job_options.participants = ASKED;
  world->job_options.min_participants = ASKED;
  world->job_options.selection = selection;
  world->options.store = store;
  sv_start(world);
  for (size_t i = 0; i < CLIENTS; i++)
    sv_add(world, ids[i], 10)->loss = (double)(i + 1);
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
}

static fl_selection_options options_of(uint32_t rule)
{
  fl_selection_options options;
  cr_assert_eq(fl_selection_options_init(&options, sizeof options), FL_OK);
  options.rule = rule;
  return options;
}

/* Updates of a client that were counted. */
static uint32_t counted(sv_world *world, const char *id)
{
  uint32_t n = 0;
  sv_drain(world);
  for (size_t i = 0; i < world->n_events; i++) {
    n += world->events[i].body.kind == FL_SERVER_UPDATE_ACCEPTED &&
         strcmp(world->events[i].client_id, id) == 0;
  }
  return n;
}

/* Three rounds of new ones, then always the two worst. */
Test(server_selection, choice_asks_everybody_once_and_then_the_worst)
{
  fl_selection_options options = options_of(FL_SELECT_CHOICE);
  sv_world world;
  begin(&world, &options, NULL);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  for (size_t i = 0; i < 4; i++)
    cr_expect_eq(counted(&world, ids[i]), 1u, "%s", ids[i]);
  cr_expect_eq(counted(&world, "eve"), 6u);
  cr_expect_eq(counted(&world, "fay"), 6u);
  sv_free(&world);
}

Test(server_selection, oort_hears_everybody_before_anybody_twice)
{
  fl_selection_options options = options_of(FL_SELECT_OORT);
  options.explore = options.explore_least = 1.0f;
  sv_world world;
  begin(&world, &options, NULL);
  world.job_options.rounds = 3;
  while (sv_status(&world).model_version < 3) {
    for (size_t k = 0; k < CLIENTS; k++) {
      sv_pull(&world.clients[k]);
      sv_answer(&world.clients[k]);
    }
  }
  for (size_t i = 0; i < CLIENTS; i++)
    cr_expect_geq(counted(&world, ids[i]), 1u, "%s", ids[i]);
  sv_free(&world);
}

/* What came with updates, and how long they took. */
Test(server_selection, losses_and_durations_are_noted_when_a_round_ends)
{
  fl_selection_options options = options_of(FL_SELECT_CHOICE);
  sv_world world;
  uint32_t asked[ASKED], n = 0;
  begin(&world, &options, NULL);
  const fli_job *job = world.server->jobs[0];
  for (uint32_t i = 0; i < job->n_members; i++)
    asked[n++] = job->members[i].participant->slot;
  for (size_t i = 0; i < CLIENTS; i++)
    sv_pull(&world.clients[i]);
  sv_tick(&world, 2 * SV_SECOND_NS);
  for (size_t i = 0; i < CLIENTS; i++)
    if (world.clients[i].has_plan) sv_norm(&world.clients[i]);
  for (size_t i = 0; i < CLIENTS; i++)
    sv_pull(&world.clients[i]);
  sv_tick(&world, 3 * SV_SECOND_NS);
  for (size_t i = 0; i < CLIENTS; i++)
    if (world.clients[i].has_scale) sv_update(&world.clients[i]);
  cr_assert_eq(sv_status(&world).model_version, 1u);
  for (uint32_t i = 0; i < ASKED; i++) {
    const fli_known *known = &job->selector->known[asked[i]];
    cr_expect_eq(known->round, 1u);
    cr_expect_float_eq(known->loss, (float)(asked[i] + 1), 1e-6f);
    cr_expect_float_eq(known->seconds, 5.0f, 1e-5f);
  }
  sv_free(&world);
}

Test(server_selection, who_does_not_answer_took_as_long_as_the_round)
{
  fl_selection_options options = options_of(FL_SELECT_OORT);
  sv_world world;
  begin(&world, &options, NULL);
  const fli_job *job = world.server->jobs[0];
  const uint32_t silent = job->members[0].participant->slot;
  world.clients[silent].is_mute = 1;
  sv_run(&world);
  sv_tick(&world, 61 * SV_SECOND_NS); /* norms are due after 60 s */
  const fli_known *known = &job->selector->known[silent];
  cr_expect_eq(known->round, 1u);
  cr_expect(isnan(known->loss));
  cr_expect_float_eq(known->seconds, 60.0f, 1e-3f);
  sv_free(&world);
}

/* Too few of the pacer's rounds brought as much as before: it grows. */
Test(server_selection, the_pacer_lets_slower_clients_in_when_utility_falls)
{
  fl_selection_options options = options_of(FL_SELECT_OORT);
  options.pacer = 2;
  options.pace_step = 0.25f;
  sv_world world;
  begin(&world, &options, NULL);
  const fli_job *job = world.server->jobs[0];
  while (!sv_status(&world).is_finished) {
    for (size_t k = 0; k < CLIENTS; k++) {
      sv_client *client = &world.clients[k];
      client->loss = 8.0 / (double)(1 + sv_status(&world).model_version);
      sv_pull(client);
      sv_answer(client);
    }
  }
  cr_expect_gt(job->selector->pace, 0.3f);
  cr_expect_leq(job->selector->pace, 1.0f);
  sv_free(&world);
}

/* ---- functions of the host ---- */

typedef struct host {
  uint32_t calls;
  uint32_t answers[ASKED];
  fl_status status;
} host;

static fl_status choose(void *user, const fl_selection_round *round,
                        uint32_t *chosen)
{
  host *h = user;
  cr_assert_eq(round->count, (uint32_t)CLIENTS);
  cr_assert_eq(round->wanted, (uint32_t)ASKED);
  for (uint32_t i = 0; i < CLIENTS; i++) {
    cr_assert_str_eq(round->ids[i], ids[i]);
    cr_assert_eq(round->samples[i], 10u);
    cr_assert_eq(isnan(round->losses[i]) != 0, round->rounds[i] == 0);
  }
  h->calls++;
  memcpy(chosen, h->answers, sizeof h->answers);
  return h->status;
}

Test(server_selection, a_function_of_the_host_chooses)
{
  host h = {.answers = {4, 1}};
  fl_selection_options options = options_of(FL_SELECT_HOST);
  options.choose = choose;
  options.user = &h;
  sv_world world;
  begin(&world, &options, NULL);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  cr_expect_eq(counted(&world, "bea"), (uint32_t)ROUNDS);
  cr_expect_eq(counted(&world, "eve"), (uint32_t)ROUNDS);
  cr_expect_eq(h.calls, (uint32_t)ROUNDS);
  sv_free(&world);
}

Test(server_selection, a_bad_choice_aborts_the_round_and_is_asked_again)
{
  const host bad[] = {{.answers = {2, 2}},
                      {.answers = {0, CLIENTS}},
                      {.answers = {0, 1}, .status = FL_E_IO}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    host h = bad[i];
    fl_selection_options options = options_of(FL_SELECT_HOST);
    options.choose = choose;
    options.user = &h;
    sv_world world;
    begin(&world, &options, NULL);
    sv_run(&world);
    cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 1u);
    cr_expect_eq(sv_status(&world).model_version, 0u);
    h = (host){.answers = {0, 1}};
    sv_tick(&world, 10 * SV_SECOND_NS);
    sv_run(&world);
    cr_expect(sv_is_finished(&world));
    sv_free(&world);
  }
}

static fl_status save(const fl_server *server)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  const fl_status st = fl_server_save(server, &writer);
  fl_buffer_free(buffer);
  return st;
}

Test(server_selection, functions_of_the_host_are_not_saved)
{
  host h = {.answers = {0, 1}};
  fl_selection_options options = options_of(FL_SELECT_HOST);
  fl_store *store = NULL;
  sv_world world;
  options.choose = choose;
  options.user = &h;
  begin(&world, &options, NULL);
  cr_expect_eq(save(world.server), FL_E_UNSUPPORTED);
  sv_free(&world);
  sv_init(&world, NULL, FL_CODEC_F32);
  cr_assert_eq(fl_store_memory_new(&store, NULL), FL_OK);
  world.options.store = store;
  world.job_options.participants = ASKED;
  world.job_options.selection = &options;
  cr_assert_eq(fl_server_new(&world.server, NULL, &world.options), FL_OK);
  cr_expect_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_E_CONFLICT);
  sv_free(&world);
  fl_store_free(store);
}

/* ---- kills ---- */

static size_t run_killed(uint32_t rule, size_t kill_at,
                         float weights[SV_WEIGHTS])
{
  const fl_selection_options options = options_of(rule);
  sv_world world;
  begin(&world, &options, NULL);
  const size_t steps = sv_play_killed(&world, kill_at);
  cr_assert_eq(
      fl_server_copy_weights(world.server, 0, weights, SV_WEIGHTS, NULL),
      FL_OK);
  sv_free(&world);
  return steps;
}

Test(server_selection, killed_after_any_step_chooses_the_same)
{
  const uint32_t rules[] = {FL_SELECT_CHOICE, FL_SELECT_OORT};
  for (size_t k = 0; k < 2; k++) {
    float want[SV_WEIGHTS], got[SV_WEIGHTS];
    const size_t steps = run_killed(rules[k], SIZE_MAX, want);
    for (size_t at = 0; at < steps; at += 3) {
      run_killed(rules[k], at, got);
      cr_assert_arr_eq(got, want, sizeof want, "rule %u, killed at %zu",
                       rules[k], at);
    }
  }
}

/* ---- options ---- */

typedef void (*change)(fl_job_options *job, fl_selection_options *selection);

static fl_status add_with(uint32_t rule, change change_it)
{
  fl_selection_options selection = options_of(rule);
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.participants = ASKED;
  world.job_options.selection = &selection;
  change_it(&world.job_options, &selection);
  cr_assert_eq(fl_server_new(&world.server, NULL, NULL), FL_OK);
  const fl_status st =
      fl_server_add_job(world.server, world.model, &world.job_options, NULL);
  sv_free(&world);
  return st;
}

#define CHANGE(name, statement)                                    \
  static void name(fl_job_options *job, fl_selection_options *own) \
  {                                                                \
    (void)job;                                                     \
    (void)own;                                                     \
    statement;                                                     \
  }
CHANGE(nothing, )
CHANGE(of_all, job->participants = 0)
CHANGE(short_struct, own->struct_size = 2)
CHANGE(bad_rule, own->rule = 9)
CHANGE(no_rule, own->rule = 0)
CHANGE(much_explored, own->explore = 1.5f)
CHANGE(no_number, own->explore_least = NAN)
CHANGE(no_decay, own->explore_decay = 0.0f)
CHANGE(no_clip, own->clip_quantile = 0.0f)
CHANGE(no_pace, own->pace = 0.0f)
CHANGE(long_step, own->pace_step = 2.0f)
CHANGE(with_function, own->choose = choose)
static fl_cohort_options cohorts;
CHANGE(in_cohorts, job->cohorts = &cohorts;
       (void)fl_cohort_options_init(&cohorts, sizeof cohorts))

Test(server_selection, what_excludes_each_other_is_refused)
{
  cr_expect_eq(add_with(FL_SELECT_RANDOM, nothing), FL_OK);
  cr_expect_eq(add_with(FL_SELECT_RANDOM, of_all), FL_OK);
  cr_expect_eq(add_with(FL_SELECT_OORT, nothing), FL_OK);
  cr_expect_eq(add_with(FL_SELECT_HOST, with_function), FL_OK);
  cr_expect_eq(add_with(FL_SELECT_CHOICE, of_all), FL_E_CONFLICT);
  cr_expect_eq(add_with(FL_SELECT_OORT, in_cohorts), FL_E_CONFLICT);
  cr_expect_eq(add_with(FL_SELECT_HOST, nothing), FL_E_CONFLICT);
  cr_expect_eq(add_with(FL_SELECT_OORT, with_function), FL_E_CONFLICT);
}

Test(server_selection, options_out_of_range_are_refused)
{
  static const change changes[] = {bad_rule,  no_rule,   much_explored,
                                   no_number, no_decay,  no_clip,
                                   no_pace,   long_step, short_struct};
  for (size_t i = 0; i < sizeof changes / sizeof *changes; i++)
    cr_expect_eq(add_with(FL_SELECT_OORT, changes[i]), FL_E_OPTIONS, "%zu", i);
}

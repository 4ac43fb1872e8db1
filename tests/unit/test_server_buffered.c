/* SPDX-License-Identifier: Apache-2.0 */
/* Buffered rounds: the model against FedBuff's formula, tasks that outlive
 * their round, too old ones, scales that change, kills, and what excludes what.
 */
#include <criterion/criterion.h>

#include "server/buffered.h"
#include "server_buffering.h"

static void begin(sv_world *world, uint32_t rounds, uint32_t buffer)
{
  prepare(world, rounds, buffer);
  people(world);
}

static void weights_of(const sv_world *world, float weights[SV_WEIGHTS])
{
  cr_assert_eq(
      fl_server_copy_weights(world->server, 0, weights, SV_WEIGHTS, NULL),
      FL_OK);
}

static uint64_t version_of(const sv_world *world)
{
  return sv_status(world).model_version;
}

/* ---- the formula ---- */

typedef struct part {
  size_t client;
  uint64_t round; /* of its task */
  uint64_t age;
} part;

/* start + 1/n sum round(16 / sqrt(1 + s)) / 16 D_k */
static void expect(const sv_world *world, const float *start, const part *parts,
                   size_t n, double tolerance)
{
  float got[SV_WEIGHTS];
  weights_of(world, got);
  for (size_t i = 0; i < SV_WEIGHTS; i++) {
    double want = (double)start[i];
    for (size_t k = 0; k < n; k++) {
      const double a = floor(16.0 / sqrt(1.0 + (double)parts[k].age) + 0.5);
      want +=
          a / 16.0 / (double)n *
          (double)sv_train(&world->clients[parts[k].client], parts[k].round, i);
    }
    cr_assert_lt(fabs((double)got[i] - want), tolerance, "%zu: %g, want %g", i,
                 (double)got[i], want);
  }
}

Test(server_buffered, a_step_is_made_of_updates_by_their_age)
{
  sv_world world;
  float before[SV_WEIGHTS];
  begin(&world, 4, BUFFER);
  weights_of(&world, before);
  first_round(&world, BUFFER);
  cr_assert_eq(version_of(&world), 1u);
  const part first[] = {{0, 1, 0}, {1, 1, 0}};
  expect(&world, before, first, 2, 0.06);
  /* All begin with version 1; two are fast. */
  pull_all(&world);
  weights_of(&world, before);
  send_update(&world.clients[3]);
  send_update(&world.clients[1]);
  cr_assert_eq(version_of(&world), 2u);
  const part second[] = {{3, 2, 0}, {1, 2, 0}};
  expect(&world, before, second, 2, 0.06);
  /* These two begin with version 2, of which one is overtaken by a slow one. */
  weights_of(&world, before);
  sv_pull(&world.clients[3]);
  send_update(&world.clients[3]);
  send_update(&world.clients[0]);
  cr_assert_eq(version_of(&world), 3u);
  const part third[] = {{3, 3, 0}, {0, 2, 1}};
  expect(&world, before, third, 2, 0.06);
  weights_of(&world, before);
  send_update(&world.clients[4]);
  send_update(&world.clients[2]);
  cr_assert_eq(version_of(&world), 4u);
  const part fourth[] = {{4, 2, 2}, {2, 2, 2}};
  expect(&world, before, fourth, 2, 0.06);
  cr_assert(sv_status(&world).is_finished);
  sv_free(&world);
}

/* Four bits and a table: the formula within what the codec loses. */
Test(server_buffered, exact_tables_go_with_it)
{
  sv_world world;
  float before[SV_WEIGHTS];
  prepare(&world, 2, BUFFER);
  world.codec.thc_mode = FL_THC_TABLE;
  world.codec.bits = 4;
  world.codec.granularity = 0;
  people(&world);
  first_round(&world, BUFFER);
  pull_all(&world);
  weights_of(&world, before);
  send_update(&world.clients[2]);
  send_update(&world.clients[4]);
  const part parts[] = {{2, 2, 0}, {4, 2, 0}};
  expect(&world, before, parts, 2, 1.0);
  cr_assert(sv_status(&world).is_finished);
  sv_free(&world);
}

/* A strategy of sums gets that mean. */
Test(server_buffered, a_servers_optimiser_takes_the_buffer)
{
  sv_world world;
  fl_strategy_options rule;
  float before[SV_WEIGHTS], after[SV_WEIGHTS];
  cr_assert_eq(fl_strategy_options_named(&rule, sizeof rule, "fedavg"), FL_OK);
  rule.rate = 0.5f;
  prepare(&world, 2, BUFFER);
  world.job_options.strategy = &rule;
  people(&world);
  first_round(&world, BUFFER);
  pull_all(&world);
  weights_of(&world, before);
  send_update(&world.clients[0]);
  send_update(&world.clients[1]);
  weights_of(&world, after);
  for (size_t i = 0; i < SV_WEIGHTS; i++) {
    const double mean = ((double)sv_train(&world.clients[0], 2, i) +
                         (double)sv_train(&world.clients[1], 2, i)) /
                        2.0;
    cr_assert_lt(fabs((double)after[i] - (double)before[i] - 0.5 * mean), 0.02);
  }
  sv_free(&world);
}

/* ---- tasks ---- */

Test(server_buffered, clients_at_work_are_left_alone_and_counted_later)
{
  sv_world world;
  begin(&world, 6, BUFFER);
  first_round(&world, BUFFER);
  pull_all(&world);
  sv_client *slow = &world.clients[4];
  const uint64_t began = slow->plan.round;
  sv_clear(slow);
  for (int r = 0; r < 3; r++) {
    send_update(&world.clients[0]);
    send_update(&world.clients[1]);
    pull_all(&world);
  }
  cr_expect_eq(version_of(&world), 4u);
  cr_expect_eq(slow->got[FLI_MSG_PLAN], 0u);
  cr_expect_eq(slow->got[FLI_MSG_MANIFEST], 0u);
  send_update(slow);
  cr_expect_eq(slow->ack.reason, (uint32_t)FL_REJECT_NONE);
  cr_expect_eq(slow->ack.round, began);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, NULL),
               (uint32_t)CLIENTS - BUFFER); /* of the first round alone */
  sv_free(&world);
}

Test(server_buffered, an_update_counts_once)
{
  sv_world world;
  begin(&world, 6, BUFFER);
  first_round(&world, BUFFER);
  pull_all(&world);
  sv_client *client = &world.clients[0];
  send_update(client);
  cr_expect_eq(sv_status(&world).accepted, 1u);
  sv_update(client);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_NONE);
  cr_expect_eq(sv_status(&world).accepted, 1u);
  sv_free(&world);
}

Test(server_buffered, what_is_too_old_is_stale_and_begins_anew)
{
  sv_world world;
  prepare(&world, 8, BUFFER);
  world.job_options.buffer_staleness = 1;
  people(&world);
  first_round(&world, BUFFER);
  pull_all(&world);
  sv_client *slow = &world.clients[4];
  for (int r = 0; r < 3; r++) {
    send_update(&world.clients[0]);
    send_update(&world.clients[1]);
    sv_pull(&world.clients[0]);
    sv_pull(&world.clients[1]);
  }
  const uint64_t before = version_of(&world);
  slow->has_plan = slow->has_scale = 0;
  sv_update(slow); /* of version 1, two steps ago and more */
  sv_pull(slow);
  cr_expect_eq(slow->ack.reason, (uint32_t)FL_REJECT_STALE);
  cr_expect_eq(version_of(&world), before);
  cr_expect(slow->has_plan); /* and has new work */
  cr_expect_eq(slow->plan.model_version, before);
  send_update(slow);
  cr_expect_eq(slow->ack.reason, (uint32_t)FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_buffered, who_returns_with_its_model_goes_on)
{
  sv_world world;
  begin(&world, 6, BUFFER);
  first_round(&world, BUFFER);
  pull_all(&world);
  sv_client *slow = &world.clients[4];
  const fli_plan plan = slow->plan;
  send_update(&world.clients[0]);
  send_update(&world.clients[1]);
  sv_lose(slow);
  sv_clear(slow);
  sv_return(slow);
  sv_pull(slow);
  cr_expect_eq(slow->got[FLI_MSG_MANIFEST], 0u); /* no model */
  cr_expect_eq(slow->plan.round, plan.round);
  cr_expect_eq(slow->plan.slot, plan.slot);
  cr_expect_eq(slow->plan.model_version, plan.model_version);
  cr_expect_eq(slow->plan.scale_round, plan.scale_round);
  send_update(slow);
  cr_expect_eq(slow->ack.reason, (uint32_t)FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_buffered, who_returns_without_it_begins_with_the_newest)
{
  sv_world world;
  begin(&world, 6, BUFFER);
  first_round(&world, BUFFER);
  pull_all(&world);
  sv_client *slow = &world.clients[4];
  send_update(&world.clients[0]);
  send_update(&world.clients[1]);
  sv_lose(slow);
  slow->model.is_valid = 0;
  sv_return(slow);
  sv_pull(slow);
  cr_expect_eq(slow->plan.model_version, version_of(&world));
  cr_expect_eq(slow->model.version, version_of(&world));
  send_update(slow);
  cr_expect_eq(slow->ack.reason, (uint32_t)FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_buffered, at_most_so_many_train_at_once)
{
  sv_world world;
  prepare(&world, 4, BUFFER);
  world.job_options.participants = 3;
  people(&world);
  cr_assert_eq(sv_status(&world).selected, 3u);
  pull_all(&world);
  for (size_t i = 0; i < CLIENTS; i++)
    if (world.clients[i].has_plan) sv_norm(&world.clients[i]);
  pull_all(&world);
  size_t sent = 0;
  for (size_t i = 0; i < CLIENTS && sent < BUFFER; i++) {
    if (!world.clients[i].has_scale) continue;
    sv_update(&world.clients[i]);
    sent++;
  }
  for (size_t i = 0; i < CLIENTS; i++)
    world.clients[i].has_plan = world.clients[i].has_scale = 0;
  cr_assert_eq(version_of(&world), 1u);
  pull_all(&world);
  size_t busy = 0;
  for (size_t i = 0; i < CLIENTS; i++)
    busy += (size_t)world.clients[i].has_plan;
  cr_expect_eq(busy, 3u);
  /* One sends and another begins: who is at work stays in. */
  cr_expect_eq(sv_status(&world).selected, 3u);
  sv_free(&world);
}

/* Nobody else is at work: what came is the step. */
Test(server_buffered, a_buffer_that_nobody_fills_steps_with_what_there_is)
{
  sv_world world;
  begin(&world, 3, 3);
  first_round(&world, 3);
  pull_all(&world);
  send_update(&world.clients[0]);
  for (size_t i = 1; i < CLIENTS; i++)
    sv_lose(&world.clients[i]);
  sv_tick(&world, 11 * SV_SECOND_NS); /* their grace */
  cr_expect_eq(version_of(&world), 2u);
  sv_free(&world);
}

Test(server_buffered, a_missed_deadline_begins_again)
{
  sv_world world;
  prepare(&world, 3, 3);
  world.job_options.min_participants = 3;
  people(&world);
  first_round(&world, 3);
  pull_all(&world);
  send_update(&world.clients[0]);
  sv_tick(&world, 661 * SV_SECOND_NS);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 1u);
  sv_tick(&world, 6 * SV_SECOND_NS);
  for (size_t i = 0; i < CLIENTS; i++)
    world.clients[i].has_plan = world.clients[i].has_scale = 0;
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

/* ---- scales ---- */

static uint32_t many_clamped(const sv_client *client, uint64_t block)
{
  (void)client;
  (void)block;
  return 200;
}

Test(server_buffered, a_scale_stays_for_ten_rounds_and_follows_the_clamps)
{
  sv_world world;
  float at_first = 0.0f;
  prepare(&world, 30, BUFFER);
  world.clamped = many_clamped;
  people(&world);
  first_round(&world, BUFFER);
  while (!sv_status(&world).is_finished) {
    pull_all(&world);
    sv_client *client = &world.clients[0];
    if (!client->has_scale) break;
    const uint64_t round = sv_status(&world).round;
    cr_expect_eq(client->plan.scale_round, 2 + (round - 2) / 10 * 10,
                 "round %u: %u", (unsigned)round, client->plan.scale_round);
    if (round == 2) at_first = client->norms[0];
    if (round < 12) cr_expect_eq(client->norms[0], at_first);
    if (round == 12) cr_expect_gt(client->norms[0], at_first);
    send_update(client);
    send_update(&world.clients[1]);
  }
  cr_expect(sv_status(&world).is_finished);
  sv_free(&world);
}

/* One began with the first scale, the other with the second. */
Test(server_buffered, updates_of_two_scales_make_one_step)
{
  sv_world world;
  float before[SV_WEIGHTS];
  begin(&world, 30, BUFFER);
  first_round(&world, BUFFER);
  pull_all(&world);
  while (version_of(&world) < 12) {
    send_update(&world.clients[0]);
    send_update(&world.clients[1]);
    sv_pull(&world.clients[0]);
    sv_pull(&world.clients[1]);
  }
  cr_assert_eq(world.clients[0].plan.scale_round, 12u);
  cr_assert_eq(world.clients[4].plan.scale_round, 2u);
  weights_of(&world, before);
  const part parts[] = {{4, 2, 11}, {0, 13, 0}};
  send_update(&world.clients[4]);
  send_update(&world.clients[0]);
  cr_expect_eq(version_of(&world), 13u);
  expect(&world, before, parts, 2, 0.06);
  sv_free(&world);
}

/* ---- kills ---- */

static void save(const sv_world *world, fl_buffer *buffer)
{
  fl_writer writer;
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_server_save(world->server, &writer), FL_OK);
}

/* With a buffer of all, whoever is killed when, the model is one. */
static size_t run_killed(size_t kill_at, float weights[SV_WEIGHTS])
{
  sv_world world;
  begin(&world, 13, CLIENTS);
  const size_t steps = sv_play_killed(&world, kill_at);
  weights_of(&world, weights);
  sv_free(&world);
  return steps;
}

Test(server_buffered, killed_after_any_step_ends_with_the_same_model)
{
  float want[SV_WEIGHTS], got[SV_WEIGHTS];
  const size_t steps = run_killed(SIZE_MAX, want);
  for (size_t at = 0; at < steps; at += 3) {
    run_killed(at, got);
    cr_assert_arr_eq(got, want, sizeof want, "killed at %zu", at);
  }
}

/* Two scales under way, an update of each counted: all of it comes back. */
Test(server_buffered, a_restored_buffer_goes_on_as_if_nothing_had_been)
{
  float models[2][SV_WEIGHTS];
  for (int is_killed = 0; is_killed < 2; is_killed++) {
    sv_world world;
    begin(&world, 14, 3);
    first_round(&world, 3);
    pull_all(&world);
    while (version_of(&world) < 10) {
      const int is_last = version_of(&world) == 9;
      for (size_t i = 0; i < 3; i++)
        send_update(&world.clients[is_last ? i + 2 : i]);
      pull_all(&world);
    }
    for (size_t i = 0; i < 3; i++)
      send_update(&world.clients[i]);
    pull_all(&world);
    cr_assert_eq(world.clients[0].plan.scale_round, 12u);
    cr_assert_eq(world.clients[4].plan.scale_round, 2u);
    send_update(&world.clients[4]);
    send_update(&world.clients[0]);
    if (is_killed) {
      sv_restart(&world);
      sv_tick(&world, SV_SECOND_NS);
      for (size_t i = 0; i < CLIENTS; i++)
        sv_return(&world.clients[i]);
      pull_all(&world);
    }
    cr_assert_eq(sv_status(&world).accepted, 2u);
    cr_assert_eq(version_of(&world), 11u);
    send_update(&world.clients[3]); /* of the first scale, too */
    cr_assert_eq(version_of(&world), 12u);
    weights_of(&world, models[is_killed]);
    sv_free(&world);
  }
  cr_expect_arr_eq(models[0], models[1], sizeof models[0]);
}

Test(server_buffered, tasks_and_sums_that_do_not_fit_are_refused)
{
  sv_world world;
  fl_buffer *buffer = NULL;
  begin(&world, 6, BUFFER);
  first_round(&world, BUFFER);
  pull_all(&world);
  send_update(&world.clients[0]);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  fli_job *job = world.server->jobs[0];
  const fli_task good = job->members[0].task;
  const fli_task bad[] = {{good.round + 9, 0, good.slot, good.version, 2},
                          {good.round, 0, good.slot, good.version + 9, 2},
                          {good.round, 0, good.slot, good.version, 5},
                          {good.round, 0, good.slot + 1, good.version, 2}};
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    fl_server *server = NULL;
    fl_reader reader;
    fl_buffer_free(buffer);
    cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
    job->members[0].task = bad[i];
    save(&world, buffer);
    cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
    cr_expect_eq(fl_server_restore(&server, NULL, NULL, &reader), FL_E_FORMAT,
                 "%zu", i);
    cr_assert_null(server);
  }
  job->members[0].task = good;
  fl_buffer_free(buffer);
  sv_free(&world);
}

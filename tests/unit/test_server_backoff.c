/* SPDX-License-Identifier: Apache-2.0 */
/* Who is told to come back, and when; who cannot be asked for want of what the
 * job demands. */
#include <criterion/criterion.h>

#include "server_fixture.h"

enum { CLIENTS = 8 };

static const char *const ids[CLIENTS] = {"abe", "bea", "cay", "dot",
                                         "eve", "fay", "gus", "hal"};

/* Two of all are asked; those who return get 10 s. */
static void begin(sv_world *world, size_t n, uint64_t checkin_s)
{
  sv_init(world, NULL, FL_CODEC_F32);
  world->job_options.rounds = 3;
  world->job_options.min_clients = (uint32_t)n;
  world->job_options.participants = 2;
  world->job_options.min_participants = 2;
  world->job_options.checkin_ns = checkin_s * SV_SECOND_NS;
  sv_start(world);
  for (size_t i = 0; i < n; i++)
    sv_add(world, ids[i], 10);
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
}

static size_t add_again(sv_world *world, uint64_t waits[CLIENTS])
{
  size_t told = 0;
  for (size_t i = 0; i < world->n_clients; i++) {
    sv_client *client = &world->clients[i];
    sv_pull(client);
    sv_clear(client);
    sv_hello(client);
    sv_pull(client);
    if (client->got[FLI_MSG_WAIT]) waits[told++] = client->wait.wait_ms;
  }
  return told;
}

Test(server_backoff, who_is_not_asked_is_told_when_to_return)
{
  sv_world world;
  uint64_t waits[CLIENTS];
  begin(&world, 4, 10);
  cr_expect_eq(add_again(&world, waits), 2u);
  for (size_t i = 0; i < 2; i++) {
    /* 10 s, and up to 10 s for each of two rounds that 4 could fill */
    cr_expect_geq(waits[i], 10000u);
    cr_expect_lt(waits[i], 30000u);
  }
  cr_expect_neq(waits[0], waits[1]);
  sv_free(&world);
}

Test(server_backoff, the_more_there_are_the_longer_they_are_spread)
{
  uint64_t few[CLIENTS], many[CLIENTS], longest = 0, shortest = UINT64_MAX;
  sv_world world;
  begin(&world, 3, 10);
  cr_expect_eq(add_again(&world, few), 1u);
  cr_expect_lt(few[0], 30000u);
  sv_free(&world);
  begin(&world, CLIENTS, 10);
  cr_expect_eq(add_again(&world, many), 6u);
  for (size_t i = 0; i < 6; i++) {
    longest = many[i] > longest ? many[i] : longest;
    shortest = many[i] < shortest ? many[i] : shortest;
    cr_expect_geq(many[i], 10000u);
    cr_expect_lt(many[i], 50000u);
  }
  cr_expect_gt(longest - shortest, 10000u);
  sv_free(&world);
}

Test(server_backoff, same_seed_and_round_tell_the_same)
{
  uint64_t first[CLIENTS], second[CLIENTS];
  sv_world world;
  begin(&world, CLIENTS, 7);
  add_again(&world, first);
  cr_expect_eq(add_again(&world, second), 6u);
  cr_expect_arr_eq(first, second, 6 * sizeof *first);
  sv_free(&world);
}

Test(server_backoff, nobody_is_told_without_the_option_or_with_work)
{
  uint64_t waits[CLIENTS];
  sv_world world;
  begin(&world, CLIENTS, 0);
  cr_expect_eq(add_again(&world, waits), 0u);
  sv_free(&world);
  begin(&world, 2, 10);
  cr_expect_eq(add_again(&world, waits), 0u);
  sv_free(&world);
}

Test(server_backoff, counted_and_late_updates_and_declines_are_answered_so)
{
  sv_world world;
  begin(&world, 3, 10);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_client *asked[2], *other = NULL;
  size_t n = 0;
  for (size_t i = 0; i < 3; i++) {
    if (world.clients[i].has_plan)
      asked[n++] = &world.clients[i];
    else
      other = &world.clients[i];
  }
  cr_assert_eq(n, 2u);
  for (size_t i = 0; i < 2; i++)
    sv_norm(asked[i]);
  for (size_t i = 0; i < 2; i++)
    sv_pull(asked[i]);
  sv_clear(asked[0]);
  sv_update(asked[0]);
  sv_pull(asked[0]);
  cr_expect_eq(asked[0]->got[FLI_MSG_ACK], 1u);
  cr_expect_eq(asked[0]->got[FLI_MSG_WAIT], 1u);
  /* The deadline passes: the round is tried again. */
  sv_tick(&world, 700 * SV_SECOND_NS);
  sv_clear(asked[1]);
  sv_update(asked[1]);
  sv_pull(asked[1]);
  cr_expect_eq(asked[1]->ack.reason, (uint32_t)FL_REJECT_STALE);
  cr_expect_eq(asked[1]->got[FLI_MSG_WAIT], 1u);
  (void)other;
  sv_free(&world);
}

/* WAIT is no goodbye: who is connected is asked all the same. */
Test(server_backoff, rounds_go_on_with_those_who_were_told)
{
  sv_world world;
  begin(&world, 4, 60);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  sv_free(&world);
}

/* ---- demands ---- */

static void say(sv_client *client, uint32_t lacks)
{
  fli_hello hello = sv_hello_message(client);
  hello.lacks = lacks;
  client->has_plan = client->has_scale = 0;
  sv_send_hello(client, &hello);
}

Test(server_backoff, only_those_with_what_is_demanded_are_asked)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.rounds = 1;
  world.job_options.min_clients = 2;
  world.job_options.demands = FL_CONDITION_CHARGING | FL_CONDITION_UNMETERED;
  world.job_options.checkin_ns = 5 * SV_SECOND_NS;
  sv_start(&world);
  for (size_t i = 0; i < 4; i++)
    sv_add(&world, ids[i], 10);
  say(&world.clients[0], FL_CONDITION_IDLE);
  say(&world.clients[1], FL_CONDITION_CHARGING);
  say(&world.clients[2], FL_CONDITION_ALL);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(sv_status(&world).round, 0u); /* too few to begin */
  sv_pull(&world.clients[1]);
  cr_expect_eq(world.clients[1].got[FLI_MSG_WAIT], 1u);
  say(&world.clients[3], 0);
  cr_expect_eq(sv_status(&world).selected, 2u);
  sv_pull(&world.clients[0]);
  cr_expect(world.clients[0].has_plan);
  cr_expect_eq(world.clients[0].plan.demands,
               (uint32_t)(FL_CONDITION_CHARGING | FL_CONDITION_UNMETERED));
  sv_pull(&world.clients[2]);
  cr_expect(!world.clients[2].has_plan);
  sv_free(&world);
}

Test(server_backoff, who_gets_what_is_demanded_can_be_asked_again)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.rounds = 1;
  world.job_options.min_clients = 1;
  world.job_options.demands = FL_CONDITION_IDLE;
  sv_start(&world);
  sv_add(&world, "abe", 10);
  say(&world.clients[0], FL_CONDITION_IDLE);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(sv_status(&world).selected, 0u);
  say(&world.clients[0], 0);
  cr_expect_eq(sv_status(&world).selected, 1u);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

Test(server_backoff, who_has_no_bytes_left_is_asked_nothing)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.rounds = 1;
  world.job_options.min_clients = 1;
  world.job_options.evaluate_every = 1;
  sv_start(&world);
  sv_add(&world, "abe", 10);
  sv_add(&world, "bea", 10);
  say(&world.clients[0], FLI_LACKS_BYTES);
  say(&world.clients[1], 0);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(sv_status(&world).selected, 1u);
  sv_run(&world);
  cr_expect(sv_status(&world).is_finished);
  cr_expect_eq(world.clients[0].got[FLI_MSG_PLAN], 0u);
  cr_expect_eq(world.clients[0].got[FLI_MSG_EVALUATE], 0u);
  sv_free(&world);
}

Test(server_backoff, demands_and_times_out_of_range_are_refused)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  cr_assert_eq(fl_server_new(&world.server, NULL, NULL), FL_OK);
  world.job_options.demands = 8;
  cr_expect_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_E_OPTIONS);
  world.job_options.demands = 0;
  world.job_options.checkin_ns = 86401 * SV_SECOND_NS;
  cr_expect_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_E_OPTIONS);
  sv_free(&world);
}

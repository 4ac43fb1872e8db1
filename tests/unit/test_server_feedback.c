/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs with error feedback: clients are told that they are to keep what
 * encodings lose, and which of their updates is in the model. */
#include <criterion/criterion.h>

#include "server_fixture.h"

/* PLAN says which of a client's updates is in the model. */
Test(server_feedback, plan_names_the_update_that_was_counted)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_BF16);
  world.job_options.error_feedback = 1;
  world.job_options.feedback_decay = 0.f;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].welcome.has_feedback, 1);
  cr_expect_eq(world.clients[0].welcome.feedback_decay, 0.f);
  cr_expect_eq(world.clients[0].plan.has_counted, 1);
  cr_expect_eq(world.clients[0].plan.counted_round, 0u);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  cr_expect_eq(world.clients[0].plan.round, 2u);
  cr_expect_eq(world.clients[0].plan.counted_round, 1u);
  cr_expect_eq(world.clients[0].plan.counted_attempt, 0u);
  sv_free(&world);
}

Test(server_feedback, aborted_round_has_counted_nothing)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_BF16);
  world.job_options.error_feedback = 1;
  world.job_options.min_participants = 3;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_report(&world, 3);
  sv_pull(&world.clients[0]);
  sv_update(&world.clients[0]);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].ack.reason, (uint32_t)FL_REJECT_NONE);
  sv_tick(&world, 600 * SV_SECOND_NS);
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 1u);
  sv_tick(&world, 5 * SV_SECOND_NS);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].plan.attempt, 1u);
  cr_expect_eq(world.clients[0].plan.has_counted, 1);
  cr_expect_eq(world.clients[0].plan.counted_round, 0u);
  sv_free(&world);
}

/* Everybody in reach trains; the first `n` updates arrive. */
static void play(sv_world *world, size_t n)
{
  sv_report(world, world->n_clients);
  for (size_t i = 0; i < world->n_clients; i++)
    sv_pull(&world->clients[i]);
  for (size_t i = 0; i < n; i++)
    sv_update(&world->clients[i]);
}

/* Round 1, then round 2 with one update and an abort. */
static void abort_second(int is_restarted)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_BF16);
  world.job_options.error_feedback = 1;
  world.job_options.min_participants = 3;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  play(&world, 3);
  play(&world, 1);
  if (is_restarted) {
    sv_restart(&world);
    sv_tick(&world, SV_SECOND_NS);
    for (size_t i = 0; i < 3; i++) {
      world.clients[i].peer += 100;
      sv_clear(&world.clients[i]);
      sv_hello(&world.clients[i]);
    }
  }
  sv_tick(&world, 600 * SV_SECOND_NS);
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 1u);
  sv_tick(&world, 5 * SV_SECOND_NS);
  sv_pull(&world.clients[0]);
  cr_assert_eq(world.clients[0].plan.round, 2u);
  cr_expect_eq(world.clients[0].plan.attempt, 1u);
  cr_expect_eq(world.clients[0].plan.counted_round, 1u);
  cr_expect_eq(world.clients[0].plan.counted_attempt, 0u);
  sv_free(&world);
}

/* A life of the client that does not know yet that round 1 was counted must
 * not send it again. */
Test(server_feedback, aborted_round_leaves_what_was_counted_before)
{
  abort_second(0);
}

Test(server_feedback, restored_server_knows_what_was_counted_before)
{
  abort_second(1);
}

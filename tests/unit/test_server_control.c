/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator does to a job: pause, resume, abort the round. */
#include <criterion/criterion.h>

#define CW_MUST(call) cr_assert_eq((call), FL_OK, "%s", fl_last_error())
#include "cohort_world.h"
#include "server_fixture.h"

/* Three clients hold plans of round 1 of `rounds`. */
static void begin(sv_world *world, uint32_t rounds)
{
  sv_init(world, NULL, FL_CODEC_F32);
  world->job_options.rounds = rounds;
  world->job_options.retry_pause_ns = SV_SECOND_NS;
  sv_start(world);
  sv_add_three(world);
  sv_join(world);
  sv_tick(world, 1000 * SV_SECOND_NS);
}

Test(server_control, paused_job_ends_its_round_and_begins_no_other)
{
  sv_world world;
  begin(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  cr_expect_eq(fl_server_pause_job(world.server, 0), FL_OK);
  cr_expect_eq(fl_server_pause_job(world.server, 0), FL_OK);
  cr_expect_eq(sv_status(&world).is_paused, 1u);
  sv_run(&world);
  sv_tick(&world, 3600 * SV_SECOND_NS);
  sv_run(&world);
  cr_expect_eq(sv_status(&world).model_version, 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 1u);
  cr_expect_eq(fl_server_resume_job(world.server, 0), FL_OK);
  cr_expect_eq(sv_status(&world).is_paused, 0u);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(sv_status(&world).model_version, 3u);
  sv_free(&world);
}

Test(server_control, job_paused_before_it_began_waits)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  cr_expect_eq(fl_server_pause_job(world.server, 0), FL_OK);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, 1000 * SV_SECOND_NS);
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 0u);
  uint64_t deadline = 0;
  cr_assert_eq(fl_server_next_timeout(world.server, &deadline), FL_OK);
  cr_expect_eq(deadline, UINT64_MAX);
  cr_expect_eq(fl_server_resume_job(world.server, 0), FL_OK);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

Test(server_control, restored_server_is_still_paused)
{
  sv_world world;
  begin(&world, 2);
  cr_expect_eq(fl_server_pause_job(world.server, 0), FL_OK);
  sv_run(&world);
  sv_restart(&world);
  cr_expect_eq(sv_status(&world).is_paused, 1u);
  for (size_t i = 0; i < 3; i++)
    sv_return(&world.clients[i]);
  sv_tick(&world, 3600 * SV_SECOND_NS);
  sv_run(&world);
  cr_expect_eq(sv_status(&world).model_version, 1u);
  cr_expect_eq(fl_server_resume_job(world.server, 0), FL_OK);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

Test(server_control, restored_server_is_not_paused_when_it_was_not)
{
  sv_world world;
  begin(&world, 2);
  sv_restart(&world);
  cr_expect_eq(sv_status(&world).is_paused, 0u);
  sv_free(&world);
}

Test(server_control, stop_ends_a_paused_job)
{
  sv_world world;
  begin(&world, 5);
  cr_expect_eq(fl_server_pause_job(world.server, 0), FL_OK);
  sv_run(&world);
  cr_expect_eq(fl_server_stop_job(world.server, 0), FL_OK);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(sv_status(&world).model_version, 1u);
  cr_expect_eq(fl_server_pause_job(world.server, 0), FL_E_STATE);
  cr_expect_eq(fl_server_resume_job(world.server, 0), FL_E_STATE);
  cr_expect_eq(fl_server_abort_round(world.server, 0), FL_E_STATE);
  sv_free(&world);
}

/* The model ends as if the aborted attempt had never been. */
Test(server_control, aborted_round_is_tried_again_and_counts_nothing_twice)
{
  sv_world plain, world;
  const sv_event *event = NULL;
  float left[SV_WEIGHTS], right[SV_WEIGHTS];
  begin(&plain, 2);
  sv_run(&plain);
  begin(&world, 2);
  sv_report(&world, 3);
  sv_pull(&world.clients[0]);
  sv_update(&world.clients[0]);
  cr_expect_eq(sv_status(&world).accepted, 1u);
  cr_expect_eq(fl_server_abort_round(world.server, 0), FL_OK);
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, &event), 1u);
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_STOPPED);
  cr_expect_eq(sv_status(&world).accepted, 0u);
  cr_expect_eq(sv_status(&world).model_version, 0u);
  cr_expect_eq(fl_server_abort_round(world.server, 0), FL_E_STATE);
  for (size_t i = 0; i < 3; i++)
    world.clients[i].has_scale = world.clients[i].has_plan = 0;
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 1u);
  sv_tick(&world, 2 * SV_SECOND_NS);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_assert_eq(fl_server_copy_weights(plain.server, 0, left, SV_WEIGHTS, NULL),
               FL_OK);
  cr_assert_eq(fl_server_copy_weights(world.server, 0, right, SV_WEIGHTS, NULL),
               FL_OK);
  cr_expect_eq(memcmp(left, right, sizeof left), 0);
  sv_free(&plain);
  sv_free(&world);
}

Test(server_control, aborted_round_of_a_paused_job_waits_for_resume)
{
  sv_world world;
  begin(&world, 1);
  sv_report(&world, 2);
  cr_expect_eq(fl_server_pause_job(world.server, 0), FL_OK);
  cr_expect_eq(fl_server_abort_round(world.server, 0), FL_OK);
  for (size_t i = 0; i < 3; i++)
    world.clients[i].has_plan = 0;
  sv_tick(&world, 60 * SV_SECOND_NS);
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 1u);
  cr_expect_eq(fl_server_resume_job(world.server, 0), FL_OK);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

Test(server_control, arguments_are_checked)
{
  sv_world world;
  begin(&world, 1);
  cr_expect_eq(fl_server_pause_job(NULL, 0), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_resume_job(NULL, 0), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_abort_round(NULL, 0), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_stop_job(NULL, 0), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_pause_job(world.server, 1), FL_E_NOT_FOUND);
  cr_expect_eq(fl_server_resume_job(world.server, 1), FL_E_NOT_FOUND);
  cr_expect_eq(fl_server_abort_round(world.server, 1), FL_E_NOT_FOUND);
  sv_free(&world);
}

/* ---- cohorts ---- */

/* Everybody says once what there is to say. */
static void say_once(cw_world *w)
{
  CW_MUST(fl_server_tick(w->server, w->now));
  for (uint32_t i = 0; i < w->n_clients; i++)
    cw_talk(w, i);
  cw_listen(w);
}

Test(server_control, cohorts_give_up_their_rounds_and_go_on)
{
  static cw_world w;
  uint32_t n = 0;
  cw_init(&w, FL_CODEC_F32, 40, 2);
  cw_start(&w);
  for (uint32_t i = 0; i < 12; i++) {
    say_once(&w);
    n += fl_server_abort_round(w.server, 0) == FL_OK;
    w.now += 1000 * SV_SECOND_NS;
  }
  cr_expect_gt(n, 2u);
  cr_expect_eq(fl_server_pause_job(w.server, 0), FL_OK);
  cw_run(&w, UINT32_MAX);
  cr_expect(!w.is_finished);
  cr_expect_eq(fl_server_resume_job(w.server, 0), FL_OK);
  for (uint32_t i = 0; i < 100 && !w.is_finished; i++) {
    w.now += 1000 * SV_SECOND_NS;
    cw_run(&w, UINT32_MAX);
  }
  cr_expect(w.is_finished);
  cr_expect_eq(w.rejected, 0u);
  cw_free(&w);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds from the draw to the next version: the arithmetic against a plain
 * float oracle, and every way in which a round can go other than smoothly. */
#include <criterion/criterion.h>

#include "server_fixture.h"
#include "outgoing.h"

/* ---- the arithmetic ---- */

/* Weighted mean of the clients' updates of one round, in double. */
static double oracle(sv_world *world, uint64_t round, size_t i, uint64_t cap)
{
  double sum = 0.0, weights = 0.0;
  for (size_t k = 0; k < world->n_clients; k++) {
    const sv_client *client = &world->clients[k];
    const double n = cap > 0 ? (double)client->samples : 1.0;
    const double weight = cap > 0 && n > (double)cap ? (double)cap : n;
    sum += weight * (double)world->train(client, round, i);
    weights += weight;
  }
  return sum / weights;
}

/* Largest error over all weights after `rounds` plain mean rounds. */
static double worst_error(sv_world *world, uint64_t cap)
{
  const float *got = world->clients[0].model.weights;
  const uint64_t n = world->clients[0].model.n;
  float *start = NULL;
  uint64_t count = 0;
  double worst = 0.0;
  cr_assert_eq(fl_model_get_weights(world->model, &start, &count), FL_OK);
  for (size_t i = 0; i < n; i++) {
    double want = (double)start[i];
    for (uint32_t round = 1; round <= world->job_options.rounds; round++) {
      want += oracle(world, round, i, cap);
    }
    worst = fmax(worst, fabs(want - (double)got[i]));
  }
  return worst;
}

Test(server_round, three_clients_with_f32_give_the_mean)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_lt(worst_error(&world, 0), 1e-6);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_FINISHED, NULL), 2u);
  cr_expect_eq(sv_events(&world, FL_SERVER_JOB_FINISHED, NULL), 1u);
  sv_free(&world);
}

Test(server_round, four_equal_weights_with_f32_are_exact)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.weighting = FL_WEIGHT_UNIFORM;
  world.job_options.min_clients = 4;
  sv_start(&world);
  sv_add_three(&world);
  sv_add(&world, "dan", 99);
  sv_join(&world);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(worst_error(&world, 0), 0.0);
  sv_free(&world);
}

Test(server_round, samples_weigh_the_mean)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_add(&world, "abe", 10);
  sv_add(&world, "bea", 20);
  sv_add(&world, "cay", 50);
  sv_join(&world);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_lt(worst_error(&world, 1000), 1e-6);
  sv_free(&world);
}

Test(server_round, claimed_samples_are_capped_at_eight_medians)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_add(&world, "abe", 10);
  sv_add(&world, "bea", 10);
  sv_add(&world, "cay", UINT64_C(1) << 40);
  sv_join(&world);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].plan.weight_cap, 80u);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_lt(worst_error(&world, 80), 1e-5);
  sv_free(&world);
}

static void run_codec(uint32_t codec, uint32_t mode, double tolerance)
{
  sv_world world;
  sv_init(&world, NULL, codec);
  world.codec.thc_mode = mode;
  world.job_options.rounds = 4;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_lt(worst_error(&world, 0), tolerance, "got %g",
               worst_error(&world, 0));
  sv_free(&world);
}

Test(server_round, thc_dither_is_close_and_all_replicas_agree)
{
  run_codec(FL_CODEC_THC, FL_THC_DITHER, 1.0);
}

Test(server_round, thc_uniform_is_close_and_all_replicas_agree)
{
  run_codec(FL_CODEC_THC, FL_THC_UNIFORM, 1.5);
}

Test(server_round, bf16_is_close_and_all_replicas_agree)
{
  run_codec(FL_CODEC_BF16, FL_THC_DITHER, 0.03);
}

Test(server_round, arrival_order_does_not_change_the_model)
{
  uint8_t hash[2][FLI_HASH_BYTES];
  for (int order = 0; order < 2; order++) {
    sv_world world;
    sv_init(&world, NULL, FL_CODEC_THC);
    sv_start(&world);
    sv_add_three(&world);
    for (size_t i = 0; i < 3; i++)
      sv_hello(&world.clients[order ? 2 - i : i]);
    sv_run(&world);
    cr_expect(sv_is_finished(&world));
    fli_canonical_hash(&world.clients[0].model, hash[order]);
    sv_free(&world);
  }
  cr_expect_arr_eq(hash[0], hash[1], FLI_HASH_BYTES);
}

static float constant(const sv_client *client, uint64_t round, size_t i)
{
  (void)client, (void)round, (void)i;
  return 1.0f;
}

static void run_momentum(uint32_t codec, double tolerance)
{
  sv_world world;
  float *start = NULL;
  uint64_t n = 0;
  sv_init(&world, NULL, codec);
  world.train = constant;
  world.job_options.rounds = 3;
  world.job_options.server_momentum = 0.5f;
  world.job_options.server_learning_rate = 0.5f;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_assert_eq(fl_model_get_weights(world.model, &start, &n), FL_OK);
  /* m = 1, 1.5, 1.75; half of each */
  for (size_t i = 0; i < n; i++) {
    const double want = (double)start[i] + 0.5 * (1.0 + 1.5 + 1.75);
    const double got = (double)world.clients[0].model.weights[i];
    cr_assert_float_eq(got, want, tolerance, "weight %zu: %g, want %g", i, got,
                       want);
  }
  sv_free(&world);
}

Test(server_round, momentum_and_rate_with_f32_follow_the_recurrence)
{
  run_momentum(FL_CODEC_F32, 1e-6);
}

Test(server_round, momentum_and_rate_with_thc_stay_close_by_the_residual)
{
  run_momentum(FL_CODEC_THC, 0.5);
}

Test(server_round, mean_loss_is_weighted_by_samples)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.rounds = 1;
  sv_start(&world);
  sv_add(&world, "abe", 10)->loss = 1.0;
  sv_add(&world, "bea", 30)->loss = 2.0;
  sv_add(&world, "cay", 10)->loss = NAN;
  sv_join(&world);
  sv_run(&world);
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_FINISHED, &event), 1u);
  cr_expect_float_eq(event->body.loss, 1.75, 1e-12);
  cr_expect_eq(event->body.accepted, 3u);
  cr_expect_eq(event->body.selected, 3u);
  cr_expect_eq(event->body.model_version, 1u);
  cr_expect_eq(event->body.samples, 50u);
  sv_free(&world);
}

/* ---- clients that come, go and dawdle ---- */

Test(server_round, vanished_client_is_lost_after_its_grace)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_begin(&world, FL_CODEC_F32);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_lose(&world.clients[2]);
  sv_norm(&world.clients[0]);
  sv_norm(&world.clients[1]);
  cr_expect_eq(sv_events(&world, FL_SERVER_SCALE_AGREED, NULL), 0u);
  sv_tick(&world, 9 * SV_SECOND_NS);
  cr_expect_eq(sv_events(&world, FL_SERVER_SCALE_AGREED, NULL), 0u);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(sv_events(&world, FL_SERVER_SCALE_AGREED, NULL), 1u);
  world.clients[0].has_plan = world.clients[1].has_plan = 0;
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  cr_assert_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, &event), 1u);
  cr_expect_str_eq(event->client_id, "bea");
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_VANISHED);
  sv_free(&world);
}

Test(server_round, returning_client_resumes_its_round)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_THC);
  sv_report(&world, 3);
  sv_lose(&world.clients[2]);
  sv_clear(&world.clients[2]);
  for (size_t i = 0; i < 3; i++)
    world.clients[i].has_plan = 0;
  sv_tick(&world, SV_SECOND_NS);
  sv_return(&world.clients[2]);
  sv_pull(&world.clients[2]);
  cr_expect_eq(world.clients[2].got[FLI_MSG_PLAN], 1u);
  cr_expect_eq(world.clients[2].got[FLI_MSG_SCALE], 1u);
  cr_expect_eq(world.clients[2].got[FLI_MSG_MANIFEST], 0u);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, NULL), 0u);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_RETURNED, NULL), 1u);
  sv_free(&world);
}

Test(server_round, client_lost_for_its_absence_may_still_deliver)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  world.clients[0].is_mute = 1;
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_lose(&world.clients[2]);
  sv_tick(&world, 11 * SV_SECOND_NS);
  sv_return(&world.clients[2]);
  world.clients[0].is_mute = 0;
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, NULL), 0u);
  sv_free(&world);
}

Test(server_round, counted_client_that_returns_is_acknowledged_again)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  world.clients[1].is_mute = 1;
  sv_run(&world);
  sv_tick(&world, 60 * SV_SECOND_NS);
  sv_run(&world);
  cr_assert_eq(sv_status(&world).accepted, 2u);
  sv_lose(&world.clients[0]);
  sv_clear(&world.clients[0]);
  sv_return(&world.clients[0]);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].got[FLI_MSG_PLAN], 0u);
  cr_expect_eq(world.clients[0].got[FLI_MSG_ACK], 1u);
  cr_expect_eq(world.clients[0].ack.reason, (uint32_t)FL_REJECT_NONE);
  sv_free(&world);
}

Test(server_round, late_norm_gets_the_scale_that_was_agreed)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_THC);
  world.clients[1].is_mute = 1;
  sv_run(&world);
  sv_tick(&world, 60 * SV_SECOND_NS);
  cr_expect_eq(sv_events(&world, FL_SERVER_SCALE_AGREED, NULL), 1u);
  sv_run(&world);
  cr_expect_eq(world.clients[1].got[FLI_MSG_SCALE], 0u);
  sv_norm(&world.clients[1]);
  sv_pull(&world.clients[1]);
  cr_expect_eq(world.clients[1].got[FLI_MSG_SCALE], 1u);
  cr_expect_arr_eq(world.clients[1].norms, world.clients[0].norms,
                   sizeof world.clients[0].norms);
  world.clients[1].is_mute = 0;
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

Test(server_round, late_update_is_stale)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_begin(&world, FL_CODEC_F32);
  world.clients[1].is_mute = 1;
  sv_report(&world, 3);
  world.clients[0].has_plan = world.clients[2].has_plan = 0;
  sv_run(&world);
  sv_tick(&world, 600 * SV_SECOND_NS);
  cr_assert_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, &event), 1u);
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_DEADLINE);
  sv_clear(&world.clients[1]);
  sv_update(&world.clients[1]);
  sv_pull(&world.clients[1]);
  cr_expect_eq(world.clients[1].ack.reason, (uint32_t)FL_REJECT_STALE);
  cr_expect_eq(world.clients[1].ack.round, 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  sv_free(&world);
}

Test(server_round, half_sent_update_is_answered_when_the_round_ends)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  sv_client *slow = &world.clients[1];
  slow->is_mute = 1;
  sv_run(&world);
  sv_norm(slow);
  sv_run(&world);
  fli_manifest manifest = sv_manifest(slow);
  size_t size = 0;
  uint8_t *data = sv_encode(slow, slow->plan.slot, slow->samples, &size);
  cr_assert_eq(outgoing_begin(&slow->outgoing, &slow->out, &manifest, data,
                              size, FLI_CHUNK_MIN),
               FL_OK);
  sv_push(slow);
  sv_clear(slow);
  sv_tick(&world, 700 * SV_SECOND_NS);
  sv_pull(slow);
  cr_expect_eq(slow->got[FLI_MSG_ACK], 1u);
  cr_expect_eq(slow->ack.reason, (uint32_t)FL_REJECT_STALE);
  free(data);
  sv_free(&world);
}

Test(server_round, too_few_norms_abort_and_the_next_attempt_succeeds)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.min_participants = 3;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  world.clients[1].is_mute = 1;
  sv_run(&world);
  sv_tick(&world, 60 * SV_SECOND_NS);
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, &event), 1u);
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_DEADLINE);
  cr_expect_not_null(strstr(event->text, "got 2 norms, want >= 3"));
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 1u);
  world.clients[1].is_mute = 0;
  world.clients[1].has_plan = 0;
  sv_tick(&world, 5 * SV_SECOND_NS);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 2u);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_lt(worst_error(&world, 0), 1e-6);
  sv_free(&world);
}

Test(server_round, too_few_updates_abort_the_round)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.min_participants = 3;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_report(&world, 3);
  for (size_t i = 0; i < 2; i++)
    sv_pull(&world.clients[i]);
  for (size_t i = 0; i < 2; i++)
    sv_update(&world.clients[i]);
  sv_tick(&world, 600 * SV_SECOND_NS);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, NULL), 1u);
  cr_expect_eq(sv_status(&world).model_version, 0u);
  sv_free(&world);
}

Test(server_round, round_that_all_decline_is_tried_again_after_the_pause)
{
  sv_world world;
  uint64_t timeout = 0;
  sv_begin(&world, FL_CODEC_F32);
  for (size_t i = 0; i < 3; i++) {
    sv_pull(&world.clients[i]);
    sv_decline(&world.clients[i], FLI_MSG_DECLINE);
    world.clients[i].has_plan = 0;
  }
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 1u);
  cr_expect_eq(fl_server_next_timeout(world.server, &timeout), FL_OK);
  cr_expect_eq(timeout, world.now + 5 * SV_SECOND_NS);
  sv_tick(&world, 5 * SV_SECOND_NS);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

Test(server_round, declining_client_is_lost_at_once)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_begin(&world, FL_CODEC_F32);
  sv_pull(&world.clients[1]);
  sv_decline(&world.clients[1], FLI_MSG_DECLINE);
  world.clients[1].is_mute = 1;
  for (int i = 0; i < 2; i++)
    sv_run(&world);
  cr_assert_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, &event), 1u);
  cr_expect_str_eq(event->client_id, "abe");
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_DECLINED);
  cr_expect_eq(sv_status(&world).model_version, 1u);
  sv_free(&world);
}

Test(server_round, over_selection_takes_the_first_updates)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.rounds = 1;
  world.job_options.participants = 2;
  world.job_options.over_selection = 1.5f;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  sv_update(&world.clients[0]);
  sv_update(&world.clients[2]);
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_FINISHED, &event), 1u);
  cr_expect_eq(event->body.selected, 3u);
  cr_expect_eq(event->body.accepted, 2u);
  cr_assert_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, &event), 1u);
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_STALE);
  sv_clear(&world.clients[1]);
  sv_update(&world.clients[1]);
  sv_pull(&world.clients[1]);
  cr_expect_eq(world.clients[1].ack.reason, (uint32_t)FL_REJECT_STALE);
  sv_free(&world);
}

Test(server_round, draw_takes_the_asked_number_and_changes_with_the_round)
{
  sv_world world;
  uint32_t seen = 0;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.rounds = 12;
  world.job_options.participants = 2;
  world.job_options.min_clients = 6;
  sv_start(&world);
  for (size_t i = 0; i < 6; i++) {
    static const char *const ids[] = {"a", "b", "c", "d", "e", "f"};
    sv_add(&world, ids[i], 10);
  }
  sv_join(&world);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  for (size_t i = 0; i < 6; i++)
    seen += world.clients[i].got[FLI_MSG_PLAN] > 0;
  cr_expect_gt(seen, 2u);
  cr_expect_eq(sv_events(&world, FL_SERVER_UPDATE_ACCEPTED, NULL), 24u);
  sv_free(&world);
}

Test(server_round, first_round_waits_for_min_clients)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_add(&world, "abe", 1);
  sv_add(&world, "bea", 1);
  sv_join(&world);
  sv_run(&world);
  cr_expect_eq(sv_status(&world).round, 0u);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 0u);
  sv_hello(sv_add(&world, "cay", 1));
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 1u);
  sv_free(&world);
}

Test(server_round, no_clients_at_all_means_no_timer_and_no_round)
{
  sv_world world;
  uint64_t timeout = 0;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.min_clients = 1;
  sv_start(&world);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(fl_server_next_timeout(world.server, &timeout), FL_OK);
  cr_expect_eq(timeout, UINT64_MAX);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 0u);
  sv_free(&world);
}

Test(server_round, clock_at_its_end_aborts_once)
{
  sv_world world;
  sv_begin(&world, FL_CODEC_F32);
  cr_assert_eq(fl_server_tick(world.server, UINT64_MAX), FL_OK);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 1u);
  cr_assert_eq(fl_server_tick(world.server, 0), FL_OK);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 1u);
  sv_free(&world);
}

Test(server_round, endless_pause_survives_the_first_tick)
{
  sv_world world;
  uint64_t deadline = 0;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.retry_pause_ns = UINT64_MAX;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  for (size_t i = 0; i < 3; i++) {
    sv_pull(&world.clients[i]);
    sv_decline(&world.clients[i], FLI_MSG_DECLINE);
  }
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 1u);
  sv_tick(&world, 1000 * SV_SECOND_NS);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_STARTED, NULL), 1u);
  cr_assert_eq(fl_server_next_timeout(world.server, &deadline), FL_OK);
  cr_expect_eq(deadline, UINT64_MAX);
  sv_free(&world);
}

Test(server_round, deadlines_count_from_the_first_tick)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_tick(&world, UINT64_C(1) << 60);
  cr_expect_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 0u);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs: their options, several at once, evaluation, stopping, and the public
 * scale that follows what clients had to clamp. */
#include <criterion/criterion.h>

#include "server/server.h"
#include "server_fixture.h"

/* ---- options ---- */

static fl_status add_with(void (*change)(sv_world *world))
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_THC);
  change(&world);
  cr_assert_eq(fl_server_new(&world.server, NULL, NULL), FL_OK);
  const fl_status st =
      fl_server_add_job(world.server, world.model, &world.job_options, NULL);
  cr_expect_eq(fl_server_job_count(world.server), st == FL_OK ? 1u : 0u);
  sv_free(&world);
  return st;
}

#define CHANGE(name, statement)              \
  static void name(sv_world *world)          \
  {                                          \
    fl_job_options *o = &world->job_options; \
    statement;                               \
  }
CHANGE(nothing, (void)o)
CHANGE(no_rounds, o->rounds = 0)
CHANGE(no_name, o->name = "")
CHANGE(long_name, o->name = "0123456789012345678901234567890123456789"
                            "01234567890123456789012345")
CHANGE(unprintable_name, o->name = "a\nb")
CHANGE(small_draw, o->over_selection = 0.5f)
CHANGE(nan_draw, o->over_selection = NAN)
CHANGE(no_minimum, o->min_participants = 0)
CHANGE(high_minimum, o->min_participants = 65536)
CHANGE(many_participants, o->participants = 65536)
CHANGE(unknown_weighting, o->weighting = 9)
CHANGE(unknown_scale, o->scale_mode = 9)
CHANGE(no_epochs, o->epochs = 0)
CHANGE(no_batch, o->batch_size = 0)
CHANGE(nan_rate, o->learning_rate = NAN)
CHANGE(unknown_schedule, o->rate_schedule = 3)
CHANGE(negative_factor, o->rate_factor = -0.1f)
CHANGE(large_factor, o->rate_factor = 1.5f)
CHANGE(nan_factor, o->rate_factor = NAN)
CHANGE(no_server_rate, o->server_learning_rate = 0.0f)
CHANGE(full_momentum, o->server_momentum = 1.0f)
CHANGE(huge_cap, o->weight_cap = UINT64_MAX)
CHANGE(no_norm_time, o->norm_deadline_ns = 0)
CHANGE(no_update_time, o->update_deadline_ns = 0)
CHANGE(no_evaluate_time, o->evaluate_every = 1; o->evaluate_deadline_ns = 0)
CHANGE(shortest_times, o->norm_deadline_ns = o->update_deadline_ns =
                           o->evaluate_deadline_ns = 1)
CHANGE(capped_uniform, o->weighting = FL_WEIGHT_UNIFORM; o->weight_cap = 5)
CHANGE(minimum_above_wanted, o->participants = 2; o->min_participants = 3)
CHANGE(public_f32, o->scale_mode = FL_SCALE_PUBLIC;
       world->codec.codec = FL_CODEC_F32)
CHANGE(unknown_feedback, o->error_feedback = 2)
CHANGE(negative_decay, o->feedback_decay = -0.1f)
CHANGE(large_decay, o->feedback_decay = 1.5f)
CHANGE(nan_decay, o->feedback_decay = NAN)
CHANGE(feedback_f32, o->error_feedback = 1; world->codec.codec = FL_CODEC_F32)
CHANGE(feedback_bf16, o->error_feedback = 1; world->codec.codec = FL_CODEC_BF16)

Test(server_job, options_out_of_range_are_refused)
{
  cr_expect_eq(add_with(nothing), FL_OK);
  cr_expect_eq(add_with(no_rounds), FL_E_OPTIONS);
  cr_expect_eq(add_with(no_name), FL_E_ARGUMENT);
  cr_expect_eq(add_with(long_name), FL_E_ARGUMENT);
  cr_expect_eq(add_with(unprintable_name), FL_E_ARGUMENT);
  cr_expect_eq(add_with(unknown_schedule), FL_E_OPTIONS);
  cr_expect_eq(add_with(negative_factor), FL_E_OPTIONS);
  cr_expect_eq(add_with(large_factor), FL_E_OPTIONS);
  cr_expect_eq(add_with(nan_factor), FL_E_OPTIONS);
  cr_expect_eq(add_with(small_draw), FL_E_OPTIONS);
  cr_expect_eq(add_with(nan_draw), FL_E_OPTIONS);
  cr_expect_eq(add_with(no_minimum), FL_E_OPTIONS);
  cr_expect_eq(add_with(high_minimum), FL_E_OPTIONS);
  cr_expect_eq(add_with(many_participants), FL_E_OPTIONS);
  cr_expect_eq(add_with(unknown_weighting), FL_E_OPTIONS);
  cr_expect_eq(add_with(unknown_scale), FL_E_OPTIONS);
  cr_expect_eq(add_with(no_epochs), FL_E_OPTIONS);
  cr_expect_eq(add_with(no_batch), FL_E_OPTIONS);
  cr_expect_eq(add_with(nan_rate), FL_E_OPTIONS);
  cr_expect_eq(add_with(no_server_rate), FL_E_OPTIONS);
  cr_expect_eq(add_with(full_momentum), FL_E_OPTIONS);
  cr_expect_eq(add_with(huge_cap), FL_E_OPTIONS);
  cr_expect_eq(add_with(no_norm_time), FL_E_OPTIONS);
  cr_expect_eq(add_with(no_update_time), FL_E_OPTIONS);
  cr_expect_eq(add_with(no_evaluate_time), FL_E_OPTIONS);
  cr_expect_eq(add_with(shortest_times), FL_OK);
  cr_expect_eq(add_with(unknown_feedback), FL_E_OPTIONS);
  cr_expect_eq(add_with(negative_decay), FL_E_OPTIONS);
  cr_expect_eq(add_with(large_decay), FL_E_OPTIONS);
  cr_expect_eq(add_with(nan_decay), FL_E_OPTIONS);
}

Test(server_job, options_that_exclude_each_other_are_a_conflict)
{
  cr_expect_eq(add_with(capped_uniform), FL_E_CONFLICT);
  cr_expect_eq(add_with(minimum_above_wanted), FL_E_CONFLICT);
  cr_expect_eq(add_with(public_f32), FL_E_CONFLICT);
  cr_expect_eq(add_with(feedback_f32), FL_E_CONFLICT);
  cr_expect_eq(add_with(feedback_bf16), FL_OK);
}

Test(server_job, shorter_options_of_an_older_host_are_read)
{
  sv_world world;
  fl_job_status status;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.rounds = 3;
  world.job_options.struct_size = offsetof(fl_job_options, name);
  sv_start(&world);
  status = sv_status(&world);
  cr_expect_eq(status.rounds, 3u);
  cr_expect_eq(status.n_weights, (uint64_t)SV_WEIGHTS);
  cr_expect_eq(status.round, 0u);
  sv_free(&world);
}

static uint32_t granularity_for(uint32_t participants, uint32_t workers)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_THC);
  world.codec.thc_mode = FL_THC_TABLE;
  world.codec.workers = workers;
  world.job_options.participants = participants;
  sv_start(&world);
  const uint32_t g =
      fl_compressor_granularity(world.server->jobs[0]->compressor);
  sv_free(&world);
  return g;
}

Test(server_job, tables_are_solved_for_the_participants_of_a_round)
{
  cr_expect_eq(granularity_for(17, 0), 15u);
  cr_expect_eq(granularity_for(5, 0), granularity_for(0, 5));
  cr_expect_gt(granularity_for(5, 0), 31u);
  cr_expect_eq(granularity_for(0, 0), granularity_for(0, 8));
  cr_expect_eq(granularity_for(5, 17), 15u);
}

Test(server_job, unknown_jobs_and_wrong_sizes_are_refused)
{
  sv_world world;
  float weights[SV_WEIGHTS];
  uint64_t version = 9;
  fl_job_status status;
  cr_assert_eq(fl_job_status_init(&status, sizeof status), FL_OK);
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  cr_expect_eq(fl_server_get_status(world.server, 1, &status), FL_E_NOT_FOUND);
  cr_expect_eq(fl_server_get_status(world.server, 0, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_server_stop_job(world.server, 1), FL_E_NOT_FOUND);
  cr_expect_eq(fl_server_copy_weights(world.server, 0, weights, 7, NULL),
               FL_E_DIM);
  cr_expect_eq(fl_server_copy_weights(world.server, 0, NULL, 7, NULL),
               FL_E_ARGUMENT);
  cr_expect_eq(
      fl_server_copy_weights(world.server, 0, weights, SV_WEIGHTS, &version),
      FL_OK);
  cr_expect_eq(version, 0u);
  cr_expect_eq(fl_server_add_job(world.server, NULL, NULL, NULL),
               FL_E_ARGUMENT);
  cr_expect_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, NULL),
      FL_E_ARGUMENT);
  sv_free(&world);
}

Test(server_job, model_that_is_not_finite_is_refused)
{
  sv_world world;
  float *weights = NULL;
  uint64_t n = 0;
  sv_init(&world, NULL, FL_CODEC_F32);
  cr_assert_eq(fl_model_get_weights(world.model, &weights, &n), FL_OK);
  weights[3] = INFINITY;
  cr_assert_eq(fl_server_new(&world.server, NULL, NULL), FL_OK);
  cr_expect_eq(fl_server_add_job(world.server, world.model, NULL, NULL),
               FL_E_NOT_FINITE);
  sv_free(&world);
}

/* ---- two jobs ---- */

Test(server_job, two_jobs_run_side_by_side)
{
  sv_world world;
  fl_job_status status;
  uint32_t second = 0;
  cr_assert_eq(fl_job_status_init(&status, sizeof status), FL_OK);
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  world.job_options.name = "second";
  world.job_options.min_clients = 1;
  world.job_options.rounds = 5;
  cr_assert_eq(
      fl_server_add_job(world.server, world.model, &world.job_options, &second),
      FL_OK);
  cr_expect_eq(second, 1u);
  for (size_t i = 0; i < 3; i++) {
    static const char *const ids[] = {"abe", "bea", "cay"};
    sv_hello(sv_add(&world, ids[i], 10));
  }
  /* The same id in another job is another client. */
  sv_client *other = sv_add(&world, "abe", 10);
  fli_hello hello = sv_hello_message(other);
  snprintf(hello.job, sizeof hello.job, "second");
  sv_send_hello(other, &hello);
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  cr_expect_eq(sv_status(&world).model_version, 2u);
  cr_assert_eq(fl_server_get_status(world.server, 1, &status), FL_OK);
  cr_expect_eq(status.is_finished, 1u);
  cr_expect_eq(status.model_version, 5u);
  cr_expect_eq(sv_events(&world, FL_SERVER_JOB_FINISHED, NULL), 2u);
  sv_free(&world);
}

/* ---- evaluation ---- */

static void begin(sv_world *world)
{
  sv_start(world);
  sv_add(world, "abe", 10)->loss = 1.0;
  sv_add(world, "bea", 10)->loss = 2.0;
  sv_add(world, "cay", 10)->loss = 6.0;
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
}

Test(server_job, evaluation_adds_up_over_clients)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.evaluate_every = 2;
  world.job_options.rounds = 4;
  begin(&world);
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  cr_assert_eq(sv_events(&world, FL_SERVER_EVALUATED, &event), 2u);
  cr_expect_eq(event->body.round, 4u);
  cr_expect_eq(event->body.model_version, 4u);
  cr_expect_eq(event->body.correct, 9u);
  cr_expect_eq(event->body.count, 12u);
  cr_expect_float_eq(event->body.loss, 3.0, 1e-12);
  sv_free(&world);
}

Test(server_job, absurd_scores_leave_the_loss_unknown)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.evaluate_every = 1;
  begin(&world);
  for (size_t i = 0; i < 3; i++)
    world.clients[i].loss = i == 0 ? 1e308 : 1.0;
  sv_run(&world);
  cr_assert_eq(sv_events(&world, FL_SERVER_EVALUATED, &event), 2u);
  cr_expect_eq(event->body.count, 12u);
  cr_expect(isnan(event->body.loss));
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_FINISHED, &event), 2u);
  cr_expect(isnan(event->body.loss));
  sv_free(&world);
}

Test(server_job, evaluation_ends_at_its_deadline)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.evaluate_every = 1;
  world.job_options.rounds = 1;
  begin(&world);
  sv_client *silent = &world.clients[1];
  for (int i = 0; i < 3; i++) {
    silent->is_mute = 0;
    sv_pull(silent);
    if (!silent->got[FLI_MSG_EVALUATE]) sv_answer(silent);
    silent->is_mute = 1;
    sv_run(&world);
  }
  cr_expect_eq(silent->got[FLI_MSG_EVALUATE], 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_EVALUATED, NULL), 0u);
  sv_tick(&world, 60 * SV_SECOND_NS);
  cr_assert_eq(sv_events(&world, FL_SERVER_EVALUATED, &event), 1u);
  cr_expect_eq(event->body.count, 8u);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  sv_clear(silent);
  sv_score(silent, 1.0, 1, 1);
  sv_pull(silent);
  cr_expect_eq(silent->ack.reason, (uint32_t)FL_REJECT_STALE);
  sv_free(&world);
}

Test(server_job, evaluation_is_asked_again_of_a_returning_client)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.evaluate_every = 1;
  world.job_options.rounds = 1;
  begin(&world);
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  for (size_t i = 0; i < 3; i++)
    sv_update(&world.clients[i]);
  for (size_t i = 0; i < 3; i++) {
    world.clients[i].has_plan = world.clients[i].has_scale = 0;
  }
  sv_lose(&world.clients[0]);
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_EVALUATED, NULL), 0u);
  sv_return(&world.clients[0]);
  sv_run(&world);
  cr_expect_eq(sv_events(&world, FL_SERVER_EVALUATED, NULL), 1u);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  sv_free(&world);
}

/* ---- stopping ---- */

Test(server_job, stopped_job_ends_after_the_running_round)
{
  sv_world world;
  const sv_event *event = NULL;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.rounds = 100;
  begin(&world);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  cr_expect_eq(fl_server_stop_job(world.server, 0), FL_OK);
  cr_expect_eq(sv_status(&world).is_finished, 0u);
  sv_run(&world);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  cr_expect_eq(sv_status(&world).model_version, 1u);
  cr_assert_eq(sv_events(&world, FL_SERVER_JOB_FINISHED, &event), 1u);
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_STOPPED);
  for (size_t i = 0; i < 3; i++) {
    cr_expect(world.clients[i].is_done);
    cr_expect(sv_agrees(&world.clients[i]));
  }
  sv_free(&world);
}

Test(server_job, job_stopped_before_it_began_ends_at_once)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  sv_start(&world);
  cr_expect_eq(fl_server_stop_job(world.server, 0), FL_OK);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  sv_client *client = sv_add(&world, "abe", 1);
  sv_hello(client);
  sv_pull(client);
  cr_expect(client->is_done);
  cr_expect(sv_agrees(client));
  sv_free(&world);
}

/* ---- public scale ---- */

static uint32_t none_clamped(const sv_client *client, uint64_t block)
{
  (void)client, (void)block;
  return 0;
}

/* Block 0 holds 512 coordinates (300 padded), of which half are reported. */
static uint32_t many_clamped(const sv_client *client, uint64_t block)
{
  (void)client;
  return block == 0 ? 256 : 0;
}

/* Announced norm of block 0 in rounds 2 and 3. */
static void announced(uint32_t (*clamped)(const sv_client *, uint64_t),
                      float norms[2])
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_THC);
  world.job_options.scale_mode = FL_SCALE_PUBLIC;
  world.job_options.rounds = 3;
  world.clamped = clamped;
  begin(&world);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  cr_expect_eq(world.clients[0].plan.scale_mode, (uint32_t)FL_SCALE_EXCHANGED);
  for (size_t i = 0; i < 3; i++)
    sv_norm(&world.clients[i]);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  for (size_t round = 0; round < 2; round++) {
    for (size_t i = 0; i < 3; i++)
      sv_update(&world.clients[i]);
    for (size_t i = 0; i < 3; i++)
      sv_pull(&world.clients[i]);
    cr_expect_eq(world.clients[0].plan.scale_mode, (uint32_t)FL_SCALE_PUBLIC);
    cr_expect_eq(world.clients[0].scale.is_public, 1u);
    norms[round] = world.clients[0].norms[0];
  }
  for (size_t i = 0; i < 3; i++)
    sv_update(&world.clients[i]);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  cr_expect_eq(sv_status(&world).is_finished, 1u);
  cr_expect(sv_agrees(&world.clients[0]));
  sv_free(&world);
}

Test(server_job, public_norms_shrink_while_nothing_is_clamped)
{
  float norms[2] = {0};
  announced(none_clamped, norms);
  cr_expect_gt(norms[0], 0.0f);
  cr_expect_float_eq(norms[1] / norms[0], 0.9f, 0.01f);
}

Test(server_job, public_norms_grow_where_much_is_clamped)
{
  float norms[2] = {0};
  announced(many_clamped, norms);
  cr_expect_gt(norms[0], 0.0f);
  cr_expect_float_eq(norms[1] / norms[0], 1.5f, 0.01f);
}

/* A threshold of 4 times the share that has its index cut off: 15.2 of 512
 * coordinates; outside the clip would be 23.9. */
static uint32_t fifteen_clamped(const sv_client *client, uint64_t block)
{
  (void)client;
  return block == 0 ? 15 : 0;
}

static uint32_t sixteen_clamped(const sv_client *client, uint64_t block)
{
  (void)client;
  return block == 0 ? 16 : 0;
}

Test(server_job, public_norms_grow_above_four_times_the_share_cut_off)
{
  float norms[2] = {0};
  announced(fifteen_clamped, norms);
  cr_expect_eq(norms[1], norms[0]);
  announced(sixteen_clamped, norms);
  cr_expect_float_eq(norms[1] / norms[0], 1.5f, 0.01f);
}

static uint32_t all_clamped_by_one(const sv_client *client, uint64_t block)
{
  (void)block;
  return client->id[0] == 'a' ? 65535 : 0;
}

Test(server_job, one_liar_does_not_make_public_norms_grow)
{
  float norms[2] = {0};
  announced(all_clamped_by_one, norms);
  cr_expect_gt(norms[0], 0.0f);
  cr_expect_leq(norms[1], norms[0]);
}

static float no_change(const sv_client *client, uint64_t round, size_t i)
{
  return round == 1 ? 0.0f : sv_train(client, round, i);
}

Test(server_job, public_norms_do_not_start_from_nothing)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_THC);
  world.job_options.scale_mode = FL_SCALE_PUBLIC;
  world.job_options.rounds = 3;
  world.train = no_change;
  begin(&world);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(sv_events(&world, FL_SERVER_SCALE_AGREED, NULL), 2u);
  cr_expect_eq(world.clients[0].plan.scale_mode, (uint32_t)FL_SCALE_PUBLIC);
  sv_free(&world);
}

Test(server_job, public_update_without_clamp_counts_is_refused)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_THC);
  world.job_options.scale_mode = FL_SCALE_PUBLIC;
  begin(&world);
  for (int i = 0; i < 2; i++) {
    for (size_t k = 0; k < 3; k++)
      sv_pull(&world.clients[k]);
    for (size_t k = 0; i == 0 && k < 3; k++)
      sv_norm(&world.clients[k]);
  }
  for (size_t i = 0; i < 3; i++)
    sv_update(&world.clients[i]);
  sv_client *client = &world.clients[0];
  sv_pull(client);
  cr_assert_eq(client->scale.is_public, 1u);
  fli_manifest manifest = sv_manifest(client);
  size_t size = 0;
  uint8_t *data = sv_encode(client, client->plan.slot, 10, &size);
  sv_clear(client);
  sv_upload(client, &manifest, data, size);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_FORMAT);
  sv_clear(client);
  sv_norm(client);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_STATE);
  free(data);
  sv_free(&world);
}

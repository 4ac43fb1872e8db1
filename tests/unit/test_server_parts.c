/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that train a part of the model: the mean of a segment is over those
 * who sent it, what nobody sent stays, and nobody sends what is not his. */
#include <criterion/criterion.h>

#include "server/server.h"
#include "server_fixture.h"

static const fli_job *job_of(const sv_world *world)
{
  return world->server->jobs[0];
}

/* Three clients of 10, 20 and 30 samples; the first `n_partial` of them can
 * afford the last module only. */
static void init(sv_world *world, uint32_t codec, size_t n_partial)
{
  sv_init(world, NULL, codec);
  sv_add(world, "abe", 10);
  sv_add(world, "bea", 20);
  sv_add(world, "cay", 30);
  for (size_t i = 0; i < n_partial; i++)
    world->clients[i].depth = 1;
}

static void begin(sv_world *world)
{
  sv_start(world);
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
}

static float *start_weights(const sv_world *world)
{
  float *weights = malloc(SV_WEIGHTS * sizeof *weights);
  SV_REQUIRE(weights != NULL);
  SV_REQUIRE(fl_model_copy_weights(world->model, weights, SV_WEIGHTS) == FL_OK);
  return weights;
}

/* What weight i is after one round, in doubles. */
static double expected(const sv_world *world, float start, size_t i)
{
  double sum = 0, weights = 0;
  for (size_t k = 0; k < world->n_clients; k++) {
    const sv_client *client = &world->clients[k];
    if (i < SV_FIRST && client->depth == 1) continue;
    sum += (double)client->samples * (double)world->train(client, 1, i);
    weights += (double)client->samples;
  }
  return weights > 0 ? (double)start + sum / weights : (double)start;
}

static void check_mean(uint32_t codec, double tolerance)
{
  sv_world world;
  init(&world, codec, 2);
  world.job_options.rounds = 1;
  world.codec.bits = 8;
  float *start = start_weights(&world);
  begin(&world);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  cr_expect_eq(sv_events(&world, FL_SERVER_SEGMENT_UNCOVERED, NULL), 0u);
  for (size_t i = 0; i < SV_WEIGHTS; i++)
    cr_assert_float_eq((double)world.clients[0].model.weights[i],
                       expected(&world, start[i], i), tolerance, "%zu", i);
  free(start);
  sv_free(&world);
}

Test(server_parts, mean_of_a_segment_is_over_those_who_sent_it)
{
  check_mean(FL_CODEC_F32, 1e-6);
}

Test(server_parts, the_same_with_thc)
{
  check_mean(FL_CODEC_THC, .06);
}

Test(server_parts, plan_asks_for_what_a_client_can_afford)
{
  sv_world world;
  init(&world, FL_CODEC_THC, 2);
  world.clients[1].depth = 9; /* more than there is: all */
  begin(&world);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  cr_expect_eq(world.clients[0].plan.first_active, 1u);
  cr_expect_eq(world.clients[1].plan.first_active, 0u);
  cr_expect_eq(world.clients[2].plan.first_active, 0u);
  cr_expect_null(world.clients[0].plan.freeze_plan);
  sv_free(&world);
}

/* Bytes of one segment's lanes, of n floats, in a sum of three. */
static size_t lane_bytes(uint32_t codec, size_t n)
{
  size_t padded = 256;
  while (padded < n)
    padded *= 2;
  return codec == FL_CODEC_THC ? padded : 8 * n;
}

typedef struct idle_case {
  uint32_t codec;
  float momentum;
  int is_by_sum; /* the sum itself is the step */
} idle_case;

/* Nobody trains the first segment, whose weights may be -0, too. */
static void check_idle(const idle_case *c)
{
  sv_world world;
  float *weights;
  uint64_t n;
  init(&world, c->codec, 3);
  world.job_options.rounds = 3;
  world.job_options.server_momentum = c->momentum;
  SV_REQUIRE(fl_model_get_weights(world.model, &weights, &n) == FL_OK);
  weights[7] = -0.0f;
  float *start = start_weights(&world);
  begin(&world);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  cr_expect_eq(sv_events(&world, FL_SERVER_SEGMENT_UNCOVERED, NULL), 3u);
  const float *end = world.clients[0].model.weights;
  cr_expect_arr_eq(end, start, SV_FIRST * sizeof *end);
  cr_expect_neq(end[SV_FIRST + 5], start[SV_FIRST + 5]);
  /* The record of a step has no lanes for it, and is therefore what travels. */
  cr_assert(job_of(&world)->store.n_steps > 0);
  const fli_step *step =
      &job_of(&world)->store.steps[job_of(&world)->store.n_steps - 1];
  const size_t lanes = lane_bytes(c->codec, SV_SECOND);
  const size_t all = lanes + lane_bytes(c->codec, SV_FIRST);
  cr_expect_lt(step->record->bytes.size, all);
  if (c->is_by_sum) cr_expect_gt(step->record->bytes.size, lanes);
  free(start);
  sv_free(&world);
}

Test(server_parts, idle_segment_stays_with_thc)
{
  check_idle(&(idle_case){FL_CODEC_THC, 0.0f, 1});
}

Test(server_parts, idle_segment_stays_with_thc_and_momentum)
{
  check_idle(&(idle_case){FL_CODEC_THC, .9f, 0});
}

Test(server_parts, idle_segment_stays_with_bf16)
{
  check_idle(&(idle_case){FL_CODEC_BF16, .9f, 0});
}

Test(server_parts, idle_segment_stays_with_f32)
{
  check_idle(&(idle_case){FL_CODEC_F32, 0.0f, 0});
}

/* Momentum of what is only not covered waits. */
Test(server_parts, momentum_of_an_idle_segment_waits)
{
  sv_world world;
  float momentum[SV_FIRST], last;
  init(&world, FL_CODEC_F32, 0);
  world.job_options.rounds = 5;
  world.job_options.server_momentum = .5f;
  begin(&world);
  for (size_t i = 0; i < 3; i++)
    world.clients[i].is_mute = 1;
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  for (size_t i = 0; i < 2; i++)
    sv_update(&world.clients[i]);
  for (size_t i = 0; i < 3; i++)
    world.clients[i].depth = 1;
  sv_hello(&world.clients[0]);
  sv_hello(&world.clients[1]);
  sv_update(&world.clients[2]);
  cr_assert_eq(sv_status(&world).model_version, 1u);
  memcpy(momentum, job_of(&world)->momentum, sizeof momentum);
  last = job_of(&world)->momentum[SV_FIRST];
  cr_assert_neq(momentum[0], 0.0f);
  sv_hello(&world.clients[2]);
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  cr_assert_eq(world.clients[0].plan.first_active, 1u);
  /* The third was asked before its HELLO of depth 1, and trains all. */
  cr_assert_eq(world.clients[2].plan.first_active, 0u);
  for (size_t i = 0; i < 2; i++)
    sv_update(&world.clients[i]);
  sv_decline(&world.clients[2], FLI_MSG_DECLINE);
  cr_assert_eq(sv_status(&world).model_version, 2u);
  cr_expect_arr_eq(job_of(&world)->momentum, momentum, sizeof momentum);
  cr_expect_neq(job_of(&world)->momentum[SV_FIRST], last);
  sv_free(&world);
}

/* ---- lies ---- */

/* To the point where all have the scale. */
static void play_to_scale(sv_world *world)
{
  begin(world);
  sv_report(world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world->clients[i]);
}

static void check_refused(sv_world *world, sv_client *liar)
{
  const sv_event *event = NULL;
  sv_clear(liar);
  sv_update(liar);
  sv_pull(liar);
  cr_expect_eq(liar->ack.reason, (uint32_t)FL_REJECT_RANGE);
  cr_assert_eq(sv_events(world, FL_SERVER_PEER_REJECTED, &event), 1u);
  cr_expect_str_eq(event->client_id, liar->id);
  cr_expect_eq(event->body.reason, (uint32_t)FL_REJECT_RANGE);
  /* Nobody waits for another one, which is refused like this one. */
  sv_update(liar);
  cr_expect_eq(sv_status(world).accepted, 0u);
}

/* It knows nothing of parts, as an older one. */
Test(server_parts, segment_too_many_is_refused)
{
  sv_world world;
  init(&world, FL_CODEC_F32, 1);
  world.clients[0].is_old = 1;
  play_to_scale(&world);
  check_refused(&world, &world.clients[0]);
  sv_update(&world.clients[1]);
  sv_update(&world.clients[2]);
  cr_expect_eq(sv_status(&world).model_version, 1u);
  cr_expect_eq(sv_events(&world, FL_SERVER_CLIENT_LOST, NULL), 1u);
  sv_free(&world);
}

Test(server_parts, segment_too_few_is_refused)
{
  sv_world world;
  init(&world, FL_CODEC_F32, 0);
  play_to_scale(&world);
  world.clients[0].plan.first_active = 1;
  check_refused(&world, &world.clients[0]);
  sv_free(&world);
}

Test(server_parts, old_client_takes_part_where_nothing_is_frozen)
{
  sv_world world;
  init(&world, FL_CODEC_THC, 0);
  for (size_t i = 0; i < 3; i++)
    world.clients[i].is_old = 1;
  begin(&world);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(sv_events(&world, FL_SERVER_PEER_REJECTED, NULL), 0u);
  sv_free(&world);
}

static float equal_updates(const sv_client *client, uint64_t round, size_t i)
{
  (void)client, (void)round;
  return (float)((i * 2654435761u >> 7) % 129) / 64.0f - 1.0f;
}

/* Scale of the first round. */
static void first_scale(size_t n_partial, int is_liar, sv_client *out)
{
  sv_world world;
  const float lie[SV_MAX_NORMS] = {64.0f, 8.0f};
  init(&world, FL_CODEC_THC, n_partial);
  world.train = equal_updates;
  world.job_options.weighting = FL_WEIGHT_UNIFORM;
  begin(&world);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  for (size_t i = 0; i < 3; i++)
    sv_norm_with(&world.clients[i], is_liar && i == 0 ? lie : NULL);
  sv_pull(&world.clients[2]);
  cr_assert(world.clients[2].has_scale);
  *out = world.clients[2];
  sv_free(&world);
}

/* Who does not train a block does not make its norm shorter, nor the spread of
 * the others' norms wider. */
Test(server_parts, partial_client_does_not_change_the_scale)
{
  sv_client all, some;
  first_scale(0, 0, &all);
  first_scale(2, 0, &some);
  cr_expect_gt(all.norms[0], 0.0f);
  cr_expect_eq(some.norms[0], all.norms[0]);
  cr_expect_eq(some.norms[1], all.norms[1]);
  cr_expect_eq(some.scale.clip, all.scale.clip);
}

Test(server_parts, norm_of_a_block_that_is_not_trained_is_not_heard)
{
  sv_client honest, lied;
  first_scale(1, 0, &honest);
  first_scale(1, 1, &lied);
  cr_expect_eq(lied.norms[0], honest.norms[0]);
  cr_expect_neq(lied.norms[1], honest.norms[1]);
}

Test(server_parts, announced_norm_of_an_idle_segment_stays)
{
  sv_world world;
  init(&world, FL_CODEC_THC, 0);
  world.job_options.scale_mode = FL_SCALE_PUBLIC;
  world.job_options.rounds = 9;
  begin(&world);
  for (size_t i = 0; i < 3; i++)
    world.clients[i].is_mute = 1;
  /* Round 1 exchanges; all that follow are of the last module alone. */
  sv_report(&world, 3);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  for (size_t i = 0; i < 3; i++) {
    world.clients[i].depth = 1;
    sv_update(&world.clients[i]);
  }
  sv_join(&world);
  cr_assert_eq(sv_status(&world).round, 2u);
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  for (size_t i = 0; i < 3; i++)
    sv_decline(&world.clients[i], FLI_MSG_DECLINE);
  cr_assert_eq(sv_events(&world, FL_SERVER_ROUND_ABORTED, NULL), 1u);
  sv_tick(&world, 600 * SV_SECOND_NS);
  const float first = job_of(&world)->public_norms[0];
  const float second = job_of(&world)->public_norms[1];
  for (size_t i = 0; i < 3; i++)
    world.clients[i].is_mute = 0;
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  cr_expect_eq(job_of(&world)->public_norms[0], first);
  cr_expect_lt(job_of(&world)->public_norms[1], second);
  sv_free(&world);
}

/* ---- cover ---- */

/* Who of four is asked in each of 16 rounds of one client; the last one can
 * train all. */
static void draws(uint32_t min_cover, uint32_t depth, uint32_t counts[4])
{
  static const char *const ids[4] = {"abe", "bea", "cay", "dot"};
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  for (size_t i = 0; i < 4; i++) {
    sv_add(&world, ids[i], 10);
    if (i < 3) world.clients[i].depth = depth;
  }
  world.job_options.min_clients = 4;
  world.job_options.rounds = 16;
  world.job_options.participants = 1;
  world.job_options.min_cover = min_cover;
  begin(&world);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  for (size_t i = 0; i < 4; i++)
    counts[i] = 0;
  for (size_t e = 0; e < world.n_events; e++)
    for (size_t i = 0; i < 4; i++)
      counts[i] += world.events[e].body.kind == FL_SERVER_UPDATE_ACCEPTED &&
                   strcmp(world.events[e].client_id, ids[i]) == 0;
  sv_free(&world);
}

Test(server_parts, one_who_trains_all_is_preferred)
{
  uint32_t counts[4];
  draws(1, 1, counts);
  cr_expect_eq(counts[3], 16u);
}

Test(server_parts, cover_of_none_leaves_the_draw_alone)
{
  uint32_t counts[4], plain[4];
  draws(0, 1, counts);
  draws(1, 0, plain);
  cr_expect_lt(counts[3], 16u);
  cr_expect_arr_eq(counts, plain, sizeof counts);
}

Test(server_parts, too_few_who_train_all_are_reported)
{
  sv_world world;
  const sv_event *event = NULL;
  init(&world, FL_CODEC_F32, 2);
  world.job_options.min_cover = 2;
  world.job_options.rounds = 1;
  begin(&world);
  cr_assert_eq(sv_events(&world, FL_SERVER_SEGMENT_UNCOVERED, &event), 1u);
  cr_expect_eq(event->body.round, 1u);
  cr_expect_eq(event->body.selected, 3u);
  cr_expect_eq(event->body.accepted, 1u);
  cr_expect_eq(event->body.first_active, 0u);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

/* ---- coming back ---- */

/* What a client trains is settled when the round begins. */
Test(server_parts, hello_does_not_change_the_part)
{
  sv_world world;
  init(&world, FL_CODEC_F32, 1);
  begin(&world);
  sv_pull(&world.clients[0]);
  world.clients[0].depth = 0;
  sv_hello(&world.clients[0]);
  sv_pull(&world.clients[0]);
  cr_expect_eq(world.clients[0].plan.first_active, 1u);
  sv_free(&world);
}

static void play(int is_restarted, float weights[SV_WEIGHTS])
{
  sv_world world;
  init(&world, FL_CODEC_THC, 2);
  play_to_scale(&world);
  sv_update(&world.clients[0]);
  const uint64_t saved = sv_status(&world).bytes_saved;
  cr_expect_eq(saved, 512u / 2);
  if (is_restarted) {
    sv_restart(&world);
    sv_tick(&world, SV_SECOND_NS);
    cr_expect_eq(sv_status(&world).bytes_saved, saved);
    for (size_t i = 0; i < 3; i++) {
      world.clients[i].peer += 100;
      sv_clear(&world.clients[i]);
      sv_hello(&world.clients[i]);
    }
  }
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  memcpy(weights, world.clients[0].model.weights, SV_WEIGHTS * sizeof *weights);
  sv_free(&world);
}

Test(server_parts, restored_server_goes_on_to_the_same_bits)
{
  float plain[SV_WEIGHTS], restarted[SV_WEIGHTS];
  play(0, plain);
  play(1, restarted);
  cr_expect_arr_eq(plain, restarted, sizeof plain);
}

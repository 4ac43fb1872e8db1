/* SPDX-License-Identifier: Apache-2.0 */
/* The clip that a server announces: what it learns from norms and means, what
 * liars can make of it, and that it survives a restart. */
#include <criterion/criterion.h>

#include "compress/compressor.h"
#include "server/server.h"
#include "server_fixture.h"

static float equal_updates(const sv_client *client, uint64_t round, size_t i)
{
  (void)client, (void)round;
  return (float)((i * 2654435761u >> 7) % 129) / 64.0f - 1.0f;
}

/* No two clients change the same weight. */
static float orthogonal_updates(const sv_client *client, uint64_t round,
                                size_t i)
{
  const size_t own = (size_t)(client->id[0] - 'a');
  return i % 3 == own ? equal_updates(client, round, i) : 0.0f;
}

static float one_is_four_times_as_long(const sv_client *client, uint64_t round,
                                       size_t i)
{
  const float x = orthogonal_updates(client, round, i);
  return client->id[0] == 'a' ? 4.0f * x : x;
}

static void init(sv_world *world, uint32_t rounds)
{
  sv_init(world, NULL, FL_CODEC_THC);
  world->job_options.rounds = rounds;
  world->train = equal_updates;
}

static void begin(sv_world *world)
{
  sv_start(world);
  sv_add_three(world);
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
}

static const fli_job *job_of(const sv_world *world)
{
  return world->server->jobs[0];
}

/* Run to the end; the clip of the last round, which all clients heard. */
static float last_clip(sv_world *world)
{
  begin(world);
  sv_run(world);
  cr_expect(sv_is_finished(world));
  const float clip = world->clients[0].scale.clip;
  for (size_t i = 1; i < 3; i++)
    cr_expect_eq(world->clients[i].scale.clip, clip);
  return clip;
}

static float best(const sv_world *world, double coherence, double spread)
{
  return fl_compressor_best_clip(job_of(world)->compressor, 3, coherence,
                                 spread);
}

/* ---- what it learns ---- */

Test(server_clip, first_round_takes_updates_as_independent)
{
  sv_world world;
  init(&world, 1);
  const float clip = last_clip(&world);
  cr_expect_eq(clip, best(&world, 0.0, 1.0));
  cr_expect_eq(clip, fl_compressor_clip(job_of(&world)->compressor));
  sv_free(&world);
}

static void expect_wide_for_equal_updates(uint32_t mode)
{
  sv_world world;
  init(&world, 2);
  world.codec.thc_mode = mode;
  const float clip = last_clip(&world);
  cr_expect_gt(job_of(&world)->correlation, 0.95, "mode %u: got %g", mode,
               job_of(&world)->correlation);
  cr_expect_geq(clip, best(&world, 0.95, 1.0), "mode %u", mode);
  cr_expect_leq(clip, best(&world, 1.0, 1.0), "mode %u", mode);
  cr_expect_gt(clip, 1.05f * best(&world, 0.0, 1.0), "mode %u", mode);
  sv_free(&world);
}

Test(server_clip, equal_updates_make_it_wide_in_every_mode)
{
  expect_wide_for_equal_updates(FL_THC_UNIFORM);
  expect_wide_for_equal_updates(FL_THC_DITHER);
  expect_wide_for_equal_updates(FL_THC_TABLE);
}

Test(server_clip, orthogonal_updates_leave_it)
{
  sv_world world;
  init(&world, 2);
  world.train = orthogonal_updates;
  const float clip = last_clip(&world);
  cr_expect_lt(job_of(&world)->correlation, 0.05);
  /* Norms differ a little. */
  cr_expect_float_eq(clip, best(&world, 0.0, 1.0), 0.1f);
  sv_free(&world);
}

Test(server_clip, norms_below_the_agreed_ones_make_it_narrow_at_once)
{
  sv_world world;
  init(&world, 1);
  world.train = one_is_four_times_as_long;
  const float clip = last_clip(&world);
  /* One of three is as long as agreed, the others count for nothing. */
  cr_expect_float_eq(clip, best(&world, 0.0, pow(3.0, 0.1)), 0.01f);
  sv_free(&world);
}

/* Weights w = min(1, n / cap) make collinear updates of different length:
 * |mean|^2 / mean |x|^2 = (mean w)^2 / mean w^2. */
Test(server_clip, weights_are_taken_out_of_the_mean)
{
  static const uint64_t samples[] = {10, 40, 80};
  sv_world world;
  double sum = 0.0, squares = 0.0;
  init(&world, 1);
  world.job_options.weight_cap = 80;
  sv_start(&world);
  sv_add(&world, "abe", samples[0]);
  sv_add(&world, "bea", samples[1]);
  sv_add(&world, "cay", samples[2]);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_run(&world);
  for (size_t i = 0; i < 3; i++) {
    sum += (double)samples[i] / 80.0;
    squares += (double)(samples[i] * samples[i]) / 6400.0;
  }
  const double coherence = sum * sum / 9.0 / (squares / 3.0);
  cr_expect_float_eq(job_of(&world)->correlation,
                     fli_clip_correlation(3, coherence), 0.02, "got %g",
                     job_of(&world)->correlation);
  sv_free(&world);
}

Test(server_clip, step_by_the_server_learns_too)
{
  sv_world world;
  init(&world, 2);
  world.job_options.server_momentum = 0.5f;
  const float clip = last_clip(&world);
  cr_expect_gt(job_of(&world)->correlation, 0.95);
  cr_expect_gt(clip, 1.05f * best(&world, 0.0, 1.0));
  sv_free(&world);
}

/* ---- where it does not ---- */

Test(server_clip, option_is_what_every_round_has)
{
  sv_world world;
  init(&world, 3);
  world.codec.clip = 3.25f;
  cr_expect_eq(last_clip(&world), 3.25f);
  sv_free(&world);
}

Test(server_clip, codecs_without_a_grid_have_none)
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_BF16);
  cr_expect_eq(last_clip(&world), 0.0f);
  cr_expect_eq(job_of(&world)->correlation, 0.0);
  sv_free(&world);
}

static uint32_t none_clamped(const sv_client *client, uint64_t block)
{
  (void)client, (void)block;
  return 0;
}

Test(server_clip, announced_norms_come_with_that_of_independent_updates)
{
  sv_world world;
  init(&world, 3);
  world.job_options.scale_mode = FL_SCALE_PUBLIC;
  world.clamped = none_clamped;
  const float clip = last_clip(&world);
  cr_expect_eq(world.clients[0].scale.is_public, 1u);
  cr_expect_eq(world.clients[0].plan.clip, clip);
  cr_expect_eq(clip, best(&world, 0.0, 1.0));
  sv_free(&world);
}

Test(server_clip, round_with_one_update_teaches_nothing)
{
  sv_world world;
  init(&world, 3);
  world.job_options.min_participants = 1;
  world.job_options.min_clients = 1;
  sv_start(&world);
  sv_add(&world, "abe", 10);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  cr_expect_eq(job_of(&world)->correlation, 0.0);
  cr_expect_eq(world.clients[0].scale.clip,
               fl_compressor_clip(job_of(&world)->compressor));
  sv_free(&world);
}

/* ---- liars ---- */

/* One of three reports `value` for every norm in both rounds. */
static void expect_sane_with_liar(float value)
{
  sv_world world;
  float lie[SV_MAX_NORMS];
  for (size_t i = 0; i < SV_MAX_NORMS; i++)
    lie[i] = value;
  init(&world, 2);
  begin(&world);
  for (int round = 0; round < 2; round++) {
    for (size_t i = 0; i < 3; i++)
      sv_pull(&world.clients[i]);
    sv_norm_with(&world.clients[0], lie);
    sv_norm(&world.clients[1]);
    sv_norm(&world.clients[2]);
    for (size_t i = 0; i < 3; i++)
      sv_pull(&world.clients[i]);
    const float clip = world.clients[1].scale.clip;
    /* Reports count at most as agreed, and the median is an honest one. */
    cr_expect_geq(clip, best(&world, 0.0, pow(3.0, 0.1)) - 0.01f, "%g",
                  (double)value);
    cr_expect_leq(clip, best(&world, 1.0, 1.0), "%g", (double)value);
    for (size_t i = 0; i < 3; i++)
      sv_update(&world.clients[i]);
  }
  for (size_t i = 0; i < 3; i++)
    sv_pull(&world.clients[i]);
  cr_expect(sv_is_finished(&world));
  const double correlation = job_of(&world)->correlation;
  cr_expect(correlation >= 0.0 && correlation <= 1.0, "%g: got %g",
            (double)value, correlation);
  sv_free(&world);
}

Test(server_clip, reported_norms_do_not_push_it_out_of_range)
{
  expect_sane_with_liar(0.0f);
  expect_sane_with_liar(0x1p-126f);
  expect_sane_with_liar(0x1p127f);
}

static float no_updates(const sv_client *client, uint64_t round, size_t i)
{
  (void)client, (void)round, (void)i;
  return 0.0f;
}

Test(server_clip, norms_that_are_all_zero_teach_nothing)
{
  sv_world world;
  init(&world, 2);
  world.train = no_updates;
  cr_expect_eq(last_clip(&world), best(&world, 0.0, 1.0));
  cr_expect_eq(job_of(&world)->correlation, 0.0);
  sv_free(&world);
}

/* ---- restart ---- */

Test(server_clip, restored_server_goes_on_with_the_same)
{
  sv_world world;
  init(&world, 3);
  begin(&world);
  for (int step = 0; step < 2; step++) { /* to round 2's updates */
    sv_report(&world, 3);
    for (size_t i = 0; i < 3; i++)
      sv_pull(&world.clients[i]);
    for (size_t i = 0; step == 0 && i < 3; i++)
      sv_update(&world.clients[i]);
  }
  const float clip = world.clients[0].scale.clip;
  const double correlation = job_of(&world)->correlation;
  const double energy = job_of(&world)->energy;
  cr_expect_gt(clip, 1.05f * best(&world, 0.0, 1.0));
  sv_restart(&world);
  cr_expect_eq(job_of(&world)->clip, clip);
  cr_expect_eq(job_of(&world)->correlation, correlation);
  cr_expect_eq(job_of(&world)->energy, energy);
  sv_free(&world);
}

static void expect_not_restored(double correlation, double energy)
{
  sv_world world;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  fl_server *again = NULL;
  init(&world, 2);
  begin(&world);
  world.server->jobs[0]->correlation = correlation;
  world.server->jobs[0]->energy = energy;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_server_save(world.server, &writer), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_expect_eq(fl_server_restore(&again, NULL, NULL, &reader), FL_E_FORMAT);
  cr_expect_not_null(strstr(fl_last_error(), "known of the updates"));
  fl_buffer_free(buffer);
  sv_free(&world);
}

Test(server_clip, knowledge_out_of_range_is_not_restored)
{
  expect_not_restored(-0.5, 1.0);
  expect_not_restored(1.5, 1.0);
  expect_not_restored((double)NAN, 1.0);
  expect_not_restored(0.5, -1.0);
  expect_not_restored(0.5, (double)INFINITY);
}

/* The round as an array of its first ten values: how version 2 wrote it. */
Test(server_clip, square_of_a_difference_is_that_of_all_places)
{
  float a[19], b[19];
  double want = 0.0;
  for (size_t i = 0; i < 19; i++) {
    a[i] = (float)i;
    b[i] = (float)(i * i);
    want += (double)((a[i] - b[i]) * (a[i] - b[i]));
  }
  cr_expect_eq(fli_clip_square(a, b, 19), want);
  cr_expect_eq(fli_clip_square(a, NULL, 3), 5.0);
  cr_expect_eq(fli_clip_square(a, b, 0), 0.0);
}

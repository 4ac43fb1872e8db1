/* SPDX-License-Identifier: Apache-2.0 */
/* SCAFFOLD's controls at the server: the model is what the rule makes of
 * updates and controls, plans name the control that was sent, and controls that
 * are none change nothing. */
#include <criterion/criterion.h>

#include "server_fixture.h"

enum { CLIENTS = 3, ROUNDS = 3, TAIL = 4 * SV_WEIGHTS };

static uint8_t tails[CLIENTS][TAIL];

static float change_of(size_t client, size_t i)
{
  return (float)((i * 7 + client * 13) % 33) / 64.0f - 0.25f;
}

static void begin(sv_world *world, uint32_t codec,
                  const fl_strategy_options *options)
{
  static const char *const ids[CLIENTS] = {"abe", "bea", "cay"};
  sv_init(world, NULL, codec);
  world->job_options.rounds = ROUNDS;
  world->job_options.min_participants = CLIENTS;
  world->job_options.strategy = options;
  sv_start(world);
  for (size_t k = 0; k < CLIENTS; k++) {
    sv_client *client = sv_add(world, ids[k], 10 * (k + 1));
    client->more_capabilities = FLI_CAP_CONTROLS;
    client->tail = tails[k];
    client->n_tail = TAIL;
    for (size_t i = 0; i < SV_WEIGHTS; i++)
      fli_store_f32(tails[k] + 4 * i, change_of(k, i));
  }
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
}

static fl_strategy_options scaffold(uint64_t population)
{
  fl_strategy_options options;
  cr_assert_eq(fl_strategy_options_named(&options, sizeof options, "scaffold"),
               FL_OK);
  options.population = population;
  return options;
}

/* The server's control after `n` rounds, as it travels. */
static void hash_control(uint64_t rounds, uint64_t population,
                         uint8_t hash[FL_HASH_BYTES])
{
  static uint8_t bytes[TAIL];
  float updates[CLIENTS][SV_WEIGHTS] = {{0.0f}};
  float changes[CLIENTS][SV_WEIGHTS], weights[SV_WEIGHTS] = {0.0f};
  const float *rows[CLIENTS], *controls[CLIENTS], *control = NULL;
  const fl_strategy_options options = scaffold(population);
  fl_strategy *strategy = NULL;
  fl_strategy_round round;
  uint64_t n = 0;
  cr_assert_eq(fl_strategy_new(&strategy, NULL, &options, SV_WEIGHTS), FL_OK);
  cr_assert_eq(fl_strategy_round_init(&round, sizeof round), FL_OK);
  for (size_t k = 0; k < CLIENTS; k++) {
    for (size_t i = 0; i < SV_WEIGHTS; i++)
      changes[k][i] = change_of(k, i);
    rows[k] = updates[k];
    controls[k] = changes[k];
  }
  round.count = CLIENTS;
  round.rows = rows;
  round.control_rows = controls;
  for (uint64_t r = 0; r < rounds; r++)
    cr_assert_eq(fl_strategy_step(strategy, &round, weights, SV_WEIGHTS),
                 FL_OK);
  cr_assert_eq(fl_strategy_get_control(strategy, &control, &n), FL_OK);
  for (size_t i = 0; i < SV_WEIGHTS; i++)
    fli_store_f32(bytes + 4 * i, control[i]);
  fli_hash(hash, bytes, sizeof bytes);
  fl_strategy_free(strategy);
}

Test(server_controls, plans_name_the_control_that_the_rounds_have_made)
{
  const uint32_t codecs[] = {FL_CODEC_F32, FL_CODEC_THC};
  for (size_t c = 0; c < 2; c++) {
    const fl_strategy_options options = scaffold(9);
    sv_world world;
    uint8_t hash[FL_HASH_BYTES];
    begin(&world, codecs[c], &options);
    for (uint64_t done = 0; done < ROUNDS; done++) {
      hash_control(done, 9, hash);
      for (size_t k = 0; k < CLIENTS; k++)
        sv_pull(&world.clients[k]);
      for (size_t k = 0; k < CLIENTS; k++) {
        sv_client *client = &world.clients[k];
        cr_assert(client->has_plan);
        cr_assert_eq(client->plan.has_control, 1);
        cr_expect_arr_eq(client->plan.control_hash, hash, sizeof hash,
                         "codec %u, after %u", codecs[c], (unsigned)done);
        cr_expect_arr_eq(client->probe_hash, hash, sizeof hash);
        sv_answer(client);
      }
      for (size_t k = 0; k < CLIENTS; k++)
        sv_pull(&world.clients[k]);
      for (size_t k = 0; k < CLIENTS; k++)
        sv_answer(&world.clients[k]);
    }
    cr_expect(sv_status(&world).is_finished);
    sv_free(&world);
  }
}

Test(server_controls, one_who_returns_gets_the_control_again)
{
  const fl_strategy_options options = scaffold(0);
  sv_world world;
  uint8_t hash[FL_HASH_BYTES];
  begin(&world, FL_CODEC_F32, &options);
  sv_client *client = &world.clients[1];
  sv_pull(client);
  hash_control(0, 0, hash);
  cr_expect_arr_eq(client->probe_hash, hash, sizeof hash);
  memset(client->probe_hash, 0, sizeof hash);
  sv_lose(client);
  sv_return(client);
  sv_pull(client);
  cr_expect_arr_eq(client->probe_hash, hash, sizeof hash);
  cr_expect(client->has_plan);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

/* To where the scale is there for all. */
static void to_scale(sv_world *world)
{
  for (size_t k = 0; k < CLIENTS; k++)
    sv_pull(&world->clients[k]);
  for (size_t k = 0; k < CLIENTS; k++)
    sv_answer(&world->clients[k]);
  for (size_t k = 0; k < CLIENTS; k++)
    sv_pull(&world->clients[k]);
}

Test(server_controls, controls_that_are_none_are_refused_and_may_come_again)
{
  const fl_strategy_options options = scaffold(0);
  static uint8_t bad[TAIL];
  sv_world world;
  begin(&world, FL_CODEC_F32, &options);
  to_scale(&world);
  sv_client *client = &world.clients[0];
  client->has_plan = client->has_scale = 0;
  const uint32_t sizes[] = {0, TAIL - 4, TAIL};
  const uint32_t reasons[] = {FL_REJECT_FORMAT, FL_REJECT_FORMAT,
                              FL_REJECT_RANGE};
  memcpy(bad, tails[0], sizeof bad);
  fli_store_f32(bad + TAIL - 4, NAN);
  client->tail = bad;
  for (size_t i = 0; i < 3; i++) {
    client->n_tail = sizes[i];
    sv_clear(client);
    sv_update(client);
    sv_pull(client);
    cr_expect_eq(client->ack.reason, reasons[i], "%zu: %u", i,
                 client->ack.reason);
    cr_expect_eq(sv_status(&world).accepted, 0u);
  }
  client->tail = tails[0];
  sv_update(client);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_NONE);
  sv_run(&world);
  cr_expect(sv_is_finished(&world));
  sv_free(&world);
}

/* Other jobs know no such thing. */
Test(server_controls, a_control_in_another_job_is_refused)
{
  sv_world world;
  begin(&world, FL_CODEC_F32, NULL);
  to_scale(&world);
  sv_client *client = &world.clients[0];
  client->has_plan = client->has_scale = 0;
  sv_update(client);
  sv_pull(client);
  cr_expect_eq(client->ack.reason, (uint32_t)FL_REJECT_FORMAT);
  sv_free(&world);
}

Test(server_controls, who_does_not_know_controls_is_not_asked)
{
  const fl_strategy_options options = scaffold(0);
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.job_options.strategy = &options;
  world.job_options.min_clients = 1;
  sv_start(&world);
  sv_add(&world, "old", 10);
  sv_join(&world);
  sv_tick(&world, SV_SECOND_NS);
  cr_expect_eq(sv_status(&world).round, 0u);
  sv_free(&world);
}

/* Killed between any two steps, with a store that has it all. */
static void run_killed(size_t kill_at, size_t *n_steps,
                       float weights[SV_WEIGHTS])
{
  const fl_strategy_options options = scaffold(9);
  sv_world world;
  begin(&world, FL_CODEC_F32, &options);
  const size_t steps = sv_play_killed(&world, kill_at);
  cr_assert_eq(
      fl_server_copy_weights(world.server, 0, weights, SV_WEIGHTS, NULL),
      FL_OK);
  *n_steps = steps;
  sv_free(&world);
}

Test(server_controls, killed_after_any_step_ends_with_the_same_model)
{
  float want[SV_WEIGHTS], got[SV_WEIGHTS];
  size_t steps = 0, ignored = 0;
  run_killed(SIZE_MAX, &steps, want);
  for (size_t at = 0; at < steps; at += 2) {
    run_killed(at, &ignored, got);
    cr_assert_arr_eq(got, want, sizeof want, "killed at %zu", at);
  }
}

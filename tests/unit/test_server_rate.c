/* SPDX-License-Identifier: Apache-2.0 */
/* The clients' learning rate, round by round. */
#include <criterion/criterion.h>

#include "server_fixture.h"

enum { RATES = 5 };

static float rates[RATES + 1]; /* by round */

static float note_rate(const sv_client *client, uint64_t round, size_t i)
{
  cr_assert_leq(round, (uint64_t)RATES);
  rates[round] = client->plan.learning_rate;
  return sv_train(client, round, i);
}

static void check_rates(uint32_t schedule, uint32_t period, uint32_t warmup,
                        const float want[RATES])
{
  sv_world world;
  sv_init(&world, NULL, FL_CODEC_F32);
  world.train = note_rate;
  world.job_options.rounds = RATES;
  world.job_options.learning_rate = 0.8f;
  world.job_options.rate_schedule = schedule;
  world.job_options.rate_period = period;
  world.job_options.rate_warmup = warmup;
  world.job_options.rate_factor = 0.5f;
  sv_start(&world);
  sv_add_three(&world);
  sv_join(&world);
  sv_run(&world);
  cr_assert(sv_is_finished(&world));
  for (uint32_t i = 0; i < RATES; i++)
    cr_expect_float_eq(rates[i + 1], want[i], 1e-7, "round %u: got %g, want %g",
                       i + 1, (double)rates[i + 1], (double)want[i]);
  sv_free(&world);
}

Test(server_round, rate_is_constant_by_default)
{
  check_rates(FL_SCHEDULE_CONSTANT, 0, 0,
              (const float[]){0.8f, 0.8f, 0.8f, 0.8f, 0.8f});
}

Test(server_round, rate_follows_its_schedule_after_the_warmup)
{
  check_rates(FL_SCHEDULE_COSINE, 4, 0,
              (const float[]){0.8f, 0.7414214f, 0.6f, 0.4585786f, 0.4f});
  check_rates(
      FL_SCHEDULE_COSINE, 0, 0,
      (const float[]){0.8f, 0.7618034f, 0.6618034f, 0.5381966f, 0.4381966f});
  check_rates(FL_SCHEDULE_STEP, 2, 0,
              (const float[]){0.8f, 0.8f, 0.4f, 0.4f, 0.2f});
  check_rates(FL_SCHEDULE_CONSTANT, 0, 4,
              (const float[]){0.2f, 0.4f, 0.6f, 0.8f, 0.8f});
}

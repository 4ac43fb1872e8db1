/* SPDX-License-Identifier: Apache-2.0 */
/* Schedules of learning rates. An aggregator tells its clients what a round's
 * rate is, and its rounds are the same bits on every machine: so are these. */
#include "model/schedule.h"

#include <assert.h>

#include <fl/train.h>

#include "base/dmath.h"

/* By squaring; beyond 2^-1074 it stays 0. */
static double power(double x, uint64_t n)
{
  double result = 1.0;
  for (; n > 0; n >>= 1) {
    if (n & 1) result *= x;
    x *= x;
  }
  return result;
}

static double share_at(const fli_schedule *schedule, uint64_t t)
{
  const double factor = (double)schedule->factor;
  if (schedule->kind == FL_SCHEDULE_CONSTANT) return 1.0;
  assert(schedule->period > 0);
  if (schedule->kind == FL_SCHEDULE_STEP)
    return power(factor, t / schedule->period);
  const double part =
      t < schedule->period ? (double)t / (double)schedule->period : 1.0;
  return factor + (1.0 - factor) * 0.5 * (1.0 + fli_cos_pi(part));
}

float fli_schedule_at(const fli_schedule *schedule, uint64_t t)
{
  double rate = (double)schedule->rate * share_at(schedule, t);
  if (t < schedule->warmup) rate *= ((double)t + 1.0) / schedule->warmup;
  return (float)rate;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Plasticity, the criterion of Egeria (Wang et al., EuroSys 2023, section 4.2):
 * P is smoothed over 3 evaluations; the slope of the least-squares line through
 * the last `window` of those has to stay below `tolerance` of the greatest one
 * among the first window + 2 evaluations of the module, `patience` times
 * running. */
#include "freeze/freeze.h"

#include <math.h>

enum { SMOOTHED = 3, SLOPE_MIN = 3 };

double fli_freeze_slope(const double *values, uint32_t n)
{
  double sum = 0, moment = 0;
  const double w = n;
  for (uint32_t i = 0; i < n; i++) {
    sum += values[i];
    moment += i * values[i];
  }
  return (12 * moment - 6 * (w - 1) * sum) / (w * (w * w - 1));
}

static uint32_t wants(const fl_freeze *freeze)
{
  return fli_freeze_is_due(freeze, 0) ? FL_FREEZE_WANTS_PAIR : 0;
}

static double slope(const fli_freeze_state *state)
{
  double smoothed[FLI_FREEZE_WINDOW_MAX];
  const uint32_t n = state->n_values - (SMOOTHED - 1);
  for (uint32_t i = 0; i < n; i++)
    smoothed[i] = fli_freeze_mean(state->values + i, SMOOTHED);
  return fabs(fli_freeze_slope(smoothed, n));
}

static int take(fl_freeze *freeze, fli_evaluation *e)
{
  fli_freeze_state *state = &freeze->state;
  if (freeze->shown.front < 0) return 0;
  e->module = state->decided;
  e->raw = freeze->shown.front;
  e->value = NAN;
  e->threshold = NAN;
  fli_freeze_remember(state, e->raw, 0, state->window + (SMOOTHED - 1));
  if (state->n_values < SLOPE_MIN + SMOOTHED - 1) return 1;
  e->value = slope(state);
  if (state->n_evaluations <= (uint64_t)state->window + 2) {
    if (e->value > state->peak) state->peak = e->value;
    return 1;
  }
  e->threshold = (double)freeze->options.tolerance * state->peak;
  fli_freeze_count(state, fli_freeze_is_below(e->value, e->threshold));
  return 1;
}

const fli_criterion fli_criterion_plasticity = {.wants = wants,
                                                .take = take,
                                                .has_bootstrapping = 1,
                                                .is_half_reported = 1};

/* SPDX-License-Identifier: Apache-2.0 */
/* How much the front module's gradient changes from one step to the next (after
 * AutoFreeze, Liu et al. 2021, and GradES): D = |g_t - g_(t-1)|. The mean of
 * the last `window` D has to stay below `tolerance` of the greatest one among
 * the first 2 `window` evaluations, `patience` times running. It costs no
 * forward pass and no copy of the model, only one gradient for one step.
 *
 * Also what all criteria share: the values that are kept, and the count. */
#include "freeze/freeze.h"

#include <math.h>
#include <string.h>

int fli_freeze_is_due(const fl_freeze *freeze, uint64_t steps_before)
{
  const fl_freeze_options *o = &freeze->options;
  if (freeze->state.decided >= o->max_frozen) return 0;
  return (freeze->state.step + 1 + steps_before) % o->interval == 0;
}

void fli_freeze_remember(fli_freeze_state *state, double value, double other,
                         uint32_t keep)
{
  if (state->n_values >= keep) {
    const uint32_t gone = state->n_values - keep + 1;
    const size_t size = (keep - 1) * sizeof *state->values;
    memmove(state->values, state->values + gone, size);
    memmove(state->others, state->others + gone, size);
    state->n_values = keep - 1;
  }
  state->values[state->n_values] = value;
  state->others[state->n_values++] = other;
  state->n_evaluations++;
}

void fli_freeze_count(fli_freeze_state *state, int is_below)
{
  if (!is_below) {
    state->below = 0;
  } else if (state->below < UINT32_MAX) {
    state->below++;
  }
}

int fli_freeze_is_below(double value, double threshold)
{
  return value < threshold || value == 0;
}

double fli_freeze_mean(const double *values, uint32_t n)
{
  double sum = 0;
  for (uint32_t i = 0; i < n; i++)
    sum += values[i];
  return sum / n;
}

static uint32_t wants(const fl_freeze *freeze)
{
  if (fli_freeze_is_due(freeze, 1)) return FL_FREEZE_WANTS_GRADIENT;
  /* Without the step before, of this module, there is nothing to compare. */
  if (fli_freeze_is_due(freeze, 0) && freeze->state.is_pair)
    return FL_FREEZE_WANTS_GRADIENT;
  return 0;
}

static int take(fl_freeze *freeze, fli_evaluation *e)
{
  fli_freeze_state *state = &freeze->state;
  if (!freeze->has_change) return 0;
  e->module = state->decided;
  e->raw = sqrt(freeze->change);
  fli_freeze_remember(state, e->raw, 0, state->window);
  e->value = fli_freeze_mean(state->values, state->n_values);
  e->threshold = NAN;
  if (state->n_evaluations <= 2 * (uint64_t)state->window) {
    if (e->value > state->peak) state->peak = e->value;
    return 1;
  }
  e->threshold = (double)freeze->options.tolerance * state->peak;
  fli_freeze_count(state, fli_freeze_is_below(e->value, e->threshold));
  return 1;
}

const fli_criterion fli_criterion_gradnorm = {
    .wants = wants, .take = take, .has_bootstrapping = 1};

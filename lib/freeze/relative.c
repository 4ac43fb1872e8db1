/* SPDX-License-Identifier: Apache-2.0 */
/* Plasticity of the front module over that of the last one at the same moment:
 * both follow the square of the learning rate and the noise of the batch, their
 * ratio does not. Medians of the last `window`, as single values are wild. The
 * last one itself has nothing to be compared with, and never freezes. */
#include "freeze/freeze.h"

#include <math.h>

static uint32_t wants(const fl_freeze *freeze)
{
  if (freeze->state.decided >= fli_freeze_last(freeze)) return 0;
  return fli_freeze_is_due(freeze, 0)
             ? FL_FREEZE_WANTS_PAIR | FL_FREEZE_WANTS_LAST_PAIR
             : 0;
}

static int take(fl_freeze *freeze, fli_evaluation *e)
{
  fli_freeze_state *state = &freeze->state;
  if (freeze->shown.front < 0 || freeze->shown.last < 0) return 0;
  e->module = state->decided;
  e->raw = freeze->shown.front;
  e->value = NAN;
  e->threshold = NAN;
  fli_freeze_remember(state, e->raw, freeze->shown.last, state->window);
  if (state->n_values < state->window) return 1;
  const double front = fli_median(state->values, state->n_values);
  const double last = fli_median(state->others, state->n_values);
  if (last > 0) e->value = front / last;
  e->threshold = (double)freeze->options.tolerance;
  fli_freeze_count(state, front < e->threshold * last);
  return 1;
}

const fli_criterion fli_criterion_relative = {.wants = wants,
                                              .take = take,
                                              .has_bootstrapping = 1,
                                              .is_half_reported = 1};

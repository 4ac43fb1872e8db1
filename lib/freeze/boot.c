/* SPDX-License-Identifier: Apache-2.0 */
/* What losses and learning rates say, whatever the criterion.
 *
 * A loss that has not begun to fall changes as little as one that has stopped:
 * so the bootstrapping phase ends only when the loss is also well below its
 * first values (or, in a job from a trained model, whose loss may have nowhere
 * to fall, after a part of its steps).
 *
 * A rate that falls to a tenth shows modules noise that a larger one drowned,
 * and a rate that rises again (warm restart) moves what had settled: both are
 * reasons to train everything again. */
#include "freeze/freeze.h"

#include <float.h>
#include <math.h>

enum { FIRST_LOSSES = 3 };

/* A tenth, and what rates rounded to float32 may be off by. */
#define RATE_FELL .1001
#define RATE_ROSE 2.0

static int is_on_its_way(fli_freeze_state *state, const fl_freeze_options *o)
{
  const uint64_t window = 2 * o->interval;
  if (state->n_losses % window != 0) return 0;
  const double now = state->window_losses / (double)window;
  const double before = state->last_mean;
  const int is_first = state->n_losses == window;
  state->window_losses = 0;
  state->last_mean = now;
  if (is_first) return 0;
  return fabs(before - now) < (double)o->loss_change * fabs(before) &&
         now < (double)o->loss_level * (state->first_losses / FIRST_LOSSES);
}

int fli_freeze_is_near(const fl_freeze *freeze, uint64_t steps)
{
  const fl_freeze_options *o = &freeze->options;
  return o->is_pretrained &&
         (double)(freeze->state.step + steps) >=
             (double)o->pretrained_share * (double)o->total_steps;
}

/* Of losses that are finite; a state has no sum that is not. */
static double add(double sum, double loss)
{
  const double more = sum + loss;
  if (more > DBL_MAX) return DBL_MAX;
  return more < -DBL_MAX ? -DBL_MAX : more;
}

void fli_freeze_boot(fl_freeze *freeze, double loss)
{
  fli_freeze_state *state = &freeze->state;
  const fl_freeze_options *o = &freeze->options;
  if (state->is_booted) return;
  state->n_losses++;
  if (state->n_losses <= FIRST_LOSSES)
    state->first_losses = add(state->first_losses, loss);
  state->window_losses = add(state->window_losses, loss);
  if (!is_on_its_way(state, o) && !fli_freeze_is_near(freeze, 0)) return;
  state->is_booted = 1;
  fli_freeze_emit(freeze, FL_FREEZE_BOOTED, state->step);
}

uint32_t fli_freeze_unfreeze_reason(const fl_freeze *freeze, double rate)
{
  const fli_freeze_state *state = &freeze->state;
  if (!state->has_frozen || state->decided == fli_freeze_front(freeze, 0))
    return 0;
  if (freeze->options.unfreezes && rate <= RATE_FELL * state->rate_at_freeze)
    return FL_FREEZE_REASON_RATE_FELL;
  if (rate > state->lowest_rate && rate >= RATE_ROSE * state->lowest_rate)
    return FL_FREEZE_REASON_RESTART;
  return 0;
}

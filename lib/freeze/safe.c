/* SPDX-License-Identifier: Apache-2.0 */
/* SAFE (Son et al., "Not All Adapters Matter: Selective Adapter Freezing for
 * Memory-Efficient Fine-Tuning of Language Models", 2024): an adapter that
 * leaves features as they are, by linear CKA, need not be trained. Importance
 * I = 1 - CKA is the mean over the evaluations of the warm-up, steps 0 .. t_w -
 * 1; from t_w to t_f every module with I < tau(t) is frozen for good,
 *
 *   tau(t) = tau_T (1 - (1 - (t - t_w) / (t_f - t_w))^3),
 *
 * tau_T = the largest I that at most half of the measured modules are below: so
 * at most half of them freeze. Backward stops below the lowest adapter that is
 * trained: the contiguous front is first_active. */
#include "freeze/freeze.h"

#include <math.h>
#include <string.h>

static uint64_t share_of(const fl_freeze_options *o, float share)
{
  return (uint64_t)floor((double)share * (double)o->total_steps);
}

static uint32_t wants(const fl_freeze *freeze)
{
  const fl_freeze_options *o = &freeze->options;
  const uint64_t step = freeze->state.step;
  if (step >= share_of(o, o->warmup_share)) return 0;
  return (step + 1) % o->interval == 0 ? FL_FREEZE_WANTS_FEATURES : 0;
}

/* Each module is an evaluation of its own: told of here, so that nothing is
 * left for the caller to compare. */
static int take(fl_freeze *freeze, fli_evaluation *e)
{
  fli_importance *importance = freeze->state.importance;
  for (uint32_t i = 0; i < freeze->options.max_frozen; i++) {
    if (freeze->features[i] < 0) continue;
    importance[i].sum += freeze->features[i];
    importance[i].n++;
    e->module = i;
    e->raw = freeze->features[i];
    e->value = importance[i].sum / (double)importance[i].n;
    e->threshold = NAN;
    fli_freeze_emit_evaluation(freeze, e, freeze->state.step - 1);
  }
  return 0;
}

/* tau_T; 0 when nothing was measured. */
static double last_threshold(const fl_freeze *freeze)
{
  const fli_importance *importance = freeze->state.importance;
  const uint32_t n = freeze->options.max_frozen;
  uint32_t measured = 0;
  for (uint32_t i = 0; i < n; i++)
    measured += importance[i].n > 0;
  double best = 0;
  /* The value of rank measured / 2: as many are below it at most. */
  for (uint32_t i = 0; i < n; i++) {
    if (importance[i].n == 0) continue;
    const double value = importance[i].sum / (double)importance[i].n;
    uint32_t below = 0;
    for (uint32_t k = 0; k < n; k++)
      below += importance[k].n > 0 &&
               importance[k].sum / (double)importance[k].n < value;
    if (below <= measured / 2 && value > best) best = value;
  }
  return best;
}

/* Importance does not change after the warm-up. */
static double threshold(fl_freeze *freeze, uint64_t from, uint64_t to)
{
  const uint64_t step = freeze->state.step;
  if (freeze->last_threshold < 0)
    freeze->last_threshold = last_threshold(freeze);
  if (step >= to) return freeze->last_threshold;
  const double left = 1 - (double)(step - from) / (double)(to - from);
  return freeze->last_threshold * (1 - left * left * left);
}

static void begin(fl_freeze *freeze)
{
  const fl_freeze_options *o = &freeze->options;
  fli_freeze_state *state = &freeze->state;
  const fli_importance *importance = state->importance;
  const uint64_t from = share_of(o, o->warmup_share);
  const uint64_t to = share_of(o, o->until_share);
  const int is_last = state->step == to;
  if (state->step < from || state->step > to || state->step < o->hold) return;
  if (!is_last && state->step % o->interval != 0) return;
  const double tau = threshold(freeze, from, to);
  memcpy(freeze->mask, state->frozen, freeze->n_modules);
  for (uint32_t i = 0; i < o->max_frozen; i++) {
    if (importance[i].n == 0) continue;
    if (importance[i].sum / (double)importance[i].n < tau) freeze->mask[i] = 1;
  }
  state->decided = 0;
  while (state->decided < o->max_frozen &&
         (freeze->mask[state->decided] || freeze->empty[state->decided]))
    state->decided++;
  fli_freeze_publish(freeze, freeze->mask, FL_FREEZE_REASON_CRITERION);
}

const fli_criterion fli_criterion_safe = {
    .wants = wants, .take = take, .begin = begin};

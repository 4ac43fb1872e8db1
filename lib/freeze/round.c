/* SPDX-License-Identifier: Apache-2.0 */
/* The aggregator's half: clients tell one number of the front module each, and
 * all have to train the same modules, so what counts is what most of them see.
 * A median, and a share of 70 % of the weight, leave a minority of liars
 * without a say. */
#include "freeze/freeze.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"

/* Weights up to it are added without rounding when they are whole. */
#define WEIGHT_MAX 0x1p53
/* A share of 7 in 10, so that it is exact for whole weights. */
enum { SHARE_OF = 10, SHARE = 7 };

/* Reports may be longer than ours, by the size that the first one names. */
static fl_status read_reports(const fl_freeze *freeze,
                              const fl_freeze_report *reports, uint32_t n,
                              fli_weighted *out, uint32_t *n_out)
{
  const uint8_t *at = (const uint8_t *)reports;
  uint32_t stride = 0;
  *n_out = 0;
  for (uint32_t i = 0; i < n; i++, at += stride) {
    fl_freeze_report report = {.weight = 1};
    uint32_t size;
    memcpy(&size, at, sizeof size);
    fl_status st =
        fli_options_load(&report, sizeof report, at, "freeze report");
    if (st != FL_OK) return st;
    if (i > 0 && size != stride) {
      return fli_error(FL_E_OPTIONS,
                       "freeze report: struct_size, got %u at "
                       "%u, want %u as before",
                       size, i, stride);
    }
    stride = size;
    if (report.module != freeze->state.decided || !isfinite(report.value) ||
        report.value < 0 || !(report.weight > 0) || report.weight > WEIGHT_MAX)
      continue;
    out[(*n_out)++] = (fli_weighted){report.value, report.weight};
  }
  return FL_OK;
}

/* Whether a client with this value would say that the module has learned
 * enough. */
static int is_below(const fl_freeze *freeze, double value, double threshold)
{
  const fli_freeze_state *state = &freeze->state;
  double line[FLI_FREEZE_VALUES];
  if (freeze->options.criterion == FL_FREEZE_GRADNORM)
    return fli_freeze_is_below(value, threshold);
  /* The last one remembered is this round's median. */
  memcpy(line, state->values, state->n_values * sizeof *line);
  line[state->n_values - 1] = value;
  return fli_freeze_is_below(fabs(fli_freeze_slope(line, state->n_values)),
                             threshold);
}

static int is_majority_below(const fl_freeze *freeze, const fli_weighted *items,
                             uint32_t n, double threshold)
{
  double weight = 0;
  for (uint32_t i = 0; i < n; i++) {
    if (is_below(freeze, items[i].value, threshold)) weight += items[i].weight;
  }
  return SHARE_OF * weight >= SHARE * fli_weighted_total(items, n);
}

/* |slope| of the medians, two at least. Values may be as great as they like: a
 * state has no peak that is not finite. */
static double slope(const fli_freeze_state *state)
{
  const double value = fabs(fli_freeze_slope(state->values, state->n_values));
  return isfinite(value) ? value : DBL_MAX;
}

static void evaluate(fl_freeze *freeze, fli_weighted *items, uint32_t n)
{
  fli_freeze_state *state = &freeze->state;
  const int is_slope = freeze->options.criterion == FL_FREEZE_PLASTICITY;
  fli_evaluation e = {.module = state->decided, .threshold = NAN};
  fli_weighted_sort(items, n);
  e.raw = fli_weighted_median(items, n);
  fli_freeze_remember(state, e.raw, 0, state->window);
  e.value = e.raw;
  if (is_slope) e.value = state->n_values < 2 ? NAN : slope(state);
  /* The first median has no slope. */
  if (state->n_evaluations <= FLI_FREEZE_ROUNDS + (is_slope ? 1U : 0U)) {
    if (e.value > state->peak) state->peak = e.value;
  } else {
    e.threshold = (double)freeze->options.tolerance * state->peak;
    fli_freeze_count(state, is_majority_below(freeze, items, n, e.threshold));
  }
  fli_freeze_emit_evaluation(freeze, &e, state->step - 1);
}

static void end(fl_freeze *freeze, double loss, fli_weighted *items, uint32_t n)
{
  fli_freeze_state *state = &freeze->state;
  const int is_known = isfinite(loss);
  state->step++;
  if (is_known) {
    fli_freeze_boot(freeze, loss);
  } else if (state->step == 1 && !state->is_booted) {
    /* Who does not know the first one will not know the others. */
    state->is_booted = 1;
    fli_freeze_emit(freeze, FL_FREEZE_BOOTED, state->step);
  }
  if (n == 0 || state->decided >= freeze->options.max_frozen) return;
  /* Drawn weights begin with gradients that say nothing of later ones, and so
   * does a drawn head: of bootstrapping only the last rounds count. */
  if (!state->is_booted && !fli_freeze_is_near(freeze, FLI_FREEZE_ROUNDS - 1))
    return;
  evaluate(freeze, items, n);
  if (!state->is_booted) return;
  fli_freeze_consider(freeze);
  fli_freeze_publish(freeze, NULL, FL_FREEZE_REASON_CRITERION);
}

fl_status fl_freeze_end_round(fl_freeze *freeze, double loss,
                              const fl_freeze_report *reports,
                              uint32_t n_reports)
{
  fl_status st = FL_OK;
  uint32_t n = 0;
  fli_clear_error();
  if (!freeze || (!reports && n_reports > 0)) {
    return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  }
  if (!freeze->is_aggregator) {
    return fli_error(FL_E_STATE, "freeze: has steps, not rounds");
  }
  const size_t size = n_reports * sizeof(fli_weighted);
  fli_weighted *items = fli_alloc(freeze->context, size, 1);
  if (!items) return fli_nomem(size);
  FLI_TRY(read_reports(freeze, reports, n_reports, items, &n));
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  end(freeze, loss, items, n);
  fli_fpguard_leave(&guard);
out:
  fli_free(freeze->context, items, size);
  return st;
}

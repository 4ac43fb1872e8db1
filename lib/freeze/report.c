/* SPDX-License-Identifier: Apache-2.0 */
/* What a client tells of a round: one number. Of plasticity, which falls within
 * a round, the later half of the evaluations counts. */
#include "freeze/freeze.h"

#include <string.h>

#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"

void fli_freeze_drop_report(fli_freeze_state *state)
{
  state->n_reported = 0;
  state->reported = 0;
  state->n_recent = 0;
}

void fli_freeze_report_evaluation(fl_freeze *freeze, double raw)
{
  fli_freeze_state *state = &freeze->state;
  state->n_reported++;
  state->reported += raw;
  if (!freeze->criterion->is_half_reported) return;
  if (state->n_recent == FLI_FREEZE_RECENT) {
    state->n_recent--;
    memmove(state->recent, state->recent + 1,
            state->n_recent * sizeof *state->recent);
  }
  state->recent[state->n_recent++] = raw;
}

static double mean_of_round(const fl_freeze *freeze)
{
  const fli_freeze_state *state = &freeze->state;
  if (!freeze->criterion->is_half_reported)
    return state->reported / (double)state->n_reported;
  const uint32_t first = state->n_recent / 2;
  return fli_freeze_mean(state->recent + first, state->n_recent - first);
}

fl_status fl_freeze_report_init(fl_freeze_report *report, size_t size)
{
  static const fl_freeze_report defaults = {.weight = 1};
  return fli_options_init(report, size, &defaults, sizeof defaults);
}

fl_status fl_freeze_take_report(fl_freeze *freeze, fl_freeze_report *report)
{
  fli_clear_error();
  if (!freeze || !report) return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  fli_freeze_drop_seen(freeze);
  if (freeze->state.n_reported == 0) {
    return fli_error(FL_E_EMPTY, "freeze: nothing was measured");
  }
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  fl_freeze_report taken = {.module = freeze->state.decided,
                            .value = mean_of_round(freeze),
                            .weight = 1};
  fli_fpguard_leave(&guard);
  fl_status st = fli_options_store(report, &taken, sizeof taken, "report");
  if (st == FL_OK) fli_freeze_drop_report(&freeze->state);
  return st;
}

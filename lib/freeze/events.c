/* SPDX-License-Identifier: Apache-2.0 */
/* What happened, in a ring: a host that never asks loses the oldest events and
 * nothing else. Texts are written when an event is taken. */
#include "freeze/freeze.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/compiler.h"
#include "base/error.h"
#include "base/options.h"

static const char *const reasons[] = {
    "nothing was frozen yet", "the criterion is met",
    "the schedule says so",   "the server says so",
    "the learning rate fell", "the learning rate rose again",
};

fl_freeze_event *fli_freeze_emit(fl_freeze *freeze, uint32_t kind,
                                 uint64_t step)
{
  const fli_freeze_state *state = &freeze->state;
  if (freeze->n_events == FLI_FREEZE_EVENTS) {
    freeze->first_event = (freeze->first_event + 1) % FLI_FREEZE_EVENTS;
    freeze->n_events--;
  }
  fl_freeze_event *event =
      &freeze->events[(freeze->first_event + freeze->n_events++) %
                      FLI_FREEZE_EVENTS];
  *event = (fl_freeze_event){.kind = kind,
                             .step = step,
                             .module = state->decided,
                             .value = NAN,
                             .threshold = NAN,
                             .raw = NAN,
                             .first_active = state->first_active,
                             .reason = state->reason,
                             .version = state->version};
  return event;
}

void fli_freeze_emit_evaluation(fl_freeze *freeze, const fli_evaluation *e,
                                uint64_t step)
{
  fl_freeze_event *event = fli_freeze_emit(freeze, FL_FREEZE_EVALUATED, step);
  event->module = e->module;
  event->value = e->value;
  event->threshold = e->threshold;
  event->raw = e->raw;
  event->below = freeze->state.below;
}

static void write_text(char *text, size_t size, const fl_freeze_event *event)
{
  switch (event->kind) {
  case FL_FREEZE_EVALUATED:
    (void)snprintf(text, size, "module %u: %g, threshold %g, below it %u times",
                   event->module, event->value, event->threshold, event->below);
    break;
  case FL_FREEZE_BOOTED:
    (void)snprintf(text, size, "the bootstrapping phase is over");
    break;
  default:
    (void)snprintf(
        text, size, "modules below %u are frozen: %s", event->first_active,
        event->reason < FLI_COUNT_OF(reasons) ? reasons[event->reason] : "?");
    break;
  }
}

fl_status fl_freeze_event_init(fl_freeze_event *event, size_t size)
{
  static const fl_freeze_event defaults = {.text = ""};
  return fli_options_init(event, size, &defaults, sizeof defaults);
}

fl_status fl_freeze_poll(fl_freeze *freeze, fl_freeze_event *event)
{
  fli_clear_error();
  if (!freeze || !event) return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  if (freeze->n_events == 0) {
    return fli_error(FL_E_EMPTY, "freeze: no event");
  }
  fl_freeze_event taken = freeze->events[freeze->first_event];
  write_text(freeze->text, sizeof freeze->text, &taken);
  taken.text = freeze->text;
  fl_status st = fli_options_store(event, &taken, sizeof taken, "event");
  if (st != FL_OK) return st;
  freeze->first_event = (freeze->first_event + 1) % FLI_FREEZE_EVENTS;
  freeze->n_events--;
  return FL_OK;
}

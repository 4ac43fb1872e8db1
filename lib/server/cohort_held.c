/* SPDX-License-Identifier: Apache-2.0 */
/* APART: what the set decides is followed in order, but a change of cohorts of
 * which one is in the middle of something waits for that to end. Until then no
 * other of the change, or of one behind it that names any of these, begins
 * anything. All that a leaf is at ends by a deadline of the job's options, and
 * waits for nothing that is held, so what is held waits no longer than that. */
#include "server/cohorts.h"

#include <string.h>

#include "base/error.h"

int fli_held_is_end(const fl_cohort_event *event)
{
  return event->kind == FL_COHORT_UNDONE || event->kind == FL_COHORT_MERGED ||
         event->kind == FL_COHORT_MOVED;
}

int fli_held_is_birth(const fl_cohort_event *event)
{
  return event->kind == FL_COHORT_TRIAL || event->kind == FL_COHORT_SPLIT;
}

static uint64_t bits_of(const fl_cohort_event *event)
{
  return UINT64_C(1) << event->cohort | UINT64_C(1) << event->child;
}

uint64_t fli_held_mask(const fli_job *front)
{
  const fli_cohorts *cohorts = front->cohorts;
  uint64_t mask = 0;
  for (uint32_t i = 0; i < cohorts->n_held; i++)
    mask |= bits_of(&cohorts->held[i]);
  return mask;
}

/* A number that was given to another since is still that of the old one here.
 */
int fli_held_has_ended(const fli_job *front, uint32_t cohort)
{
  const fli_cohorts *cohorts = front->cohorts;
  for (uint32_t i = 0; i < cohorts->n_held; i++) {
    const fl_cohort_event *event = &cohorts->held[i];
    if (fli_held_is_end(event) && event->child == cohort) return 1;
  }
  return 0;
}

void fli_held_poll(fli_job *front)
{
  fli_cohorts *cohorts = front->cohorts;
  while (cohorts->n_held < FLI_HELD_MOST) {
    fl_cohort_event *event = &cohorts->held[cohorts->n_held];
    fl_status st = fl_cohort_event_init(event, sizeof *event);
    if (st == FL_OK) st = fl_cohort_set_poll(cohorts->set, event);
    if (st != FL_OK) {
      fli_clear_error();
      return;
    }
    cohorts->n_held++;
    if (fli_held_is_end(event)) fli_visits_forget(front, event->child);
  }
}

static int is_news(const fl_cohort_event *event)
{
  return !fli_held_is_end(event) && !fli_held_is_birth(event);
}

static int must_wait(const fli_job *front, const fl_cohort_event *event,
                     uint64_t before)
{
  if (before & bits_of(event)) return 1;
  return !is_news(event) && (fli_apart_is_busy(front, event->cohort) ||
                             fli_apart_is_busy(front, event->child));
}

static fl_status follow(fli_job *front, uint32_t at)
{
  fli_cohorts *cohorts = front->cohorts;
  const fl_cohort_event event = cohorts->held[at];
  const fl_status st = fli_cohorts_follow(front, &event);
  if (st != FL_OK) return st;
  if (fli_held_is_end(&event)) {
    fli_guests_release(front, &cohorts->lanes[event.child]);
    fli_scores_drop(front, event.child);
  }
  cohorts->ends++;
  cohorts->n_held--;
  memmove(&cohorts->held[at], &cohorts->held[at + 1],
          (cohorts->n_held - at) * sizeof event);
  fli_cohorts_place_all(front);
  return FL_OK;
}

fl_status fli_held_follow(fli_job *front, int *has_changed)
{
  fli_cohorts *cohorts = front->cohorts;
  uint64_t before = 0;
  for (uint32_t i = 0; i < cohorts->n_held;) {
    const fl_cohort_event *event = &cohorts->held[i];
    if (must_wait(front, event, before)) {
      before |= bits_of(event);
      i++;
      continue;
    }
    const fl_status st = follow(front, i);
    if (st != FL_OK) return st;
    *has_changed = 1;
  }
  return FL_OK;
}

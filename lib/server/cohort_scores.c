/* SPDX-License-Identifier: Apache-2.0 */
/* APART: an evaluation asks each cohort's clients for the score of its model
 * when the cohort is between two rounds, so nobody waits for anybody. What all
 * have said is told when the last one has, or when the next evaluation begins:
 * a cohort in a long round is left out then. */
#include "server/cohorts.h"

#include <math.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"

static void drop_values(fli_job *front)
{
  fli_cohort_scores *scores = &front->cohorts->scores;
  fli_free(front->context, scores->values,
           scores->room * sizeof *scores->values);
  *scores = (fli_cohort_scores){0};
}

void fli_scores_free(fli_job *front)
{
  drop_values(front);
}

static void tell(fli_job *front)
{
  fli_cohort_scores *scores = &front->cohorts->scores;
  const fli_cohort_sums *sums = &scores->sums;
  fl_client_accuracy accuracy = {.struct_size = (uint32_t)sizeof accuracy,
                                 .round = scores->round};
  fl_server_event event = fli_event_of(front, FL_SERVER_EVALUATED);
  fli_fpguard guard;
  event.round = scores->round;
  event.model_version = fli_cohorts_first(front)->store.canonical.version;
  event.selected = (uint32_t)sums->selected;
  event.accepted = (uint32_t)sums->accepted;
  event.correct = sums->correct;
  event.count = sums->n_losses;
  if (event.count > 0 && isfinite(sums->loss))
    event.loss = sums->loss / (double)event.count;
  fli_events_add(
      &front->server->events, &event, "", "round %llu: %u of %u scores",
      (unsigned long long)scores->round, event.accepted, event.selected);
  fli_fpguard_enter(&guard);
  fli_accuracy_of(&accuracy, scores->values, scores->n);
  fli_fpguard_leave(&guard);
  front->accuracy = accuracy;
  drop_values(front);
}

void fli_scores_begin(fli_job *front)
{
  fli_cohort_scores *scores = &front->cohorts->scores;
  if (scores->left) tell(front);
  scores->round = front->round;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    if (front->cohorts->leaves[i]) scores->left |= UINT64_C(1) << i;
  }
}

void fli_scores_ask(fli_job *leaf)
{
  fli_lane_of(leaf)->of_round = leaf->front->cohorts->scores.round;
  leaf->round = fli_apart_number(leaf->front);
  fli_evaluate_begin(leaf);
}

/* Clients for whom there is no memory are not among those compared. */
static void add(fli_cohort_scores *scores, const fli_job *leaf)
{
  fli_cohort_sums *sums = &scores->sums;
  void *values = scores->values;
  const int has_room =
      fli_grow(leaf->context, &values, &scores->room,
               (size_t)scores->n + leaf->n_members, sizeof(double)) == FL_OK;
  fli_clear_error();
  scores->values = values;
  sums->selected += leaf->n_members;
  sums->accepted += leaf->n_reports;
  for (uint32_t i = 0; i < leaf->n_members; i++) {
    const fli_member *member = &leaf->members[i];
    if (!member->has_score) continue;
    sums->loss += member->loss * (double)member->count;
    sums->correct += member->correct;
    sums->n_losses += member->count;
    if (member->count == 0 || !has_room) continue;
    scores->values[scores->n++] =
        (double)member->correct / (double)member->count;
  }
}

/* An evaluation that was told meanwhile cannot use them; for the next one the
 * cohort is asked again. */
void fli_scores_end(fli_job *leaf)
{
  fli_job *front = leaf->front;
  fli_cohort_scores *scores = &front->cohorts->scores;
  const int is_left = scores->left >> leaf->cohort & 1;
  leaf->round = fli_lane_of(leaf)->of_round; /* for the host */
  const int is_late = leaf->round != scores->round;
  fli_evaluate_report(leaf);
  if (is_left && !is_late) add(scores, leaf);
  fli_round_wait(leaf);
  if (!is_late) fli_scores_drop(front, leaf->cohort);
}

void fli_scores_drop(fli_job *front, uint32_t cohort)
{
  fli_cohort_scores *scores = &front->cohorts->scores;
  if ((scores->left >> cohort & 1) == 0) return;
  scores->left &= ~(UINT64_C(1) << cohort);
  if (scores->left == 0) tell(front);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* How well models do for clients one by one: a mean hides those who fare badly.
 * Jain's index: Jain, Chiu, Hawe 1984. */
#include "server/server.h"

#include <math.h>
#include <stdlib.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "server/cohorts.h"

enum { TENTHS = 10 };

static int compare(const void *a, const void *b)
{
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

void fli_accuracy_of(fl_client_accuracy *accuracy, double *scores, uint32_t n)
{
  double sum = 0.0, squares = 0.0, worst = 0.0;
  const uint32_t n_worst = (n + TENTHS - 1) / TENTHS;
  accuracy->clients = n;
  if (n == 0) return;
  qsort(scores, n, sizeof *scores, compare);
  for (uint32_t i = 0; i < n; i++) {
    sum += scores[i];
    squares += scores[i] * scores[i];
    if (i < n_worst) worst += scores[i];
  }
  accuracy->mean = sum / n;
  accuracy->worst = worst / n_worst;
  accuracy->jain = squares > 0.0 ? sum * sum / (n * squares) : 1.0;
  if (accuracy->jain > 1.0) accuracy->jain = 1.0; /* by rounding */
  for (uint32_t k = 0; k <= TENTHS; k++) {
    const double place = (double)k * (n - 1) / TENTHS;
    const uint32_t below = (uint32_t)place;
    const uint32_t above = below + 1 < n ? below + 1 : below;
    const double share = place - below;
    const double part = share * (scores[above] - scores[below]);
    accuracy->quantiles[k] = scores[below] + part;
  }
}

static void gather(const fli_job *job, double *scores, uint32_t *n)
{
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    if (!member->has_score || member->count == 0) continue;
    scores[(*n)++] = (double)member->correct / (double)member->count;
  }
}

static uint32_t count_members(const fli_job *job)
{
  uint32_t n = job->n_members;
  for (uint32_t i = 0; job->cohorts && i < FL_COHORT_MAX; i++) {
    if (job->cohorts->leaves[i]) n += job->cohorts->leaves[i]->n_members;
  }
  return n;
}

void fli_accuracy_take(fli_job *job)
{
  fli_fpguard guard;
  uint32_t n = 0;
  const uint32_t most = count_members(job);
  fl_client_accuracy accuracy = {.struct_size = (uint32_t)sizeof accuracy,
                                 .round = job->round};
  double *scores = fli_alloc(job->context, most, sizeof *scores);
  if (!scores) {
    fli_clear_error();
    return;
  }
  gather(job, scores, &n);
  for (uint32_t i = 0; job->cohorts && i < FL_COHORT_MAX; i++) {
    if (job->cohorts->leaves[i]) gather(job->cohorts->leaves[i], scores, &n);
  }
  fli_fpguard_enter(&guard);
  fli_accuracy_of(&accuracy, scores, n);
  fli_fpguard_leave(&guard);
  fli_free(job->context, scores, most * sizeof *scores);
  job->accuracy = accuracy;
}

fl_status fl_client_accuracy_init(fl_client_accuracy *accuracy, size_t size)
{
  const fl_client_accuracy full = {.struct_size = (uint32_t)sizeof full};
  fli_clear_error();
  return fli_options_init(accuracy, size, &full, sizeof full);
}

fl_status fl_server_get_accuracy(const fl_server *server, uint32_t job,
                                 fl_client_accuracy *accuracy)
{
  fli_clear_error();
  if (!server || !accuracy)
    return fli_error(FL_E_ARGUMENT, "fl_server_get_accuracy: NULL argument");
  if (job >= server->n_jobs)
    return fli_error(FL_E_NOT_FOUND, "job: got %u, want < %zu", job,
                     server->n_jobs);
  return fli_options_store(accuracy, &server->jobs[job]->accuracy,
                           sizeof *accuracy, "fl_client_accuracy");
}

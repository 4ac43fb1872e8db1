/* SPDX-License-Identifier: Apache-2.0 */
/* Who takes part in a round, and with what weight. The draw is made from the
 * sorted ids with a counter-based generator keyed by (seed, round, attempt):
 * it depends on who is there, never on the order in which they came. Other
 * rules than a draw: selector.c. */
#include "server/server.h"

#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/rng.h"
#include "server/selector.h"

/* A claimed sample count weighs at most this many times the median claim. */
enum { FLI_WEIGHT_CAP = 8 };

uint32_t fli_select_size(const fli_job *job)
{
  const double asked =
      (double)job->options.participants * (double)job->options.over_selection;
  if (job->options.participants == 0 || asked >= FL_MAX_SLOTS) {
    return FL_MAX_SLOTS;
  }
  return (uint32_t)(asked + 0.5);
}

/* 1 when it would train all that is not frozen. */
static int is_full(const fli_job *job, const fli_participant *candidate)
{
  return fli_parts_start(job, candidate->depth) == job->first_active;
}

/* Of a shuffled order the first k are chosen. Where they cover too little, the
 * next ones that cover all take the places of the last ones that do not. */
static void prefer_full(const fli_job *job, fli_participant *const *candidates,
                        uint32_t *order, uint32_t n, uint32_t k)
{
  uint32_t covered = 0, place = k;
  for (uint32_t i = 0; i < k; i++)
    covered += (uint32_t)is_full(job, candidates[order[i]]);
  for (uint32_t i = k; i < n && covered < job->options.min_cover; i++) {
    if (!is_full(job, candidates[order[i]])) continue;
    while (place > 0 && is_full(job, candidates[order[place - 1]]))
      place--;
    if (place == 0) return;
    place--;
    const uint32_t other = order[place];
    order[place] = order[i];
    order[i] = other;
    covered++;
  }
}

static void shuffle(const fli_job *job, uint32_t *order, uint32_t n)
{
  fli_rng rng;
  for (uint32_t i = 0; i < n; i++)
    order[i] = i;
  fli_rng_init(&rng, job->options.seed, FLI_RNG_SELECT, fli_job_turn(job),
               job->attempt);
  fli_rng_shuffle(&rng, order, n);
}

/* Keep `k` of n candidates, in their order. */
static fl_status draw(const fli_job *job, fli_participant **candidates,
                      uint32_t n, uint32_t k, int is_training)
{
  if (k >= n) return FL_OK;
  fl_status st = FL_OK;
  uint32_t kept = 0;
  uint32_t *order = fli_alloc(job->context, n, sizeof *order);
  uint8_t *is_chosen = fli_alloc(job->context, n, 1);
  if (!order || !is_chosen) FLI_TRY(fli_nomem(n * sizeof *order));
  if (is_training && job->selector)
    FLI_TRY(fli_selector_order(job, candidates, n, k, order));
  else
    shuffle(job, order, n);
  if (is_training) prefer_full(job, candidates, order, n, k);
  for (uint32_t i = 0; i < k; i++)
    is_chosen[order[i]] = 1;
  for (uint32_t i = 0; i < n; i++) {
    if (is_chosen[i]) candidates[kept++] = candidates[i];
  }
out:
  fli_free(job->context, order, n * sizeof *order);
  fli_free(job->context, is_chosen, n);
  return st;
}

static int compare_u64(const void *a, const void *b)
{
  const uint64_t left = *(const uint64_t *)a;
  const uint64_t right = *(const uint64_t *)b;
  return (left > right) - (left < right);
}

fl_status fli_select_cap(fli_job *job)
{
  const uint32_t n = job->n_members;
  job->weight_cap = job->is_spooling ? 0 : job->options.weight_cap;
  if (job->is_spooling || job->options.weighting == FL_WEIGHT_UNIFORM ||
      job->weight_cap > 0) {
    return FL_OK;
  }
  uint64_t *claims = fli_alloc(job->context, n, sizeof *claims);
  if (!claims) return fli_nomem(n * sizeof *claims);
  for (uint32_t i = 0; i < n; i++) {
    claims[i] = job->members[i].participant->samples;
  }
  qsort(claims, n, sizeof *claims, compare_u64);
  const uint64_t cap = FLI_WEIGHT_CAP * claims[(n - 1) / 2];
  job->weight_cap = claims[n - 1] < cap ? claims[n - 1] : cap;
  fli_free(job->context, claims, n * sizeof *claims);
  return FL_OK;
}

fl_status fli_select_draw(const fli_job *job, fli_participant **candidates,
                          uint32_t n, uint32_t k)
{
  return draw(job, candidates, n, k, 1);
}

/* Of a front's participants, those who belong to the leaf, and are not at work
 * for another. */
static void keep_own(const fli_job *job, fli_participant **candidates,
                     uint32_t *n)
{
  uint32_t kept = 0;
  for (uint32_t i = 0; i < *n; i++) {
    if (candidates[i]->job == job && candidates[i]->visit == FLI_NO_MEMBER)
      candidates[kept++] = candidates[i];
  }
  *n = kept;
}

fl_status fli_select_members(fli_job *job, uint64_t capability, uint32_t limit)
{
  fl_status st = FL_OK;
  fli_participant **candidates = NULL;
  uint32_t n = 0, n_all = 0;
  FLI_TRY(fli_registry_sorted(job->front ? job->front : job, capability,
                              &candidates, &n_all));
  n = n_all;
  if (job->front) keep_own(job, candidates, &n);
  const uint32_t k = limit < n ? limit : n;
  const int is_training = capability == FLI_CAP_TRAIN;
  if (is_training) FLI_TRY(fli_selector_reserve(job));
  FLI_TRY(draw(job, candidates, n, k, is_training));
  job->members = fli_alloc(job->context, k, sizeof *job->members);
  if (!job->members) FLI_TRY(fli_nomem(k * sizeof *job->members));
  job->n_members = k;
  for (uint32_t i = 0; i < k; i++) {
    job->members[i].participant = candidates[i];
    job->members[i].first_active = fli_parts_start(job, candidates[i]->depth);
    candidates[i]->member = i;
  }
  if (is_training && k > 0) FLI_TRY(fli_select_cap(job));
out:
  fli_free(job->context, candidates, n_all * sizeof *candidates);
  return st;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The round of a leaf: its members are visits, and what they send is kept with
 * them for the set. */
#include "server/cohorts.h"

#include <math.h>

#include "base/context.h"
#include "base/error.h"
#include "compress/partial.h"

/* ---- members ------------------------------------------------------------- */

/* Whoever is gone for good would be waited for. */
static int is_member(const fli_job *leaf, const fli_visit *visit)
{
  const fli_participant *who = visit->participant;
  return visit->trains && !visit->is_lost && !visit->is_open &&
         visit->cohort == leaf->cohort && (who->peer || who->is_in_grace);
}

uint32_t fli_cohorts_count_members(const fli_job *leaf)
{
  const fli_lane *lane = fli_lane_of(leaf);
  uint32_t n = 0;
  for (uint32_t i = 0; i < lane->n_visits; i++)
    n += (uint32_t)is_member(leaf, &lane->visits[i]);
  return fli_cohorts_is_apart(leaf->front) && n < leaf->options.min_participants
             ? 0
             : n;
}

fl_status fli_cohorts_fill_members(fli_job *leaf)
{
  const fli_lane *lane = fli_lane_of(leaf);
  const uint32_t n = fli_cohorts_count_members(leaf);
  leaf->members = fli_alloc(leaf->context, n, sizeof *leaf->members);
  if (!leaf->members) return fli_nomem(n * sizeof *leaf->members);
  leaf->n_members = n;
  for (uint32_t i = 0, at = 0; i < lane->n_visits; i++) {
    fli_participant *who = lane->visits[i].participant;
    if (!is_member(leaf, &lane->visits[i])) continue;
    fli_cohorts_place(who, leaf);
    leaf->members[at].participant = who;
    leaf->members[at].first_active = fli_parts_start(leaf, who->depth);
    who->member = at++;
  }
  return n > 0 ? fli_select_cap(leaf) : FL_OK;
}

uint32_t fli_cohorts_wanted(const fli_job *leaf)
{
  return (uint32_t)ceilf((float)leaf->n_members / leaf->options.over_selection);
}

/* ---- updates ------------------------------------------------------------- */

static void keep_feature(uint8_t *place, const float *update, uint64_t n,
                         uint32_t dim)
{
  float *row = (float *)(void *)place;
  for (uint32_t i = 0; i < dim; i++)
    row[i] = -update[n - dim + i];
}

/* From the decoded update. */
static fl_status sketch_floats(fli_job *leaf, uint8_t *place,
                               const fli_bytes *update)
{
  fli_cohorts *cohorts = leaf->front->cohorts;
  const uint64_t n = leaf->store.canonical.n;
  const fl_scale scale = fli_round_scale(leaf);
  size_t size = 0;
  float *values = fli_alloc(leaf->context, (size_t)n, sizeof *values);
  if (!values) return fli_nomem((size_t)n * sizeof *values);
  fl_status st = fl_compressor_decode(leaf->compressor, &scale, update->data,
                                      update->size, values, n);
  if (st == FL_OK && cohorts->options.rule == FL_COHORT_AUXO)
    keep_feature(place, values, n, cohorts->options.dim);
  if (st == FL_OK && cohorts->sketcher)
    st = fl_sketcher_write(cohorts->sketcher, values, n, place, cohorts->row,
                           &size);
  fli_free(leaf->context, values, (size_t)n * sizeof *values);
  return st;
}

fl_status fli_cohorts_sketch(fli_member *member, const fli_bytes *update)
{
  const fli_participant *who = member->participant;
  fli_job *leaf = who->job;
  const fli_cohorts *cohorts = leaf->front->cohorts;
  const fli_lane *lane = &cohorts->lanes[who->lane];
  fli_visit *visit = fli_visit_of(who);
  if (cohorts->row == 0 || !visit || !lane->sketches) return FL_OK;
  uint8_t *place = lane->sketches + who->visit * cohorts->row;
  const int is_lanes =
      cohorts->options.rule == FL_COHORT_SKETCH && !cohorts->sketcher;
  const fl_status st = is_lanes
                           ? fli_lane_sketch(&leaf->partial->agreed, update,
                                             cohorts->options.dim, place)
                           : sketch_floats(leaf, place, update);
  visit->has_sketch = st == FL_OK;
  /* An update without a direction counts, but teaches nothing. */
  return st == FL_E_NOMEM ? st : FL_OK;
}

void fli_cohorts_count(fli_job *leaf)
{
  for (uint32_t i = 0; i < leaf->n_members; i++) {
    const fli_member *member = &leaf->members[i];
    fli_visit *visit = fli_visit_of(member->participant);
    if (!member->is_counted || !visit) continue;
    visit->is_counted = 1;
    visit->loss = member->loss;
  }
}

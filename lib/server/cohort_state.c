/* SPDX-License-Identifier: Apache-2.0 */
/* Cohorts in a snapshot: their options, the set's own state, visits with their
 * sketches, and every leaf as a job. Restored into a front that has its
 * participants and its round. */
#include "server/cohorts.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "server/state.h"

enum { PARTS = 8, PARTS_BEFORE_8 = 7, VISIT_PARTS = 8 };

static fl_status malformed(const char *what)
{
  return fli_error(FL_E_FORMAT, "state: %s of cohorts does not fit", what);
}

/* ---- writing ------------------------------------------------------------- */

static fl_status write_set(fli_msg_writer *writer, const fli_job *front)
{
  fl_status st = FL_OK;
  fl_buffer *buffer = NULL;
  fl_writer state;
  const uint8_t *data = NULL;
  size_t size = 0;
  FLI_TRY(fl_buffer_new(&buffer, front->context));
  FLI_TRY(fl_buffer_as_writer(buffer, &state));
  FLI_TRY(fl_cohort_set_save(front->cohorts->set, &state));
  FLI_TRY(fl_buffer_get(buffer, &data, &size));
  fli_writer_bin(writer, data, size);
out:
  fl_buffer_free(buffer);
  return st;
}

static uint32_t flags_of(const fli_visit *v)
{
  return (uint32_t)(v->trains | v->is_open << 1 | v->is_lost << 2 |
                    v->chooses << 3 | v->has_sketch << 4 | v->is_counted << 5);
}

static void write_visit(fli_msg_writer *writer, const fli_visit *visit,
                        uint32_t place)
{
  fli_writer_array(writer, VISIT_PARTS);
  fli_writer_u64(writer, place);
  fli_writer_u64(writer, visit->cohort);
  fli_writer_u64(writer, flags_of(visit));
  fli_writer_u64(writer, fli_f64_bits(visit->limit));
  fli_writer_u64(writer, fli_f64_bits(visit->loss));
  fli_writer_bin(writer, visit->probes, visit->n_probes);
  fli_writer_u64(writer, visit->n_told);
  fli_writer_array(writer, visit->n_told);
  for (uint32_t i = 0; i < visit->n_told; i++)
    fli_writer_u64(writer, fli_f64_bits(visit->losses[i]));
}

/* Both lists are sorted by id. */
void fli_visits_write(fli_msg_writer *writer, const fli_cohorts *cohorts,
                      const fli_lane *lane, fli_participant *const *sorted)
{
  uint32_t place = 0;
  fli_writer_array(writer, lane->n_visits);
  for (uint32_t i = 0; i < lane->n_visits; i++) {
    while (sorted[place] != lane->visits[i].participant)
      place++;
    write_visit(writer, &lane->visits[i], place);
  }
  fli_writer_bin(writer, lane->sketches,
                 lane->sketches ? lane->n_visits * cohorts->row : 0);
}

static fl_status write_leaves(fli_msg_writer *writer,
                              const fli_cohorts *cohorts)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    n += cohorts->leaves[i] != NULL;
  fli_writer_array(writer, 2 * n);
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    if (!cohorts->leaves[i]) continue;
    fli_writer_u64(writer, i);
    const fl_status st = fli_job_write(writer, cohorts->leaves[i]);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

static int is_concluding(const fli_cohorts *cohorts)
{
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    const fli_conclusion *end = &cohorts->lanes[i].end;
    if (end->n_reported > 0 || end->ended || end->has_event) return 1;
  }
  return 0;
}

fl_status fli_cohorts_write(fli_msg_writer *writer, const fli_job *front,
                            fli_participant *const *sorted)
{
  static const fli_lane none;
  const fli_cohorts *cohorts = front->cohorts;
  fl_status st = FL_OK;
  fli_writer_array(writer, cohorts ? PARTS : 0);
  if (!cohorts) return FL_OK;
  const fli_lane *lane =
      fli_cohorts_is_apart(front) ? &none : &cohorts->lanes[0];
  if (is_concluding(cohorts))
    return fli_error(FL_E_STATE, "cohorts: wait for memory to be decided");
  fli_saved_write(writer, &fli_saved_cohort_options, &cohorts->options);
  fli_writer_array(writer, cohorts->options.n_splits);
  for (uint32_t i = 0; i < cohorts->options.n_splits; i++)
    fli_writer_u64(writer, cohorts->splits[i]);
  FLI_TRY(write_set(writer, front));
  fli_writer_u64(writer, lane->next_probed);
  fli_visits_write(writer, cohorts, lane, sorted);
  FLI_TRY(write_leaves(writer, cohorts));
  fli_lanes_write(writer, front, sorted);
out:
  return st;
}

/* ---- reading ------------------------------------------------------------- */

static fl_status load_set(fli_job *front, const uint8_t *data, size_t size)
{
  fl_status st = FL_OK;
  fl_buffer *buffer = NULL;
  fl_reader state;
  FLI_TRY(fl_buffer_new(&buffer, front->context));
  FLI_TRY(fl_buffer_append(buffer, data, size));
  FLI_TRY(fl_buffer_as_reader(buffer, &state));
  FLI_TRY(fl_cohort_set_load(front->cohorts->set, &state));
out:
  fl_buffer_free(buffer);
  return st;
}

static fl_status read_options(fli_msg_reader *reader,
                              fl_cohort_options *options,
                              uint32_t splits[FL_COHORT_SPLITS_MAX])
{
  fl_status st = fl_cohort_options_init(options, sizeof *options);
  if (st != FL_OK) return st;
  fli_saved_read(reader, &fli_saved_cohort_options, options);
  const uint32_t n = fli_reader_array(reader);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (n > FL_COHORT_SPLITS_MAX) return malformed("a schedule");
  for (uint32_t i = 0; i < n; i++)
    splits[i] = fli_reader_u32(reader);
  fli_reader_leave(reader);
  options->splits = n > 0 ? splits : NULL;
  options->n_splits = n;
  return fli_reader_status(reader);
}

static fl_status read_set(fli_job *front, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  fl_cohort_options options;
  uint32_t splits[FL_COHORT_SPLITS_MAX] = {0};
  size_t size = 0;
  FLI_TRY(read_options(reader, &options, splits));
  const uint8_t *state = fli_reader_bin(reader, &size);
  const uint32_t next_probed = fli_reader_u32(reader);
  FLI_TRY(fli_reader_status(reader));
  FLI_TRY(fli_cohorts_init(front, &options));
  FLI_TRY(load_set(front, state, size));
  front->cohorts->lanes[0].next_probed = next_probed;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    fli_cohorts_drop_leaf(front, i);
out:
  return st;
}

static void set_flags(fli_visit *visit, uint32_t flags)
{
  visit->trains = flags & 1;
  visit->is_open = flags >> 1 & 1;
  visit->is_lost = flags >> 2 & 1;
  visit->chooses = flags >> 3 & 1;
  visit->has_sketch = flags >> 4 & 1;
  visit->is_counted = flags >> 5 & 1;
}

static void read_visit(fli_msg_reader *reader, fli_visit *visit,
                       uint32_t *place)
{
  size_t n = 0;
  fli_reader_array(reader);
  *place = fli_reader_u32(reader);
  visit->cohort = fli_reader_u32(reader);
  set_flags(visit, fli_reader_u32(reader));
  visit->limit = fli_f64_from_bits(fli_reader_u64(reader));
  visit->loss = fli_f64_from_bits(fli_reader_u64(reader));
  const uint8_t *probes = fli_reader_bin(reader, &n);
  const uint32_t n_told = fli_reader_u32(reader);
  const uint32_t n_losses = fli_reader_array(reader);
  if (n > FL_COHORT_MAX || n_told > n || n_losses != n_told) {
    fli_reader_fail(reader, FL_E_FORMAT, "state: probes of a visit");
    return;
  }
  visit->n_probes = (uint8_t)n;
  visit->n_told = (uint8_t)n_told;
  if (n > 0 && probes) memcpy(visit->probes, probes, n);
  for (uint32_t i = 0; i < n_told; i++)
    visit->losses[i] = fli_f64_from_bits(fli_reader_u64(reader));
  fli_reader_leave(reader);
  fli_reader_leave(reader);
}

/* Which cohorts there are is known when all was read. */
static int visit_is_good(const fli_visit *visit)
{
  const int is_asked = visit->n_told < visit->n_probes;
  for (uint32_t i = 0; i < visit->n_probes; i++) {
    if (visit->probes[i] >= FL_COHORT_MAX) return 0;
  }
  return visit->cohort < FL_COHORT_MAX &&
         (!visit->is_open || (is_asked && !visit->is_lost));
}

static fl_status read_sketches(fli_job *front, fli_lane *lane,
                               fli_msg_reader *reader)
{
  const size_t row = front->cohorts->row;
  const int may_lack = fli_cohorts_is_apart(front);
  size_t size = 0;
  const uint8_t *data = fli_reader_bin(reader, &size);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (size == 0 && may_lack) return FL_OK;
  if (size != lane->n_visits * row) return malformed("sketches");
  if (size == 0) return FL_OK;
  lane->sketches = fli_alloc(front->context, size, 1);
  if (!lane->sketches) return fli_nomem(size);
  memcpy(lane->sketches, data, size);
  return FL_OK;
}

fl_status fli_visits_read(fli_job *front, fli_lane *lane,
                          fli_msg_reader *reader,
                          fli_participant *const *sorted, uint32_t n_sorted)
{
  uint32_t next = 0;
  const uint32_t n = fli_reader_array(reader);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (n > n_sorted) return malformed("the number of visits");
  if (n > 0) { /* between two rounds there are none */
    lane->visits = fli_alloc(front->context, n, sizeof *lane->visits);
    if (!lane->visits) return fli_nomem(n * sizeof *lane->visits);
  }
  lane->n_visits = lane->room = n;
  for (uint32_t i = 0; i < n; i++) {
    fli_visit *visit = &lane->visits[i];
    uint32_t place = 0;
    read_visit(reader, visit, &place);
    if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
    if (place < next || place >= n_sorted || !visit_is_good(visit) ||
        sorted[place]->visit != FLI_NO_MEMBER)
      return malformed("a visit");
    visit->participant = sorted[place];
    visit->slot = sorted[place]->slot;
    sorted[place]->visit = i;
    sorted[place]->lane = (uint32_t)(lane - front->cohorts->lanes);
    lane->n_open += visit->is_open;
    next = place + 1;
  }
  fli_reader_leave(reader);
  const fl_status st = read_sketches(front, lane, reader);
  for (uint32_t i = 0; i < n && !lane->sketches; i++)
    lane->visits[i].has_sketch = 0;
  return st;
}

static int phase_is_good(const fli_job *front, const fli_job *leaf)
{
  const int is_apart = fli_cohorts_is_apart(front);
  switch (leaf->phase) {
  case FLI_PHASE_WAITING: return front->phase != FLI_PHASE_FINISHED;
  case FLI_PHASE_FINISHED: return front->phase == FLI_PHASE_FINISHED;
  case FLI_PHASE_EVALUATING:
    return front->phase == (is_apart ? FLI_PHASE_LEAVES : FLI_PHASE_SCORES);
  case FLI_PHASE_PROBING: return is_apart && front->phase == FLI_PHASE_LEAVES;
  case FLI_PHASE_NORMS:
  case FLI_PHASE_UPDATES:
    return front->phase == FLI_PHASE_LEAVES &&
           (is_apart || leaf->round == front->round);
  default: return 0;
  }
}

static int leaf_is_good(const fli_job *front, const fli_job *leaf)
{
  return leaf->cohort < fl_cohort_set_cap(front->cohorts->set) &&
         leaf->store.canonical.n == front->store.canonical.n &&
         memcmp(leaf->schema, front->schema, sizeof leaf->schema) == 0 &&
         phase_is_good(front, leaf);
}

static fl_status read_leaves(fli_job *front, fli_msg_reader *reader)
{
  fli_cohorts *cohorts = front->cohorts;
  uint32_t left = fli_reader_array(reader);
  for (; left > 1; left -= 2) {
    fli_job *leaf = NULL;
    const uint32_t cohort = fli_reader_u32(reader);
    if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
    if (cohort >= FL_COHORT_MAX || cohorts->leaves[cohort])
      return malformed("a cohort");
    const fl_status st = fli_job_read(front->server, reader, front, &leaf);
    if (st != FL_OK) return st;
    leaf->cohort = cohort;
    cohorts->leaves[cohort] = leaf;
    if (!leaf_is_good(front, leaf)) return malformed("a cohort's job");
  }
  fli_reader_leave(reader);
  return fli_reader_status(reader);
}

/* Every participant has a slot and a leaf; members are their leaf's. */
static fl_status find_slots(fli_participant *const *sorted, uint32_t n)
{
  for (uint32_t i = 0; i < n; i++) {
    const fl_status st = fli_cohorts_find(sorted[i]);
    if (st != FL_OK) return malformed("a client");
  }
  return FL_OK;
}

/* As a member of a leaf before this one. */
static int is_placed(const fli_job *front, const fli_participant *who,
                     uint32_t before)
{
  for (uint32_t i = 0; i < before; i++) {
    const fli_job *leaf = front->cohorts->leaves[i];
    if (leaf && who->member < leaf->n_members &&
        leaf->members[who->member].participant == who)
      return 1;
  }
  return 0;
}

/* Or it is in nobody's draw. */
static int is_drawn_by(const fli_job *leaf, const fli_participant *who)
{
  const fli_lane *lane = &leaf->front->cohorts->lanes[who->lane];
  return who->visit == FLI_NO_MEMBER ||
         (who->visit != FLI_GUEST && lane == fli_lane_of(leaf));
}

static fl_status place_members(fli_job *front)
{
  const fli_cohorts *cohorts = front->cohorts;
  fli_cohorts_place_all(front);
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fli_job *leaf = cohorts->leaves[i];
    for (uint32_t k = 0; leaf && k < leaf->n_members; k++) {
      fli_participant *who = leaf->members[k].participant;
      if (who->member != k || is_placed(front, who, i) ||
          !is_drawn_by(leaf, who))
        return malformed("a member of two");
      who->job = leaf;
    }
  }
  for (uint32_t i = 0; i < front->registry.capacity; i++) {
    const fli_participant *who = front->registry.slots[i];
    if (who && (who->job == front || (who->member != FLI_NO_MEMBER &&
                                      who->member >= who->job->n_members)))
      return malformed("a client");
  }
  return FL_OK;
}

/* What is asked is there. A cohort that was chosen may have gone since, where
 * they go on apart. */
static fl_status check_visits(fli_job *front, uint32_t at)
{
  const fli_lane *lane = &front->cohorts->lanes[at];
  const fli_job *asker = fli_lane_job(front, at);
  for (uint32_t i = 0; i < lane->n_visits; i++) {
    const fli_visit *visit = &lane->visits[i];
    if (!fli_cohorts_is_apart(front) && !fli_cohorts_leaf(front, visit->cohort))
      return malformed("a visit");
    if (!visit->is_open) continue;
    if (asker->phase != FLI_PHASE_PROBING) return malformed("a visit");
    for (uint32_t k = 0; k < visit->n_probes; k++) {
      if (!fli_cohorts_leaf(front, visit->probes[k]))
        return malformed("a probe");
    }
  }
  return FL_OK;
}

static fl_status check_all(fli_job *front)
{
  fl_status st = FL_OK;
  if (!fli_lanes_are_good(front)) return malformed("the cohorts there are");
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    FLI_TRY(check_visits(front, i));
  FLI_TRY(place_members(front));
out:
  return st;
}

static fl_status read_all(fli_job *front, fli_msg_reader *reader)
{
  fl_status st = FL_OK;
  fli_participant **sorted = NULL;
  uint32_t n = 0;
  FLI_TRY(read_set(front, reader));
  FLI_TRY(fli_registry_sorted(front, 0, &sorted, &n));
  FLI_TRY(find_slots(sorted, n));
  FLI_TRY(fli_visits_read(front, &front->cohorts->lanes[0], reader, sorted, n));
  if (fli_cohorts_is_apart(front) && front->cohorts->lanes[0].n_visits > 0)
    FLI_TRY(malformed("visits"));
  front->cohorts->lanes[0].turn = 0;
  FLI_TRY(read_leaves(front, reader));
  if (fli_saved_has(reader, 8))
    FLI_TRY(fli_lanes_read(front, reader, sorted, n));
  if (!fli_cohorts_is_apart(front))
    front->cohorts->lanes[0].turn = (uint32_t)front->round;
  FLI_TRY(check_all(front));
out:
  fli_free(front->context, sorted, n * sizeof *sorted);
  return st;
}

fl_status fli_cohorts_read(fli_job *front, fli_msg_reader *reader)
{
  const uint32_t parts = fli_saved_has(reader, 8) ? PARTS : PARTS_BEFORE_8;
  const uint32_t n = fli_reader_array(reader);
  fl_status st = fli_reader_status(reader);
  if (st != FL_OK) return st;
  if (n != 0 && (n != parts || front->front)) return malformed("a part");
  if (n == 0 && front->phase > FLI_PHASE_FINISHED && !front->front)
    return malformed("the phase");
  if (n != 0 &&
      (front->phase == FLI_PHASE_NORMS || front->phase == FLI_PHASE_UPDATES ||
       front->phase == FLI_PHASE_EVALUATING)) {
    return malformed("the phase");
  }
  if (n != 0) st = read_all(front, reader);
  if (st != FL_OK) return st;
  fli_reader_leave(reader);
  return fli_reader_status(reader);
}

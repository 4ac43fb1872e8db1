/* SPDX-License-Identifier: Apache-2.0 */
/* What cohorts that go on apart have more in a snapshot: the front's counts,
 * scores of an evaluation under way, what is held, and every leaf's draw. */
#include "server/cohorts.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"

/* Values, not arrays, for each draw: a snapshot is nested deep enough. */
enum { PARTS = 9, EVENT_PARTS = 9, LANE_PARTS = 9 };

static fl_status malformed(const char *what)
{
  return fli_error(FL_E_FORMAT, "state: %s of cohorts apart does not fit",
                   what);
}

/* ---- writing ------------------------------------------------------------- */

static void write_sums(fli_msg_writer *writer, const fli_cohort_sums *sums)
{
  fli_writer_array(writer, 5);
  fli_writer_u64(writer, sums->selected);
  fli_writer_u64(writer, sums->accepted);
  fli_writer_u64(writer, fli_f64_bits(sums->loss));
  fli_writer_u64(writer, sums->n_losses);
  fli_writer_u64(writer, sums->correct);
}

static void write_scores(fli_msg_writer *writer,
                         const fli_cohort_scores *scores)
{
  fli_writer_u64(writer, scores->round);
  fli_writer_u64(writer, scores->left);
  write_sums(writer, &scores->sums);
  fli_writer_array(writer, scores->n);
  for (uint32_t i = 0; i < scores->n; i++)
    fli_writer_u64(writer, fli_f64_bits(scores->values[i]));
}

static void write_event(fli_msg_writer *writer, const fl_cohort_event *event)
{
  fli_writer_array(writer, EVENT_PARTS);
  fli_writer_u64(writer, event->kind);
  fli_writer_u64(writer, event->round);
  fli_writer_u64(writer, event->cohort);
  fli_writer_u64(writer, event->child);
  fli_writer_u64(writer, event->n_probes);
  fli_writer_u64(writer, event->weight);
  fli_writer_u64(writer, event->child_weight);
  fli_writer_u64(writer, fli_f32_bits(event->win));
  fli_writer_u64(writer, fli_f32_bits(event->lump));
}

static void write_lane(fli_msg_writer *writer, const fli_cohorts *cohorts,
                       const fli_lane *lane, fli_participant *const *sorted)
{
  const fli_lane guests = {.visits = lane->guests, .n_visits = lane->n_guests};
  fli_writer_u64(writer, (uint64_t)(lane - cohorts->lanes));
  fli_writer_u64(writer, (uint64_t)lane->is_drawn);
  fli_writer_u64(writer, lane->turn);
  fli_writer_u64(writer, lane->of_round);
  fli_writer_u64(writer, lane->next_probed);
  fli_visits_write(writer, cohorts, lane, sorted);
  fli_visits_write(writer, cohorts, &guests, sorted);
}

void fli_lanes_write(fli_msg_writer *writer, const fli_job *front,
                     fli_participant *const *sorted)
{
  const fli_cohorts *cohorts = front->cohorts;
  uint32_t n = 0;
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    n += cohorts->leaves[i] != NULL;
  fli_writer_array(writer,
                   fli_cohorts_is_apart(front) ? PARTS + LANE_PARTS * n : 0);
  if (!fli_cohorts_is_apart(front)) return;
  fli_writer_u64(writer, cohorts->number);
  fli_writer_u64(writer, cohorts->work);
  fli_writer_u64(writer, (uint64_t)cohorts->is_ending);
  write_sums(writer, &cohorts->sums);
  write_scores(writer, &cohorts->scores);
  fli_writer_array(writer, cohorts->n_held);
  for (uint32_t i = 0; i < cohorts->n_held; i++)
    write_event(writer, &cohorts->held[i]);
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    if (cohorts->leaves[i])
      write_lane(writer, cohorts, &cohorts->lanes[i], sorted);
  }
}

/* ---- reading ------------------------------------------------------------- */

static void read_sums(fli_msg_reader *reader, fli_cohort_sums *sums)
{
  if (fli_reader_array(reader) != 5)
    fli_reader_fail(reader, FL_E_FORMAT, "state: sums of cohorts");
  sums->selected = fli_reader_u64(reader);
  sums->accepted = fli_reader_u64(reader);
  sums->loss = fli_f64_from_bits(fli_reader_u64(reader));
  sums->n_losses = fli_reader_u64(reader);
  sums->correct = fli_reader_u64(reader);
  fli_reader_leave(reader);
}

/* More than there are clients: of those who have scored some may have left, or
 * moved and scored again. */
static fl_status read_scores(fli_job *front, fli_msg_reader *reader)
{
  fli_cohort_scores *scores = &front->cohorts->scores;
  scores->round = fli_reader_u64(reader);
  scores->left = fli_reader_u64(reader);
  read_sums(reader, &scores->sums);
  const uint32_t n = fli_reader_array(reader);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (n > (size_t)(reader->end - reader->at))
    return malformed("the number of scores");
  if (n > 0) {
    scores->values = fli_alloc(front->context, n, sizeof *scores->values);
    if (!scores->values) return fli_nomem(n * sizeof *scores->values);
    scores->room = n;
  }
  for (; scores->n < n; scores->n++) {
    const double value = fli_f64_from_bits(fli_reader_u64(reader));
    if (!(value >= 0.0)) return malformed("a score");
    scores->values[scores->n] = value;
  }
  fli_reader_leave(reader);
  return fli_reader_status(reader);
}

static fl_status read_event(fli_msg_reader *reader, fl_cohort_event *event)
{
  fl_status st = fl_cohort_event_init(event, sizeof *event);
  if (st != FL_OK) return st;
  const uint32_t n = fli_reader_array(reader);
  event->kind = fli_reader_u32(reader);
  event->round = fli_reader_u32(reader);
  event->cohort = fli_reader_u32(reader);
  event->child = fli_reader_u32(reader);
  event->n_probes = fli_reader_u32(reader);
  event->weight = fli_reader_u64(reader);
  event->child_weight = fli_reader_u64(reader);
  event->win = fli_f32_from_bits(fli_reader_u32(reader));
  event->lump = fli_f32_from_bits(fli_reader_u32(reader));
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
  if (st == FL_OK &&
      (n != EVENT_PARTS || event->kind < FL_COHORT_TRIAL ||
       event->kind > FL_COHORT_SPLIT || event->cohort >= FL_COHORT_MAX ||
       event->child >= FL_COHORT_MAX || event->cohort == event->child)) {
    return malformed("an event");
  }
  return st;
}

static fl_status read_held(fli_cohorts *cohorts, fli_msg_reader *reader)
{
  const uint32_t n = fli_reader_array(reader);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (n > FLI_HELD_MOST) return malformed("the number of events");
  for (; cohorts->n_held < n; cohorts->n_held++) {
    const fl_status st = read_event(reader, &cohorts->held[cohorts->n_held]);
    if (st != FL_OK) return st;
  }
  fli_reader_leave(reader);
  return fli_reader_status(reader);
}

/* Read as visits of a lane, and become guests of it. */
static fl_status read_guests(fli_job *front, fli_lane *lane,
                             fli_msg_reader *reader,
                             fli_participant *const *sorted, uint32_t n_sorted)
{
  const fli_lane own = *lane;
  fl_status st;
  lane->visits = NULL;
  lane->sketches = NULL;
  lane->n_visits = lane->room = lane->n_open = 0;
  st = fli_visits_read(front, lane, reader, sorted, n_sorted);
  fli_lane read = *lane;
  *lane = own;
  if (st == FL_OK && (read.n_open > 0 || read.sketches))
    st = malformed("a guest");
  if (st != FL_OK) {
    fli_visits_clear(front, &read);
    return st;
  }
  lane->guests = read.visits;
  lane->n_guests = read.n_visits;
  lane->guest_room = read.room;
  for (uint32_t i = 0; i < lane->n_guests; i++)
    lane->guests[i].participant->visit = FLI_GUEST;
  return FL_OK;
}

/* What it is at began in a round of the job that was. */
static int round_is_good(const fli_job *front, uint32_t cohort)
{
  const uint64_t round = front->cohorts->lanes[cohort].of_round;
  const fli_job *leaf = front->cohorts->leaves[cohort];
  const int is_needed =
      fli_leaf_is_running(leaf) || leaf->phase == FLI_PHASE_EVALUATING;
  return round <= front->round && (round > 0 || !is_needed);
}

static fl_status read_lane(fli_job *front, fli_msg_reader *reader,
                           fli_participant *const *sorted, uint32_t n_sorted)
{
  const uint32_t cohort = fli_reader_u32(reader);
  const uint32_t is_drawn = fli_reader_u32(reader);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (is_drawn > 1 || !fli_cohorts_leaf(front, cohort))
    return malformed("a draw");
  fli_lane *lane = &front->cohorts->lanes[cohort];
  const uint32_t turn = fli_reader_u32(reader);
  if (lane->turn > 0 || lane->n_guests > 0 || (is_drawn && turn == 0))
    return malformed("a draw");
  lane->is_drawn = (int)is_drawn;
  lane->turn = turn;
  lane->of_round = fli_reader_u64(reader);
  if (!round_is_good(front, cohort)) return malformed("a round");
  lane->next_probed = fli_reader_u32(reader);
  fl_status st = fli_visits_read(front, lane, reader, sorted, n_sorted);
  if (st == FL_OK) st = read_guests(front, lane, reader, sorted, n_sorted);
  if (st != FL_OK) return st;
  if (!lane->is_drawn && lane->n_visits > 0) return malformed("a draw");
  return fli_reader_status(reader);
}

/* What is more than a round's updates was a round; a front waits for nothing
 * itself. */
static int front_is_good(const fli_job *front)
{
  const fli_cohorts *cohorts = front->cohorts;
  const uint32_t whole = front->options.participants;
  return front->deadline_ns == UINT64_MAX &&
         (whole == 0 || cohorts->work < whole || cohorts->is_ending);
}

fl_status fli_lanes_read(fli_job *front, fli_msg_reader *reader,
                         fli_participant *const *sorted, uint32_t n_sorted)
{
  fli_cohorts *cohorts = front->cohorts;
  fl_status st = FL_OK;
  const uint32_t n = fli_reader_array(reader);
  const int is_apart = fli_cohorts_is_apart(front);
  if (fli_reader_status(reader) != FL_OK) return fli_reader_status(reader);
  if (is_apart ? n < PARTS || (n - PARTS) % LANE_PARTS != 0 : n != 0)
    return malformed("a part");
  if (n > 0) {
    cohorts->is_back = 1;
    cohorts->number = fli_reader_u64(reader);
    cohorts->work = fli_reader_u64(reader);
    const uint32_t ending = fli_reader_u32(reader);
    if (ending > FLI_NUMBERS_USED) FLI_TRY(malformed("the end"));
    cohorts->is_ending = (int)ending;
    if (fli_reader_status(reader) == FL_OK && !front_is_good(front))
      FLI_TRY(malformed("the front"));
    read_sums(reader, &cohorts->sums);
    FLI_TRY(read_scores(front, reader));
    FLI_TRY(read_held(cohorts, reader));
    for (uint32_t left = n - PARTS; left > 0; left -= LANE_PARTS)
      FLI_TRY(read_lane(front, reader, sorted, n_sorted));
  }
  fli_reader_leave(reader);
  st = fli_reader_status(reader);
out:
  return st;
}

/* ---- what fits ----------------------------------------------------------- */

/* `there` as it is once the event was followed; 0: it cannot be. */
static int is_followed(int there[FL_COHORT_MAX], const fl_cohort_event *event)
{
  if (fli_held_is_birth(event)) {
    if (!there[event->cohort] || there[event->child]) return 0;
    there[event->child] = 1;
  } else if (fli_held_is_end(event)) {
    if (!there[event->cohort] || !there[event->child]) return 0;
    there[event->child] = 0;
  }
  return 1;
}

int fli_lanes_are_good(const fli_job *front)
{
  const fli_cohorts *cohorts = front->cohorts;
  int there[FL_COHORT_MAX];
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++)
    there[i] = cohorts->leaves[i] != NULL;
  for (uint32_t i = 0; i < cohorts->n_held; i++) {
    if (!is_followed(there, &cohorts->held[i])) return 0;
  }
  for (uint32_t i = 0; i < FL_COHORT_MAX; i++) {
    fl_cohort_info info = {.struct_size = sizeof info};
    const int is_known =
        i < fl_cohort_set_cap(cohorts->set) &&
        fl_cohort_set_get_info(cohorts->set, i, &info) == FL_OK;
    if (there[i] != (is_known && info.is_alive)) return 0;
    if ((cohorts->scores.left >> i & 1) && !cohorts->leaves[i]) return 0;
  }
  return 1;
}

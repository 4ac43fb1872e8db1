/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs with cohorts. The host's job, the front, owns the participants and the
 * set; every cohort's model is a job of its own below it, a leaf, which the
 * host does not number. A draw of clients, what they are asked and what became
 * of it is a lane.
 *
 * TOGETHER (cohort_round.c): there is one lane. The front draws clients and has
 * them probed, then every leaf runs a round as any job does, with the members
 * it is given, and when all are through the front tells the set and follows
 * what that decides.
 *
 *   WAITING -> PROBING -> LEAVES -> (each leaf's EVALUATING) -> WAITING
 *
 * APART (cohort_apart.c): every leaf has a lane and goes through these phases
 * by itself, the front stays in LEAVES. What the set decides about a leaf that
 * is in the middle of something is held until that has ended (cohort_held.c).
 *
 * A participant's `job` is the leaf that it belongs to, `home` the front. */
#ifndef FLI_COHORTS_H
#define FLI_COHORTS_H

#include <fl/cohort.h>
#include "compress/compressor.h"
#include "server/cohort_sketch.h"
#include "server/server.h"

/* A client's part in a round: what it is asked before, and what it did. */
typedef struct fli_visit {
  fli_participant *participant;
  uint32_t slot; /* in the set */
  uint32_t cohort;
  uint8_t trains;  /* else it is only asked */
  uint8_t is_open; /* something is asked */
  uint8_t is_lost; /* it takes no part any more */
  uint8_t chooses;
  uint8_t has_sketch;
  uint8_t is_counted;
  uint8_t n_probes;
  uint8_t n_told; /* asked in order */
  /* What is being scored, as it was sent: another cohort's model may have gone
   * on since. Not saved: who returns is asked anew. */
  uint8_t is_sent;
  uint8_t sent_hash[FLI_HASH_BYTES];
  uint64_t sent_version;
  double limit; /* of the own model's loss: above it, all are asked */
  double loss;  /* of training */
  uint8_t probes[FL_COHORT_MAX];
  double losses[FL_COHORT_MAX];
} fli_visit;

/* How far a round's end has got: it goes on where memory was short. */
typedef struct fli_conclusion {
  uint32_t n_reported; /* visits */
  uint64_t ended;      /* bits of cohorts */
  int is_decided;
  int has_event;
  fl_cohort_event event; /* taken, and to be followed */
} fli_conclusion;

/* One draw. */
typedef struct fli_lane {
  int is_drawn;      /* APART: the leaf is at it, or has still to report */
  uint32_t turn;     /* number of the round for the set */
  uint64_t of_round; /* APART: the job's when the leaf's began, or that of the
                      evaluation that it is at */
  fli_visit *visits; /* by id */
  uint32_t n_visits;
  uint32_t room; /* of `visits` */
  uint32_t n_open;
  uint8_t *sketches; /* n_visits rows; NULL without */
  uint32_t next_probed;
  fli_conclusion end;
  /* APART: they were drawn by others and have chosen this one: they are in its
   * next round. By id. */
  fli_visit *guests;
  uint32_t n_guests;
  size_t guest_room;
  uint64_t ahead; /* APART: the census at which it had to wait for a sibling */
} fli_lane;

/* Why no cohort begins anything any more. */
enum { FLI_ROUNDS_MADE = 1, FLI_NUMBERS_USED = 2 };
enum { FLI_HELD_MOST = 256, FLI_GUEST = UINT32_MAX - 1 };

/* APART: sums since the last event about a round, or an evaluation, of the
 * whole job. */
typedef struct fli_cohort_sums {
  uint64_t selected;
  uint64_t accepted;
  double loss;
  uint64_t n_losses; /* samples, of an evaluation */
  uint64_t correct;
} fli_cohort_sums;

/* APART: who could be drawn, by cohort. */
typedef struct fli_census {
  uint64_t number; /* of times that it was made */
  int is_known;
  uint64_t changes; /* of the registry */
  uint64_t ends;
  uint32_t found[FL_COHORT_MAX]; /* candidates and guests */
  uint32_t want[FL_COHORT_MAX];
  uint64_t
      lends;     /* bits: too small for rounds, others draw their clients too */
  uint32_t host; /* which one of these does; NONE: whichever can without */
} fli_census;

typedef struct fli_cohort_scores {
  uint64_t round;
  uint64_t left; /* bits of cohorts that are to be asked */
  fli_cohort_sums sums;
  double *values; /* accuracy of clients */
  uint32_t n;
  size_t room;
} fli_cohort_scores;

struct fli_cohorts {
  fl_cohort_options options;
  uint32_t splits[FL_COHORT_SPLITS_MAX];
  fl_cohort_set *set;
  fl_sketcher *sketcher; /* FLOATS */
  fli_job *leaves[FL_COHORT_MAX];
  size_t row;                    /* bytes of a sketch or feature */
  fli_lane lanes[FL_COHORT_MAX]; /* TOGETHER: the first, for all */
  /* APART: */
  uint64_t number; /* of the last round or draw of any leaf */
  uint64_t work;   /* updates counted in the job's round */
  uint64_t ends;   /* times that clients or cohorts became free */
  int is_ending;   /* FLI_ROUNDS_MADE or FLI_NUMBERS_USED */
  int is_back;     /* restored: those who were there are waited for */
  fli_cohort_sums sums;
  fli_census census;
  fli_cohort_scores scores;
  fl_cohort_event held[FLI_HELD_MOST];
  uint32_t n_held;
};

/* ---- cohorts.c: what a front is made of ---- */

/* Take the options, of which NULL means none. */
fl_status fli_cohorts_init(fli_job *front, const fl_cohort_options *given);
void fli_cohorts_free(fli_job *front);
/* The options as they are used. FL_E_OPTIONS, FL_E_CONFLICT. */
fl_status fli_cohorts_check(const fl_job_options *options);
/* Find the participant's slot and cohort, at first that of newcomers. */
fl_status fli_cohorts_join(fli_participant *participant);
/* The number of a leaf; FL_COHORT_NONE of other jobs. */
uint32_t fli_cohort_of(const fli_job *job);
/* Of a front its first leaf, else the job: whose model stands for all. */
const fli_job *fli_cohorts_first(const fli_job *job);
fli_job *fli_cohorts_leaf(const fli_job *front, uint32_t cohort);
/* The slot of one who has joined; FL_E_NOT_FOUND. */
fl_status fli_cohorts_find(fli_participant *participant);
void fli_cohorts_drop_leaf(fli_job *front, uint32_t cohort);
/* A leaf with the front's first model. */
fl_status fli_cohorts_add_leaf(fli_job *front, uint32_t cohort);
/* Its participant belongs to the leaf from now on. */
void fli_cohorts_place(fli_participant *participant, fli_job *leaf);
/* All participants where the set says that they belong, but those that are in
 * the middle of something or whose cohort is held. */
void fli_cohorts_place_all(fli_job *front);
/* Change models as an event says, and tell the host. FL_E_NOMEM: as before. */
fl_status fli_cohorts_follow(fli_job *front, const fl_cohort_event *event);

int fli_cohorts_is_apart(const fli_job *front);
/* Of a front that is TOGETHER, or a leaf. */
fli_lane *fli_lane_of(const fli_job *job);
/* Whose phase, round and attempt are those of the lane. */
fli_job *fli_lane_job(fli_job *front, uint32_t lane);

/* ---- cohort_round.c: phases ---- */

int fli_cohorts_progress(fli_job *front);
/* The rounds of all leaves that run, or the questions before them; 0 = nothing
 * runs. */
int fli_cohorts_abort(fli_job *front, uint32_t reason, const char *text);
uint64_t fli_cohorts_next_timeout(const fli_job *front);
/* The draw of `job`, a front or a leaf, comes to nothing. */
void fli_cohorts_give_up(fli_job *job, uint32_t reason, const char *text);
int fli_leaf_is_running(const fli_job *leaf);

/* ---- cohort_member.c: rounds of leaves ---- */

/* Members for the round of a leaf. */
fl_status fli_cohorts_fill_members(fli_job *leaf);
/* Visits that would be members. APART, 0 where they are too few for a round. */
uint32_t fli_cohorts_count_members(const fli_job *leaf);
/* Updates that end its round: its share of those that were over-selected stays
 * away. */
uint32_t fli_cohorts_wanted(const fli_job *leaf);
/* An update of a member was counted: keep its sketch. FL_E_NOMEM. */
fl_status fli_cohorts_sketch(fli_member *member, const fli_bytes *update);
/* The round of a leaf has made a version. */
void fli_cohorts_count(fli_job *leaf);

/* ---- cohort_apart.c ---- */

int fli_apart_progress(fli_job *front);
int fli_apart_abort(fli_job *front, uint32_t reason, const char *text);
uint64_t fli_apart_next_timeout(const fli_job *front);
/* The leaf is in the middle of a round or an evaluation, or has still to
 * report. */
int fli_apart_is_busy(const fli_job *front, uint32_t cohort);
/* Rounds have this number, rising whichever cohort's they are, so that a client
 * that moves sees them rise. */
uint64_t fli_apart_number(fli_job *front);

/* ---- cohort_census.c ---- */

/* As of now: counted again when something has changed. */
const fli_census *fli_census_of(fli_job *front);
/* It may be drawn by the leaf as one of its own, or as one that asks where it
 * belongs. */
int fli_census_is_candidate(const fli_job *leaf, const fli_participant *who);
/* It is of a cohort that is too small for rounds, and trains with this one. */
int fli_census_is_lent(const fli_job *leaf, const fli_participant *who);
/* The leaf draws clients of cohorts that are too small. */
int fli_census_borrows(const fli_job *leaf);
/* 1: there are enough clients for a round of the leaf, and its time has come.
 */
int fli_census_is_ready(fli_job *leaf);

/* ---- cohort_held.c ---- */

/* Take the set's news. */
void fli_held_poll(fli_job *front);
/* Follow what can be followed; *has_changed when something was. FL_E_NOMEM: the
 * rest stays. */
fl_status fli_held_follow(fli_job *front, int *has_changed);
/* Bits of cohorts that may not begin a round. */
uint64_t fli_held_mask(const fli_job *front);
/* 1: the set has ended this cohort, whose round goes on. */
int fli_held_has_ended(const fli_job *front, uint32_t cohort);
int fli_held_is_end(const fl_cohort_event *event);
int fli_held_is_birth(const fl_cohort_event *event);

/* ---- cohort_guests.c ---- */

/* Probing is over: who has chosen another cohort is its guest from now on, and
 * the guests of this one are visits. FL_E_NOMEM: it has no room for them, or
 * for sketches. */
fl_status fli_guests_settle(fli_job *leaf, uint32_t *n_moved);
/* Let go those who will not come. */
void fli_guests_sweep(fli_job *front, fli_lane *lane);
void fli_guests_release(fli_job *front, fli_lane *lane);
/* Those of cohorts that are too small become guests of the leaf, if it is the
 * one that draws for them. */
void fli_guests_borrow(fli_job *leaf);

/* ---- cohort_scores.c ---- */

/* All cohorts are to be asked, as soon as each is free. */
void fli_scores_begin(fli_job *front);
void fli_scores_ask(fli_job *leaf);
/* The leaf's evaluation is over. */
void fli_scores_end(fli_job *leaf);
/* A cohort is no more. */
void fli_scores_drop(fli_job *front, uint32_t cohort);
void fli_scores_free(fli_job *front);

/* ---- cohort_draw.c ---- */

/* Draw clients and find what each is asked: of a front, or of a leaf that is
 * APART. */
fl_status fli_visits_draw(fli_job *asker);
void fli_visits_clear(fli_job *front, fli_lane *lane);

/* ---- cohort_probe.c: what is asked before a round ---- */

/* What one is asked, and whether anything is. */
fl_status fli_visit_begin(const fli_job *front, const fli_lane *lane,
                          fli_visit *visit);
/* It trains with a cohort that it is not of, and is asked nothing: what it does
 * there teaches the set nothing about it. */
void fli_visit_lend(fli_visit *visit, uint32_t cohort);
/* The client will not answer. */
void fli_visits_lose(fli_participant *participant);
/* The visit of a client; NULL: it has none. */
fli_visit *fli_visit_of(const fli_participant *participant);
/* The visit that is open; NULL: nothing is asked. */
fli_visit *fli_visit_open(const fli_participant *participant);
/* Nothing is to be said of this cohort any more. */
void fli_visits_forget(fli_job *front, uint32_t cohort);
fl_status fli_visits_on_metrics(fli_peer *peer, const fli_metrics *metrics);
/* 1: the message was about a probe. */
int fli_visits_on_decline(fli_peer *peer, const fli_decline *decline);
/* Ask again whom something is asked; 1: it is. */
int fli_visits_resync(fli_peer *peer);
/* 1: a model is on its way and its question still to come: what is asked for
 * until then is what an older question was about. */
int fli_visits_are_asking(const fli_peer *peer);
/* What is to be said (outbox.c). */
fl_status fli_visits_write_model(fli_peer *peer);
fl_status fli_visits_write_probe(fli_peer *peer);
/* Hand what the visits have brought to the set. FL_E_NOMEM: the one at
 * `n_reported` was not taken. */
fl_status fli_visits_report(fli_job *front, fli_lane *lane);

/* ---- cohort_state.c ---- */

fl_status fli_cohorts_write(fli_msg_writer *writer, const fli_job *front,
                            fli_participant *const *sorted);
fl_status fli_cohorts_read(fli_job *front, fli_msg_reader *reader);
/* Visits of a lane with their sketches. */
void fli_visits_write(fli_msg_writer *writer, const fli_cohorts *cohorts,
                      const fli_lane *lane, fli_participant *const *sorted);
fl_status fli_visits_read(fli_job *front, fli_lane *lane,
                          fli_msg_reader *reader,
                          fli_participant *const *sorted, uint32_t n_sorted);

/* ---- cohort_lanes.c: what APART has more ---- */

void fli_lanes_write(fli_msg_writer *writer, const fli_job *front,
                     fli_participant *const *sorted);
fl_status fli_lanes_read(fli_job *front, fli_msg_reader *reader,
                         fli_participant *const *sorted, uint32_t n_sorted);
/* The server's cohorts, once what is held was followed, are the set's. */
int fli_lanes_are_good(const fli_job *front);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs with cohorts. The host's job, the front, owns the participants and the
 * set; every cohort's model is a job of its own below it, a leaf, which the
 * host does not number. Rounds are common: the front draws clients and has them
 * probed, then every leaf runs a round as any job does, with the members it is
 * given, and when all are through the front tells the set and follows what that
 * decides.
 *
 *   WAITING -> PROBING -> LEAVES -> (each leaf's EVALUATING) -> WAITING
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
  double limit;   /* of the own model's loss: above it, all are asked */
  double loss;    /* of training */
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

struct fli_cohorts {
  fl_cohort_options options;
  uint32_t splits[FL_COHORT_SPLITS_MAX];
  fl_cohort_set *set;
  fl_sketcher *sketcher; /* FLOATS */
  fli_job *leaves[FL_COHORT_MAX];
  fli_visit *visits; /* by id */
  uint32_t n_visits;
  uint32_t n_open;
  size_t row;        /* bytes of a sketch or feature */
  uint8_t *sketches; /* n_visits rows; NULL without */
  uint32_t next_probed;
  fli_conclusion end;
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
/* All participants where the set says that they belong. */
void fli_cohorts_place_all(fli_job *front);
/* Change models as an event says, and tell the host. FL_E_NOMEM: as before. */
fl_status fli_cohorts_follow(fli_job *front, const fl_cohort_event *event);

/* ---- cohort_round.c: phases ---- */

int fli_cohorts_progress(fli_job *front);
/* The rounds of all leaves that run, or the questions before them; 0 = nothing
 * runs. */
int fli_cohorts_abort(fli_job *front, uint32_t reason, const char *text);
uint64_t fli_cohorts_next_timeout(const fli_job *front);
/* Members for the round of a leaf. */
fl_status fli_cohorts_fill_members(fli_job *leaf);
/* Updates that end its round: its share of those that were over-selected stays
 * away. */
uint32_t fli_cohorts_wanted(const fli_job *leaf);
/* An update of a member was counted: keep its sketch. FL_E_NOMEM. */
fl_status fli_cohorts_sketch(fli_member *member, const fli_bytes *update);
/* The round of a leaf has made a version. */
void fli_cohorts_count(fli_job *leaf);
void fli_cohorts_clear_visits(fli_job *front);

/* ---- cohort_probe.c: what is asked before a round ---- */

/* Draw clients and find what each is asked. */
fl_status fli_visits_draw(fli_job *front);
/* The client will not answer. */
void fli_visits_lose(fli_participant *participant);
/* The visit that is open; NULL: nothing is asked. */
fli_visit *fli_visit_of(const fli_participant *participant);
fl_status fli_visits_on_metrics(fli_peer *peer, const fli_metrics *metrics);
/* 1: the message was about a probe. */
int fli_visits_on_decline(fli_peer *peer, const fli_decline *decline);
/* Ask again whom something is asked; 1: it is. */
int fli_visits_resync(fli_peer *peer);
/* What is to be said (outbox.c). */
fl_status fli_visits_write_model(fli_peer *peer);
fl_status fli_visits_write_probe(fli_peer *peer);
/* Hand what the visits have brought to the set. FL_E_NOMEM: the one at
 * `n_reported` was not taken. */
fl_status fli_visits_report(fli_job *front);

/* ---- cohort_state.c ---- */

fl_status fli_cohorts_write(fli_msg_writer *writer, const fli_job *front,
                            fli_participant *const *sorted);
fl_status fli_cohorts_read(fli_job *front, fli_msg_reader *reader);

#endif

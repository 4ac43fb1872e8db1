/* SPDX-License-Identifier: Apache-2.0 */
/* Buffered rounds (FedBuff): buffered.c, buffered_state.c. */
#ifndef FLI_BUFFERED_H
#define FLI_BUFFERED_H

#include "server/server.h"

enum {
  FLI_STALENESS_MAX = 64,
  FLI_EPOCH_ROUNDS = 10, /* a scale is kept at least so long */
  FLI_EPOCHS_MAX = FLI_STALENESS_MAX / FLI_EPOCH_ROUNDS + 3
};

/* A scale that tasks were given out with, known by the round it began with. */
typedef struct fli_epoch {
  uint64_t round;
  float clip;
  uint8_t noise_seed[FLI_KEY_BYTES];
  float *norms;
  uint8_t *norms_wire;
  fl_partial *partial; /* of this round; NULL between rounds */
} fli_epoch;

/* A task that outlives the round it was given out in. */
typedef struct fli_carried {
  fli_participant *participant;
  fli_task task;
  uint32_t first_active;
} fli_carried;

struct fli_buffered {
  fli_epoch epochs[FLI_EPOCHS_MAX]; /* oldest first; the last is in use */
  uint32_t n_epochs;
  uint32_t next_slot;
  uint32_t n_seen;      /* updates of the last epoch that were counted, */
  uint64_t *clamped;    /* and what they clamped, per norm */
  fli_carried *carried; /* between rounds, by id */
  uint32_t n_carried;
  uint32_t capacity;
};

/* FL_E_OPTIONS, FL_E_CONFLICT. */
fl_status fli_buffered_check(const fl_job_options *options);
fl_status fli_buffered_init(fli_job *job);
void fli_buffered_free(fli_job *job);
/* 1 in a round whose members' tasks may be of earlier ones. */
int fli_buffered_runs(const fli_job *job);
/* Members, epoch and sums of a round whose norms are announced. */
fl_status fli_buffered_begin(fli_job *job);
/* Tell those who have a new task. */
void fli_buffered_tell(fli_job *job);
/* The round ends: mark and keep those who go on with what they do. */
void fli_buffered_carry(fli_job *job);
/* Drop the round's sums; forget also drops tasks under way. */
void fli_buffered_clear(fli_job *job);
void fli_buffered_forget(fli_job *job);
/* The client's task is not under way any more, or it is about to go. Tasks of a
 * running round are its members'. */
void fli_buffered_drop(const fli_participant *who);
/* The sum that the member's update belongs to. */
fl_partial *fli_round_partial(const fli_job *job, const fli_member *member);
/* Add an update that was checked, by its age. */
fl_status fli_buffered_add(fli_job *job, const fli_member *member,
                           const fli_bytes *data);
/* The mean of the round: of a buffer 1/K sum of a_s D_k. */
fl_status fli_round_mean(const fli_job *job, float *mean);
/* Updates counted that hold a segment. */
uint32_t fli_buffered_count(const fli_job *job, uint32_t segment);
uint64_t fli_buffered_samples(const fli_job *job);
/* A member says HELLO. */
void fli_buffered_resync(fli_job *job, fli_peer *peer, fli_member *member);
/* What PLAN says otherwise than in other rounds. */
void fli_buffered_plan(const fli_job *job, const fli_member *member,
                       fli_plan *plan);

/* ---- buffered_state.c ---- */

fl_status fli_buffered_write(fli_msg_writer *writer, const fli_job *job,
                             fli_participant *const *sorted, uint32_t n);
/* Members are there already. */
fl_status fli_buffered_read(fli_job *job, fli_msg_reader *reader);
/* Own an epoch of these norms; its noise follows from the round. */
fl_status fli_buffered_add_epoch(fli_job *job, uint64_t round,
                                 const float *norms, float clip);
/* Sums for all epochs. */
fl_status fli_buffered_open(fli_job *job);

#endif

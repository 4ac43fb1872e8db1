/* SPDX-License-Identifier: Apache-2.0 */
/* A job's strategy: see rule.c. */
#ifndef FLI_RULE_H
#define FLI_RULE_H

#include "compress/update.h"
#include "server/server.h"
#include "strategy/strategy.h"

/* Refuse what excludes each other. */
fl_status fli_rule_check(const fl_job_options *options);
/* 1 when the server's step is the mean itself; NULL is one. */
int fli_rule_is_plain(const fl_strategy_options *options);
/* Copy the options; then, when the model is there, make the strategy. */
fl_status fli_rule_take(fli_job *job, const fl_strategy_options *given);
fl_status fli_rule_make(fli_job *job);
/* Own the bytes of an update that was counted, if the job needs them. */
void fli_rule_keep(const fli_job *job, fli_member *member, fli_bytes *data);
void fli_rule_forget(fli_member *member);
/* The step of a round; `mean` is scratch, or the round's mean. */
fl_status fli_rule_propose(fli_job *job, float *mean, fli_pending *pending);
/* Nobody trained these coordinates: no step, and its state waits. */
void fli_rule_hold(const fli_job *job, fli_pending *pending, uint64_t at,
                   uint64_t n, int is_frozen);
fl_status fli_rule_write_options(fli_msg_writer *writer, const fli_job *job);
/* `options`, or NULL when the job has none. Errors stick to the reader. */
const fl_strategy_options *fli_rule_read_options(fli_msg_reader *reader,
                                                 fl_strategy_options *options);
fl_status fli_rule_write(fli_msg_writer *writer, const fli_job *job);
fl_status fli_rule_read(fli_job *job, fli_msg_reader *reader);

/* ---- spooled.c ---- */

enum { FLI_SPOOL_NAME = 8 + FLI_HASH_BYTES }; /* no update is as short */
typedef void (*fli_spooled_fn)(void *user, const uint8_t *data, size_t n);
/* Put the updates that are not in the store; after the commit, or when there
 * was none, settle. */
fl_status fli_spooled_put(fl_server *server);
void fli_spooled_settle(fl_server *server, int is_committed);
/* Hand out bytes [at, at + n) of a member's update, run by run: runs end where
 * a value of 4 bytes does when `at` begins one. */
fl_status fli_spooled_read(const fli_job *job, const fli_member *member,
                           uint64_t at, size_t n, fli_spooled_fn take,
                           void *user);
/* All of it. FL_E_FORMAT: it is not what was put. */
fl_status fli_spooled_load(const fli_job *job, const fli_member *member,
                           fli_bytes *bytes);
/* An update in a state: its bytes, or what it is called in the store. */
fl_status fli_spooled_write(fli_msg_writer *writer, const fli_job *job,
                            const fli_member *member);
fl_status fli_spooled_take(fli_job *job, fli_member *member,
                           const uint8_t name[FLI_SPOOL_NAME]);
/* ---- controls.c ---- */

int fli_controls_are_used(const fli_job *job);
/* Bytes of a control behind an update; 0 without. */
uint32_t fli_controls_size(const fli_job *job);
/* FL_E_FORMAT, FL_E_RANGE. */
fl_status fli_controls_check(const fli_job *job, const fli_bytes *update,
                             uint32_t size);
/* Begin to send the server's control, if the peer needs it and lacks it. */
fl_status fli_controls_send(fli_peer *peer);
fl_status fli_controls_plan(fli_job *job, fli_plan *plan);
/* A step was made: the control is another one. */
void fli_controls_change(fli_job *job);

/* ---- spool.c ---- */

/* The updates of the members that were counted, for fl_strategy_step. */
typedef struct fli_spool {
  const fli_job *job;
  fl_strategy_round round;
  size_t n;
  fli_update *updates;        /* f32, bf16: read piece by piece */
  const fli_member **members; /* whose they are */
  uint8_t *fronts;            /* of those that the store has */
  size_t front;
  float *values; /* THC: decoded */
  const float **rows;
  const uint8_t **controls; /* SCAFFOLD: f32 LE */
  uint64_t *samples, *steps;
  double *losses;
} fli_spool;

/* Close it after a failure, too. */
fl_status fli_spool_open(fli_spool *spool, const fli_job *job);
void fli_spool_close(fli_spool *spool);

#endif

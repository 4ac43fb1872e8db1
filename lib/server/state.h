/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots: structs of scalars as they are saved, and the tables that say how
 * (state_fields.c, save.c, restore.c, cohort_state.c). */
#ifndef FLI_SERVER_STATE_H
#define FLI_SERVER_STATE_H

#include "server/server.h"

enum {
  FLI_SERVER_STATE_VERSION = 8,
  FLI_SAVED_JOB_PARTS = 26,
  FLI_SAVED_FREEZING_PARTS = 5
};

/* What an operator said of a job. */
enum { FLI_SAVED_STOPPING = 1, FLI_SAVED_PAUSED = 2 };

typedef enum fli_saved_kind {
  FLI_SAVED_U32,
  FLI_SAVED_U64,
  FLI_SAVED_F32,
  FLI_SAVED_ID,  /* char[FLI_ID_BYTES] */
  FLI_SAVED_KEY, /* uint8_t[FLI_KEY_BYTES] */
  FLI_SAVED_VIEW /* const uint8_t *; read as a view into the snapshot */
} fli_saved_kind;

typedef struct fli_saved_field {
  fli_saved_kind kind;
  size_t offset;
  size_t size_offset; /* VIEW: of the uint32_t that holds the bytes */
} fli_saved_field;

typedef struct fli_saved_table {
  const fli_saved_field *fields;
  size_t n_fields;
} fli_saved_table;

/* Times are what is left of them: the clock is another one after a restore. */
typedef struct fli_saved_round {
  uint32_t phase;
  uint32_t attempt;
  uint64_t round;
  uint32_t is_begun;
  uint32_t marks; /* FLI_SAVED_STOPPING, FLI_SAVED_PAUSED */
  uint32_t is_public;
  uint32_t n_wanted;
  uint64_t weight_cap;
  uint64_t hold_left_ns;
  uint64_t deadline_left_ns; /* UINT64_MAX = none */
  float clip;
  uint64_t energy_bits; /* of doubles */
  uint64_t correlation_bits;
  uint64_t bytes_saved;
} fli_saved_round;

typedef struct fli_saved_member {
  uint32_t participant; /* place in the sorted list of all */
  uint32_t lost;
  uint64_t samples;
  uint64_t loss_bits; /* of a double: NaN is a value here */
  uint64_t correct;
  uint64_t count;
  uint32_t is_out;
  uint32_t has_norm;
  uint32_t is_counted;
  uint32_t has_score;
  uint32_t first_active;
  uint32_t has_report;
  uint32_t report_module;
  uint64_t report_bits;
  uint32_t seconds_bits;
  fli_task task;
} fli_saved_member;

typedef struct fli_saved_participant {
  char id[FLI_ID_BYTES];
  uint64_t samples;
  uint64_t capabilities;
  uint64_t counted_round;
  uint32_t counted_attempt;
  uint32_t is_expected; /* was there, or lost a moment ago */
  uint64_t before_round;
  uint32_t before_attempt;
  uint32_t depth;
  const uint8_t *key; /* FLI_NAME_BYTES; NULL: none */
  uint32_t key_size;
  uint32_t is_leaving;
} fli_saved_participant;

extern const fli_saved_table fli_saved_options; /* fl_job_options */
extern const fli_saved_table fli_saved_codec;   /* fl_compressor_options */
extern const fli_saved_table fli_saved_freeze_options; /* fl_freeze_options */
extern const fli_saved_table fli_saved_cohort_options; /* fl_cohort_options */
extern const fli_saved_table fli_saved_rounds;
extern const fli_saved_table fli_saved_members;
extern const fli_saved_table fli_saved_participants;
fl_status fli_job_write(fli_msg_writer *writer, const fli_job *job);
/* Read a job, of a front's or of the server's; *out is the caller's. */
fl_status fli_job_read(fl_server *server, fli_msg_reader *reader,
                       fli_job *front, fli_job **out);
void fli_saved_write(fli_msg_writer *writer, const fli_saved_table *table,
                     const void *object);
/* Errors stick to the reader. */
void fli_saved_read(fli_msg_reader *reader, const fli_saved_table *table,
                    void *object);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Slices of a store: what the files of slice_*.c share.
 * docs/design/embedding.md has the bytes.
 *
 *   slice_bytes.c   plans, requests, rows as bytes
 *   slice_server.c  answers; slice_sum.c: updates and steps; slice_state.c
 *   slice_client.c  ids, requests, answers; slice_update.c: what has changed */
#ifndef FLI_EMBEDDING_SLICE_H
#define FLI_EMBEDDING_SLICE_H

#include <fl/slices.h>
#include "compress/sparse.h"
#include "embedding/embedding.h"
#include "embedding/slice_rows.h"
#include "embedding/slice_use.h"

enum {
  FLI_SLICE_FORMAT = 1,
  FLI_SLICE_PLAN = 'P',
  FLI_SLICE_REQUEST = 'R',
  FLI_SLICE_ANSWER = 'A',
  FLI_SLICE_UPDATE = 'U',
  FLI_SLICE_IDS_MAX = 1 << 24
};

/* ---- bytes --------------------------------------------------------------- */

typedef struct fli_slice_in {
  const uint8_t *at;
  size_t left;
  fl_status status; /* the first failure sticks; numbers are 0 then */
} fli_slice_in;
void fli_slice_fail(fli_slice_in *in, fl_status status, const char *what);
uint32_t fli_slice_u8(fli_slice_in *in);
uint32_t fli_slice_u16(fli_slice_in *in);
uint32_t fli_slice_u32(fli_slice_in *in);
uint64_t fli_slice_u64(fli_slice_in *in);
float fli_slice_f32(fli_slice_in *in); /* finite */
/* n bytes, NULL after a failure. */
const uint8_t *fli_slice_view(fli_slice_in *in, size_t n);
/* The id after `last`, ids rising; `i` counts them. FL_E_RANGE: above 2^64. */
uint64_t fli_slice_id(fli_slice_in *in, uint64_t i, uint64_t last);
/* FL_E_FORMAT: bytes are left. */
fl_status fli_slice_end(fli_slice_in *in);

/* What every kind of bytes begins with. */
typedef struct fli_slice_head {
  uint32_t kind;
  uint32_t table; /* or a number of them */
  uint64_t layout;
} fli_slice_head;
void fli_slice_begin(fli_slice_in *in, const uint8_t *data, size_t n,
                     uint32_t kind, fli_slice_head *head);

/* Appending; the first failure sticks, too. */
typedef struct fli_slice_out {
  fli_bytes bytes;
  fl_status status;
} fli_slice_out;
void fli_slice_open(fli_slice_out *out, fl_context *context,
                    const fli_slice_head *head);
void fli_slice_put(fli_slice_out *out, const void *data, size_t n);
void fli_slice_put_u8(fli_slice_out *out, uint32_t value);
void fli_slice_put_u32(fli_slice_out *out, uint32_t value);
void fli_slice_put_u64(fli_slice_out *out, uint64_t value);
void fli_slice_put_f32(fli_slice_out *out, float value);
void fli_slice_put_id(fli_slice_out *out, uint64_t i, uint64_t last,
                      uint64_t id);
/* Give the bytes to `buffer`, if all went well. */
fl_status fli_slice_close(fli_slice_out *out, fl_buffer *buffer);

/* ---- what a round has in common ------------------------------------------ */

typedef struct fli_slice_table {
  uint32_t dim;
  uint32_t chunks;
  float threshold;
  float unit; /* of utilities */
  float deltas[FLI_CHUNKS_MAX];
} fli_slice_table;

typedef struct fli_slice_plan {
  uint64_t layout;
  uint64_t seed;
  uint64_t max_ids;
  uint32_t precision;
  uint32_t n_tables;
  fli_slice_table tables[FL_EMBEDDING_MAX_TABLES];
} fli_slice_plan;
void fli_slice_write_plan(fli_slice_out *out, const fli_slice_plan *plan);
fl_status fli_slice_read_plan(fli_slice_plan *plan, const uint8_t *data,
                              size_t n);
/* How many ids one request of a table may have. */
size_t fli_slice_request_ids(const fli_slice_plan *plan, uint32_t table);
/* Whether these are the store's tables. FL_E_SCHEMA. */
fl_status fli_slice_check_shapes(const fli_slice_plan *plan,
                                 const fl_embedding *embedding);
/* A row of an update; its id is read before. */
void fli_slice_write_row(fli_slice_out *out, const fli_slice_table *table,
                         const fli_sparse_row *row);
void fli_slice_read_row(fli_slice_in *in, const fli_slice_table *table,
                        fli_sparse_row *row);

/* ---- server ---------------------------------------------------------------
 */

struct fl_slice_server {
  fl_context *context; /* reference */
  fl_embedding *embedding;
  fl_slice_server_options options;
  fli_slice_plan plan;
  uint64_t steps; /* of the store, when all was well */
  uint64_t adjusts;
  uint64_t n_ids;         /* in all sums */
  uint32_t clients;       /* updates */
  int is_attached;        /* to a job */
  fl_slice_report report; /* of the last step */
  fli_sparse_sum *sums;   /* [plan.n_tables] */
  /* Of a step that is prepared. */
  fli_sparse_place **sorted; /* [plan.n_tables]; NULL: not yet */
  float *gradients;
  float *utilities;
};

void fli_slice_unprepare(fl_slice_server *server);
/* The next plan's thresholds and seed. */
void fli_slice_plan_round(fl_slice_server *server);
/* What the store has done: another store, or one of another time, has not. */
void fli_slice_note_store(fl_slice_server *server);

/* ---- client ---------------------------------------------------------------
 */

typedef struct fli_slice_ids {
  /* For the next round: rising. */
  uint64_t *next;
  size_t n_next;
  /* Of this round. */
  uint64_t *own;
  size_t n_own;
  uint64_t *asked; /* own ones and decoys, rising */
  size_t n_asked;
  size_t n_taken;   /* of those asked */
  size_t own_taken; /* of the own ones */
  size_t n_window;  /* asked in the request that is out, from n_taken on */
  uint8_t *masks;   /* [n_own], of the server's row; 0: none */
  float *values;    /* [n_own, dim], as training begins with them */
  uint32_t *counts; /* [n_own], batches */
  float *utilities; /* [n_own, chunks] */
} fli_slice_ids;

struct fl_slice_client {
  fl_context *context; /* reference */
  fl_embedding *embedding;
  fl_slice_client_options options;
  uint8_t secret[32];
  fli_watch watch;
  int is_begun; /* a round */
  int is_attached;
  fli_slice_plan plan;
  fl_slice_client_status status;
  uint32_t n_tables;
  fli_slice_ids tables[FL_EMBEDDING_MAX_TABLES];
};

void fli_slice_end_round(fl_slice_client *client);
/* slice_ids.c: rising, each once. Returns how many are left. */
size_t fli_slice_sort(uint64_t *ids, size_t n);
/* Own ids and decoys. `asked` has room for n_asked of them. FL_E_LIMIT. */
fl_status fli_slice_add_decoys(const fl_slice_client *client, uint32_t table,
                               uint64_t *asked, size_t n_own, size_t n_asked);
/* Where an id is among n rising ones; n: nowhere. */
size_t fli_slice_find(const uint64_t *ids, size_t n, uint64_t id);

#endif

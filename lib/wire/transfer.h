/* SPDX-License-Identifier: Apache-2.0 */
/* Bulk payloads: the sending and the receiving side of MANIFEST + CHUNKs. */
#ifndef FLI_TRANSFER_H
#define FLI_TRANSFER_H

#include "wire/messages.h"

typedef struct fli_range {
  uint64_t begin, end;
} fli_range;

/* A payload being received. Memory grows with what arrives, not with what the
 * manifest declares. Chunks may come twice. A gap is FL_E_FORMAT when the
 * sender does not know STATUS: the transfer is dropped and its sender starts
 * over after a HELLO. Else `is_status_due` says when it is to be told; what is
 * behind the gap is kept (64 chunks ahead at most) with `note`, gaps.h. */
typedef struct fli_incoming fli_incoming;

/* Where the bytes of a payload go that comes without gaps, if not into memory.
 * Their failures end the chunk, which may come again. */
typedef struct fli_sink {
  fl_status (*put)(fli_incoming *incoming, void *arg, const fli_chunk *chunk);
  /* Of the payload, which is whole. */
  fl_status (*hash)(fli_incoming *incoming, void *arg,
                    uint8_t hash[FLI_HASH_BYTES]);
} fli_sink;

struct fli_incoming {
  int is_active;
  fli_manifest manifest; /* views cleared; see `clamped` */
  fli_bytes data;        /* up to the last byte held */
  int is_lent;           /* `data` is the owner's, and as large as it gets */
  fli_bytes clamped;
  uint64_t held;                   /* bytes without a gap */
  fli_range islands[FLI_MAX_GAPS]; /* behind them, in order, apart */
  uint32_t n_islands;
  int is_status_due;
  uint64_t told; /* 1 + `held` of the last STATUS */
  /* These stay. */
  int knows_status;     /* the sender does */
  const fli_sink *sink; /* NULL: into `data`; without `note` */
  void *arg;
  /* Note that a range is held; 0 = there is no room for it. */
  int (*note)(fli_incoming *incoming, fli_range range);
};
void fli_incoming_init(fli_incoming *incoming, fl_context *context);
void fli_incoming_reset(fli_incoming *incoming); /* gives memory back */
/* Have a payload that has just begun written here: as many bytes as it has. */
void fli_incoming_lend(fli_incoming *incoming, void *memory);
/* FL_E_TOO_LARGE when total > max_total. Replaces a transfer in progress, or
 * goes on with it when it is of the same bytes. */
fl_status fli_incoming_begin(fli_incoming *incoming,
                             const fli_manifest *manifest, uint64_t max_total);
/* *is_complete = 1 when all is there and its hash is right. FL_E_FORMAT: gap,
 * overrun, wrong hash (the transfer is reset); FL_E_EMPTY: chunk of no active
 * transfer (ignore it). */
fl_status fli_incoming_chunk(fli_incoming *incoming, const fli_chunk *chunk,
                             int *is_complete);

/* A payload being sent, one chunk per call, so that send queues stay small.
 * Begins as all zero; `transfer` counts up and must survive from one payload to
 * the next. */
typedef struct fli_outgoing {
  const uint8_t *data; /* borrowed from its owner until done or reset */
  /* NULL, or where the bytes come from when there is no data: make n of them,
   * from `offset` on. */
  fl_status (*read)(void *arg, uint64_t offset, uint8_t *out, size_t n);
  void *arg;
  uint64_t total;
  uint64_t offset;
  uint64_t transfer;
  uint32_t chunk_size;
  int is_active;
  uint64_t limit; /* send up to here; below `total` when a gap is filled */
} fli_outgoing;
/* Writes the MANIFEST, whose hash is filled in already (transfer, total and
 * chunk_size are here). */
fl_status fli_outgoing_begin_hashed(fli_outgoing *outgoing, fli_bytes *out,
                                    fli_manifest *manifest, const uint8_t *data,
                                    size_t n, uint32_t chunk_size);
/* The same, from read(arg, ...). */
fl_status fli_outgoing_begin_read(fli_outgoing *outgoing, fli_bytes *out,
                                  fli_manifest *manifest, size_t n,
                                  uint32_t chunk_size);
/* Append the next CHUNK frame; is_active becomes 0 after the last. What `read`
 * says of its failure: nothing was appended. */
fl_status fli_outgoing_next(fli_outgoing *outgoing, fli_bytes *out);
/* Send the first range that the other side has not got, and nothing behind it
 * before it asks. Nothing happens when it is about another transfer, or no
 * range of it. */
void fli_outgoing_resend(fli_outgoing *outgoing, const fli_missing *missing);
/* Append a STATUS that asks for all from the first gap on; it is not due any
 * more. */
fl_status fli_incoming_write_status(fli_incoming *incoming, fli_bytes *out);

#endif

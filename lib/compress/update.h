/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of encoded updates and of sums: fixed little-endian headers, then
 * payload. docs/design/thc.md has the tables. Readers believe nothing: every
 * length follows from the compressor and the agreed scale and is compared with
 * what came; unused bits must be 0. */
#ifndef FLI_UPDATE_H
#define FLI_UPDATE_H

#include "compress/compressor.h"

enum {
  FLI_PREAMBLE_BYTES = 56,
  FLI_UPDATE_HEADER = FLI_PREAMBLE_BYTES + 16,
  FLI_SUM_HEADER = FLI_PREAMBLE_BYTES + 8,
  FLI_TALLY_HEADER = 16
};
/* "FLCU", "FLCS" */
#define FLI_UPDATE_MAGIC 0x55434c46u
#define FLI_SUM_MAGIC 0x53434c46u

/* What updates and sums begin with; `payload` counts the bytes behind headers,
 * masks and tallies. */
void fli_preamble_write(const fli_agreed *agreed, uint32_t magic,
                        uint64_t payload, uint8_t out[FLI_PREAMBLE_BYTES]);
/* FL_E_TRUNCATED, FL_E_FORMAT, FL_E_VERSION, FL_E_SCHEMA, FL_E_STALE. */
fl_status fli_preamble_read(const fli_agreed *agreed, uint32_t magic,
                            const uint8_t *data, size_t n, uint64_t *payload);
/* `got` of `want` bytes are there: FL_OK, FL_E_TRUNCATED or FL_E_FORMAT. */
fl_status fli_check_length(const char *what, size_t got, size_t want);

/* Payload bytes of `count` coordinates. */
size_t fli_payload_size(const fli_agreed *agreed, uint64_t count);
/* Offset of a unit's payload from that of its segment's first. */
size_t fli_payload_offset(const fli_agreed *agreed, const fli_unit *unit);

typedef struct fli_update {
  uint32_t slot;
  uint64_t samples;
  const uint8_t *mask; /* one byte per segment */
  const uint8_t *payload;
} fli_update;

/* Bytes before an update's payload: header, mask, and zeros up to a multiple of
 * 64, so that in memory so aligned the payload is, too. */
size_t fli_update_front(uint32_t n_segments);
/* Bytes of an update that holds the segments of `mask` (NULL = all). */
size_t fli_update_size(const fli_agreed *agreed, const uint8_t *mask);
/* Header and mask; the payload follows at the returned offset. */
size_t fli_update_write(const fli_agreed *agreed, uint32_t slot,
                        uint64_t samples, const uint8_t *mask, uint8_t *out);
/* Checks everything but the payload's values. */
fl_status fli_update_read(const fli_agreed *agreed, const uint8_t *data,
                          size_t n, fli_update *update);

#endif

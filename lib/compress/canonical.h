/* SPDX-License-Identifier: Apache-2.0 */
/* The canonical model: what all replicas hold, bit for bit. Server and client
 * apply the same step records with this one piece of code, so that a hash can
 * prove they agree. D0.
 *
 * A step record says how version v became v + 1:
 *   w += rate * decode(payload)        (float32: multiply, then add)
 * with payload a sum (fl_partial_copy_sum, plain mean) or one encoded update
 * (the server's own step, after momentum and such). Norms and seeds travel in
 * the record: who missed the round needs nothing else. */
#ifndef FLI_CANONICAL_H
#define FLI_CANONICAL_H

#include <fl/compress.h>
#include "crypto/crypto.h"
#include "wire/reader.h"
#include "wire/writer.h"

typedef struct fli_canonical {
  fl_context *context;
  float *weights; /* owned, n */
  float *scratch; /* owned, n: decoded steps; after one, the model before */
  uint64_t n;
  uint64_t version;
  int is_valid; /* 0 = nothing held yet, or known to be wrong */
} fli_canonical;

fl_status fli_canonical_init(fli_canonical *canonical, fl_context *context,
                             uint64_t n);
void fli_canonical_free(fli_canonical *canonical);
void fli_canonical_hash(const fli_canonical *canonical,
                        uint8_t hash[FLI_HASH_BYTES]);
/* Take a full copy (f32 LE), which may be in `scratch` already. FL_E_DIM,
 * FL_E_NOT_FINITE: unchanged. */
fl_status fli_canonical_set(fli_canonical *canonical, uint64_t version,
                            const uint8_t *data, size_t size);
/* Append the full copy as f32 LE. */
fl_status fli_canonical_write(const fli_canonical *canonical, fli_bytes *out);

/* A step record; its norms and payload are views. */
typedef struct fli_step_record {
  uint64_t base_version;
  float rate;
  fl_scale scale; /* without norms */
  const uint8_t *norms;
  size_t norms_size;
  const uint8_t *payload;
  size_t payload_size;
} fli_step_record;

enum { FLI_STEP_PAYLOAD = 9, FLI_STEP_FIELDS = 10 };

/* Begin with this, then read the value of every key. */
void fli_step_init(fli_step_record *step);
void fli_step_field(fli_msg_reader *reader, fli_fields *fields, uint32_t key,
                    fli_step_record *step);
/* change = before + rate * change; what leaves float32 is the caller's to
 * find. */
void fli_step_add(float *change, const float *before, float rate, size_t n);

/* Append a step record: a msgpack map {1: base version, 2: rate f32, 3: round,
 * 4: slots, 5: weight cap, 6: noise seed, 7: norms bf16, 8: clip, 9: payload,
 * 10: is_public}. */
fl_status fli_step_write(fli_bytes *out, uint64_t base_version, float rate,
                         const fl_scale *scale, const uint8_t *payload,
                         size_t payload_size);
/* Apply one or more records, one behind the other (hostile bytes are fine).
 * The first must start from the version held: FL_E_STALE. On failure after
 * the first record is_valid becomes 0. */
fl_status fli_canonical_apply(fli_canonical *canonical,
                              const fl_compressor *compressor,
                              const uint8_t *data, size_t size);

#endif

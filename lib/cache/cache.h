/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the activation cache: one block of bytes, in memory or mapped,
 *
 *   header   FLI_CACHE_HEADER bytes
 *   bitmap   bit id of it: the row is there; rounded up to 64 bytes
 *   slots    one per sample in order of id, each rounded up to 8 bytes
 *
 * A slot is a checksum of 8 bytes, or nonce and tag when it is encrypted, and
 * the row: FLI_CACHE_SCALE bytes (I8) and the values. Numbers within rows have
 * this machine's byte order, which the header tells. */
#ifndef FLI_CACHE_H
#define FLI_CACHE_H

#include <fl/cache.h>
#include "crypto/crypto.h"

enum { FLI_CACHE_HEADER = 256, FLI_CACHE_SCALE = 8, FLI_CACHE_SUM = 8 };
enum { FLI_CACHE_SEALED = FLI_NONCE_BYTES + FLI_TAG_BYTES };

/* Where things are; fits into size_t. */
typedef struct fli_cache_layout {
  uint64_t n_samples;
  uint64_t n_values;
  uint64_t row;  /* bytes of a row as it is kept */
  uint64_t head; /* bytes before it */
  uint64_t slot;
  uint64_t slots_at;
  uint64_t bytes; /* of everything */
} fli_cache_layout;

struct fl_cache {
  fl_context *context; /* reference */
  /* NULL: in memory. Then `name`, too. */
  const fl_storage *storage;
  char *name;
  uint32_t dtype;
  int has_key;
  int is_wiped;
  uint64_t byte_cap;
  uint8_t data_tag[FL_HASH_BYTES];
  uint8_t header_key[FLI_KEY_BYTES]; /* both zeros without a key */
  uint8_t row_key[FLI_KEY_BYTES];
  fli_cache_layout layout;
  uint8_t header[FLI_CACHE_HEADER]; /* as `data` begins */
  uint8_t *data;                    /* NULL: off */
  uint8_t *scratch; /* one row, when it has another form before sealing */
  uint64_t rows;    /* bits set */
  uint64_t hits;
  uint64_t misses;
  uint64_t begun; /* times that rows began to be of something else */
};

/* ---- the block (block.c) ------------------------------------------------- */

/* FL_E_LIMIT: above the cap. */
fl_status fli_cache_plan(const fl_cache *cache, uint64_t n_samples,
                         uint64_t n_values, fli_cache_layout *out);
/* What the block of such a layout and tag begins with, to the last byte: a
 * header that is another one is none. */
void fli_cache_header(const fl_cache *cache, const fli_cache_layout *layout,
                      const uint8_t *tag, uint8_t header[FLI_CACHE_HEADER]);
/* Take the block of cache->layout and cache->header; what it holds stays valid
 * if it has that header. The cache is off before. FL_E_NOMEM, FL_E_IO. */
fl_status fli_cache_open(fl_cache *cache);
/* Give it back: the cache is off. */
void fli_cache_close(fl_cache *cache);
/* Close it so that its rows cannot be read again, and remove the blob. */
fl_status fli_cache_destroy(fl_cache *cache);

/* ---- rows (rows.c) ------------------------------------------------------- */

/* Called under a fli_fpguard. */
int fli_rows_are_finite(const float *x, size_t n);
uint64_t fli_row_bytes(uint32_t dtype, uint64_t n_values);
/* x is finite. */
void fli_row_encode(uint32_t dtype, uint8_t *row, const float *x, size_t n);
/* 0 when what comes out is not finite. */
int fli_row_decode(uint32_t dtype, float *x, const uint8_t *row, size_t n);
/* 64 bits that any change within 8 aligned bytes changes, and other changes
 * but for one in 2^64, if nobody meant them. */
uint64_t fli_row_sum(const uint8_t *row, size_t n, uint64_t seed, uint64_t id);

#endif

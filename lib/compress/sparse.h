/* SPDX-License-Identifier: Apache-2.0 */
/* The lattice of sparse updates: rows of embedding tables, by id. No rotation
 * and no dither, which would add noise to ids that a client never touched: a
 * symmetric grid -7..7 with an exact zero, a distance of the grid's points for
 * each chunk of a row that all clients share, and stochastic rounding.
 * Utilities are whole numbers of a unit with 5 significant bits, in a byte.
 *
 * A sum is by id: lanes of 8, 16 or 32 bits, as wide as the number of updates
 * asks for, the number of those that had the id, and utilities in 64 bits. So
 * it does not depend on the order. D0. */
#ifndef FLI_SPARSE_H
#define FLI_SPARSE_H

#include <fl/base.h>
#include "base/rng.h"
#include "wire/writer.h"

enum {
  FLI_GRID_MAX = 7,
  FLI_GRID_CHUNKS = 4, /* of a row, at most */
  FLI_GRID_DIM = 1024, /* values of a row, at most */
  FLI_GRID_CLIENTS = 65535
};
#define FLI_GRID_UTILITY_MAX (31u << 14)

/* ---- values and bytes --------------------------------------------------- */

/* The nearest points of the grid, one of two by chance; 0 stays 0. Returns how
 * many values were beyond it. Values are finite, delta > 0. */
uint32_t fli_grid_round(int8_t *codes, const float *values, size_t n,
                        float delta, fli_rng *chance);
/* Two codes in a byte, the first in the lower half, n even. Unpack returns 0
 * when one is none. */
void fli_grid_pack(uint8_t *out, const int8_t *codes, size_t n);
int fli_grid_unpack(int8_t *codes, const uint8_t *in, size_t n);
/* A utility >= 0 (not finite: the largest) over a unit > 0, and back as a whole
 * number of units. */
uint8_t fli_grid_utility(float value, float unit, fli_rng *chance);
uint32_t fli_grid_units(uint8_t code);

/* ---- sums --------------------------------------------------------------- */

typedef struct fli_sparse_row {
  uint64_t id;
  uint32_t mask; /* of chunks; codes of others are 0 */
  uint8_t utilities[FLI_GRID_CHUNKS];
  int8_t codes[FLI_GRID_DIM];
} fli_sparse_row;

typedef struct fli_sparse_sum {
  fl_context *context; /* not a reference */
  uint32_t dim;
  uint32_t chunks;
  uint32_t n_added;    /* updates */
  uint32_t lane_bytes; /* 1, 2, 4 */
  size_t n;            /* ids */
  size_t capacity;
  uint64_t secret[2]; /* nobody can choose ids whose hashes meet */
  uint64_t *ids;
  uint32_t *counts;    /* updates that had the id */
  uint64_t *utilities; /* [n, chunks], in units */
  uint8_t *lanes;      /* [n, dim] signed, of lane_bytes, host's order */
  uint32_t *places;    /* by hash: 1 + place among ids; a power of two, at least
                          2 x capacity */
  uint64_t squares[FLI_GRID_CHUNKS]; /* of codes */
  uint64_t values[FLI_GRID_CHUNKS];  /* how many codes there were */
  uint64_t clamped[FLI_GRID_CHUNKS]; /* as clients say */
  uint64_t n_utilities;              /* that were not 0, */
  uint64_t utility_sum;              /* and their sum */
} fli_sparse_sum;

/* FL_E_ENTROPY. Free by fli_sparse_clear. */
fl_status fli_sparse_init(fli_sparse_sum *sum, fl_context *context,
                          uint32_t dim, uint32_t chunks);
/* Nothing was added any more; memory goes back. */
void fli_sparse_clear(fli_sparse_sum *sum);
int fli_sparse_has(const fli_sparse_sum *sum, uint64_t id);
/* Room for one more update of n ids: what follows cannot fail. FL_E_NOMEM,
 * FL_E_LIMIT (too many updates): nothing has changed. */
fl_status fli_sparse_reserve(fli_sparse_sum *sum, size_t n);
/* Add one row of it, then say that it was all. */
void fli_sparse_add(fli_sparse_sum *sum, const fli_sparse_row *row);
void fli_sparse_count(fli_sparse_sum *sum);
/* Of the id at `place`. */
void fli_sparse_lanes(const fli_sparse_sum *sum, size_t place, int32_t *lanes);
/* Places by rising id. FL_E_NOMEM. Free with n * sizeof **out. */
typedef struct fli_sparse_place {
  uint64_t id;
  size_t place;
} fli_sparse_place;
fl_status fli_sparse_sort(const fli_sparse_sum *sum, fli_sparse_place **out);
/* As bytes, ids in the order of their first update; and from them into an
 * empty sum. FL_E_FORMAT, FL_E_TRUNCATED, FL_E_RANGE, FL_E_DUPLICATE. */
fl_status fli_sparse_write(const fli_sparse_sum *sum, fli_bytes *out);
fl_status fli_sparse_read(fli_sparse_sum *sum, const uint8_t *data, size_t n);

#endif

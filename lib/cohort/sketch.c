/* SPDX-License-Identifier: Apache-2.0 */
/* Count sketch: value i is added, with a sign, to one of dim numbers; both come
 * from one draw per value, kept in a table of 2 bytes. Rounded to 16 levels
 * between minus and plus the largest; only directions matter, so the scale is
 * not sent. */
#include "cohort/cohort.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/size.h"

enum { LEVELS = 15, DIM_MOST = 4096, BANKS = 4 };

struct fl_sketcher {
  fl_context *context; /* reference */
  size_t n;
  uint32_t dim;
  uint16_t *table; /* bucket * 2 + 1 if positive */
  float *sums;     /* [BANKS, dim, 2], so that neighbours do not wait */
};

static void fill_table(fl_sketcher *sketcher, uint64_t seed)
{
  fli_split_rng rng = {seed};
  for (size_t i = 0; i < sketcher->n; i++) {
    uint32_t z = (uint32_t)(fli_split_next(&rng) >> 32);
    uint32_t bucket = (z >> 1) % sketcher->dim;
    sketcher->table[i] = (uint16_t)(bucket << 1 | (z & 1));
  }
}

fl_status fl_sketcher_new(fl_sketcher **out, fl_context *context, uint64_t seed,
                          uint64_t n, uint32_t dim)
{
  size_t count, bytes;
  fli_clear_error();
  if (!out || n == 0)
    return fli_error(FL_E_ARGUMENT, "sketcher: got NULL or no values");
  if (dim == 0 || dim > DIM_MOST || dim % FLI_COHORT_LANES != 0) {
    return fli_error(
        FL_E_OPTIONS, "sketcher: dim, got %u, want a multiple of %d, %d..%d",
        (unsigned)dim, FLI_COHORT_LANES, FLI_COHORT_LANES, DIM_MOST);
  }
  if (!fli_to_size(n, &count) ||
      !fli_mul_size(count, sizeof(uint16_t), &bytes)) {
    return fli_nomem(SIZE_MAX);
  }
  fl_sketcher *sketcher = fli_alloc(context, 1, sizeof *sketcher);
  if (!sketcher) return fli_nomem(sizeof *sketcher);
  sketcher->context = fli_context_ref(context);
  sketcher->n = count;
  sketcher->dim = dim;
  sketcher->table = fli_alloc(context, count, sizeof *sketcher->table);
  sketcher->sums =
      fli_alloc(context, 2 * (size_t)dim * BANKS, sizeof *sketcher->sums);
  if (!sketcher->table || !sketcher->sums) {
    fl_sketcher_free(sketcher);
    return fli_nomem(bytes);
  }
  fill_table(sketcher, seed);
  *out = sketcher;
  return FL_OK;
}

void fl_sketcher_free(fl_sketcher *sketcher)
{
  if (!sketcher) return;
  fl_context *context = sketcher->context;
  if (sketcher->table) {
    fli_free(context, sketcher->table, sketcher->n * sizeof *sketcher->table);
  }
  if (sketcher->sums) {
    fli_free(context, sketcher->sums,
             2 * (size_t)sketcher->dim * BANKS * sizeof *sketcher->sums);
  }
  fli_free(context, sketcher, sizeof *sketcher);
  fli_context_unref(context);
}

/* What is to be added and what to be taken away are summed apart. */
static void add_up(fl_sketcher *sketcher, const float *restrict update)
{
  const size_t n = sketcher->n, dim = sketcher->dim;
  const uint16_t *restrict table = sketcher->table;
  float *restrict a = sketcher->sums;
  float *restrict b = a + 2 * dim, *restrict c = b + 2 * dim;
  float *restrict d = c + 2 * dim;
  size_t i = 0;
  memset(a, 0, 2 * BANKS * dim * sizeof *a);
  for (; i + BANKS <= n; i += BANKS) {
    a[table[i]] += update[i];
    b[table[i + 1]] += update[i + 1];
    c[table[i + 2]] += update[i + 2];
    d[table[i + 3]] += update[i + 3];
  }
  for (; i < n; i++)
    a[table[i]] += update[i];
  for (size_t j = 0; j < 2 * dim; j++)
    a[j] = (a[j] + b[j]) + (c[j] + d[j]);
  for (size_t j = 0; j < dim; j++)
    a[j] = a[2 * j + 1] - a[2 * j];
}

static uint8_t level_of(double value, double most)
{
  return (uint8_t)rint((value + most) / (2.0 * most) * LEVELS);
}

static fl_status pack(const fl_sketcher *sketcher, uint8_t *buffer)
{
  const float *sums = sketcher->sums;
  float most = 0.0f;
  for (uint32_t j = 0; j < sketcher->dim; j++) {
    if (!isfinite(sums[j]))
      return fli_error(FL_E_NOT_FINITE, "sketcher: the update, or a sum of it");
    if (fabsf(sums[j]) > most) most = fabsf(sums[j]);
  }
  if (most == 0.0f)
    return fli_error(FL_E_RANGE, "sketcher: the update's sketch is all zeros");
  for (uint32_t j = 0; j < sketcher->dim; j += 2) {
    uint8_t low = level_of((double)sums[j], (double)most);
    uint8_t high = level_of((double)sums[j + 1], (double)most);
    buffer[j / 2] = (uint8_t)(low | high << 4);
  }
  return FL_OK;
}

fl_status fl_sketcher_write(fl_sketcher *sketcher, const float *update,
                            uint64_t n, uint8_t *buffer, size_t capacity,
                            size_t *needed)
{
  fli_fpguard guard;
  fli_clear_error();
  if (!sketcher || !needed || (!buffer && capacity > 0))
    return fli_error(FL_E_ARGUMENT, "sketcher: got NULL");
  *needed = sketcher->dim / 2;
  if (!buffer) return FL_OK;
  if (capacity < *needed) {
    return fli_error(FL_E_SIZE, "sketcher: got %zu bytes, want %zu", capacity,
                     *needed);
  }
  if (!update) return fli_error(FL_E_ARGUMENT, "sketcher: update, got NULL");
  if (n != sketcher->n) {
    return fli_error(FL_E_DIM, "sketcher: got %" PRIu64 " values, want %zu", n,
                     sketcher->n);
  }
  fli_fpguard_enter(&guard);
  add_up(sketcher, update);
  fl_status st = pack(sketcher, buffer);
  fli_fpguard_leave(&guard);
  return st;
}

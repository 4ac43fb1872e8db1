/* SPDX-License-Identifier: Apache-2.0 */
/* Reading updates piece by piece, and sums over them. */
#include <math.h>

#include "base/context.h"
#include "base/error.h"
#include "base/size.h"
#include "kernels/kernels.h"
#include "strategy/strategy.h"

fl_status fli_host_status(fl_status status, const char *what)
{
  if (status == FL_OK) return FL_OK;
  return fli_error(status < 0 ? status : FL_E_CALLBACK,
                   "strategy: the host's %s gave %d", what, (int)status);
}

fl_status fli_expect_finite(const float *x, uint64_t n, const char *what)
{
  const size_t count = (size_t)n;
  const size_t at = flk_kernels()->find_not_finite(x, count);
  if (at == count) return FL_OK;
  return fli_error(FL_E_NOT_FINITE, "strategy: %s, value %zu", what, at);
}

fl_status fli_updates_open(fli_updates *updates, fl_context *context,
                           const fl_strategy_round *round, uint32_t capacity,
                           int has_buffer)
{
  *updates =
      (fli_updates){.context = context, .round = round, .capacity = capacity};
  /* Rows of controls may have to be read where updates lie in memory. */
  if (has_buffer || round->read || round->read_control) {
    if (!fli_mul_size(capacity, FLI_TILE, &updates->n_buffer))
      return fli_nomem(SIZE_MAX);
    updates->buffer = fli_alloc(context, updates->n_buffer, sizeof(float));
  }
  updates->rows = fli_alloc(context, capacity, sizeof *updates->rows);
  if (updates->rows && (updates->buffer || updates->n_buffer == 0))
    return FL_OK;
  fli_updates_close(updates);
  return fli_nomem(updates->n_buffer * sizeof(float));
}

void fli_updates_close(fli_updates *updates)
{
  fli_free(updates->context, updates->buffer,
           updates->n_buffer * sizeof(float));
  fli_free(updates->context, updates->rows,
           updates->capacity * sizeof *updates->rows);
  updates->buffer = NULL;
  updates->rows = NULL;
}

/* Where they lie, or what the host puts into the buffer or points at. */
static fl_status read_row(const fli_updates *updates, uint32_t index,
                          uint64_t at, uint64_t n, float *buffer,
                          const float **values)
{
  const fl_strategy_round *round = updates->round;
  const float *const *rows =
      updates->of_controls ? round->control_rows : round->rows;
  if (rows) {
    *values = rows[index] + at;
    return FL_OK;
  }
  const fl_status st = fli_host_status(
      (updates->of_controls ? round->read_control : round->read)(
          round->user, index, at, n, buffer, values),
      "read");
  if (st != FL_OK || *values) return st;
  return fli_error(FL_E_CALLBACK, "strategy: the host's read left NULL");
}

fl_status fli_updates_read(fli_updates *updates, uint32_t first, uint32_t count,
                           uint64_t at, uint64_t n)
{
  const flk_table *kernels = flk_kernels();
  for (uint32_t k = 0; k < count; k++) {
    float *buffer =
        updates->buffer ? updates->buffer + (size_t)k * FLI_TILE : NULL;
    const float *values = buffer;
    updates->rows[k] = buffer;
    if (updates->factors && updates->factors[first + k] == 0.0) continue;
    const fl_status st = read_row(updates, first + k, at, n, buffer, &values);
    if (st != FL_OK) return st;
    if (!updates->is_unchecked &&
        kernels->find_not_finite(values, (size_t)n) < n)
      return fli_error(FL_E_NOT_FINITE, "strategy: update %u", first + k);
    updates->rows[k] = values;
  }
  return FL_OK;
}

static uint64_t piece(uint64_t at, uint64_t n, uint64_t most)
{
  return n - at < most ? n - at : most;
}

fl_status fli_squares(const fl_strategy *strategy,
                      const fl_strategy_round *round, double *squares)
{
  const flk_table *kernels = flk_kernels();
  fl_status st = FL_OK;
  fli_updates updates;
  FLI_TRY(fli_updates_open(&updates, strategy->context, round, 1, 0));
  for (uint32_t k = 0; k < round->count; k++) {
    double sum = 0.0;
    for (uint64_t at = 0; at < strategy->n; at += FLI_TILE) {
      const uint64_t n = piece(at, strategy->n, FLI_TILE);
      FLI_TRY(fli_updates_read(&updates, k, 1, at, n));
      sum += kernels->sum_squares(updates.rows[0], (size_t)n);
    }
    squares[k] = sum;
  }
out:
  fli_updates_close(&updates);
  return st;
}

/* What is not finite stays so in a sum: updates are looked at only when that
 * has shown one, to name it. */
static fl_status round_off(fli_updates *updates, const double *sums, float *out,
                           uint64_t at, uint64_t n)
{
  fl_status st = FL_OK;
  for (uint64_t i = 0; i < n; i++)
    out[at + i] = (float)sums[i];
  if (flk_kernels()->find_not_finite(out + at, (size_t)n) == n) return FL_OK;
  updates->is_unchecked = 0;
  for (uint32_t k = 0; k < updates->round->count; k++)
    FLI_TRY(fli_updates_read(updates, k, 1, at, n));
  st = fli_error(FL_E_NOT_FINITE, "strategy: the combined updates");
out:
  return st;
}

/* The sums of all pieces, `most` coordinates each. */
static fl_status sum_pieces(fli_updates *updates, double *sums, size_t most,
                            uint64_t dim, float *out)
{
  const flk_robust *kernels = flk_robust_kernels();
  const uint32_t all = updates->round->count;
  for (uint64_t at = 0; at < dim; at += most) {
    const uint64_t n = piece(at, dim, most);
    for (uint64_t i = 0; i < n; i++)
      sums[i] = 0.0;
    for (uint32_t k = 0; k < all; k += updates->capacity) {
      const uint32_t left = all - k;
      const uint32_t count =
          left < updates->capacity ? left : updates->capacity;
      const fl_status st = fli_updates_read(updates, k, count, at, n);
      if (st != FL_OK) return st;
      kernels->add(sums, updates->rows, updates->factors + k, count, 0,
                   (size_t)n);
    }
    const fl_status st = round_off(updates, sums, out, at, n);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

/* Of updates that lie in memory long pieces: see fetch_on(). */
enum { SUMS_MAX = 16384 };

fl_status fli_weighted_sum(const fl_strategy *strategy,
                           const fl_strategy_round *round,
                           const double *factors, int of_controls, float *out)
{
  const uint32_t group = round->count < FLI_GROUP ? round->count : FLI_GROUP;
  fli_updates updates;
  fl_status st = fli_updates_open(&updates, strategy->context, round, group, 0);
  if (st != FL_OK) return st;
  updates.factors = factors;
  updates.of_controls = of_controls;
  updates.is_unchecked = 1;
  const size_t most =
      (size_t)piece(0, strategy->n, updates.buffer ? FLI_TILE : SUMS_MAX);
  double *sums = fli_alloc(strategy->context, most, sizeof *sums);
  st = sums ? sum_pieces(&updates, sums, most, strategy->n, out)
            : fli_nomem(most * sizeof *sums);
  fli_free(strategy->context, sums, most * sizeof *sums);
  fli_updates_close(&updates);
  return st;
}

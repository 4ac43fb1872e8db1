/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of sparse updates by id. */
#include "compress/sparse.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/size.h"
#include "crypto/crypto.h"

enum { FIRST_CAPACITY = 64 };

/* Each update has each id once, and codes up to 7 beside the lane's limit. */
static uint32_t lane_bytes_for(uint32_t n_updates)
{
  if (n_updates * FLI_GRID_MAX <= INT8_MAX) return 1;
  return n_updates * FLI_GRID_MAX <= INT16_MAX ? 2 : 4;
}

static int32_t load_lane(const uint8_t *lanes, size_t at, uint32_t bytes)
{
  int16_t two;
  int32_t four;
  if (bytes == 1) return (int8_t)lanes[at];
  if (bytes == 2) {
    memcpy(&two, lanes + at * sizeof two, sizeof two);
    return two;
  }
  memcpy(&four, lanes + at * sizeof four, sizeof four);
  return four;
}

static void store_lane(uint8_t *lanes, size_t at, uint32_t bytes, int32_t value)
{
  const int8_t one = (int8_t)value;
  const int16_t two = (int16_t)value;
  if (bytes == 1) memcpy(lanes + at, &one, sizeof one);
  if (bytes == 2) memcpy(lanes + at * sizeof two, &two, sizeof two);
  if (bytes == 4) memcpy(lanes + at * sizeof value, &value, sizeof value);
}

static void make_empty(fli_sparse_sum *sum)
{
  *sum = (fli_sparse_sum){.context = sum->context,
                          .dim = sum->dim,
                          .chunks = sum->chunks,
                          .lane_bytes = 1,
                          .secret = {sum->secret[0], sum->secret[1]}};
}

fl_status fli_sparse_init(fli_sparse_sum *sum, fl_context *context,
                          uint32_t dim, uint32_t chunks)
{
  sum->context = context;
  sum->dim = dim;
  sum->chunks = chunks;
  make_empty(sum);
  return fli_random_bytes(context, sum->secret, sizeof sum->secret);
}

static void free_arrays(fli_sparse_sum *sum)
{
  const size_t n = sum->capacity;
  fli_free(sum->context, sum->ids, n * sizeof *sum->ids);
  fli_free(sum->context, sum->counts, n * sizeof *sum->counts);
  fli_free(sum->context, sum->utilities,
           n * sum->chunks * sizeof *sum->utilities);
  fli_free(sum->context, sum->lanes, n * sum->dim * sum->lane_bytes);
  fli_free(sum->context, sum->places, 2 * n * sizeof *sum->places);
}

void fli_sparse_clear(fli_sparse_sum *sum)
{
  free_arrays(sum);
  make_empty(sum);
}

/* ---- places ------------------------------------------------------------- */

static size_t hash_of(const fli_sparse_sum *sum, uint64_t id)
{
  id = (id ^ sum->secret[0]) * (sum->secret[1] | 1u);
  return (size_t)(id >> 32);
}

/* Where the id is, or would be. The table is at most half full. */
static uint32_t *find_place(const fli_sparse_sum *sum, uint64_t id)
{
  const size_t mask = 2 * sum->capacity - 1;
  size_t at = hash_of(sum, id) & mask;
  while (sum->places[at] != 0 && sum->ids[sum->places[at] - 1] != id)
    at = (at + 1) & mask;
  return &sum->places[at];
}

int fli_sparse_has(const fli_sparse_sum *sum, uint64_t id)
{
  return sum->capacity > 0 && *find_place(sum, id) != 0;
}

static fl_status make_arrays(fli_sparse_sum *sum, size_t capacity,
                             uint32_t lane_bytes)
{
  size_t floats, bytes;
  sum->capacity = capacity;
  sum->lane_bytes = lane_bytes;
  if (!fli_mul_size(capacity, sum->dim, &floats) ||
      !fli_mul_size(floats, 8, &bytes))
    return fli_nomem(SIZE_MAX);
  sum->ids = fli_alloc(sum->context, capacity, sizeof *sum->ids);
  sum->counts = fli_alloc(sum->context, capacity, sizeof *sum->counts);
  sum->utilities =
      fli_alloc(sum->context, capacity * sum->chunks, sizeof *sum->utilities);
  sum->lanes = fli_alloc(sum->context, floats, lane_bytes);
  sum->places = fli_alloc(sum->context, 2 * capacity, sizeof *sum->places);
  if (sum->ids && sum->counts && sum->utilities && sum->lanes && sum->places)
    return FL_OK;
  free_arrays(sum);
  return fli_nomem(bytes);
}

static void move_rows(fli_sparse_sum *to, const fli_sparse_sum *from)
{
  const size_t n = from->n;
  if (n == 0) return;
  memcpy(to->ids, from->ids, n * sizeof *to->ids);
  memcpy(to->counts, from->counts, n * sizeof *to->counts);
  memcpy(to->utilities, from->utilities,
         n * to->chunks * sizeof *to->utilities);
  for (size_t i = 0; i < n * to->dim; i++)
    store_lane(to->lanes, i, to->lane_bytes,
               load_lane(from->lanes, i, from->lane_bytes));
  for (size_t i = 0; i < n; i++)
    *find_place(to, to->ids[i]) = (uint32_t)i + 1u;
}

static fl_status make_room(fli_sparse_sum *sum, size_t more, uint32_t n_updates)
{
  size_t want, capacity = sum->capacity ? sum->capacity : FIRST_CAPACITY;
  const uint32_t lane_bytes = lane_bytes_for(n_updates);
  fli_sparse_sum larger = *sum;
  if (!fli_add_size(sum->n, more, &want) || want > UINT32_MAX / 4)
    return fli_error(FL_E_LIMIT, "sparse sum: got more than 2^30 ids");
  while (capacity < want)
    capacity *= 2;
  if (capacity == sum->capacity && lane_bytes <= sum->lane_bytes) return FL_OK;
  const fl_status st = make_arrays(&larger, capacity, lane_bytes);
  if (st != FL_OK) return st;
  move_rows(&larger, sum);
  free_arrays(sum);
  *sum = larger;
  return FL_OK;
}

fl_status fli_sparse_reserve(fli_sparse_sum *sum, size_t n)
{
  if (sum->n_added >= FLI_GRID_CLIENTS)
    return fli_error(FL_E_LIMIT, "sparse sum: got more than %d updates",
                     FLI_GRID_CLIENTS);
  return make_room(sum, n, sum->n_added + 1);
}

/* ---- adding ------------------------------------------------------------- */

static size_t place_of(fli_sparse_sum *sum, uint64_t id)
{
  uint32_t *place = find_place(sum, id);
  if (*place == 0) {
    sum->ids[sum->n++] = id;
    *place = (uint32_t)sum->n;
  }
  return *place - 1;
}

static void add_chunk(fli_sparse_sum *sum, size_t place,
                      const fli_sparse_row *row, uint32_t k)
{
  const size_t n = sum->dim / sum->chunks, first = k * n;
  uint64_t squares = 0;
  for (size_t i = first; i < first + n; i++) {
    const size_t at = place * sum->dim + i;
    const int32_t code = row->codes[i];
    store_lane(sum->lanes, at, sum->lane_bytes,
               load_lane(sum->lanes, at, sum->lane_bytes) + code);
    squares += (uint64_t)(code * code);
  }
  sum->squares[k] += squares;
  sum->values[k] += n;
}

void fli_sparse_add(fli_sparse_sum *sum, const fli_sparse_row *row)
{
  const size_t place = place_of(sum, row->id);
  sum->counts[place]++;
  for (uint32_t k = 0; k < sum->chunks; k++) {
    const uint32_t units = fli_grid_units(row->utilities[k]);
    sum->utilities[place * sum->chunks + k] += units;
    sum->utility_sum += units;
    sum->n_utilities += units > 0;
    if (row->mask >> k & 1) add_chunk(sum, place, row, k);
  }
}

void fli_sparse_count(fli_sparse_sum *sum)
{
  sum->n_added++;
}

void fli_sparse_lanes(const fli_sparse_sum *sum, size_t place, int32_t *lanes)
{
  for (size_t i = 0; i < sum->dim; i++)
    lanes[i] = load_lane(sum->lanes, place * sum->dim + i, sum->lane_bytes);
}

static int compare_places(const void *a, const void *b)
{
  const uint64_t x = ((const fli_sparse_place *)a)->id;
  const uint64_t y = ((const fli_sparse_place *)b)->id;
  return x < y ? -1 : x > y;
}

fl_status fli_sparse_sort(const fli_sparse_sum *sum, fli_sparse_place **out)
{
  fli_sparse_place *sorted = fli_alloc(sum->context, sum->n, sizeof *sorted);
  if (!sorted) return fli_nomem(sum->n * sizeof *sorted);
  for (size_t i = 0; i < sum->n; i++)
    sorted[i] = (fli_sparse_place){sum->ids[i], i};
  qsort(sorted, sum->n, sizeof *sorted, compare_places);
  *out = sorted;
  return FL_OK;
}

/* ---- as bytes ----------------------------------------------------------- */

enum { HEAD_NUMBERS = 4 + 3 * FLI_GRID_CHUNKS };

static size_t row_bytes(const fli_sparse_sum *sum)
{
  return 8 + 4 + 8 * (size_t)sum->chunks + 4 * (size_t)sum->dim;
}

static void write_row(const fli_sparse_sum *sum, size_t place, uint8_t *to)
{
  fli_store_u64(to, sum->ids[place]);
  fli_store_u32(to + 8, sum->counts[place]);
  to += 12;
  for (size_t k = 0; k < sum->chunks; k++, to += 8)
    fli_store_u64(to, sum->utilities[place * sum->chunks + k]);
  for (size_t i = 0; i < sum->dim; i++, to += 4)
    fli_store_u32(to, (uint32_t)load_lane(sum->lanes, place * sum->dim + i,
                                          sum->lane_bytes));
}

fl_status fli_sparse_write(const fli_sparse_sum *sum, fli_bytes *out)
{
  uint64_t head[HEAD_NUMBERS] = {sum->n_added, sum->n, sum->n_utilities,
                                 sum->utility_sum};
  size_t rows;
  memcpy(head + 4, sum->squares, sizeof sum->squares);
  memcpy(head + 4 + FLI_GRID_CHUNKS, sum->values, sizeof sum->values);
  memcpy(head + 4 + 2 * FLI_GRID_CHUNKS, sum->clamped, sizeof sum->clamped);
  if (!fli_mul_size(sum->n, row_bytes(sum), &rows)) return fli_nomem(SIZE_MAX);
  const fl_status st = fli_bytes_reserve(out, rows + sizeof head);
  if (st != FL_OK) return st;
  for (size_t i = 0; i < HEAD_NUMBERS; i++, out->size += 8)
    fli_store_u64(out->data + out->size, head[i]);
  for (size_t i = 0; i < sum->n; i++, out->size += row_bytes(sum))
    write_row(sum, i, out->data + out->size);
  return FL_OK;
}

static fl_status read_row(fli_sparse_sum *sum, const uint8_t *from)
{
  const uint64_t id = fli_load_u64(from);
  const uint32_t count = fli_load_u32(from + 8);
  const int32_t limit = (int32_t)count * FLI_GRID_MAX;
  if (count < 1 || count > sum->n_added)
    return fli_error(FL_E_RANGE, "sparse sum: got %u updates of an id", count);
  const size_t n = sum->n, place = place_of(sum, id);
  if (place != n) return fli_error(FL_E_DUPLICATE, "sparse sum: an id twice");
  sum->counts[place] = count;
  from += 12;
  for (size_t k = 0; k < sum->chunks; k++, from += 8) {
    const uint64_t units = fli_load_u64(from);
    if (units > (uint64_t)count * FLI_GRID_UTILITY_MAX)
      return fli_error(FL_E_RANGE, "sparse sum: a utility");
    sum->utilities[place * sum->chunks + k] = units;
  }
  for (size_t i = 0; i < sum->dim; i++, from += 4) {
    const int32_t lane = (int32_t)fli_load_u32(from);
    if (lane > limit || lane < -limit)
      return fli_error(FL_E_RANGE, "sparse sum: a lane");
    store_lane(sum->lanes, place * sum->dim + i, sum->lane_bytes, lane);
  }
  return FL_OK;
}

fl_status fli_sparse_read(fli_sparse_sum *sum, const uint8_t *data, size_t n)
{
  fl_status st = FL_OK;
  uint64_t head[HEAD_NUMBERS];
  if (n < sizeof head)
    return fli_error(FL_E_TRUNCATED, "sparse sum: got %zu bytes", n);
  for (size_t i = 0; i < HEAD_NUMBERS; i++)
    head[i] = fli_load_u64(data + 8 * i);
  n -= sizeof head;
  data += sizeof head;
  if (head[0] > FLI_GRID_CLIENTS || n % row_bytes(sum) != 0 ||
      head[1] != n / row_bytes(sum))
    return fli_error(FL_E_FORMAT, "sparse sum: got %llu ids in %zu bytes",
                     (unsigned long long)head[1], n);
  FLI_TRY(make_room(sum, (size_t)head[1], (uint32_t)head[0]));
  sum->n_added = (uint32_t)head[0];
  sum->n_utilities = head[2];
  sum->utility_sum = head[3];
  memcpy(sum->squares, head + 4, sizeof sum->squares);
  memcpy(sum->values, head + 4 + FLI_GRID_CHUNKS, sizeof sum->values);
  memcpy(sum->clamped, head + 4 + 2 * FLI_GRID_CHUNKS, sizeof sum->clamped);
  for (size_t k = 0; k < FLI_GRID_CHUNKS; k++) {
    if (sum->squares[k] / (FLI_GRID_MAX * FLI_GRID_MAX) > sum->values[k])
      FLI_TRY(fli_error(FL_E_RANGE, "sparse sum: its squares"));
  }
  for (uint64_t i = 0; i < head[1]; i++, data += row_bytes(sum))
    FLI_TRY(read_row(sum, data));
out:
  if (st != FL_OK) fli_sparse_clear(sum);
  return st;
}

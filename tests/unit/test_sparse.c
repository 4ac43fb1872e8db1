/* SPDX-License-Identifier: Apache-2.0 */
/* The lattice of sparse updates, and sums of it. */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "base/context.h"
#include "compress/sparse.h"

enum { DIM = 8, CHUNKS = 2 };

static fli_rng chance_of(uint64_t seed)
{
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 1, 2);
  return rng;
}

Test(sparse, zero_is_a_point_of_the_grid)
{
  const float zeros[64] = {0};
  int8_t codes[64];
  fli_rng rng = chance_of(1);
  memset(codes, 1, sizeof codes);
  cr_assert_eq(fli_grid_round(codes, zeros, 64, 0.3f, &rng), 0);
  for (int i = 0; i < 64; i++)
    cr_assert_eq(codes[i], 0);
}

Test(sparse, points_of_the_grid_stay_and_what_is_beyond_is_counted)
{
  float values[15];
  int8_t codes[15];
  fli_rng rng = chance_of(2);
  for (int i = 0; i < 15; i++)
    values[i] = (float)(i - 7) * 0.25f;
  cr_assert_eq(fli_grid_round(codes, values, 15, 0.25f, &rng), 0);
  for (int i = 0; i < 15; i++)
    cr_assert_eq(codes[i], i - 7);
  const float beyond[4] = {1.8f, -1e30f, 1.75f, -1.75f};
  cr_assert_eq(fli_grid_round(codes, beyond, 4, 0.25f, &rng), 2);
  cr_assert_eq(codes[0], 7);
  cr_assert_eq(codes[1], -7);
  cr_assert_eq(codes[2], 7);
  cr_assert_eq(codes[3], -7);
}

Test(sparse, rounding_is_right_on_the_average)
{
  enum { N = 20000 };
  static float values[N];
  static int8_t codes[N];
  static const float wanted[] = {0.1f, -0.3f, 2.75f, -6.5f, 0.001f};
  for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++) {
    fli_rng rng = chance_of(3 + w);
    double sum = 0;
    for (int i = 0; i < N; i++)
      values[i] = wanted[w];
    cr_assert_eq(fli_grid_round(codes, values, N, 1.0f, &rng), 0);
    for (int i = 0; i < N; i++) {
      cr_assert(fabsf((float)codes[i] - wanted[w]) < 1.0f);
      sum += codes[i];
    }
    /* 4 standard deviations of at most a half. */
    cr_assert_float_eq(sum / N, (double)wanted[w], 4 * .5 / sqrt(N));
  }
}

Test(sparse, codes_come_back_from_their_bytes)
{
  int8_t codes[16], back[16];
  uint8_t packed[8];
  for (int i = 0; i < 16; i++)
    codes[i] = (int8_t)(i % 15 - 7);
  fli_grid_pack(packed, codes, 16);
  cr_assert_eq(fli_grid_unpack(back, packed, 16), 1);
  cr_assert_eq(memcmp(codes, back, 16), 0);
  packed[3] = 0x08; /* 8 = 0, and 0, which is no code */
  cr_assert_eq(fli_grid_unpack(back, packed, 16), 0);
  packed[3] = 0x80;
  cr_assert_eq(fli_grid_unpack(back, packed, 16), 0);
}

Test(sparse, utilities_are_whole_numbers_that_rise)
{
  cr_assert_eq(fli_grid_units(0), 0);
  cr_assert_eq(fli_grid_units(255), FLI_GRID_UTILITY_MAX);
  for (uint32_t code = 1; code < 256; code++) {
    const uint32_t units = fli_grid_units((uint8_t)code);
    fli_rng rng = chance_of(code);
    cr_assert_gt(units, fli_grid_units((uint8_t)(code - 1)));
    /* A point stays one. */
    cr_assert_eq(fli_grid_utility((float)units * 0.5f, 0.5f, &rng), code);
  }
}

Test(sparse, utilities_are_right_on_the_average_and_never_beyond)
{
  static const float wanted[] = {0.01f, 0.7f, 15.5f, 31.9f, 1000.3f, 70000.f};
  for (size_t w = 0; w < sizeof wanted / sizeof *wanted; w++) {
    fli_rng rng = chance_of(50 + w);
    double sum = 0;
    for (int i = 0; i < 20000; i++)
      sum += fli_grid_units(fli_grid_utility(wanted[w], 1.0f, &rng));
    const double step = wanted[w] < 32 ? 1 : (double)wanted[w] / 16;
    cr_assert_float_eq(sum / 20000, (double)wanted[w], 4 * step / 280);
  }
  fli_rng rng = chance_of(9);
  cr_assert_eq(fli_grid_utility(1e30f, 1e-7f, &rng), 255);
  cr_assert_eq(fli_grid_utility(INFINITY, 1.0f, &rng), 255);
  cr_assert_eq(fli_grid_utility(NAN, 1.0f, &rng), 255);
  cr_assert_eq(fli_grid_utility(0.0f, 1.0f, &rng), 0);
}

/* ---- sums --------------------------------------------------------------- */

static fli_sparse_row row_of(uint64_t id, int code, uint32_t mask)
{
  fli_sparse_row row = {.id = id, .mask = mask, .utilities = {3, 20}};
  for (int i = 0; i < DIM; i++)
    if (mask >> (i / (DIM / CHUNKS)) & 1)
      row.codes[i] = (int8_t)(i % 2 ? code : -code);
  return row;
}

static void add(fli_sparse_sum *sum, const fli_sparse_row *rows, size_t n)
{
  cr_assert_eq(fli_sparse_reserve(sum, n), FL_OK);
  for (size_t i = 0; i < n; i++)
    fli_sparse_add(sum, &rows[i]);
  fli_sparse_count(sum);
}

Test(sparse, sums_are_by_id_whatever_the_order)
{
  fli_sparse_sum a, b;
  fli_sparse_row rows[300];
  fli_sparse_place *by_a = NULL, *by_b = NULL;
  cr_assert_eq(fli_sparse_init(&a, NULL, DIM, CHUNKS), FL_OK);
  cr_assert_eq(fli_sparse_init(&b, NULL, DIM, CHUNKS), FL_OK);
  for (uint64_t i = 0; i < 300; i++)
    rows[i] = row_of(i * i % 211 * 0x9e3779b97f4a7c15u, (int)(i % 15) - 7,
                     (uint32_t)i % 4);
  for (size_t i = 0; i < 300; i++) {
    add(&a, &rows[i], 1);
    add(&b, &rows[299 - i], 1);
  }
  cr_assert_eq(a.n, b.n);
  cr_assert_eq(a.n_added, 300);
  cr_assert_eq(a.lane_bytes, 2);
  cr_assert_eq(fli_sparse_sort(&a, &by_a), FL_OK);
  cr_assert_eq(fli_sparse_sort(&b, &by_b), FL_OK);
  for (size_t i = 0; i < a.n; i++) {
    int32_t x[DIM], y[DIM], z[DIM] = {0};
    uint32_t count = 0;
    fli_sparse_lanes(&a, by_a[i].place, x);
    fli_sparse_lanes(&b, by_b[i].place, y);
    for (size_t r = 0; r < 300; r++) {
      if (rows[r].id != by_a[i].id) continue;
      count++;
      for (int k = 0; k < DIM; k++)
        z[k] += rows[r].codes[k];
    }
    cr_assert_eq(by_a[i].id, by_b[i].id);
    cr_assert_eq(memcmp(x, y, sizeof x), 0);
    cr_assert_eq(memcmp(x, z, sizeof x), 0);
    cr_assert_eq(a.counts[by_a[i].place], count);
    cr_assert_eq(a.utilities[by_a[i].place * CHUNKS + 1], count * 20u);
    cr_assert(i == 0 || by_a[i].id > by_a[i - 1].id);
  }
  fli_free(NULL, by_a, a.n * sizeof *by_a);
  fli_free(NULL, by_b, b.n * sizeof *by_b);
  fli_sparse_clear(&a);
  fli_sparse_clear(&b);
}

Test(sparse, lanes_widen_before_they_overflow)
{
  fli_sparse_sum sum;
  int32_t lanes[DIM];
  const fli_sparse_row row = row_of(5, 7, 3);
  cr_assert_eq(fli_sparse_init(&sum, NULL, DIM, CHUNKS), FL_OK);
  for (int32_t i = 1; i <= 5000; i++) {
    add(&sum, &row, 1);
    cr_assert_eq(sum.lane_bytes, i <= 18 ? 1 : i <= 4681 ? 2 : 4);
    fli_sparse_lanes(&sum, 0, lanes);
    cr_assert_eq(lanes[0], -7 * i);
    cr_assert_eq(lanes[DIM - 1], 7 * i);
  }
  cr_assert_eq(sum.squares[0], 5000u * 4 * 49);
  cr_assert_eq(sum.values[1], 5000u * 4);
  fli_sparse_clear(&sum);
}

Test(sparse, what_is_not_in_the_mask_adds_nothing)
{
  fli_sparse_sum sum;
  int32_t lanes[DIM];
  const fli_sparse_row row = row_of(0, 3, 2);
  cr_assert_eq(fli_sparse_init(&sum, NULL, DIM, CHUNKS), FL_OK);
  cr_assert_eq(fli_sparse_has(&sum, 0), 0);
  add(&sum, &row, 1);
  cr_assert_eq(fli_sparse_has(&sum, 0), 1);
  cr_assert_eq(fli_sparse_has(&sum, UINT64_MAX), 0);
  fli_sparse_lanes(&sum, 0, lanes);
  for (int i = 0; i < DIM / 2; i++)
    cr_assert_eq(lanes[i], 0);
  cr_assert_eq(sum.values[0], 0);
  cr_assert_eq(sum.values[1], 4);
  fli_sparse_clear(&sum);
  cr_assert_eq(sum.n, 0);
}

Test(sparse, a_sum_comes_back_from_its_bytes)
{
  fli_sparse_sum sum, back;
  fli_bytes bytes, again;
  fli_bytes_init(&bytes, NULL);
  fli_bytes_init(&again, NULL);
  cr_assert_eq(fli_sparse_init(&sum, NULL, DIM, CHUNKS), FL_OK);
  cr_assert_eq(fli_sparse_init(&back, NULL, DIM, CHUNKS), FL_OK);
  for (uint64_t i = 0; i < 40; i++) {
    const fli_sparse_row row = row_of(i % 17, (int)(i % 8), (uint32_t)i % 4);
    add(&sum, &row, 1);
  }
  cr_assert_eq(fli_sparse_write(&sum, &bytes), FL_OK);
  cr_assert_eq(fli_sparse_read(&back, bytes.data, bytes.size), FL_OK);
  cr_assert_eq(fli_sparse_write(&back, &again), FL_OK);
  cr_assert_eq(bytes.size, again.size);
  cr_assert_eq(memcmp(bytes.data, again.data, bytes.size), 0);
  fli_sparse_clear(&back);
  cr_assert_eq(fli_sparse_read(&back, bytes.data, 100), FL_E_TRUNCATED);
  cr_assert_eq(fli_sparse_read(&back, bytes.data, bytes.size - 1), FL_E_FORMAT);
  const size_t head = 16 * 8, row = 12 + 16 + 32;
  memcpy(bytes.data + head, bytes.data + head + row, 8); /* an id twice */
  cr_assert_eq(fli_sparse_read(&back, bytes.data, bytes.size), FL_E_DUPLICATE);
  cr_assert_eq(back.n, 0);
  bytes.data[head] ^= 0xff;
  memset(bytes.data + head + 8, 0, 4); /* no update had the id */
  cr_assert_eq(fli_sparse_read(&back, bytes.data, bytes.size), FL_E_RANGE);
  bytes.data[head + 8] = 1;
  bytes.data[head + 12 + 16] = 120; /* a lane that 1 update cannot fill */
  cr_assert_eq(fli_sparse_read(&back, bytes.data, bytes.size), FL_E_RANGE);
  fli_sparse_clear(&sum);
  fli_sparse_clear(&back);
  fli_bytes_free(&bytes);
  fli_bytes_free(&again);
}

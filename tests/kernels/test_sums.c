/* SPDX-License-Identifier: Apache-2.0 */
/* Sums of many updates, by every table that this machine can run: groups of
 * updates at the bound of a byte and of a word, every number of updates around
 * where groups and plans end, vectors longer than a run of coordinates. Lanes
 * are compared with sums written out. Each update has memory of its own, of
 * its length: what reads behind it, a sanitizer sees. */
#include <math.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/rng.h"
#include "check.h"
#include "kernels/kernels.h"

enum {
  UPDATES_MAX = 130, /* more than are planned together, twice */
  RUN = 65536,       /* coordinates that are added at a time, of indices, */
  TILE = 16384,      /* and of floats */
  SHORT = 256
};

static const flk_table *kernels;

/* Updates in memory. */
typedef struct updates {
  uint8_t *data[UPDATES_MAX];
  const uint8_t *src[UPDATES_MAX];
  uint32_t weights[UPDATES_MAX];
  size_t size; /* of each */
} updates;

static updates given;

static void open_updates(size_t size)
{
  given.size = size;
  for (size_t k = 0; k < UPDATES_MAX; k++) {
    given.src[k] = given.data[k] = malloc(size);
    given.weights[k] = 1;
    if (!given.data[k]) abort();
  }
}

static void close_updates(void)
{
  for (size_t k = 0; k < UPDATES_MAX; k++)
    free(given.data[k]);
}

static void fill_updates(uint64_t seed, size_t count)
{
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (size_t k = 0; k < count; k++) {
    for (size_t i = 0; i + 4 <= given.size; i += 4)
      fli_store_u32(given.data[k] + i, fli_rng_u32(&rng));
    memset(given.data[k] + given.size / 4 * 4, 0xc9, given.size % 4);
  }
}

static uint64_t lane_at(const uint8_t *lanes, size_t i, uint32_t width)
{
  const uint8_t *p = lanes + (i << width);
  return width == FLK_U8    ? *p
         : width == FLK_U16 ? fli_load_u16(p)
                            : fli_load_u32(p);
}

/* Indices of 1, 2, 4 or 8 bits. */
static uint64_t sum_at(const flk_packed *p, size_t i)
{
  const size_t each = 8 / p->bits;
  const uint32_t shift = (uint32_t)(i % each) * p->bits;
  uint64_t sum = 0;
  for (size_t k = 0; k < p->count; k++) {
    const uint32_t byte = p->src[k][p->skip + i / each];
    const uint32_t index = byte >> shift & ((1u << p->bits) - 1u);
    sum += (uint64_t)(p->values ? p->values[index] : index) *
           (p->weights ? p->weights[k] : 1);
  }
  return sum;
}

static uint32_t width_of(uint64_t most)
{
  return most <= UINT8_MAX ? FLK_U8 : most <= UINT16_MAX ? FLK_U16 : FLK_U32;
}

static uint64_t most_of(const flk_packed *p)
{
  const uint32_t last = (1u << p->bits) - 1u;
  uint64_t most = 0;
  for (size_t k = 0; k < p->count; k++)
    most += (uint64_t)(p->values ? p->values[last] : last) *
            (p->weights ? p->weights[k] : 1);
  return most;
}

/* The sum in the narrowest lanes that hold it, and in wider ones. With
 * `period`, up to 8, every lane is that of one among the first; else some are
 * looked at. */
static void check_sum(const flk_packed *p, size_t n, size_t period)
{
  for (uint32_t width = width_of(most_of(p)); width <= FLK_U32; width++) {
    uint8_t *lanes = calloc(n, (size_t)1 << width);
    uint64_t want[8] = {0};
    size_t wrong = 0;
    if (!lanes) abort();
    kernels->add_packed(lanes, width, p, n);
    for (size_t i = 0; i < period; i++)
      want[i] = sum_at(p, i);
    for (size_t i = 0; i < n; i += 1 + (period ? 0 : i % 61))
      wrong += lane_at(lanes, i, width) !=
               (period ? want[i % period] : sum_at(p, i));
    CHECK_EQ_U64(wrong, 0);
    free(lanes);
  }
}

/* Bytes whose places of an index are all full, every second one, or none. */
static void full_groups_of_every_size_fit(void)
{
  static const uint8_t patterns[] = {0xff, 0x0f, 0xf0, 0x55, 0x33, 0x00};
  for (uint32_t bits = 1; bits <= 8; bits *= 2) {
    open_updates(SHORT * bits / 8);
    for (size_t p = 0; p < FLI_COUNT_OF(patterns); p++) {
      for (size_t k = 0; k < UPDATES_MAX; k++)
        memset(given.data[k], patterns[p], given.size);
      for (size_t count = 0; count <= UPDATES_MAX; count++) {
        check_sum(&(flk_packed){.src = given.src, .count = count, .bits = bits},
                  SHORT, 8 / bits);
      }
    }
    close_updates();
  }
}

/* Of 4 bits, 15 w: 255 is the greatest product of bytes (w = 17), 65535 that of
 * words (w = 4369). */
static void weights_around_bounds_fit(void)
{
  static const uint32_t some[] = {1,  2,  4,   5,   8,    9,    16,   17,
                                  18, 64, 272, 273, 4369, 4370, 65535};
  open_updates(SHORT / 2);
  fill_updates(1, UPDATES_MAX);
  for (size_t w = 0; w < FLI_COUNT_OF(some); w++) {
    for (size_t count = 1; count <= 70; count += count < 20 ? 1 : 10) {
      for (size_t k = 0; k < count; k++)
        given.weights[k] = k % 3 == 2 ? 1 : some[w];
      for (size_t k = 0; k < count; k++)
        memset(given.data[k], 0xff, given.size / 2);
      check_sum(&(flk_packed){.src = given.src,
                              .weights = given.weights,
                              .count = count,
                              .bits = 4},
                SHORT, 0);
    }
  }
  close_updates();
}

/* 3 to 255 as the greatest value of a table. */
static void tables_around_bounds_fit(void)
{
  static const uint8_t tops[] = {15, 16, 17,  19,  20,  21,
                                 63, 64, 127, 128, 254, 255};
  uint8_t values[256] = {0};
  open_updates(SHORT / 2);
  fill_updates(2, UPDATES_MAX);
  for (size_t t = 0; t < FLI_COUNT_OF(tops); t++) {
    for (uint32_t v = 0; v < 16; v++)
      values[v] = (uint8_t)(v == 15 ? tops[t] : v);
    for (size_t count = 1; count <= 30; count++) {
      check_sum(
          &(flk_packed){
              .src = given.src, .count = count, .bits = 4, .values = values},
          SHORT, 0);
    }
  }
  close_updates();
}

/* Runs that end on, before and behind those that are added at a time. */
static void long_vectors_are_sums_everywhere(void)
{
  static const size_t lengths[] = {RUN - 256, RUN, RUN + 256, 2 * RUN + 512};
  enum { SKIP = 3 };
  for (uint32_t bits = 1; bits <= 4; bits *= 2) {
    open_updates((2 * RUN + 512) * bits / 8 + SKIP);
    fill_updates(3 + bits, 30);
    for (size_t i = 0; i < FLI_COUNT_OF(lengths); i++) {
      const size_t count = 13 + 13 * (i % 2) + i % 3;
      flk_packed packed = {
          .src = given.src, .skip = SKIP, .count = count, .bits = bits};
      check_sum(&packed, lengths[i], 0);
      packed.weights = given.weights;
      given.weights[count / 2] = 300; /* multiplied in lanes */
      check_sum(&packed, lengths[i], 0);
      given.weights[count / 2] = 1;
    }
    close_updates();
  }
}

/* ---- floats -------------------------------------------------------------- */

static float float_at(uint64_t i)
{
  return (float)((int64_t)(i * 2654435761u % 4001) - 2000) * 0x1p-5f;
}

static void long_vectors_of_floats_are_sums_everywhere(void)
{
  static const size_t lengths[] = {TILE - 1, TILE, TILE + 1, 2 * TILE + 17};
  enum { COUNT = 23, N = 2 * TILE + 17 };
  static uint8_t lanes[8 * N];
  open_updates(4 * N);
  for (size_t k = 0; k < COUNT; k++) {
    for (size_t i = 0; i < N; i++)
      fli_store_f32(given.data[k] + 4 * i, float_at(k * N + i));
  }
  for (size_t i = 0; i < FLI_COUNT_OF(lengths); i++) {
    for (size_t count = 0; count <= COUNT; count++) {
      const flk_floats floats = {
          .src = given.src, .count = count, .factor = 32.0, .bound = 63.0f};
      size_t wrong = 0;
      memset(lanes, 0, sizeof lanes);
      CHECK(!kernels->fixed_fold(lanes, &floats, lengths[i]));
      for (size_t at = 0; at < N; at += 1 + at % 61) {
        double want = 0.0;
        for (size_t k = 0; at < lengths[i] && k < count; k++)
          want += 32.0 * (double)float_at(k * N + at);
        wrong += (int64_t)fli_load_u64(lanes + 8 * at) != (int64_t)want;
      }
      CHECK_EQ_U64(wrong, 0);
    }
  }
  close_updates();
}

static void run(const flk_table *table)
{
  kernels = table;
  CHECK_CASE(full_groups_of_every_size_fit);
  CHECK_CASE(weights_around_bounds_fit);
  CHECK_CASE(tables_around_bounds_fit);
  CHECK_CASE(long_vectors_are_sums_everywhere);
  CHECK_CASE(long_vectors_of_floats_are_sums_everywhere);
}

int main(void)
{
  for (size_t i = 0; flk_kernels_at(i); i++)
    run(flk_kernels_at(i));
  return check_report();
}

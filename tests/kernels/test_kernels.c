/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels against their definitions, written out in the slowest way, for every
 * table that this machine can run: results must be equal byte for byte. Bytes
 * around every output are checked too. What blocks go through in one call is
 * checked step by step for the C functions; test_blocks.c compares the other
 * tables with them. */
#include <math.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/rng.h"
#include "check.h"
#include "kernels/kernels.h"

enum { BLOCK = FLK_BLOCK_MAX, GUARD = 64, SEED = 4711 };

static const flk_table *kernels; /* under test */

static float values[BLOCK + 32];
static uint16_t noise[BLOCK];
static uint8_t bytes[8 * BLOCK];

/* Normal-sized floats of both signs, noise and bytes from a fixed seed. */
static void draw(void)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 0, 0);
  for (int i = 0; i < BLOCK + 32; i++) {
    values[i] = 4.0f * fli_rng_f32(&rng) - 2.0f;
  }
  for (int i = 0; i < BLOCK; i++)
    noise[i] = (uint16_t)fli_rng_u32(&rng);
  for (int i = 0; i < 8 * BLOCK; i++)
    bytes[i] = (uint8_t)fli_rng_u32(&rng);
}

typedef struct guarded {
  uint8_t memory[8 * BLOCK + 2 * GUARD];
} guarded;

static uint8_t *guard_open(guarded *g)
{
  memset(g->memory, 0xa5, sizeof g->memory);
  return g->memory + GUARD;
}

static void guard_check(const guarded *g, size_t used)
{
  for (int i = 0; i < GUARD; i++) {
    CHECK_EQ_U64(g->memory[i], 0xa5);
    CHECK_EQ_U64(g->memory[GUARD + used + (size_t)i], 0xa5);
  }
}

static guarded guard_a;

static void finite_check_finds_the_first(void)
{
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  float x[70];
  for (size_t n = 0; n <= 70; n++) {
    memcpy(x, values, sizeof x);
    CHECK_EQ_U64(kernels->find_not_finite(x, n), n);
    for (size_t at = 0; at < n; at++) {
      memcpy(x, values, sizeof x);
      x[at] = bad[at % 3];
      x[n - 1] = NAN;
      CHECK_EQ_U64(kernels->find_not_finite(x, n), at);
    }
  }
}

static void sum_of_squares_has_sixteen_lanes(void)
{
  for (size_t n = 0; n <= 100; n++) {
    double lane[16] = {0};
    for (size_t i = 0; i < n; i++) {
      lane[i % 16] += (double)values[i] * (double)values[i];
    }
    for (size_t half = 8; half > 0; half /= 2) {
      for (size_t k = 0; k < half; k++)
        lane[k] += lane[k + half];
    }
    CHECK_EQ_F64(kernels->sum_squares(values, n), lane[0]);
  }
  float big[3] = {3e38f, 3e38f, 3e38f};
  CHECK(isfinite(kernels->sum_squares(big, 3)));
  big[1] = NAN;
  CHECK(!isfinite(kernels->sum_squares(big, 3)));
}

/* As many blocks as lie side by side at all, and fewer, in wider lines. */
static void sum_of_squares_of_a_group_is_that_of_its_blocks(void)
{
  static const size_t counts[] = {1, 3, 4, 30, FLK_NEIGHBOURS_MAX};
  static float src[FLK_NEIGHBOURS_MAX * BLOCK], one[BLOCK];
  double sums[FLK_NEIGHBOURS_MAX];
  for (size_t i = 0; i < FLI_COUNT_OF(src); i++)
    src[i] = values[i % BLOCK] * (float)(1 + i / BLOCK);
  for (size_t k = 0; k < FLI_COUNT_OF(counts); k++) {
    flk_lines lines = {.n = BLOCK, .count = counts[k]};
    lines.stride = FLK_LINE * (counts[k] < 30 ? counts[k] + 1 : 31);
    kernels->sum_squares_group(sums, src, &lines);
    for (size_t b = 0; b < lines.count; b++) {
      for (size_t i = 0; i < BLOCK; i++)
        one[i] = src[lines.stride * (i / 16) + 16 * b + i % 16];
      CHECK_EQ_F64(sums[b], flk_sum_squares_c(one, BLOCK));
    }
  }
}

/* One distance of the transform. */
static void apart(float *x, size_t h, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    if (i & h) continue;
    float a = x[i], b = x[i + h];
    x[i] = a + b;
    x[i + h] = a - b;
  }
}

static float flipped(float x, float scale, size_t i)
{
  return x * (bytes[i / 8] >> (i % 8) & 1 ? -scale : scale);
}

/* Both halves of the rotation, from and to a vector whose lines are `stride`
 * apart, against the definition. */
static void rotate_and_back(size_t n, size_t stride)
{
  static float want[BLOCK], buffer[FLK_GROUP_FLOATS], src[3 * BLOCK];
  const flk_lines lines = {.stride = stride, .n = n, .count = 1};
  const flk_turn there = {bytes, 0.7f}, back = {bytes, 0.3f};
  float about;
  double squares = 0.0;
  for (size_t i = 0; i < n; i++) {
    size_t at = i / 16 * stride + i % 16;
    src[at] = values[i];
    want[i] = flipped(values[i], 0.7f, i);
    squares += (double)values[i] * (double)values[i];
  }
  kernels->rotate_in(buffer, src, &lines, &there, NULL, &about);
  flk_near_down_c(buffer, n);
  for (size_t h = n / 2; h > 0; h /= 2)
    apart(want, h, n);
  CHECK_EQ_MEM(buffer, want, n * sizeof(float));
  int is_known = about >= 0x1p-100f && about <= 0x1p100f;
  CHECK(!is_known || fabs((double)about / squares - 1.0) < 0x1p-15);
  flk_near_up_c(buffer, n);
  for (size_t h = 1; h < n; h *= 2)
    apart(want, h, n);
  kernels->rotate_out(src, buffer, &lines, &back, n == BLOCK);
  for (size_t i = 0; i < n; i++) {
    CHECK_EQ_F64(src[i / 16 * stride + i % 16], flipped(want[i], 0.3f, i));
  }
}

static void rotation_is_signs_and_butterflies(void)
{
  for (size_t n = FLK_BLOCK_MIN; n <= BLOCK; n *= 2) {
    rotate_and_back(n, 16);
    rotate_and_back(n, 48);
  }
}

static void what_is_not_finite_is_never_known_to_be_short(void)
{
  static float buffer[FLK_GROUP_FLOATS], src[BLOCK];
  static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
  const flk_lines lines = {.stride = 16, .n = BLOCK, .count = 1};
  const flk_turn turn = {bytes, 1.0f};
  for (int k = 0; k < 4; k++) {
    float about;
    memcpy(src, values, sizeof src);
    src[1000 * k + 77] = bad[k];
    kernels->rotate_in(buffer, src, &lines, &turn, NULL, &about);
    CHECK(!(about >= 0x1p-100f && about <= 0x1p100f));
  }
}

static flk_noise drawn_noise(void)
{
  flk_noise start;
  for (uint32_t k = 0; k < FLK_NOISE_LANES; k++) {
    start.state[k] = 0x9e3779b9u * (k + 1);
    start.step[k] = (0x85ebca6bu * (k + 7)) | 0x10001u;
  }
  return start;
}

static void noise_is_generators_of_sixteen_bits(void)
{
  const flk_noise start = drawn_noise();
  uint32_t low[16], high[16];
  for (int k = 0; k < 16; k++) {
    low[k] = start.state[k] & 0xffffu;
    high[k] = start.state[k] >> 16;
  }
  uint16_t *got = (uint16_t *)(void *)guard_open(&guard_a);
  flk_noise_c(got, 256, &start);
  guard_check(&guard_a, 512);
  for (int i = 0; i < 256; i += 32) {
    for (int k = 0; k < 16; k++) {
      low[k] = (low[k] * 25173 + (start.step[k] & 0xffffu)) % 65536;
      high[k] = (high[k] * 25173 + (start.step[k] >> 16)) % 65536;
      CHECK_EQ_U64(got[i + k], low[k]);
      CHECK_EQ_U64(got[i + 16 + k], high[k]);
    }
  }
}

/* Trunc(y + centre), in 64 bits and by libm. */
static int64_t fixed_point(float y, float centre)
{
  double t = trunc((double)(float)(y + centre));
  return (int64_t)(t > 0x1p30 ? 0x1p30 : t < -0x1p30 ? -0x1p30 : t);
}

/* In double, where both are exact: rounded once. */
static float left_of(float y, int64_t point)
{
  return (float)((double)y - (double)point);
}

static int64_t cut(int64_t v, int64_t top)
{
  return v < 0 ? 0 : v > top ? top : v;
}

static float coordinates[BLOCK]; /* in 1/65536 of a cell */

static void draw_coordinates(uint32_t g)
{
  for (int i = 0; i < BLOCK; i++)
    coordinates[i] = values[i] * 0.3f * 65536.0f * (float)g;
  coordinates[5] = 1e30f;
  coordinates[6] = -1e30f;
}

static void quantising_rounds_by_noise_and_counts_what_is_cut(void)
{
  static const uint32_t tops[] = {1, 3, 7, 15, 31, 255};
  static float y[BLOCK];
  for (int t = 0; t < 6; t++) {
    uint32_t g = tops[t], outside = 0;
    flk_grid grid = {.g = g,
                     .centre = 32768.0f * (float)g + 0.5f,
                     .offset = 40000,
                     .leave = (uint16_t)(t % 3)};
    uint8_t *q = guard_open(&guard_a);
    draw_coordinates(g);
    memcpy(y, coordinates, sizeof y);
    uint32_t got = flk_quantise_c(q, y, noise, &grid, BLOCK);
    guard_check(&guard_a, BLOCK);
    for (int i = 0; i < BLOCK; i++) {
      int64_t at = fixed_point(coordinates[i], grid.centre);
      int64_t u = (noise[i] + 40000u) % 65536u;
      int64_t floored = (int64_t)floor((double)(at + u) / 65536.0);
      int64_t want = cut(floored, g);
      outside += want != floored;
      CHECK_EQ_U64(q[i], (uint64_t)want);
      int64_t point = 65536 * want - 32768 * (int64_t)g;
      if (grid.leave == FLK_LEAVE_DITHERED) point += 32768 - u;
      CHECK_EQ_F64(y[i], left_of(coordinates[i], grid.leave ? point : 0));
    }
    CHECK_EQ_U64(got, outside);
  }
}

static void a_table_rounds_to_its_values(void)
{
  static const uint32_t table[] = {0, 3, 5, 9};
  static float y[BLOCK];
  uint32_t entries[256] = {0}, outside = 0;
  for (uint32_t c = 0, j = 0; c <= 9; c++) {
    while (j < 3 && table[j + 1] <= c)
      j++;
    uint32_t gap = j < 3 ? table[j + 1] - table[j] : 1;
    entries[c] = gap << 24 | table[j] << 16 | j;
  }
  flk_grid grid = {.g = 9,
                   .centre = 32768.0f * 9.0f + 0.5f,
                   .entries = entries,
                   .leave = FLK_LEAVE_ROUNDED};
  uint8_t *q = guard_open(&guard_a);
  draw_coordinates(9);
  memcpy(y, coordinates, sizeof y);
  uint32_t got = flk_quantise_table_c(q, y, noise, &grid, BLOCK);
  guard_check(&guard_a, BLOCK);
  for (int i = 0; i < BLOCK; i++) {
    int64_t at = fixed_point(coordinates[i], grid.centre);
    int64_t inside = cut(at, 9 * 65536);
    float z = coordinates[i] + grid.centre;
    outside += z < 0.0f || z > 9.0f * 65536.0f;
    uint32_t j = 0;
    while (j < 3 && (int64_t)table[j + 1] * 65536 <= inside)
      j++;
    uint32_t gap = j < 3 ? table[j + 1] - table[j] : 1;
    if (inside - (int64_t)table[j] * 65536 > (int64_t)noise[i] * gap) j++;
    CHECK_EQ_U64(q[i], j);
    CHECK_EQ_F64(
        y[i], left_of(coordinates[i], 65536 * (int64_t)table[j] - 32768 * 9));
  }
  CHECK_EQ_U64(got, outside);
}

static void indices_are_packed_low_bits_first(void)
{
  static uint8_t q[BLOCK], back[BLOCK];
  for (uint32_t bits = 1; bits <= 8; bits++) {
    for (int i = 0; i < BLOCK; i++) {
      q[i] = (uint8_t)(bytes[i] & ((1u << bits) - 1u));
    }
    uint8_t *packed = guard_open(&guard_a);
    size_t size = 256 * bits / 8;
    flk_pack_c(packed, q, 256, bits);
    guard_check(&guard_a, size);
    for (size_t i = 0; i < 256 * bits; i++) {
      CHECK_EQ_U64(packed[i / 8] >> (i % 8) & 1, q[i / bits] >> (i % bits) & 1);
    }
    flk_unpack_c(back, packed, 256, bits);
    CHECK_EQ_MEM(back, q, 256);
  }
}

static uint64_t lane(const uint8_t *p, uint32_t width)
{
  return width == FLK_U8    ? *p
         : width == FLK_U16 ? fli_load_u16(p)
         : width == FLK_U32 ? fli_load_u32(p)
                            : fli_load_u64(p);
}

static uint64_t lane_mask(uint32_t width)
{
  return width == FLK_I64 ? UINT64_MAX : (UINT64_C(1) << (8u << width)) - 1;
}

static void lanes_of_all_widths_add_at_any_alignment(void)
{
  for (uint32_t to = 0; to < FLK_WIDTHS; to++) {
    for (uint32_t from = 0; from < FLK_WIDTHS; from++) {
      if (!kernels->accumulate[to][from]) continue;
      for (size_t n = 0; n <= 70; n += n < 35 ? 1 : 35) {
        uint8_t *dst = guard_open(&guard_a) + 1;
        const uint8_t *src = bytes + 3;
        size_t size = n << to;
        memcpy(dst, bytes + 500, size);
        kernels->accumulate[to][from](dst, src, n);
        for (size_t i = 0; i < n; i++) {
          uint64_t want = (lane(bytes + 500 + (i << to), to) +
                           lane(src + (i << from), from)) &
                          lane_mask(to);
          CHECK_EQ_U64(lane(dst + (i << to), to), want);
        }
        CHECK_EQ_U64(dst[size], 0xa5);
        CHECK_EQ_U64(dst[-1], 0xa5);
      }
    }
  }
}

static void lane_max_takes_magnitudes(void)
{
  uint8_t wide[24] = {0};
  CHECK_EQ_U64(kernels->lane_max(bytes, FLK_U8, 0), 0);
  for (uint32_t width = FLK_U8; width <= FLK_U32; width++) {
    uint64_t max = 0;
    for (size_t i = 0; i < 77; i++) {
      uint64_t v = lane(bytes + 1 + (i << width), width);
      max = v > max ? v : max;
    }
    CHECK_EQ_U64(kernels->lane_max(bytes + 1, width, 77), max);
  }
  fli_store_u64(wide, 5);
  fli_store_u64(wide + 8, (uint64_t)-9);
  CHECK_EQ_U64(kernels->lane_max(wide, FLK_I64, 3), 9);
  fli_store_u64(wide + 16, (uint64_t)INT64_MIN);
  CHECK_EQ_U64(kernels->lane_max(wide, FLK_I64, 3), UINT64_C(1) << 63);
}

static int64_t wrapped(int64_t v)
{
  return (int32_t)(uint32_t)(uint64_t)v;
}

static void lanes_become_coordinates_around_the_middle(void)
{
  static float y[256];
  static uint16_t drawn[256];
  static const uint16_t offsets[] = {50000, 7};
  const flk_noise start = drawn_noise();
  flk_lattice lattice = {.offsets = offsets,
                         .n_offsets = 2,
                         .sign = -1,
                         .factor = 65535,
                         .bias = -77};
  flk_noise_c(drawn, 256, &start);
  for (uint32_t width = FLK_U8; width <= FLK_U32; width++) {
    lattice.width = width;
    lattice.noise = NULL;
    lattice.shift = 1;
    flk_dequantise_c(y, bytes, &lattice, 256);
    for (size_t i = 0; i < 256; i++) {
      int64_t v = (int64_t)lane(bytes + (i << width), width) * 2 - 77;
      CHECK_EQ_F64(y[i], (float)wrapped(v));
    }
    lattice.noise = &start;
    lattice.shift = width == FLK_U8 ? 16 : 13;
    flk_dequantise_c(y, bytes, &lattice, 256);
    for (size_t i = 0; i < 256; i++) {
      int64_t u = drawn[i];
      int64_t e = 65535 * u % 65536 - (u + 50000) % 65536 - (u + 7) % 65536;
      e = (int64_t)floor((double)e / (1 << (16 - lattice.shift)));
      int64_t v = (int64_t)(lane(bytes + (i << width), width) << lattice.shift);
      CHECK_EQ_F64(y[i], (float)wrapped(v - 77 - e));
    }
  }
}

static void floats_survive_as_bytes(void)
{
  float back[33];
  for (size_t n = 0; n <= 33; n++) {
    uint8_t *out = guard_open(&guard_a);
    kernels->f32_store(out, values, n);
    guard_check(&guard_a, 4 * n);
    kernels->f32_load(back, out, n);
    CHECK_EQ_MEM(back, values, n * sizeof(float));
    out = guard_open(&guard_a);
    kernels->bf16_store(out, values, n);
    guard_check(&guard_a, 2 * n);
    kernels->bf16_load(back, out, n);
    for (size_t i = 0; i < n; i++) {
      CHECK_EQ_F64(back[i], fli_f32_from_bf16(fli_bf16_from_f32(values[i])));
    }
  }
}

static int fold_floats(uint8_t *lanes, const float *x, size_t n, double factor)
{
  uint8_t packed[64];
  const uint8_t *src = packed;
  kernels->f32_store(packed, x, n);
  const flk_floats floats = {
      .src = &src, .count = 1, .factor = factor, .bound = 0x1p31f};
  return kernels->fixed_fold(lanes, &floats, n);
}

static void fixed_point_rounds_to_even(void)
{
  static const float x[] = {0.5f, 1.5f, -0.5f, -1.5f, 2.25f, 0x1p30f};
  static const int64_t want[] = {0, 2, 0, -2, 2, INT64_C(1) << 30};
  uint8_t lanes[48] = {0};
  float back[6];
  CHECK(!fold_floats(lanes, x, 6, 1.0));
  for (int i = 0; i < 6; i++) {
    CHECK_EQ_I64((int64_t)fli_load_u64(lanes + 8 * i), want[i]);
  }
  CHECK(!fold_floats(lanes, x, 6, -4.0));
  CHECK_EQ_I64((int64_t)fli_load_u64(lanes + 8), -4);
  kernels->fixed_load(back, lanes, 6, 0.25);
  CHECK_EQ_F64(back[1], -1.0);
}

/* Every power of two around rounding, cut in two, and the bound; ties; what is
 * no number or beyond the bound. */
static float odd_float(uint32_t i)
{
  static const float beyond[] = {NAN,       -NAN,           INFINITY,
                                 -INFINITY, 0x1.000002p31f, -0x1p32f};
  const uint32_t bits = i * 2654435761u;
  if (i % 97 == 96) return beyond[i / 97 % 6];
  if (i % 31 == 30) return i & 1 ? 0x1p31f : -0x1p31f;
  if (i % 7 == 6) return (float)(int32_t)(bits >> 9) * 0.5f - 0x1p21f;
  const float x = 1.0f + (float)(bits & 0x7fffff) * 0x1p-23f;
  return ldexpf(bits >> 31 ? x : -x, (int)(bits >> 23) % 100 - 70);
}

static void folding_is_that_of_the_c_function_and_is_undone(void)
{
  enum { N = 2100, UPDATES = 21, SKIP = 4 };
  static uint8_t packed[UPDATES][4 * N + SKIP], got[8 * N], want[8 * N];
  static const size_t lengths[] = {0, 1, 7, 8, 9, 15, 16, 17, 1024, 1040, N};
  const uint8_t *src[UPDATES];
  float x[N];
  for (uint32_t k = 0; k < UPDATES; k++) {
    for (uint32_t i = 0; i < N; i++)
      x[i] = k < 2 && i % 97 == 96 ? 1.0f : odd_float(i + k * N);
    kernels->f32_store(packed[k] + SKIP, x, N);
    src[k] = packed[k];
  }
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    for (size_t count = 0; count <= UPDATES; count++) {
      /* Up to 2^31 2^30: as large as the codec makes them. */
      flk_floats floats = {src, SKIP, count, 0x1p30, 0x1p31f};
      const size_t n = lengths[i];
      memset(want, 0x5a, sizeof want);
      memset(got, 0x5a, sizeof got);
      const int is_bad = flk_fixed_fold_c(want, &floats, n);
      CHECK_EQ_I64(kernels->fixed_fold(got, &floats, n), is_bad);
      CHECK_EQ_MEM(got, want, sizeof got);
      floats.factor = -floats.factor;
      kernels->fixed_fold(got, &floats, n);
      for (size_t b = 0; b < sizeof got; b += 97)
        CHECK_EQ_U64(got[b], 0x5a);
    }
  }
}

static void folding_finds_one_bad_value_anywhere(void)
{
  enum { N = 50, UPDATES = 9 };
  static uint8_t packed[UPDATES][4 * N];
  const uint8_t *src[UPDATES];
  uint8_t lanes[8 * N] = {0};
  const flk_floats floats = {src, 0, UPDATES, 1.0, 2.0f};
  for (uint32_t k = 0; k < UPDATES; k++)
    src[k] = packed[k];
  CHECK(!kernels->fixed_fold(lanes, &floats, N));
  for (uint32_t at = 0; at < N * UPDATES; at++) {
    const float bad = at % 2 ? NAN : -2.5f, none = 0.0f;
    kernels->f32_store(packed[at / N] + 4 * (at % N), &bad, 1);
    CHECK(kernels->fixed_fold(lanes, &floats, N));
    kernels->f32_store(packed[at / N] + 4 * (at % N), &none, 1);
  }
  for (size_t i = 0; i < sizeof lanes; i++)
    CHECK_EQ_U64(lanes[i], 0);
}

static void scaling_clamps_to_the_bound(void)
{
  static const float x[] = {3.0f, -3.0f, 0.5f, 1e38f};
  float out[4];
  kernels->scale_clamp(out, x, 4, 0.5, 1.25f);
  CHECK_EQ_F64(out[0], 1.25);
  CHECK_EQ_F64(out[1], -1.25);
  CHECK_EQ_F64(out[2], 0.25);
  CHECK_EQ_F64(out[3], 1.25);
}

static void greatest_magnitude_sees_nan(void)
{
  float x[20];
  memcpy(x, values, sizeof x);
  x[7] = -5.0f;
  CHECK_EQ_F64(kernels->abs_max(x, 20), 5.0);
  CHECK_EQ_F64(kernels->abs_max(x, 0), 0.0);
  x[19] = NAN;
  CHECK(isinf(kernels->abs_max(x, 20)));
}

static void run(const flk_table *table)
{
  kernels = table;
  CHECK_CASE(finite_check_finds_the_first);
  CHECK_CASE(sum_of_squares_has_sixteen_lanes);
  CHECK_CASE(sum_of_squares_of_a_group_is_that_of_its_blocks);
  CHECK_CASE(rotation_is_signs_and_butterflies);
  CHECK_CASE(what_is_not_finite_is_never_known_to_be_short);
  CHECK_CASE(noise_is_generators_of_sixteen_bits);
  CHECK_CASE(quantising_rounds_by_noise_and_counts_what_is_cut);
  CHECK_CASE(a_table_rounds_to_its_values);
  CHECK_CASE(indices_are_packed_low_bits_first);
  CHECK_CASE(lanes_of_all_widths_add_at_any_alignment);
  CHECK_CASE(lane_max_takes_magnitudes);
  CHECK_CASE(lanes_become_coordinates_around_the_middle);
  CHECK_CASE(floats_survive_as_bytes);
  CHECK_CASE(fixed_point_rounds_to_even);
  CHECK_CASE(folding_is_that_of_the_c_function_and_is_undone);
  CHECK_CASE(folding_finds_one_bad_value_anywhere);
  CHECK_CASE(scaling_clamps_to_the_bound);
  CHECK_CASE(greatest_magnitude_sees_nan);
}

int main(void)
{
  draw();
  for (size_t i = 0; flk_kernels_at(i); i++)
    run(flk_kernels_at(i));
  return check_report();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels against their definitions, written out in the slowest way, for every
 * table that this machine can run: results must be equal byte for byte. Bytes
 * around every output are checked too. What blocks go through in one call is
 * checked step by step for the C functions; test_blocks.c compares the other
 * tables with them. */
#include <math.h>
#include <stdlib.h>

#include "base/bytes.h"
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

static void gather_and_scatter_move_lines(void)
{
  static float blocks[2 * FLK_BLOCK_STRIDE];
  float about[2], sum[2] = {0};
  flk_lines group = {
      .src = values, .stride = 48, .lines = 5, .count = 2, .weight = 0.5f};
  kernels->gather(blocks, &group, about);
  for (size_t b = 0; b < 2; b++) {
    for (size_t i = 0; i < 5 * 16; i++) {
      float want = values[48 * (i / 16) + 16 * b + i % 16] * 0.5f;
      CHECK_EQ_F64(blocks[b * FLK_BLOCK_STRIDE + i], want);
      sum[b] += want * want;
    }
    CHECK(isinf(about[b]) || fabsf(about[b] / sum[b] - 1.0f) < 0x1p-15f);
  }
  values[50] = NAN;
  kernels->gather(blocks, &group, about);
  CHECK(!(about[0] <= 0x1p100f));
  draw();
  float *out = (float *)(void *)guard_open(&guard_a);
  kernels->scatter(out, 32, values, 40, 4, 2);
  guard_check(&guard_a, 4 * 32 * sizeof(float));
  for (size_t j = 0; j < 4; j++) {
    CHECK_EQ_MEM(out + 32 * j, values + 40 * j, 32 * sizeof(float));
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

static void flip(float *x, float scale, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    x[i] *= bytes[i / 8] >> (i % 8) & 1 ? -scale : scale;
  }
}

static void rotation_is_signs_and_butterflies(void)
{
  static float want[BLOCK];
  for (size_t n = FLK_BLOCK_MIN; n <= BLOCK; n *= 2) {
    float *got = (float *)(void *)guard_open(&guard_a);
    memcpy(got, values, n * sizeof(float));
    memcpy(want, values, n * sizeof(float));
    flk_rotate_c(got, bytes, 0.7f, n);
    guard_check(&guard_a, n * sizeof(float));
    flip(want, 0.7f, n);
    for (size_t h = n / 2; h > 0; h /= 2)
      apart(want, h, n);
    CHECK_EQ_MEM(got, want, n * sizeof(float));
    flk_unrotate_c(got, bytes, 0.3f, n);
    for (size_t h = 1; h < n; h *= 2)
      apart(want, h, n);
    flip(want, 0.3f, n);
    CHECK_EQ_MEM(got, want, n * sizeof(float));
  }
}

static void noise_is_sixteen_xorshift_lanes(void)
{
  uint32_t state[16], lane[16];
  for (uint32_t k = 0; k < 16; k++)
    lane[k] = state[k] = k + 1;
  uint16_t *got = (uint16_t *)(void *)guard_open(&guard_a);
  flk_noise_c(got, 256, state);
  guard_check(&guard_a, 512);
  for (int i = 0; i < 256; i += 32) {
    for (int k = 0; k < 16; k++) {
      lane[k] ^= lane[k] << 13;
      lane[k] ^= lane[k] >> 17;
      lane[k] ^= lane[k] << 5;
      CHECK_EQ_U64(got[i + k], lane[k] & 0xffffu);
      CHECK_EQ_U64(got[i + 16 + k], lane[k] >> 16);
    }
  }
  CHECK_EQ_MEM(state, lane, sizeof state);
}

static void quantising_rounds_by_noise_and_counts_outside(void)
{
  static const uint32_t grids[] = {1, 3, 7, 15, 31, 255};
  for (int t = 0; t < 6; t++) {
    uint32_t g = grids[t], outside = 0;
    float step = (float)g / 3.0f, half = 0.5f * (float)g;
    uint8_t *q = guard_open(&guard_a);
    uint32_t got = flk_quantise_c(q, values, noise, 40000, step, g, BLOCK);
    guard_check(&guard_a, BLOCK);
    for (int i = 0; i < BLOCK; i++) {
      float v = values[i] * step;
      v = v + half;
      outside += v < 0.0f || v > (float)g;
      float z = v < 0.0f ? 0.0f : v > (float)g ? (float)g : v;
      float u = (float)((noise[i] + 40000u) % 65536u) / 65536.0f;
      uint32_t want = (uint32_t)(z + u);
      CHECK_EQ_U64(q[i], want > g ? g : want);
    }
    CHECK_EQ_U64(got, outside);
  }
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

static void lanes_become_floats_by_one_product_and_one_sum(void)
{
  static float y[256];
  static uint16_t drawn[256];
  static const uint16_t offsets[] = {50000, 7};
  uint32_t state[16], copy[16];
  flk_lattice lattice = {.offsets = offsets,
                         .n_offsets = 2,
                         .sign = -1,
                         .factor = 65535,
                         .bias = -77,
                         .step = 0.3f,
                         .shift = -2.0f};
  for (uint32_t k = 0; k < 16; k++)
    copy[k] = state[k] = k + 99;
  flk_noise_c(drawn, 256, copy);
  for (uint32_t width = FLK_U8; width <= FLK_U32; width++) {
    uint8_t lanes[1024];
    memcpy(lanes, bytes, sizeof lanes);
    for (int i = 3; width == FLK_U32 && i < 1024; i += 4)
      lanes[i] = 0;
    lattice.width = width;
    lattice.state = NULL;
    flk_dequantise_c(y, lanes, &lattice, 256);
    for (size_t i = 0; i < 256; i++) {
      float v = (float)lane(lanes + (i << width), width) * 0.3f;
      CHECK_EQ_F64(y[i], v + -2.0f);
    }
    lattice.state = state;
    flk_dequantise_c(y, lanes, &lattice, 256);
    for (size_t i = 0; i < 256; i++) {
      int64_t u = drawn[i];
      int64_t e =
          65535 * u % 65536 - 77 - (u + 50000) % 65536 - (u + 7) % 65536;
      float v = (float)lane(lanes + (i << width), width) - (float)e / 65536.0f;
      v = v * 0.3f;
      CHECK_EQ_F64(y[i], v + -2.0f);
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

static void fixed_point_rounds_to_even(void)
{
  static const float x[] = {0.5f, 1.5f, -0.5f, -1.5f, 2.25f, 0x1p30f};
  static const int64_t want[] = {0, 2, 0, -2, 2, INT64_C(1) << 30};
  uint8_t lanes[48] = {0};
  float back[6];
  kernels->fixed_add(lanes, x, 6, 1.0);
  for (int i = 0; i < 6; i++) {
    CHECK_EQ_I64((int64_t)fli_load_u64(lanes + 8 * i), want[i]);
  }
  kernels->fixed_add(lanes, x, 6, -4.0);
  CHECK_EQ_I64((int64_t)fli_load_u64(lanes + 8), -4);
  kernels->fixed_load(back, lanes, 6, 0.25);
  CHECK_EQ_F64(back[1], -1.0);
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
  CHECK_CASE(gather_and_scatter_move_lines);
  CHECK_CASE(rotation_is_signs_and_butterflies);
  CHECK_CASE(noise_is_sixteen_xorshift_lanes);
  CHECK_CASE(quantising_rounds_by_noise_and_counts_outside);
  CHECK_CASE(indices_are_packed_low_bits_first);
  CHECK_CASE(lanes_of_all_widths_add_at_any_alignment);
  CHECK_CASE(lane_max_takes_magnitudes);
  CHECK_CASE(lanes_become_floats_by_one_product_and_one_sum);
  CHECK_CASE(floats_survive_as_bytes);
  CHECK_CASE(fixed_point_rounds_to_even);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* Noise, quantisation onto the grid 0..g and back, and the packed indices
 * (thc.md, "Quantisation"). Uniform and dither share one floor(z + u): they
 * differ only in where u comes from and in what the decoder subtracts. */
#include "kernels/kernels.h"

#include "kernels/lane_bytes.h"

void flk_noise_c(uint16_t *restrict out, size_t n, const flk_noise *noise)
{
  uint16_t x[2 * FLK_LINE], step[2 * FLK_LINE];
  for (size_t k = 0; k < FLK_LINE; k++) {
    x[k] = (uint16_t)noise->state[k];
    x[k + FLK_LINE] = (uint16_t)(noise->state[k] >> 16);
    step[k] = (uint16_t)noise->step[k];
    step[k + FLK_LINE] = (uint16_t)(noise->step[k] >> 16);
  }
  for (size_t i = 0; i < n; i += 2 * FLK_LINE) {
    for (size_t k = 0; k < 2 * FLK_LINE; k++)
      out[i + k] = x[k] = (uint16_t)(x[k] * FLK_NOISE_FACTOR + step[k]);
  }
}

/* A coordinate in 1/65536 of a cell; beyond every grid it stays beyond. */
static int32_t fixed_point(float y, float centre)
{
  float z = y + centre;
  z = z < -0x1p30f ? -0x1p30f : z;
  return (int32_t)(z > 0x1p30f ? 0x1p30f : z);
}

static int32_t cut(int32_t v, int32_t top)
{
  return v < 0 ? 0 : v > top ? top : v;
}

/* What is left of y where `point` of the grid was chosen, in 1/65536 of a cell.
 * From y itself: t has lost what the centre's size leaves no bits for, which
 * would be the same in every coordinate, and what is beyond 2^30. The point is
 * below 2^24, and so exact. */
static float left_of(float y, int32_t point, const flk_grid *grid)
{
  return y - (float)(point - 32768 * (int32_t)grid->g);
}

uint32_t flk_quantise_c(uint8_t *restrict q, float *restrict y,
                        const uint16_t *restrict noise, const flk_grid *grid,
                        size_t n)
{
  const int32_t g = (int32_t)grid->g;
  uint32_t outside = 0;
  for (size_t i = 0; i < n; i++) {
    int32_t t = fixed_point(y[i], grid->centre);
    int32_t u = (uint16_t)(noise[i] + grid->offset);
    int32_t index = (t + u) >> 16; /* floor: gcc, clang */
    int32_t inside = cut(index, g);
    outside += inside != index;
    q[i] = (uint8_t)inside;
    int32_t point = inside * 65536;
    if (grid->leave == FLK_LEAVE_DITHERED) point += 32768 - u;
    if (grid->leave != FLK_LEAVE_NOTHING) y[i] = left_of(y[i], point, grid);
  }
  return outside;
}

uint32_t flk_quantise_table_c(uint8_t *restrict q, float *restrict y,
                              const uint16_t *restrict noise,
                              const flk_grid *grid, size_t n)
{
  const float top = 65536.0f * (float)grid->g;
  uint32_t outside = 0;
  for (size_t i = 0; i < n; i++) {
    float z = y[i] + grid->centre;
    float inside = z < 0.0f ? 0.0f : z > top ? top : z;
    uint32_t t = (uint32_t)(int32_t)inside;
    uint32_t u = (uint16_t)(noise[i] + grid->offset);
    uint32_t entry = grid->entries[t >> 16];
    uint32_t below = entry & 0xff0000u, gap = entry >> 24;
    int is_up = t - below > u * gap;
    outside += inside != z;
    q[i] = (uint8_t)(entry + (uint32_t)is_up);
    if (grid->leave != FLK_LEAVE_NOTHING) {
      uint32_t value = below + (is_up ? gap << 16 : 0);
      y[i] = left_of(y[i], (int32_t)value, grid);
    }
  }
  return outside;
}

static void pack_nibbles(uint8_t *restrict dst, const uint8_t *restrict q,
                         size_t n)
{
  for (size_t i = 0; i < n / 2; i++) {
    dst[i] = (uint8_t)(q[2 * i] | q[2 * i + 1] << 4);
  }
}

void flk_pack_c(uint8_t *restrict dst, const uint8_t *restrict q, size_t n,
                uint32_t bits)
{
  if (bits == 8) {
    memcpy(dst, q, n);
    return;
  }
  if (bits == 4) {
    pack_nibbles(dst, q, n);
    return;
  }
  for (size_t i = 0; i < n; i += 8) {
    uint64_t word = 0;
    for (uint32_t k = 0; k < 8; k++)
      word |= (uint64_t)q[i + k] << (k * bits);
    for (uint32_t k = 0; k < bits; k++)
      *dst++ = (uint8_t)(word >> (8 * k));
  }
}

static void unpack_nibbles(uint8_t *restrict q, const uint8_t *restrict src,
                           size_t n)
{
  for (size_t i = 0; i < n / 2; i++) {
    q[2 * i] = src[i] & 15u;
    q[2 * i + 1] = src[i] >> 4;
  }
}

void flk_unpack_c(uint8_t *restrict q, const uint8_t *restrict src, size_t n,
                  uint32_t bits)
{
  if (bits == 8) {
    memcpy(q, src, n);
    return;
  }
  if (bits == 4) {
    unpack_nibbles(q, src, n);
    return;
  }
  const uint64_t mask = (1u << bits) - 1u;
  for (size_t i = 0; i < n; i += 8) {
    uint64_t word = 0;
    for (uint32_t k = 0; k < bits; k++)
      word |= (uint64_t)*src++ << (8 * k);
    for (uint32_t k = 0; k < 8; k++) {
      q[i + k] = (uint8_t)(word >> (k * bits) & mask);
    }
  }
}

static uint32_t load_lane(const uint8_t *lanes, uint32_t width, size_t i)
{
  if (width == FLK_U8) return lanes[i];
  if (width == FLK_U16) return flk_load_u16(lanes + 2 * i);
  return flk_load_u32(lanes + 4 * i);
}

/* What the dither of all slots in a sum comes to. */
static int32_t dither_sum(const flk_lattice *lattice, uint32_t noise)
{
  int32_t sum = (int32_t)(lattice->factor * noise & 0xffffu);
  for (uint32_t s = 0; s < lattice->n_offsets; s++) {
    sum += lattice->sign * (int32_t)(uint16_t)(noise + lattice->offsets[s]);
  }
  return sum;
}

void flk_dequantise_c(float *restrict y, const uint8_t *restrict lanes,
                      const flk_lattice *lattice, size_t n)
{
  uint16_t noise[FLK_BLOCK_MAX] = {0};
  if (lattice->noise) flk_noise_c(noise, n, lattice->noise);
  for (size_t i = 0; i < n; i++) {
    uint32_t v = load_lane(lanes, lattice->width, i) << lattice->shift;
    v += (uint32_t)lattice->bias;
    if (lattice->noise) {
      v -= (uint32_t)(dither_sum(lattice, noise[i]) >> (16 - lattice->shift));
    }
    y[i] = (float)(int32_t)v;
  }
}

uint32_t flk_encode_c(uint8_t *restrict dst, float *restrict x,
                      const flk_grid *grid, size_t n)
{
  uint16_t noise[FLK_BLOCK_MAX];
  uint8_t q[FLK_BLOCK_MAX];
  flk_near_down_c(x, n);
  flk_noise_c(noise, n, grid->noise);
  uint32_t outside = grid->entries ? flk_quantise_table_c(q, x, noise, grid, n)
                                   : flk_quantise_c(q, x, noise, grid, n);
  flk_pack_c(dst, q, n, grid->bits);
  if (grid->leave != FLK_LEAVE_NOTHING) flk_near_up_c(x, n);
  return outside;
}

void flk_decode_c(float *restrict x, const uint8_t *lanes,
                  const flk_lattice *lattice, size_t n)
{
  flk_dequantise_c(x, lanes, lattice, n);
  flk_near_up_c(x, n);
}

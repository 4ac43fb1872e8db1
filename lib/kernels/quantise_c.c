/* SPDX-License-Identifier: Apache-2.0 */
/* Noise, quantisation onto the grid 0..g and back, and the packed indices
 * (thc.md, "Quantisation"). Uniform and dither share one floor(z + u): they
 * differ only in where u comes from and in what the decoder subtracts. */
#include "kernels/kernels.h"

#include "kernels/lane_bytes.h"

void flk_noise_c(uint16_t *restrict out, size_t n,
                 uint32_t state[restrict FLK_NOISE_LANES])
{
  uint32_t lanes[FLK_NOISE_LANES];
  memcpy(lanes, state, sizeof lanes);
  for (size_t i = 0; i < n; i += 2 * FLK_LINE) {
    for (size_t k = 0; k < FLK_NOISE_LANES; k++) {
      uint32_t x = lanes[k];
      x ^= x << 13;
      x ^= x >> 17;
      x ^= x << 5;
      lanes[k] = x;
    }
    for (size_t k = 0; k < FLK_LINE; k++) {
      out[i + k] = (uint16_t)lanes[k];
    }
    for (size_t k = 0; k < FLK_LINE; k++) {
      out[i + FLK_LINE + k] = (uint16_t)(lanes[k] >> 16);
    }
  }
  memcpy(state, lanes, sizeof lanes);
}

uint32_t flk_quantise_c(uint8_t *restrict q, const float *restrict y,
                        const uint16_t *restrict noise, uint16_t offset,
                        float step, uint32_t g, size_t n)
{
  const float top = (float)g;
  const float half = 0.5f * top;
  int32_t outside[FLK_LINE] = {0};
  for (size_t i = 0; i < n; i += FLK_LINE) {
    int32_t index[FLK_LINE];
    for (size_t k = 0; k < FLK_LINE; k++) {
      float v = y[i + k] * step;
      v = v + half;
      float z = v < 0.0f ? 0.0f : v;
      z = z > top ? top : z;
      outside[k] += z != v;
      float u = (float)(int32_t)(uint16_t)(noise[i + k] + offset);
      z = z + u * 0x1p-16f;
      index[k] = (int32_t)z; /* <= g: g + 65535 / 65536 is a float32 */
    }
    for (size_t k = 0; k < FLK_LINE; k++)
      q[i + k] = (uint8_t)index[k];
  }
  uint32_t total = 0;
  for (size_t k = 0; k < FLK_LINE; k++)
    total += (uint32_t)outside[k];
  return total;
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

/* Lanes of any width as float32: exact below 2^24. */
static void lanes_to_f32(float *restrict y, const uint8_t *restrict lanes,
                         uint32_t width, size_t n)
{
  if (width == FLK_U8) {
    for (size_t i = 0; i < n; i++)
      y[i] = (float)(int32_t)lanes[i];
  } else if (width == FLK_U16) {
    for (size_t i = 0; i < n; i++) {
      y[i] = (float)(int32_t)flk_load_u16(lanes + 2 * i);
    }
  } else {
    for (size_t i = 0; i < n; i++) {
      y[i] = (float)(int32_t)flk_load_u32(lanes + 4 * i);
    }
  }
}

/* What the dither of all slots in a sum comes to, for every coordinate. */
static void dither_sum(int32_t *restrict sum, const flk_lattice *lattice,
                       size_t n)
{
  uint16_t noise[FLK_BLOCK_MAX];
  uint32_t state[FLK_NOISE_LANES];
  memcpy(state, lattice->state, sizeof state);
  flk_noise_c(noise, n, state);
  for (size_t i = 0; i < n; i++) {
    sum[i] = (int32_t)(lattice->factor * noise[i] & 0xffffu) + lattice->bias;
  }
  for (uint32_t s = 0; s < lattice->n_offsets; s++) {
    const uint16_t offset = lattice->offsets[s];
    const int32_t sign = lattice->sign;
    for (size_t i = 0; i < n; i++)
      sum[i] += sign * (int32_t)(uint16_t)(noise[i] + offset);
  }
}

void flk_dequantise_c(float *restrict y, const uint8_t *restrict lanes,
                      const flk_lattice *lattice, size_t n)
{
  const float step = lattice->step, shift = lattice->shift;
  lanes_to_f32(y, lanes, lattice->width, n);
  if (lattice->state) {
    int32_t sum[FLK_BLOCK_MAX];
    dither_sum(sum, lattice, n);
    for (size_t i = 0; i < n; i++)
      y[i] -= (float)sum[i] * 0x1p-16f;
  }
  for (size_t i = 0; i < n; i++) {
    float v = y[i] * step;
    y[i] = v + shift;
  }
}

uint32_t flk_encode_c(uint8_t *restrict dst, float *restrict x,
                      const flk_grid *grid, uint32_t state[FLK_NOISE_LANES],
                      size_t n)
{
  uint16_t noise[FLK_BLOCK_MAX];
  uint8_t q[FLK_BLOCK_MAX];
  flk_rotate_c(x, grid->signs, grid->scale, n);
  flk_noise_c(noise, n, state);
  uint32_t clamped = flk_quantise_c(q, x, noise, grid->offset, grid->step,
                                    (1u << grid->bits) - 1u, n);
  flk_pack_c(dst, q, n, grid->bits);
  return clamped;
}

void flk_decode_c(float *restrict dst, size_t stride, const uint8_t *lanes,
                  const flk_lattice *lattice, size_t n)
{
  float y[FLK_BLOCK_MAX];
  flk_dequantise_c(y, lanes, lattice, n);
  flk_unrotate_c(y, lattice->signs, lattice->scale, n);
  flk_scatter_c(dst, stride, y, FLK_LINE, n / FLK_LINE, 1);
}

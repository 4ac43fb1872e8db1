/* SPDX-License-Identifier: Apache-2.0 */
/* The inner loops, behind one table of function pointers. The C functions
 * (*_c.c) are the specification: a version for some instruction set must give
 * the same bytes (D0), so floating-point operations are named here one by one
 * and are never fused or reordered. They expect round-to-nearest and denormals
 * (base/fpguard.h).
 *
 * Vectors are looked at in lines of 16 float32 (64 bytes). A rotation block is
 * n = 256, 512, ..., 4096 floats. Pointers to floats, noise and indices are
 * those of ordinary arrays; lanes and payloads are bytes at any alignment,
 * little-endian, in memory as on the wire. Source and destination never
 * overlap. */
#ifndef FLK_KERNELS_H
#define FLK_KERNELS_H

#include <stddef.h>
#include <stdint.h>

enum {
  FLK_LINE = 16,
  FLK_BLOCK_MIN = 256,
  FLK_BLOCK_MAX = 4096,
  FLK_NOISE_LANES = 16
};

/* Lane widths: index into flk_table.accumulate. */
enum { FLK_U8 = 0, FLK_U16 = 1, FLK_U32 = 2, FLK_I64 = 3, FLK_WIDTHS = 4 };

typedef struct flk_table {
  const char *name;

  /* Index of the first NaN or infinity; n when there is none. Any n. */
  size_t (*find_not_finite)(const float *x, size_t n);
  /* Sum of squares in double. Lane k of 16 adds the squares of x[k],
   * x[16 + k], ... in this order; lanes are folded k += k + 8, 4, 2, 1. The
   * squares of float32 are exact in double. Any n. Not finite exactly when
   * some x is not. */
  double (*sum_squares)(const float *x, size_t n);

  /* dst[16 j + k] = src[stride j + k] * weight for `lines` lines; stride in
   * floats. */
  void (*gather)(float *dst, const float *src, size_t stride, size_t lines,
                 float weight);
  /* dst[stride j + k] = src[16 j + k]. */
  void (*scatter)(float *dst, size_t stride, const float *src, size_t lines);

  /* x *= +-scale (bit i of `signs` set: minus), then the Walsh-Hadamard
   * transform without normalisation: for h = 1, 2, 4, ..., n/2 every pair
   * (a, b) that is h apart becomes (a + b, a - b). n is a block. */
  void (*rotate)(float *x, const uint8_t *signs, float scale, size_t n);
  /* The transform first, then x *= +-scale. */
  void (*unrotate)(float *x, const uint8_t *signs, float scale, size_t n);

  /* n 16-bit numbers, n a multiple of 32. Per two lines every lane's state is
   * stepped once, x ^= x << 13; x ^= x >> 17; x ^= x << 5; its low half goes
   * to the first line, its high half to the second. States must not be 0. */
  void (*noise)(uint16_t *out, size_t n, uint32_t state[FLK_NOISE_LANES]);
  /* v = y * step + g / 2; z = v clamped to 0..g;
   * q = min((int)(z + ((noise + offset) mod 65536) / 65536), g).
   * Returns the number of v outside 0..g. n a multiple of 16, g <= 255. */
  uint32_t (*quantise)(uint8_t *q, const float *y, const uint16_t *noise,
                       uint16_t offset, float step, uint32_t g, size_t n);
  /* Indices of `bits` (1..8) bits, least significant bit first. n a multiple
   * of 8; n * bits / 8 bytes. */
  void (*pack)(uint8_t *dst, const uint8_t *q, size_t n, uint32_t bits);
  void (*unpack)(uint8_t *q, const uint8_t *src, size_t n, uint32_t bits);

  /* y = lane * step + shift, lanes below 2^24 of FLK_U8, U16 or U32. */
  void (*dequantise)(float *y, const uint8_t *lanes, uint32_t width, size_t n,
                     float step, float shift);
  /* y = (lane - noise / 65536) * step + shift; lane and noise are rounded to
   * float32 first. */
  void (*dequantise_dither)(float *y, const uint8_t *lanes, uint32_t width,
                            const int32_t *noise, size_t n, float step,
                            float shift);
  /* sum[i] = (factor * noise[i] mod 65536) + bias: what all slots of a
   * stratified dither subtract together. */
  void (*dither_total)(int32_t *sum, const uint16_t *noise, size_t n,
                       uint32_t factor, int32_t bias);
  /* sum[i] += sign * ((noise[i] + offset) mod 65536), sign 1 or -1. */
  void (*dither_slot)(int32_t *sum, const uint16_t *noise, size_t n,
                      uint16_t offset, int32_t sign);

  /* dst += src, dst of the row's width, src of the column's, which is not
   * wider; NULL for pairs that do not occur (FLK_I64 pairs with itself
   * only). The caller proves that nothing wraps. */
  void (*accumulate[FLK_WIDTHS][FLK_WIDTHS])(uint8_t *dst, const uint8_t *src,
                                             size_t n);
  /* Greatest |lane|; the lane -2^63 counts as 2^63. */
  uint64_t (*lane_max)(const uint8_t *lanes, uint32_t width, size_t n);

  /* dst[i] = x * factor in double, clamped to +-bound, rounded to float32. */
  void (*scale_clamp)(float *dst, const float *src, size_t n, double factor,
                      float bound);
  /* float32 and bfloat16 (rounded to nearest even) to little-endian bytes and
   * back. */
  void (*f32_store)(uint8_t *dst, const float *src, size_t n);
  void (*f32_load)(float *dst, const uint8_t *src, size_t n);
  void (*bf16_store)(uint8_t *dst, const float *src, size_t n);
  void (*bf16_load)(float *dst, const uint8_t *src, size_t n);
  /* Greatest |x|; infinity when some x is NaN. */
  float (*abs_max)(const float *x, size_t n);
  /* lanes (FLK_I64) += x * factor in double, rounded to nearest even. The
   * caller proves |x * factor| < 2^62 and that nothing wraps. */
  void (*fixed_add)(uint8_t *lanes, const float *x, size_t n, double factor);
  /* dst = (float)(lane * factor), in double; the product fits float32. */
  void (*fixed_load)(float *dst, const uint8_t *lanes, size_t n, double factor);
} flk_table;

/* The best table for this machine. Thread-safe, static. */
const flk_table *flk_kernels(void);
/* The specification. */
const flk_table *flk_kernels_c(void);

/* ---- the C functions, per file; also the tails of other versions ----------
 */

size_t flk_find_not_finite_c(const float *x, size_t n);
double flk_sum_squares_c(const float *x, size_t n);
void flk_gather_c(float *dst, const float *src, size_t stride, size_t lines,
                  float weight);
void flk_scatter_c(float *dst, size_t stride, const float *src, size_t lines);

void flk_rotate_c(float *x, const uint8_t *signs, float scale, size_t n);
void flk_unrotate_c(float *x, const uint8_t *signs, float scale, size_t n);

void flk_noise_c(uint16_t *out, size_t n, uint32_t state[FLK_NOISE_LANES]);
uint32_t flk_quantise_c(uint8_t *q, const float *y, const uint16_t *noise,
                        uint16_t offset, float step, uint32_t g, size_t n);
void flk_pack_c(uint8_t *dst, const uint8_t *q, size_t n, uint32_t bits);
void flk_unpack_c(uint8_t *q, const uint8_t *src, size_t n, uint32_t bits);
void flk_dequantise_c(float *y, const uint8_t *lanes, uint32_t width, size_t n,
                      float step, float shift);
void flk_dequantise_dither_c(float *y, const uint8_t *lanes, uint32_t width,
                             const int32_t *noise, size_t n, float step,
                             float shift);
void flk_dither_total_c(int32_t *sum, const uint16_t *noise, size_t n,
                        uint32_t factor, int32_t bias);
void flk_dither_slot_c(int32_t *sum, const uint16_t *noise, size_t n,
                       uint16_t offset, int32_t sign);

void flk_add_u8_u8_c(uint8_t *dst, const uint8_t *src, size_t n);
void flk_add_u16_u8_c(uint8_t *dst, const uint8_t *src, size_t n);
void flk_add_u16_u16_c(uint8_t *dst, const uint8_t *src, size_t n);
void flk_add_u32_u8_c(uint8_t *dst, const uint8_t *src, size_t n);
void flk_add_u32_u16_c(uint8_t *dst, const uint8_t *src, size_t n);
void flk_add_u32_u32_c(uint8_t *dst, const uint8_t *src, size_t n);
void flk_add_i64_i64_c(uint8_t *dst, const uint8_t *src, size_t n);
uint64_t flk_lane_max_c(const uint8_t *lanes, uint32_t width, size_t n);

void flk_scale_clamp_c(float *dst, const float *src, size_t n, double factor,
                       float bound);
void flk_f32_store_c(uint8_t *dst, const float *src, size_t n);
void flk_f32_load_c(float *dst, const uint8_t *src, size_t n);
void flk_bf16_store_c(uint8_t *dst, const float *src, size_t n);
void flk_bf16_load_c(float *dst, const uint8_t *src, size_t n);
float flk_abs_max_c(const float *x, size_t n);
void flk_fixed_add_c(uint8_t *lanes, const float *x, size_t n, double factor);
void flk_fixed_load_c(float *dst, const uint8_t *lanes, size_t n,
                      double factor);

#endif

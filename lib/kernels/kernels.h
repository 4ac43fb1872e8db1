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
  /* Floats from one block of a group to the next: not a power of two, which
   * would make their lines compete for the same cache sets. */
  FLK_BLOCK_STRIDE = FLK_BLOCK_MAX + FLK_LINE,
  FLK_NOISE_LANES = 16
};

/* Lane widths: index into flk_table.accumulate. */
enum { FLK_U8 = 0, FLK_U16 = 1, FLK_U32 = 2, FLK_I64 = 3, FLK_WIDTHS = 4 };

/* Memory that will be read soon: `rows` runs of `row` floats. A hint. */
typedef struct flk_ahead {
  const float *src;
  size_t stride;
  size_t row;
  size_t rows;
} flk_ahead;

/* How the coordinates of a block become indices 0..g, g = 2^bits - 1. */
typedef struct flk_grid {
  const uint8_t *signs; /* bit i set: x[i] is negated */
  float scale;
  float step;
  uint32_t bits;
  uint16_t offset; /* added to the noise, mod 65536 */
  flk_ahead ahead;
} flk_grid;

/* How lanes become coordinates. With dither (state not NULL) a lane is first
 * reduced by e / 65536, e = (factor * noise mod 65536) + bias + sum over the
 * offsets of sign * ((noise + offset) mod 65536): what the slots in the sum
 * have added. */
typedef struct flk_lattice {
  const uint8_t *signs;
  const uint32_t *state; /* of the noise, or NULL */
  const uint16_t *offsets;
  uint32_t n_offsets;
  int32_t sign; /* 1 or -1 */
  uint32_t factor;
  int32_t bias;
  uint32_t width; /* FLK_U8, FLK_U16, FLK_U32; lanes below 2^30, with dither
                     below 2^24 */
  float step;
  float shift;
  float scale;
} flk_lattice;

/* Indices of `bits` bits of many updates, for one run of coordinates. What an
 * update adds to a lane is weight * value. */
typedef struct flk_packed {
  const uint8_t *const *src; /* one per update */
  size_t skip;               /* bytes of every src before the run */
  const uint32_t *weights;   /* one per update, 1..65535; NULL: all 1 */
  size_t count;              /* of updates */
  uint32_t bits;             /* 1..8 */
  const uint8_t *values;     /* of every index, rising; NULL: itself */
} flk_packed;

/* A group of `count` blocks whose lines lie side by side. */
typedef struct flk_lines {
  const float *src;
  size_t stride; /* floats from one line of a block to its next */
  size_t lines;  /* of every block */
  size_t count;
  float weight;
} flk_lines;

typedef struct flk_table {
  const char *name;

  /* Index of the first NaN or infinity; n when there is none. Any n. */
  size_t (*find_not_finite)(const float *x, size_t n);
  /* Sum of squares in double. Lane k of 16 adds the squares of x[k],
   * x[16 + k], ... in this order; lanes are folded k += k + 8, 4, 2, 1. The
   * squares of float32 are exact in double. Any n. Not finite exactly when
   * some x is not. */
  double (*sum_squares)(const float *x, size_t n);

  /* Line j of block b of a group of neighbouring blocks:
   * dst[FLK_BLOCK_STRIDE b + 16 j + k] = src[stride j + 16 b + k] * weight.
   * about[b], unless NULL: the block's sum of squares within a factor of
   * 1 +- 3 * 2^-16 when it is in 2^-100..2^100; NaN and infinities never give
   * such a number. Not D0: may be infinity, for "not known". */
  void (*gather)(float *dst, const flk_lines *group, float *about);
  /* Rows of `count` lines: dst[stride j + i] = src[src_stride j + i] for `rows`
   * rows. */
  void (*scatter)(float *dst, size_t stride, const float *src,
                  size_t src_stride, size_t rows, size_t count);

  /* A block becomes indices: signs and scale, rotation, noise, quantisation,
   * packing (flk_rotate_c, flk_noise_c, flk_quantise_c, flk_pack_c). x is
   * scratch afterwards; `state` moves on. Returns how many coordinates were
   * clamped. */
  uint32_t (*encode)(uint8_t *dst, float *x, const flk_grid *grid,
                     uint32_t state[FLK_NOISE_LANES], size_t n);
  /* Lanes become a block (flk_dequantise_c, flk_unrotate_c), whose line j goes
   * to dst[stride j]. */
  void (*decode)(float *dst, size_t stride, const uint8_t *lanes,
                 const flk_lattice *lattice, size_t n);
  /* lanes += what the updates add; FLK_U8, U16, U32. n a multiple of 256. The
   * caller proves that nothing wraps. */
  void (*add_packed)(uint8_t *lanes, uint32_t width, const flk_packed *packed,
                     size_t n);

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
/* Tables that this machine can run, from weak to strong: 0 is the C functions,
 * the specification. NULL behind the last. */
const flk_table *flk_kernels_at(size_t index);

/* ---- the C functions, per file; also the tails of other versions ----------
 */

size_t flk_find_not_finite_c(const float *x, size_t n);
double flk_sum_squares_c(const float *x, size_t n);
void flk_gather_c(float *dst, const flk_lines *group, float *about);
void flk_scatter_c(float *dst, size_t stride, const float *src,
                   size_t src_stride, size_t rows, size_t count);
uint32_t flk_encode_c(uint8_t *dst, float *x, const flk_grid *grid,
                      uint32_t state[FLK_NOISE_LANES], size_t n);
void flk_decode_c(float *dst, size_t stride, const uint8_t *lanes,
                  const flk_lattice *lattice, size_t n);
void flk_add_packed_c(uint8_t *lanes, uint32_t width, const flk_packed *packed,
                      size_t n);

/* ---- what the C functions of blocks are made of --------------------------
 */

/* x *= +-scale (bit i of `signs` set: minus), then the Walsh-Hadamard
 * transform without normalisation: for h = n/2, n/4, ..., 1 every pair (a, b)
 * that is h apart becomes (a + b, a - b). n is a block. */
void flk_rotate_c(float *x, const uint8_t *signs, float scale, size_t n);
/* The transform with h = 1, 2, ..., n/2 first, then x *= +-scale. */
void flk_unrotate_c(float *x, const uint8_t *signs, float scale, size_t n);
/* n 16-bit numbers, n a multiple of 32. Per two lines every lane's state is
 * stepped once, x ^= x << 13; x ^= x >> 17; x ^= x << 5; its low half goes to
 * the first line, its high half to the second. States must not be 0. */
void flk_noise_c(uint16_t *out, size_t n, uint32_t state[FLK_NOISE_LANES]);
/* v = y * step + g / 2; z = v clamped to 0..g;
 * q = (int)(z + ((noise + offset) mod 65536) / 65536), which is never above g.
 * Returns the number of v outside 0..g. n a multiple of 16, g <= 255. */
uint32_t flk_quantise_c(uint8_t *q, const float *y, const uint16_t *noise,
                        uint16_t offset, float step, uint32_t g, size_t n);
/* Indices of `bits` (1..8) bits, least significant bit first. n a multiple of
 * 8; n * bits / 8 bytes. */
void flk_pack_c(uint8_t *dst, const uint8_t *q, size_t n, uint32_t bits);
void flk_unpack_c(uint8_t *q, const uint8_t *src, size_t n, uint32_t bits);
/* y = lane * step + shift; with dither y = (lane - e / 65536) * step + shift,
 * lane and e rounded to float32 first. */
void flk_dequantise_c(float *y, const uint8_t *lanes,
                      const flk_lattice *lattice, size_t n);

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

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
  /* Distances below are inside a tile; those from it on are between tiles. */
  FLK_TILE = 256,
  /* Blocks that are rotated together: their lines lie side by side. */
  FLK_GROUP_MAX = 4,
  /* Blocks whose lines lie side by side at all. */
  FLK_NEIGHBOURS_MAX = 31,
  /* Floats from one block of a group to the next: not a power of two, which
   * would make their lines compete for the same cache sets. */
  FLK_BLOCK_STRIDE = FLK_BLOCK_MAX + FLK_LINE,
  FLK_GROUP_FLOATS = FLK_GROUP_MAX * FLK_BLOCK_STRIDE,
  FLK_NOISE_LANES = 16,
  FLK_NOISE_FACTOR = 25173
};

/* Lane widths: index into flk_table.accumulate. */
enum { FLK_U8 = 0, FLK_U16 = 1, FLK_U32 = 2, FLK_I64 = 3, FLK_WIDTHS = 4 };

/* A group of `count` blocks in a vector: line j of block b is at
 * stride j + 16 b. */
typedef struct flk_lines {
  size_t stride;
  size_t n;     /* floats of a block */
  size_t count; /* 1 where n < FLK_BLOCK_MAX; else 1..FLK_GROUP_MAX, or up to
                   FLK_NEIGHBOURS_MAX where norms are measured */
} flk_lines;

/* 32 generators of 16-bit numbers, two in every word: x <- x FLK_NOISE_FACTOR +
 * step mod 65536, steps odd. */
typedef struct flk_noise {
  uint32_t state[FLK_NOISE_LANES];
  uint32_t step[FLK_NOISE_LANES];
} flk_noise;

/* Signs and scale of one block. */
typedef struct flk_turn {
  const uint8_t *signs; /* bit i set: x[i] is negated */
  float scale;
} flk_turn;

/* Memory that will be read soon: the lines j, j + 1, ... (`lines` of them) of
 * `count` blocks. A hint. */
typedef struct flk_ahead {
  const float *src; /* NULL for nothing */
  size_t stride;
  size_t lines;
  size_t count;
} flk_ahead;

/* What encode leaves in the block. */
enum {
  FLK_LEAVE_NOTHING = 0, /* it is scratch */
  FLK_LEAVE_ROUNDED = 1, /* coordinate - q, in 1/65536 */
  FLK_LEAVE_DITHERED = 2 /* coordinate - (q + 1/2 - u), in 1/65536 */
};

/* How the coordinates of a block, in 1/65536 of a cell, become indices: on the
 * grid 0..g, or through a table (see flk_quantise_c, flk_quantise_table_c). */
typedef struct flk_grid {
  float centre; /* added to every coordinate */
  uint32_t g;   /* 1..255 */
  uint32_t bits;
  const flk_noise *noise;
  uint16_t offset; /* added to the noise, mod 65536 */
  uint16_t leave;  /* FLK_LEAVE_* */
  /* NULL, or for every cell c = 0..g: gap << 24 | value below << 16 | index.
   * 256 of them can be read. */
  const uint32_t *entries;
  flk_ahead ahead;
} flk_grid;

/* How lanes become coordinates (flk_dequantise_c). */
typedef struct flk_lattice {
  const flk_noise *noise; /* of the dither, or NULL */
  const uint16_t *offsets;
  uint32_t n_offsets;
  int32_t sign; /* 1 or -1 */
  uint32_t factor;
  uint32_t width; /* FLK_U8, FLK_U16, FLK_U32 */
  uint32_t shift; /* 1..16; of u8 lanes with dither 16 */
  int32_t bias;
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

/* A run of float32 in several updates, little-endian. */
typedef struct flk_floats {
  const uint8_t *const *src; /* one per update */
  size_t skip;               /* bytes of every src before the run */
  size_t count;              /* of updates */
  double factor;
  float bound;
} flk_floats;

typedef struct flk_table {
  const char *name;

  /* Index of the first NaN or infinity; n when there is none. Any n. */
  size_t (*find_not_finite)(const float *x, size_t n);
  /* Sum of squares in double. Lane k of 16 adds the squares of x[k],
   * x[16 + k], ... in this order; lanes are folded k += k + 8, 4, 2, 1. The
   * squares of float32 are exact in double. Any n. Not finite exactly when
   * some x is not. */
  double (*sum_squares)(const float *x, size_t n);

  /* sums[b]: the sum of squares of block b, as above, of up to
   * FLK_NEIGHBOURS_MAX blocks, which are read in the order of addresses. n a
   * multiple of 64. */
  void (*sum_squares_group)(double *sums, const float *src,
                            const flk_lines *lines);

  /* The first half of the rotation, from the vector into a buffer, block b at
   * FLK_BLOCK_STRIDE b: x *= +-scale, then the butterflies of distance n / 2
   * down to FLK_TILE. `next`: where the next group begins, a hint, or NULL.
   * about[b]: the sum of squares of block b as it was within a factor of
   * 1 +- 3 * 2^-16 when it is in 2^-100..2^100; NaN and infinities never give
   * such a number. Not D0: may be infinity, for "not known". */
  void (*rotate_in)(float *blocks, const float *src, const flk_lines *lines,
                    const flk_turn *turns, const float *next, float *about);
  /* The second half and what follows it: the butterflies of distance 128 down
   * to 1, noise, indices, packing (flk_near_down_c, flk_noise_c,
   * flk_quantise_c or flk_quantise_table_c, flk_pack_c).
   * What is left in x, if it is wanted, has gone through the butterflies of
   * distance 1 up to 128. Returns how many indices were cut off. */
  uint32_t (*encode)(uint8_t *dst, float *x, const flk_grid *grid, size_t n);
  /* Lanes to coordinates, then the butterflies of distance 1 up to 128
   * (flk_dequantise_c, flk_near_up_c). */
  void (*decode)(float *x, const uint8_t *lanes, const flk_lattice *lattice,
                 size_t n);
  /* The rest of the inverse rotation: distances FLK_TILE up to n / 2, then
   * x *= +-scale, from the buffer into the vector. `blocks` is scratch
   * afterwards. is_streamed: past the caches, for vectors too large for
   * them. */
  void (*rotate_out)(float *dst, float *blocks, const flk_lines *lines,
                     const flk_turn *turns, int is_streamed);
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
  /* lanes (FLK_I64) += x * factor in double, rounded to nearest even, of every
   * update; what is not within +-bound, NaN above all, adds 0. Returns 1 when
   * there was such a value. The caller proves |bound * factor| < 2^62 and that
   * nothing wraps; with -factor the lanes are again as they were. */
  int (*fixed_fold)(uint8_t *lanes, const flk_floats *floats, size_t n);
  /* dst = (float)(lane * factor), in double; the product fits float32. */
  void (*fixed_load)(float *dst, const uint8_t *lanes, size_t n, double factor);
} flk_table;

/* The best table for this machine. Thread-safe, static. */
const flk_table *flk_kernels(void);
/* Tables that this machine can run, from weak to strong: 0 is the plain C
 * functions, the specification, 1 what every machine runs. NULL behind the
 * last. */
const flk_table *flk_kernels_at(size_t index);

/* ---- the C functions, per file; also the tails of other versions ----------
 */

size_t flk_find_not_finite_c(const float *x, size_t n);
double flk_sum_squares_c(const float *x, size_t n);
void flk_sum_squares_group_c(double *sums, const float *src,
                             const flk_lines *lines);
void flk_rotate_in_c(float *blocks, const float *src, const flk_lines *lines,
                     const flk_turn *turns, const float *next, float *about);
uint32_t flk_encode_c(uint8_t *dst, float *x, const flk_grid *grid, size_t n);
void flk_decode_c(float *x, const uint8_t *lanes, const flk_lattice *lattice,
                  size_t n);
void flk_rotate_out_c(float *dst, float *blocks, const flk_lines *lines,
                      const flk_turn *turns, int is_streamed);
void flk_add_packed_c(uint8_t *lanes, uint32_t width, const flk_packed *packed,
                      size_t n);

/* ---- what the C functions of blocks are made of --------------------------
 */

/* Butterflies: every pair (a, b) that is h apart becomes (a + b, a - b), for
 * h = 128, 64, ..., 1 or for h = 1, 2, ..., 128. n is a block. */
void flk_near_down_c(float *x, size_t n);
void flk_near_up_c(float *x, size_t n);
/* n 16-bit numbers, n a multiple of 32. Per two lines every generator is
 * stepped once; the low half of word k goes to place k of the first line, the
 * high half to that of the second. */
void flk_noise_c(uint16_t *out, size_t n, const flk_noise *noise);
/* t = trunc(y + centre, clamped to +-2^30); with u = (noise + offset) mod
 * 65536, q = (t + u) >> 16 cut to 0..g. Returns how many were cut. With
 * grid->leave y becomes y - p, p the point that was chosen, 65536 q - 32768 g,
 * or for dither 32768 - u more: exact, and rounded once. n a multiple of 16. */
uint32_t flk_quantise_c(uint8_t *q, float *y, const uint16_t *noise,
                        const flk_grid *grid, size_t n);
/* z = y + centre cut to 0..65536 g (returns how many were cut), t = trunc(z),
 * c = t >> 16. With grid->entries[c] = gap << 24 | value << 16 | index:
 * q = index + (t - (value << 16) > u gap): one of the two table values around
 * z, unbiased. With grid->leave y becomes y - p, p = 65536 (value of q) -
 * 32768 g. */
uint32_t flk_quantise_table_c(uint8_t *q, float *y, const uint16_t *noise,
                              const flk_grid *grid, size_t n);
/* Indices of `bits` (1..8) bits, least significant bit first. n a multiple of
 * 8; n * bits / 8 bytes. */
void flk_pack_c(uint8_t *dst, const uint8_t *q, size_t n, uint32_t bits);
void flk_unpack_c(uint8_t *q, const uint8_t *src, size_t n, uint32_t bits);
/* y = (lane << shift) + bias, in 32 bits that wrap, as a signed number. With
 * dither (noise not NULL) less e >> (16 - shift), what the slots in the sum
 * have added: e = (factor noise mod 65536) + sum over the offsets of sign
 * ((noise + offset) mod 65536). */
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
int flk_fixed_fold_c(uint8_t *lanes, const flk_floats *floats, size_t n);
void flk_fixed_load_c(float *dst, const uint8_t *lanes, size_t n,
                      double factor);

#endif

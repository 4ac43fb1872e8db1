/* SPDX-License-Identifier: Apache-2.0 */
/* Random signs and the Walsh-Hadamard transform of one block (thc.md,
 * "Rotation"). Butterflies run from the greatest distance down, and back up in
 * the inverse; taking two distances in one pass (radix 4) does the very same
 * additions in the same order, so it changes no bit. The four least distances
 * stay inside a line, the others combine whole lines. */
#include "kernels/kernels.h"

#include <string.h>

#include "base/bytes.h"

/* Four floats. Compilers do not find the shuffles by themselves; these vectors
 * are ordinary code for any processor. */
typedef float row __attribute__((vector_size(16)));
typedef uint32_t sign_row __attribute__((vector_size(16)));
#if defined(__clang__)
#  define TWO_OF(x, y, i, j, k, l) __builtin_shufflevector(x, y, i, j, k, l)
#else
typedef int32_t places __attribute__((vector_size(16)));
#  define TWO_OF(x, y, i, j, k, l) __builtin_shuffle(x, y, (places){i, j, k, l})
#endif

#define S 0x80000000u

/* Sign bits of four floats. */
static const sign_row sign_bits[16] = {
    {0, 0, 0, 0}, {S, 0, 0, 0}, {0, S, 0, 0}, {S, S, 0, 0},
    {0, 0, S, 0}, {S, 0, S, 0}, {0, S, S, 0}, {S, S, S, 0},
    {0, 0, 0, S}, {S, 0, 0, S}, {0, S, 0, S}, {S, S, 0, S},
    {0, 0, S, S}, {S, 0, S, S}, {0, S, S, S}, {S, S, S, S}};

static inline row load(const float *x)
{
  row r;
  memcpy(&r, x, sizeof r);
  return r;
}

static inline void store(float *x, row r)
{
  memcpy(x, &r, sizeof r);
}

/* From a table and without a branch: signs cannot be predicted. */
static void apply_signs(float *x, const uint8_t *signs, float scale, size_t n)
{
  const uint32_t bits = fli_f32_bits(scale);
  const sign_row plus = {bits, bits, bits, bits};
  for (size_t i = 0; i < n; i += 4) {
    sign_row factor = plus ^ sign_bits[signs[i / 8] >> (i & 4) & 15];
    store(x + i, load(x + i) * (row)factor);
  }
}

/* Distances p and q between four rows, p first. */
static inline void rows4(row *x0, row *xp, row *xq, row *xpq)
{
  row a = *x0 + *xp, b = *x0 - *xp;
  row c = *xq + *xpq, d = *xq - *xpq;
  *x0 = a + c;
  *xp = b + d;
  *xq = a - c;
  *xpq = b - d;
}

/* Four rows of four change places with four columns. */
static inline void turn(row r[4])
{
  row a = TWO_OF(r[0], r[1], 0, 4, 1, 5), b = TWO_OF(r[0], r[1], 2, 6, 3, 7);
  row c = TWO_OF(r[2], r[3], 0, 4, 1, 5), d = TWO_OF(r[2], r[3], 2, 6, 3, 7);
  r[0] = TWO_OF(a, c, 0, 1, 4, 5);
  r[1] = TWO_OF(a, c, 2, 3, 6, 7);
  r[2] = TWO_OF(b, d, 0, 1, 4, 5);
  r[3] = TWO_OF(b, d, 2, 3, 6, 7);
}

static inline void line_up(float *x)
{
  row r[4];
  memcpy(r, x, sizeof r);
  turn(r);
  rows4(&r[0], &r[1], &r[2], &r[3]);
  turn(r);
  rows4(&r[0], &r[1], &r[2], &r[3]);
  memcpy(x, r, sizeof r);
}

static inline void line_down(float *x)
{
  row r[4];
  memcpy(r, x, sizeof r);
  rows4(&r[0], &r[2], &r[1], &r[3]);
  turn(r);
  rows4(&r[0], &r[2], &r[1], &r[3]);
  turn(r);
  memcpy(x, r, sizeof r);
}

/* Numbers p and q apart, h floats in a row. */
static void lines4(float *x, size_t p, size_t q, size_t h)
{
  for (float *end = x + h; x < end; x += 4) {
    row x0 = load(x), xp = load(x + p), xq = load(x + q), xpq = load(x + p + q);
    rows4(&x0, &xp, &xq, &xpq);
    store(x, x0);
    store(x + p, xp);
    store(x + q, xq);
    store(x + p + q, xpq);
  }
}

static void lines2(float *x, size_t h)
{
  for (float *end = x + h; x < end; x += 4) {
    row a = load(x), b = load(x + h);
    store(x, a + b);
    store(x + h, a - b);
  }
}

void flk_rotate_c(float *x, const uint8_t *signs, float scale, size_t n)
{
  apply_signs(x, signs, scale, n);
  size_t h = n / 2;
  for (; h >= 2 * FLK_LINE; h /= 4) {
    for (size_t i = 0; i < n; i += 2 * h)
      lines4(x + i, h, h / 2, h / 2);
  }
  if (h == FLK_LINE) {
    for (size_t i = 0; i < n; i += 2 * h)
      lines2(x + i, h);
  }
  for (size_t i = 0; i < n; i += FLK_LINE)
    line_down(x + i);
}

void flk_unrotate_c(float *x, const uint8_t *signs, float scale, size_t n)
{
  for (size_t i = 0; i < n; i += FLK_LINE)
    line_up(x + i);
  size_t h = FLK_LINE;
  for (; 4 * h <= n; h *= 4) {
    for (size_t i = 0; i < n; i += 4 * h)
      lines4(x + i, h, 2 * h, h);
  }
  if (h < n) lines2(x, h);
  apply_signs(x, signs, scale, n);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Random signs and the Walsh-Hadamard transform (thc.md, "Rotation"), in two
 * halves: distances from FLK_TILE on, between lines that are far apart, on the
 * way from and to the vector; and those below, inside a tile, next to indices
 * and lanes. Butterflies run from the greatest distance down, and back up in
 * the inverse. These plain loops are the specification. */
#include "kernels/kernels.h"

#include <math.h>

/* Distance h: (a, b) -> (a + b, a - b). */
static void apart(float *x, size_t h, size_t n)
{
  for (size_t i = 0; i < n; i += 2 * h) {
    float *restrict first = x + i, *restrict second = x + i + h;
    for (size_t k = 0; k < h; k++) {
      float a = first[k], b = second[k];
      first[k] = a + b;
      second[k] = a - b;
    }
  }
}

static float signed_scale(const flk_turn *turn, size_t i)
{
  return turn->signs[i / 8] >> (i % 8) & 1 ? -turn->scale : turn->scale;
}

static size_t place(const flk_lines *lines, size_t b, size_t i)
{
  return i / FLK_LINE * lines->stride + b * FLK_LINE + i % FLK_LINE;
}

void flk_rotate_in_c(float *blocks, const float *src, const flk_lines *lines,
                     const flk_turn *turns, const float *next, float *about)
{
  for (size_t b = 0; b < lines->count; b++) {
    float *x = blocks + b * FLK_BLOCK_STRIDE;
    for (size_t i = 0; i < lines->n; i++) {
      x[i] = src[place(lines, b, i)] * signed_scale(&turns[b], i);
    }
    for (size_t h = lines->n / 2; h >= FLK_TILE; h /= 2)
      apart(x, h, lines->n);
    about[b] = INFINITY;
  }
}

void flk_rotate_out_c(float *dst, float *blocks, const flk_lines *lines,
                      const flk_turn *turns, int is_streamed)
{
  for (size_t b = 0; b < lines->count; b++) {
    float *x = blocks + b * FLK_BLOCK_STRIDE;
    for (size_t h = FLK_TILE; h < lines->n; h *= 2)
      apart(x, h, lines->n);
    for (size_t i = 0; i < lines->n; i++) {
      dst[place(lines, b, i)] = x[i] * signed_scale(&turns[b], i);
    }
  }
}

void flk_near_down_c(float *x, size_t n)
{
  for (size_t h = FLK_TILE / 2; h > 0; h /= 2)
    apart(x, h, n);
}

void flk_near_up_c(float *x, size_t n)
{
  for (size_t h = 1; h < FLK_TILE; h *= 2)
    apart(x, h, n);
}

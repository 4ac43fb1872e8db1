/* SPDX-License-Identifier: Apache-2.0 */
/* What is the same for every instruction set: a tile of lanes stays in the
 * second cache while all updates are read, FLK_FOLD of them at a time, 64 KiB
 * of each. A file brings fold() and STEP, and includes this behind them. */
#ifndef FLK_X86_FOLD_H
#define FLK_X86_FOLD_H

enum { FOLD_TILE = 16384 /* coordinates */, FLK_FOLD = 8 };

/* n a multiple of STEP. */
static int fold_tile(uint8_t *lanes, const flk_floats *floats, size_t skip,
                     size_t n)
{
  const uint8_t *const *src = floats->src;
  int is_in = 1;
  size_t k = 0;
  for (; k + FLK_FOLD <= floats->count; k += FLK_FOLD)
    is_in &= fold(lanes, src + k, skip, floats, n, FLK_FOLD);
  for (; k + FLK_FOLD / 4 <= floats->count; k += FLK_FOLD / 4)
    is_in &= fold(lanes, src + k, skip, floats, n, FLK_FOLD / 4);
  for (; k < floats->count; k++)
    is_in &= fold(lanes, src + k, skip, floats, n, 1);
  return is_in;
}

static int fixed_fold(uint8_t *lanes, const flk_floats *floats, size_t n)
{
  const size_t whole = n / STEP * STEP;
  int is_in = 1;
  for (size_t i = 0; i < whole; i += FOLD_TILE) {
    const size_t left = whole - i;
    is_in &= fold_tile(lanes + 8 * i, floats, floats->skip + 4 * i,
                       left < FOLD_TILE ? left : FOLD_TILE);
  }
  if (whole == n) return !is_in;
  flk_floats rest = *floats;
  rest.skip += 4 * whole;
  return flk_fixed_fold_c(lanes + 8 * whole, &rest, n - whole) || !is_in;
}

#endif

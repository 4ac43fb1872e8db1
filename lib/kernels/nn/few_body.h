/* SPDX-License-Identifier: Apache-2.0 */
/* Convolutions of few input channels, first layers mostly (nn.h). A register
 * tile would spend as much time on its beginning and end as on such a short
 * depth; here weights stay in registers for whole images. Included once per
 * instruction set, after conv_body.h. */
#ifndef FLK_NN_FEW_BODY_H
#define FLK_NN_FEW_BODY_H

#include "kernels/nn/nn.h"
#include "kernels/nn/vec.h"

enum { FEW_TAPS = FLK_FEW_TAPS_MAX, FEW_PIXELS = 8 };

/* Outputs and kernel rows at a time, so that there are enough registers. What a
 * sanitizer adds to loops that are unrolled so far takes compilers minutes. */
#ifdef NN_IS_SANITIZED
#  define UNROLL_FEW
#  define FEW_AT_ONCE(taps) 2
#  define FEW_ROWS_AT_ONCE(rows, run) 2
#else
#  define UNROLL_FEW _Pragma("GCC unroll 32")
#  if NN_REGISTERS == 32
#    define FEW_AT_ONCE(taps) ((taps) > 16 ? 6 : 8)
#    define FEW_ROWS_AT_ONCE(rows, run) (rows)
#  else
#    define FEW_AT_ONCE(taps) ((taps) > 9 ? 7 : 6)
#    define FEW_ROWS_AT_ONCE(rows, run) ((run) == 3 ? 3 : (run) == 5 ? 2 : 1)
#  endif
#endif

#define VEC nn_vec
#define NAMED(name) name##_full
#include "kernels/nn/few_rows.h"
#undef VEC
#undef NAMED

#if NN_HAS_HALF
#  define VEC nn_half
#  define NAMED(name) name##_half
#  include "kernels/nn/few_rows.h"
#  undef VEC
#  undef NAMED
#endif

typedef void (*few_kernel)(const flk_few *f);

static few_kernel few_outputs_of(size_t rows, size_t run, int is_half)
{
#if NN_HAS_HALF
  if (is_half) {
    if (rows == 5) return few_outputs_5x5_half;
    return run == 3 ? few_outputs_3x3_half : few_outputs_3x9_half;
  }
#endif
  (void)is_half;
  if (rows == 5) return few_outputs_5x5_full;
  return run == 3 ? few_outputs_3x3_full : few_outputs_3x9_full;
}

static few_kernel few_sums_of(size_t rows, size_t run, int is_half)
{
#if NN_HAS_HALF
  if (is_half) {
    if (rows == 5) return few_sums_5x5_half;
    return run == 3 ? few_sums_3x3_half : few_sums_3x9_half;
  }
#endif
  (void)is_half;
  if (rows == 5) return few_sums_5x5_full;
  return run == 3 ? few_sums_3x3_full : few_sums_3x9_full;
}

/* Go from one vector of channels to the next. */
static void few_step(flk_few *f, size_t lanes)
{
  if (f->weights) f->weights += lanes;
  if (f->bias) f->bias += lanes;
  if (f->y) f->y += lanes;
  if (f->dy) f->dy += lanes;
  if (f->mask) f->mask += lanes;
  if (f->sums) f->sums += lanes;
  if (f->totals) f->totals += lanes;
}

static void few_lanes(const flk_few *few,
                      few_kernel (*kernel_of)(size_t, size_t, int))
{
  flk_few f = *few;
  size_t left = f.lanes;
  for (; left >= NN_WIDTH; left -= NN_WIDTH) {
    kernel_of(f.kernel_rows, f.run, 0)(&f);
    few_step(&f, NN_WIDTH);
  }
#if NN_HAS_HALF
  if (left > 0) kernel_of(f.kernel_rows, f.run, 1)(&f);
#endif
}

static void few_outputs(const flk_few *few)
{
  few_lanes(few, few_outputs_of);
}

static void few_sums(const flk_few *few)
{
  few_lanes(few, few_sums_of);
}

static void fill_few(flk_nn_table *table)
{
  table->few_outputs = few_outputs;
  table->few_sums = few_sums;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Kernels of the training engine, behind a table per instruction set. Unlike
 * those of kernels.h they are D1: multiply and add are fused where the machine
 * can, sums are in vector order, and results differ between instruction sets
 * by rounding. One generic body per family (tile_body.h, ...) is written with
 * the compilers' vector extension and compiled once per instruction set
 * (nn_<isa>.c); "c" serves every machine. */
#ifndef FLK_NN_H
#define FLK_NN_H

#include <stddef.h>
#include <stdint.h>

/* Panels: how many columns a tile has. Not every machine has the half one. */
enum { FLK_PANEL_HALF = 0, FLK_PANEL_ONE = 1, FLK_PANEL_TWO = 2 };

enum {
  FLK_PANEL_MAX = 32, /* columns of the widest panel anywhere */
  FLK_ROWS_MAX = 14   /* rows of the tallest tile anywhere */
};

/* One tile of a product: sums of up to FLK_ROWS_MAX rows x one panel of
 * columns stay in registers over the whole depth.
 *
 *   c[r][j] = beta c[r][j] + alpha sum_s sum_k a[r][s][k] * b[s][k][j] +
 * bias[j]
 *
 * A is read one float at a time, at any strides; B in whole panels that are
 * contiguous in j. The depth comes in segments, so that a convolution's taps
 * or the rows of an image are one sum: segment s starts a_offsets[s] floats
 * behind the row's first one, and b_offsets[s] behind b (NULL: the next
 * segment goes on where the last one ended). All strides are in floats.
 *
 * Rows are either 1..rows_max in one run, or a pair of runs of equal length
 * rows / 2 that begin at a[0] and a[1] (and go to c[0] and c[1]): two rows of
 * an image, say. */
typedef struct flk_tile {
  const float *a[2];
  ptrdiff_t a_row;  /* from one row to the next */
  ptrdiff_t a_step; /* from one k to the next */
  const float *b;
  ptrdiff_t b_step;
  size_t n_segments;          /* >= 1 */
  size_t depth;               /* of each segment; >= 1 */
  const ptrdiff_t *a_offsets; /* NULL: one segment, no offset */
  const ptrdiff_t *b_offsets;
  float *c[2];
  ptrdiff_t c_row;
  size_t columns; /* stored, 1..width; all of B's panel is read */
  float alpha;
  float beta;        /* 0: c is not read */
  const float *bias; /* [columns] or NULL */
  int does_relu;     /* store max(0, value) */
} flk_tile;

/* Pixels of one row of an image; strides in floats. */
typedef struct flk_pixels {
  const float *src;
  const float *mask; /* like src: where it is not > 0, src counts as 0; or NULL
                      */
  size_t src_pixel;
  float *dst;
  size_t dst_pixel;
  size_t channels;
  size_t n;
} flk_pixels;

/* One row of a depthwise convolution's outputs, or of its gradient; `lanes`
 * channels side by side, each for itself. Tap t of output i meets
 * x[x_offsets[t] + i x_pixel] and its weights (or their gradients) are at
 * weight_offsets[t]. All strides are in floats. */
typedef struct flk_depthwise {
  size_t lanes; /* a multiple of 8 */
  size_t n;     /* outputs */
  size_t n_taps;
  const ptrdiff_t *x_offsets;
  const ptrdiff_t *weight_offsets;
  const float *x;
  ptrdiff_t x_pixel;
  ptrdiff_t y_pixel; /* of y and dy */
  /* forward: y = sum_t w[t] x[t] + bias, and max(0, y) with does_relu */
  const float *weights;
  const float *bias; /* [lanes] or NULL */
  float *y;
  int is_added; /* to what y is */
  int does_relu;
  /* gradient: sums[t] += sum_i dy[i] x[t][i] */
  const float *dy;
  float *sums;
} flk_depthwise;

/* In `chosen`: no place, ReLU made the maximum 0. */
enum { FLK_POOL_OFF = 255 };

/* Some outputs of a row of a pooling, or their gradients. Output i has the
 * inputs x[i x_step + offsets[t]], which are at places[t] of its window.
 * Strides are in floats. */
typedef struct flk_pool {
  size_t lanes;  /* floats of a pixel */
  size_t n;      /* outputs */
  size_t n_taps; /* >= 1 */
  const ptrdiff_t *offsets;
  const uint8_t *places;
  ptrdiff_t x_step;
  size_t y_pixel; /* of y, dy, and in bytes of what was chosen */
  const float *x;
  float *y;
  uint8_t *chosen;
  int does_relu;
  float scale; /* of sums */
  const float *dy;
  const uint8_t *was_chosen;
  float *dx;
  int is_added; /* to what dx is */
} flk_pool;

typedef struct flk_nn_table {
  const char *name;
  /* ---- tiles (tile_body.h) ---- */
  size_t width[3]; /* columns per panel kind; 0 = there is none such */
  size_t rows_max; /* in one run */
  size_t pair_max; /* rows in one run of a pair; 0 = no pairs */
  size_t pair_min;
  /* `panel`: FLK_PANEL_*; n_rows in 1..rows_max. */
  void (*tile)(const flk_tile *tile, size_t n_rows, int panel);
  /* Two runs of n_rows each, pair_min..pair_max. */
  void (*tile_pair)(const flk_tile *tile, size_t n_rows, int panel);
  /* ---- convolutions (conv_body.h) ---- */
  void (*copy_pixels)(const flk_pixels *pixels);
  /* dst[channel] += sum over pixels; channels come in eights. */
  void (*sum_pixels)(const flk_pixels *pixels);
  void (*depthwise)(const flk_depthwise *row);
  void (*depthwise_sums)(const flk_depthwise *row);
  /* ---- pooling (pool_body.h) ---- */
  void (*max_pool)(const flk_pool *row);
  void (*max_pool_back)(const flk_pool *row);
  void (*sum_pool)(const flk_pool *row);
  void (*sum_pool_back)(const flk_pool *row);
} flk_nn_table;

/* The table for this machine; any thread. */
const flk_nn_table *flk_nn(void);
/* Table `index`, weakest ("c") first; NULL beyond the last. For tests and
 * benchmarks. */
const flk_nn_table *flk_nn_at(size_t index);
/* From now on flk_nn gives the table of that name; 0 if there is none. NULL:
 * the best one again. For tests and benchmarks; not while others compute. */
int flk_nn_choose(const char *name);

#endif

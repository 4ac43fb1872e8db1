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

#include "kernels/nn/activation.h"
#include "kernels/nn/optimiser.h"
#include "kernels/nn/softmax.h"
#include "kernels/nn/vector.h"

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

/* A panel for tiles: dst[k][width], of which `columns` are op(B)'s, more than
 * width less one vector (or half one, in a half panel); what the others hold
 * is unspecified. */
typedef struct flk_pack {
  const float *src;
  ptrdiff_t step; /* pack: from one k to the next; pack_transposed: from one
                     column to the next */
  size_t depth;
  size_t columns;
  size_t width;
  float *dst;
} flk_pack;

/* c[i][j] = beta c[i][j] + alpha sums[j][i] + bias[j], then max(0, c). Rows of
 * sums are readable up to a multiple of 4. */
typedef struct flk_store {
  const float *sums;
  size_t sums_step;
  float *c;
  ptrdiff_t c_row;
  size_t rows;
  size_t columns;
  float alpha;
  float beta; /* 0: c is not read */
  const float *bias;
  int does_relu;
} flk_store;

/* y[i][j] = sum_k x[i][k] w[j][k] for m rows of x and n of w */
typedef struct flk_dots {
  const float *x;
  ptrdiff_t x_row;
  const float *w;
  ptrdiff_t w_row;
  size_t m;
  size_t n;
  size_t depth;
  float *y;
  size_t y_row;
} flk_dots;

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
  /* ---- around tiles (pack_body.h) ---- */
  void (*pack)(const flk_pack *panel);
  void (*pack_transposed)(const flk_pack *panel);
  void (*store_transposed)(const flk_store *store);
  void (*dots)(const flk_dots *dots);
  flk_activation_kernels activation;
  flk_vector_kernels vector;
  flk_softmax_kernels softmax;
  flk_optimiser_kernels optimiser;
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

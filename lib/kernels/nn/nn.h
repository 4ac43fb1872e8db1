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
#include "kernels/nn/attention.h"
#include "kernels/nn/dropout.h"
#include "kernels/nn/norm.h"
#include "kernels/nn/optimiser.h"
#include "kernels/nn/softmax.h"
#include "kernels/nn/vector.h"

/* Panels: how many columns a tile has. Not every machine has the half one. */
enum { FLK_PANEL_HALF = 0, FLK_PANEL_ONE = 1, FLK_PANEL_TWO = 2 };

enum {
  FLK_VECTOR_MAX = 16, /* floats of the widest vector anywhere */
  FLK_PANEL_MAX = 32,  /* columns of the widest panel anywhere */
  FLK_ROWS_MAX = 14    /* rows of the tallest tile anywhere */
};

/* One tile of a product: sums of up to FLK_ROWS_MAX rows x one panel of
 * columns stay in registers over the whole depth.
 *
 *   c[r][j] = beta c[r][j] + alpha sum_sk a[r][s][k] b[s][k][j] + bias[j]
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
  ptrdiff_t ahead; /* > 0: floats from src to the panel that comes next */
} flk_pack;

/* c[i][j] = beta c[i][j] + alpha sum_k x[i][k] w[j][k] + bias[j], then
 * max(0, c), for m rows of x and n of w. */
typedef struct flk_dots {
  const float *x;
  ptrdiff_t x_row;
  const float *w;
  ptrdiff_t w_row;
  size_t m;
  size_t n;
  size_t depth;
  float *c;
  ptrdiff_t c_row;
  float alpha;
  float beta; /* 0: c is not read */
  const float *bias;
  int does_relu;
} flk_dots;
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

/* Rows of outputs of a convolution of few input channels: `run` floats, side by
 * side, in each of the kernel's rows; or the gradient of its weights. There are
 * kernels for 3 rows of 3 or 9 and for 5 rows of 5. Output i of row r has
 * kernel row t at x[r x_next + i x_step + t x_row]. All strides are in floats.
 */
enum { FLK_FEW_TAPS_MAX = 27 };

typedef struct flk_few {
  size_t lanes;  /* channels of outputs, a multiple of 8 */
  size_t n_rows; /* of outputs */
  size_t n;      /* outputs in a row */
  size_t kernel_rows, run;
  const float *x;
  ptrdiff_t x_next, x_step, x_row;
  ptrdiff_t y_row, y_pixel; /* of y, dy and the mask */
  ptrdiff_t tap;            /* of weights, sums: from one tap to the next */
  const float *weights;
  const float *bias; /* [lanes] or NULL */
  int does_relu;
  float *y;
  const float *dy;
  const float *mask; /* like dy: where it is not > 0, dy counts as 0; or NULL */
  float *sums;       /* [tap][lanes], added to */
  float *totals;     /* [lanes], sums of dy, added to */
} flk_few;

/* Winograd's 3 x 3 convolutions (winograd_body.h). Outputs are computed in
 * tiles of 4 x 4, and of 1..3 rows or columns where an image ends. A tile of
 * m rows has m + 2 points down, and likewise across; the first points are the
 * same for all m, so that a position (a point down and one across) of all
 * kinds of tiles meets the same transformed weights. */
enum {
  FLK_WINOGRAD_TILE = 4,
  FLK_WINOGRAD_POINTS = 6,
  FLK_WINOGRAD_STRIP = 8, /* tiles in a strip, at most */
  FLK_WINOGRAD_LANES = 8  /* channels come in multiples of that */
};

/* A strip: tiles side by side. `at` has, for every position, the strip's first
 * tile in transformed form; the next one is `step` floats on. */
typedef struct flk_winograd {
  size_t rows;     /* of outputs, 1..4 */
  size_t n_whole;  /* tiles of 4 columns, */
  size_t rest;     /* then, unless 0, one of that many */
  size_t channels; /* a multiple of FLK_WINOGRAD_LANES */
  /* The image's pixel where the strip's first output is, to read or to write;
   * strides in floats. */
  const float *src;
  float *dst;
  const float *mask; /* beside src: where it is not > 0, src counts as 0 */
  ptrdiff_t row, pixel;
  /* Whether the image goes on there. */
  int has_above, has_below, has_left, has_right;
  const float *bias; /* [channels] or NULL */
  int does_relu;     /* store max(0, value) */
  float *at[FLK_WINOGRAD_POINTS][FLK_WINOGRAD_POINTS];
  size_t step;
} flk_winograd;

/* A panel of weights, plain [3][3] each and transformed. */
typedef struct flk_winograd_weights {
  ptrdiff_t lane; /* of plain weights, from one column to the next */
  ptrdiff_t step; /* and from one row of the panel to the next */
  size_t n_rows;
  size_t columns;  /* that there are; the others are 0 */
  size_t width;    /* of the panel, a multiple of half a vector's at least */
  size_t position; /* of transformed weights, from one to the next */
} flk_winograd_weights;

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
  /* ---- around tiles (pack_body.h) ---- */
  void (*pack)(const flk_pack *panel);
  void (*pack_transposed)(const flk_pack *panel);
  void (*dots)(const flk_dots *dots);
  flk_activation_kernels activation;
  flk_attention_kernels attention;
  flk_vector_kernels vector;
  flk_softmax_kernels softmax;
  flk_norm_kernels norm;
  flk_dropout_kernels dropout;
  flk_optimiser_kernels optimiser;
  /* ---- convolutions (conv_body.h) ---- */
  void (*copy_pixels)(const flk_pixels *pixels);
  /* dst[channel] += sum over pixels; channels come in eights. */
  void (*sum_pixels)(const flk_pixels *pixels);
  void (*depthwise)(const flk_depthwise *row);
  void (*depthwise_sums)(const flk_depthwise *row);
  /* ---- few input channels (few_body.h) ---- */
  void (*few_outputs)(const flk_few *rows);
  void (*few_sums)(const flk_few *rows);
  /* ---- Winograd's transforms (winograd_body.h) ---- */
  /* From src, pixels around the strip included, to `at`. */
  void (*winograd_data)(const flk_winograd *strip);
  /* From products at `at` to outputs in dst. */
  void (*winograd_result)(const flk_winograd *strip);
  /* The adjoints: from gradients of outputs in src to `at`; from `at` to
   * gradients of inputs in dst, which strips above and to the left have begun
   * and this one goes on adding to. */
  void (*winograd_result_back)(const flk_winograd *strip);
  void (*winograd_data_back)(const flk_winograd *strip);
  void (*winograd_weights)(const flk_winograd_weights *panel,
                           const float *weights, float *transformed);
  /* Its adjoint: gradients of transformed weights to those of weights. */
  void (*winograd_weights_back)(const flk_winograd_weights *panel,
                                const float *transformed, float *weights);
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

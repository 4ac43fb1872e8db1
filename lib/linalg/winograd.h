/* SPDX-License-Identifier: Apache-2.0 */
/* Inside fli_conv_winograd: which tiles there are, and the products between
 * the transforms. Transformed images of a group are [position][tile][channel],
 * with channels rounded up to whole FLK_WINOGRAD_LANES; transformed weights
 * [position][panel][input channel][column], and so are their gradients. */
#ifndef FLI_WINOGRAD_H
#define FLI_WINOGRAD_H

#include "kernels/nn/nn.h"
#include "linalg/conv.h"

/* Floats of scratch that a group should make do with: 256 KB, which leaves the
 * rest of a usual second cache to transformed weights. */
enum { FLI_WINOGRAD_SCRATCH = 64 * 1024 };

/* Floats from one position's last tile to the next one's first: keeps
 * positions off the same sets of the first cache. */
enum { FLI_WINOGRAD_GAP = 16 };

/* One dimension of an image: tiles of FLK_WINOGRAD_TILE, then the rest. */
typedef struct fli_winograd_cut {
  size_t n_whole;
  size_t rest; /* 0: no other tile */
  size_t n_tiles;
  size_t with_point[FLK_WINOGRAD_POINTS]; /* tiles that have that point */
} fli_winograd_cut;

typedef struct fli_winograd_plan {
  const fli_conv_shape *shape;
  fli_winograd_cut down, across;
  size_t in, out; /* channels, rounded up */
  /* Rows of tiles in a group, at most, and tiles across: whole images, or rows
   * of one, or a part of a row. */
  size_t group_rows, group_tiles;
  size_t group_floats; /* all transformed data of a group */
} fli_winograd_plan;

/* Tiles that are worked on together: `n_rows` rows from row `first_row` of
 * image `image` on, and in each those `across` from tile `first_tile` on. At
 * each position that makes `n_tiles`; those of other positions that lie before
 * them are `begin`. */
typedef struct fli_winograd_group {
  size_t image, first_row, n_rows;
  size_t first_tile;
  fli_winograd_cut across;
  size_t n_tiles[FLK_WINOGRAD_POINTS][FLK_WINOGRAD_POINTS];
  size_t begin[FLK_WINOGRAD_POINTS][FLK_WINOGRAD_POINTS];
  size_t n_all; /* tiles, over all positions */
} fli_winograd_group;

void fli_winograd_plan_init(fli_winograd_plan *plan,
                            const fli_conv_shape *shape);
/* The group that follows, or the first one when n_rows is 0; 0 when there is
 * none in n_images. */
int fli_winograd_next_group(const fli_winograd_plan *plan, size_t n_images,
                            fli_winograd_group *group);

static inline size_t fli_winograd_place(const fli_winograd_group *group,
                                        size_t i, size_t j, size_t channels)
{
  return group->begin[i][j] * channels +
         (i * FLK_WINOGRAD_POINTS + j) * FLI_WINOGRAD_GAP;
}

/* Floats between positions of transformed weights. */
static inline size_t fli_winograd_weights_step(size_t rows, size_t columns)
{
  return rows * columns + FLI_WINOGRAD_GAP;
}

/* A product per position: c = a b, with `depth` of a's `a_channels`. */
typedef struct fli_winograd_product {
  const float *a;
  size_t a_channels, depth;
  const float *b; /* transformed weights */
  float *c;
  size_t c_channels;
} fli_winograd_product;

void fli_winograd_multiply(const fli_winograd_group *group,
                           const fli_winograd_product *product);
/* sums += a^T b, position by position: transformed data x gradients. */
void fli_winograd_add_gradients(const fli_winograd_plan *plan,
                                const fli_winograd_group *group,
                                const float *data, const float *gradients,
                                float *sums);
/* sums[out] += all gradients of outputs */
void fli_winograd_add_bias(const fli_winograd_plan *plan,
                           const fli_winograd_group *group,
                           const float *gradients, float *sums);

#endif

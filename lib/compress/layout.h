/* SPDX-License-Identifier: Apache-2.0 */
/* Where the floats of an update lie. A vector is a run of segments; a segment
 * is cut into units of at most 4096 floats, each encoded by itself:
 *   plain layout:   consecutive floats; the last unit is what is left;
 *   rotated layout: full units are interleaved by lines of 16 floats (line j
 *                   of unit b of n is line j * n + b of the segment), so that
 *                   neighbouring weights of one layer share all units; what is
 *                   left is one contiguous unit, padded with zeros to a power
 *                   of two >= 256.
 * Units are numbered through all segments, full ones before the tail. */
#ifndef FLI_LAYOUT_H
#define FLI_LAYOUT_H

#include <fl/compress.h>
#include "kernels/kernels.h"

enum {
  FLI_UNIT_MAX = FL_THC_BLOCK,
  /* Neighbouring blocks that are gathered and scattered together: their lines
   * lie side by side, so that memory is read and written in longer runs. */
  FLI_GROUP_MAX = 8,
  /* Room for a group with the gaps between its blocks or rows. */
  FLI_GROUP_FLOATS = (FLI_GROUP_MAX + 1) * FLI_UNIT_MAX
};

typedef struct fli_segment {
  uint64_t offset; /* of its first float in the vector */
  uint64_t n;
  uint64_t first_unit;
  uint64_t n_full;
  uint32_t tail;        /* floats left, 0..4095 */
  uint32_t tail_padded; /* 0 without a tail */
} fli_segment;

typedef struct fli_layout {
  fl_context *context; /* not a reference */
  fli_segment *segments;
  uint32_t n_segments;
  uint32_t is_rotated;
  uint64_t n_units;
  uint64_t dim;
} fli_layout;

typedef struct fli_unit {
  uint64_t index;
  uint64_t offset; /* of its first float in the vector */
  size_t stride;   /* floats from one line to the next */
  uint32_t segment;
  uint32_t n;      /* floats of the vector */
  uint32_t padded; /* coordinates encoded, >= n */
} fli_unit;

/* FL_E_DIM: no segment, an empty one, or a vector no memory holds. */
fl_status fli_layout_init(fli_layout *layout, fl_context *context,
                          const uint64_t *sizes, uint32_t n_segments,
                          uint32_t is_rotated);
void fli_layout_free(fli_layout *layout);

/* Units of a segment. */
uint64_t fli_segment_units(const fli_segment *segment);
/* Unit `index`, which lies in `segment`. */
fli_unit fli_layout_unit(const fli_layout *layout, uint32_t segment,
                         uint64_t index);

/* What is gathered from: a vector and a weight. */
typedef struct fli_gathering {
  const flk_table *kernels;
  const float *x;
  float weight;
} fli_gathering;

/* How many units from `unit` on, at most `n`, make a group: 1 for a tail and
 * in plain layouts. */
uint32_t fli_unit_group(const fli_layout *layout, const fli_unit *unit,
                        uint64_t n);
/* Block b of the group: blocks[FLK_BLOCK_STRIDE b + (0..padded-1)] = the
 * floats of x of unit number b times weight, then zeros. `about`: see
 * flk_table.gather; NULL for not wanted. */
void fli_unit_gather(const fli_unit *unit, uint32_t group,
                     const fli_gathering *how, float *blocks, float *about);
/* The group's floats of x from `rows`: line j of unit b is at
 * rows[fli_group_stride(group) j + 16 b]. */
size_t fli_group_stride(uint32_t group);
void fli_unit_scatter(const fli_unit *unit, uint32_t group,
                      const flk_table *kernels, float *x, const float *rows);

/* Run fn(arg, a, b) over pieces [a, b) that cover [first, last), by the
 * context's threads if it has any. A hook that fails or forgets a piece costs
 * time, not the result: what it left is done here. */
typedef void (*fli_units_fn)(void *arg, uint64_t first, uint64_t last);
void fli_for_units(fl_context *context, uint64_t first, uint64_t last,
                   fli_units_fn fn, void *arg);

#endif

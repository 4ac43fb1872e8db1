/* SPDX-License-Identifier: Apache-2.0 */
/* Where the floats of an update lie. A vector is a run of segments; a segment
 * is cut into units of at most 4096 floats, each encoded by itself:
 *   plain layout:   consecutive floats; the last unit is what is left;
 *   rotated layout: the full units are cut into neighbourhoods of at most 31,
 *                   all of the same size but for one unit, and interleaved in
 *                   each by lines of 16 floats (line j of unit b of n is line
 *                   j n + b of the neighbourhood), so that neighbouring weights
 *                   of one layer share its units; what is left of the segment
 *                   is one contiguous unit, padded with zeros to a power of two
 *                   >= 256.
 * Units are numbered through all segments, full ones before the tail. */
#ifndef FLI_LAYOUT_H
#define FLI_LAYOUT_H

#include <fl/compress.h>
#include "kernels/kernels.h"

enum {
  FLI_UNIT_MAX = FL_THC_BLOCK,
  /* Vectors from here on, which no cache holds, are written past it. */
  FLI_STREAM_FLOATS = 1 << 22,
  /* 496 KiB of weights: what a second-level cache holds, and more different
   * weights than a unit has room for. Not a power of two, which would make the
   * lines of a unit compete for the same cache sets. */
  FLI_NEIGHBOURS_MAX = FLK_NEIGHBOURS_MAX
};

typedef struct fli_segment {
  uint64_t offset; /* of its first float in the vector */
  uint64_t n;
  uint64_t first_unit;
  uint64_t n_full;
  uint64_t n_larger;    /* the first neighbourhoods have one unit more */
  uint32_t neighbours;  /* units of the others */
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
  uint32_t left;   /* units of its neighbourhood from this one on; 1 without */
} fli_unit;

/* FL_E_DIM: no segment, an empty one, or a vector no memory holds. */
fl_status fli_layout_init(fli_layout *layout, fl_context *context,
                          const uint64_t *sizes, uint32_t n_segments,
                          uint32_t is_rotated);
void fli_layout_free(fli_layout *layout);

/* Norms of a segment: one for each of its units, or of a plain layout one. */
void fli_segment_norms(const fli_layout *layout, uint32_t segment,
                       uint64_t *first, uint64_t *n);
/* Units of a segment. */
uint64_t fli_segment_units(const fli_segment *segment);
/* Unit `index`, which lies in `segment`. */
fli_unit fli_layout_unit(const fli_layout *layout, uint32_t segment,
                         uint64_t index);

/* Full units that are rotated together. */
typedef struct fli_group {
  flk_lines lines;
  uint64_t offset; /* of the first float */
  uint64_t next;   /* offset of the group behind it, or 0 */
  flk_lines ahead; /* lines of that group; count 0 without */
} fli_group;

/* The group that begins at full unit `first`, of units before `last`. */
fli_group fli_layout_group(const fli_layout *layout, uint32_t segment,
                           uint64_t first, uint64_t last);
/* All the units of the neighbourhood of `unit`, its first. */
flk_lines fli_layout_neighbours(const fli_unit *unit);
/* The units around one whose floats lie in one run: its neighbourhood, or a
 * tail alone. At most 31 of them. */
typedef struct fli_window {
  uint64_t first, last; /* units [first, last) */
  uint64_t offset;      /* of its first float in the vector */
  size_t n;             /* floats */
} fli_window;
enum { FLI_WINDOW_MAX = FLI_NEIGHBOURS_MAX * FLI_UNIT_MAX };
fli_window fli_layout_window(const fli_layout *layout, uint32_t segment,
                             uint64_t unit);
/* 1 for the first unit of a neighbourhood. */
int fli_unit_is_first(const fli_unit *unit);
/* 1 for a full unit of a rotated layout, 0 for a tail. */
int fli_unit_is_full(const fli_unit *unit);

/* Run fn(arg, a, b) over pieces [a, b) that cover [first, last), by the
 * context's threads if it has any. A hook that fails or forgets a piece costs
 * time, not the result: what it left is done here. */
typedef void (*fli_units_fn)(void *arg, uint64_t first, uint64_t last);
void fli_for_units(fl_context *context, uint64_t first, uint64_t last,
                   fli_units_fn fn, void *arg);
/* The same for all units of a segment, by the layout's context. */
void fli_for_segment(const fli_layout *layout, uint32_t segment,
                     fli_units_fn fn, void *arg);

#endif

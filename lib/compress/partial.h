/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a sum. Lanes lie in memory as they lie on the wire, always at the
 * least width that holds what the count of updates can make. */
#ifndef FLI_PARTIAL_H
#define FLI_PARTIAL_H

#include "compress/compressor.h"

typedef struct fli_lanes {
  uint8_t *data; /* NULL before the first update */
  size_t size;
  uint32_t width; /* FLK_* */
} fli_lanes;

struct fl_partial {
  fli_agreed agreed;
  size_t bitmap_size; /* of one tally */
  fli_tally all;      /* updates added, whatever segments they hold */
  fli_tally *tallies; /* per segment */
  uint8_t *bitmaps;   /* of `all` and the tallies */
  fli_lanes *lanes;   /* per segment */
  fli_lanes *staged;  /* wider ones, while a change is under way */
};

/* A sum to be added: another one's, or one that came as bytes. */
typedef struct fli_sum_view {
  fli_tally all;
  const fli_tally *tallies;
  const fli_lanes *lanes; /* of count 0: unused */
} fli_sum_view;

/* FL_E_DUPLICATE, FL_E_RANGE, FL_E_NOMEM: nothing changed. */
fl_status fli_partial_merge_view(fl_partial *partial, const fli_sum_view *view);

/* Bytes of n lanes. */
size_t fli_lane_bytes(uint32_t width, uint64_t n);
/* Offset of a unit's lanes from those of its segment's first. */
size_t fli_lane_offset(const fli_agreed *agreed, const fli_unit *unit,
                       uint32_t width);
/* Bytes of a segment's lanes in a sum of weights. */
size_t fli_lanes_size(const fli_agreed *agreed, uint32_t segment,
                      uint64_t total);
/* A change first gets memory for every segment whose lanes are to hold sums of
 * weights `total`, if what it has will not do; then moves into it, which
 * cannot fail, or gives it back. */
fl_status fli_partial_stage(fl_partial *partial, uint32_t segment,
                            uint64_t total);
void fli_partial_commit(fl_partial *partial);
void fli_partial_unstage(fl_partial *partial);
/* Give back the lanes of segments that no update is of. */
void fli_partial_tidy(fl_partial *partial);
/* FL_E_RANGE when no lane holds a sum of weights `total`, or 64 bits do not
 * hold samples + more. */
fl_status fli_tally_check_total(const fli_agreed *agreed, uint64_t total,
                                uint64_t samples, uint64_t more);
/* 1 when bit `slot` is set. */
int fli_has_slot(const fli_tally *tally, uint32_t slot);

#endif

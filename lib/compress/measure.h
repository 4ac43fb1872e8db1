/* SPDX-License-Identifier: Apache-2.0 */
/* Lengths of an update's units and segments. */
#ifndef FLI_MEASURE_H
#define FLI_MEASURE_H

#include "compress/compressor.h"

typedef struct fli_measuring {
  const fl_compressor *compressor;
  /* Of the vector, from value `x_first` on; NULL: not at hand. */
  const float *x;
  uint64_t x_first;
  float weight;
  double *squares; /* per unit of the vector */
  uint32_t segment;
} fli_measuring;

/* min(1, samples / cap); 1 without a cap. */
float fli_update_weight(uint64_t samples, uint64_t cap);
/* Fill in the sum of squares of every unit of a segment. */
void fli_measure_segment(fli_measuring *measuring, uint32_t segment);
/* Length of a whole segment, measured before; not finite when a value is
 * not. */
double fli_segment_length(const fli_measuring *measuring, uint32_t segment);
/* Norms of the weighted vector; NULL to see only that there are some.
 * FL_E_NOT_FINITE, FL_E_RANGE, FL_E_NOMEM. */
fl_status fli_measure(const fl_compressor *compressor, const float *x,
                      float weight, float *norms);
/* FL_E_NOT_FINITE names the first value that is not finite, of a window at hand
 * or of a segment that is at hand in whole. */
fl_status fli_check_window(const fli_measuring *measuring,
                           const fli_window *window);
fl_status fli_check_finite(const fli_measuring *measuring, uint32_t segment);
/* A window alone. */
void fli_measure_window(fli_measuring *measuring, uint32_t segment,
                        const fli_window *window);
/* The norms of one segment, measured before, into their place among all.
 * FL_E_NOT_FINITE, FL_E_RANGE. */
fl_status fli_measured_norms(const fli_measuring *measuring, uint32_t segment,
                             float *norms);

#endif

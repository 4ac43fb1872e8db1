/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding, for the public function and for error feedback. */
#ifndef FLI_ENCODE_H
#define FLI_ENCODE_H

#include "compress/measure.h"

/* The update, as long as the compressor's vectors. */
typedef struct fli_floats {
  const float *x;
  /* NULL, or as long as x: x is weighted already, and what decoding the bytes
   * alone would not give back of it is stored here. Unspecified on failure. */
  float *lost;
  /* With x NULL, for encoders. Have a unit of the encoding's segment at hand in
   * its x, x_first and x_end, and those behind it before *last, which may be
   * lowered, until the next call. */
  fl_status (*fetch)(void *arg, fli_encoding *encoding, uint64_t unit,
                     uint64_t *last);
  /* As fli_encoding_measure does. */
  fl_status (*measure)(void *arg, fli_encoding *encoding, double *squares,
                       uint32_t segment);
  void *arg;
} fli_floats;

/* Where the bytes go; as for fl_compressor_encode. */
typedef struct fli_encoded_bytes {
  uint8_t *buffer;
  size_t capacity;
  size_t *needed;
} fli_encoded_bytes;

/* What encode.c and encoder.c have in common. */
/* An encoding that has come to no segment yet. */
void fli_encoding_init(fli_encoding *encoding, const fli_agreed *agreed,
                       const fl_encode_options *options,
                       const fli_floats *from);
/* Plain layouts: the factor of a segment. FL_E_NOT_FINITE. */
fl_status fli_encoding_measure(fli_encoding *encoding, double *squares,
                               uint32_t segment);
/* The same when the segment was measured. */
fl_status fli_encoding_measured(fli_encoding *encoding,
                                const fli_measuring *measuring,
                                uint32_t segment);
/* FL_E_NOT_FINITE names the first value that is not. */
fl_status fli_encoding_check_finite(const fli_encoding *encoding,
                                    uint32_t segment);

fl_status fli_encode(const fl_compressor *compressor, const fl_scale *scale,
                     const fl_encode_options *options, const fli_floats *from,
                     const fli_encoded_bytes *to, fl_encode_report *report);

#endif

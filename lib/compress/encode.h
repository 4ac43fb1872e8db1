/* SPDX-License-Identifier: Apache-2.0 */
/* Encoding, for the public function and for error feedback. */
#ifndef FLI_ENCODE_H
#define FLI_ENCODE_H

#include "compress/compressor.h"

/* The update, as long as the compressor's vectors. */
typedef struct fli_floats {
  const float *x;
  /* NULL, or as long as x: x is weighted already, and what decoding the bytes
   * alone would not give back of it is stored here. Unspecified on failure. */
  float *lost;
} fli_floats;

/* Where the bytes go; as for fl_compressor_encode. */
typedef struct fli_encoded_bytes {
  uint8_t *buffer;
  size_t capacity;
  size_t *needed;
} fli_encoded_bytes;

fl_status fli_encode(const fl_compressor *compressor, const fl_scale *scale,
                     const fl_encode_options *options, const fli_floats *from,
                     const fli_encoded_bytes *to, fl_encode_report *report);

#endif

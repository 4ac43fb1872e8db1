/* SPDX-License-Identifier: Apache-2.0 */
/* An encoded update that is never held: its bytes are made when they are asked
 * for, any number of times, and are those of fl_compressor_encode. */
#ifndef FLI_ENCODER_H
#define FLI_ENCODER_H

#include "compress/encode.h"

typedef struct fli_encoder fli_encoder;

/* Borrows the vector, which has to stay as it is. With from->lost, x is
 * weighted already. `options` are those of this version of the library, and
 * right: samples, mask.
 * FL_E_ARGUMENT (slot), and what fli_agreed_init says. */
fl_status fli_encoder_new(fli_encoder **out, const fl_compressor *compressor,
                          const fl_scale *scale,
                          const fl_encode_options *options,
                          const fli_floats *from);
void fli_encoder_free(fli_encoder *encoder);
/* Bytes of the update. */
size_t fli_encoder_size(const fli_encoder *encoder);
/* Go through all of the update once: its bytes into the hash, what they lose
 * where the vector says. `clamped`: NULL, or a count per norm, as
 * fl_encode_report.block_clamped. FL_E_NOT_FINITE, FL_E_NOMEM. */
fl_status fli_encoder_hash(fli_encoder *encoder, fli_hasher *hasher,
                           uint16_t *clamped);
/* Make n bytes from `offset` on, which are there. */
fl_status fli_encoder_read(fli_encoder *encoder, uint64_t offset, uint8_t *out,
                           size_t n);

#endif

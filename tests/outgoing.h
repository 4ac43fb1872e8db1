/* SPDX-License-Identifier: Apache-2.0 */
/* A payload that is sent by a test: its hash is what its bytes have. */
#ifndef OUTGOING_H
#define OUTGOING_H

#include "wire/transfer.h"

static inline fl_status outgoing_begin(fli_outgoing *outgoing, fli_bytes *out,
                                       fli_manifest *manifest,
                                       const uint8_t *data, size_t n,
                                       uint32_t chunk_size)
{
  fli_hash(manifest->hash, data, n);
  return fli_outgoing_begin_hashed(outgoing, out, manifest, data, n,
                                   chunk_size);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Saved states (client, server, ...): "FLS1" | u32 kind | u32 version | u64
 * size | payload | BLAKE2b-256 of all before. A torn or foreign one is refused
 * before anything of it is believed; memory grows as bytes arrive. */
#ifndef FLI_CONTAINER_H
#define FLI_CONTAINER_H

#include "wire/writer.h"

enum {
  FLI_STATE_CLIENT = 1,
  FLI_STATE_SERVER = 2,
  FLI_STATE_FEEDBACK = 3,
  FLI_STATE_MODEL = 4,
  FLI_STATE_FREEZE = 5,
  FLI_STATE_COHORTS = 6,
  FLI_STATE_STRATEGY = 7,
  FLI_STATE_LOCAL = 8,
  FLI_STATE_SLICES = 9
};

/* FL_E_IO: the stream failed (its FL_E_NOMEM is passed on, here and below). */
fl_status fli_container_write(const fl_writer *writer, uint32_t kind,
                              uint32_t version, const fli_bytes *payload);
/* Reads into `payload`. FL_E_FORMAT (kind, magic, hash), FL_E_VERSION,
 * FL_E_TRUNCATED, FL_E_TOO_LARGE (above max_size), FL_E_IO. */
fl_status fli_container_read(const fl_reader *reader, uint32_t kind,
                             uint32_t version_max, uint64_t max_size,
                             uint32_t *version, fli_bytes *payload);
/* FL_E_VERSION for one from before the first that is still read. */
fl_status fli_container_check_first(uint32_t version, uint32_t version_first,
                                    uint32_t version_max);

#endif

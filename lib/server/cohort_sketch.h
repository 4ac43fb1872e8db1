/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FLI_SERVER_COHORT_SKETCH_H
#define FLI_SERVER_COHORT_SKETCH_H

#include "compress/compressor.h"
#include "wire/writer.h"

/* dim / 2 bytes from the values of a THC update. FL_E_RANGE: there is nothing
 * in it; FL_E_NOMEM; as fl_partial_add for bytes that are none. */
fl_status fli_lane_sketch(const fli_agreed *agreed, const fli_bytes *update,
                          uint32_t dim, uint8_t *sketch);

#endif

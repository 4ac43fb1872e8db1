/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of sums for x86_64 share. */
#ifndef FLK_X86_SUMS_H
#define FLK_X86_SUMS_H

/* Every update of a run is a stream, which has to be found again at each begin
 * (fetch_on): so runs are long, and come from the second cache. Of 17 streams
 * less is read than of 13. */
#define SUM_RUN 65536
#define SUM_STREAMS 13

#include "kernels/sums.h"
#include "kernels/x86/x86.h"

/* A sum_fields_fn for 1 and 2 bits, whose sums fit bytes. */
void flk_sum_few_bits_avx2(uint8_t *lanes, uint32_t width,
                           const sum_fields *group, size_t n);

#endif

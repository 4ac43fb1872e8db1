/* SPDX-License-Identifier: Apache-2.0 */
/* Adding packed indices to lanes, for every machine. */
#include "kernels/sums.h"

void flk_add_packed_c(uint8_t *lanes, uint32_t width, const flk_packed *packed,
                      size_t n)
{
  sum_packed(lanes, width, packed, n, NULL);
}

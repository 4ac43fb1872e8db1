/* SPDX-License-Identifier: Apache-2.0 */
/* What the files for NEON bring to a table. For 64-bit ARM alone, where every
 * processor has it; that of 32-bit ARM flushes denormals to zero and has no
 * place here. */
#ifndef FLK_ARM_ARM_H
#define FLK_ARM_ARM_H

#include "kernels/kernels.h"

void flk_fill_neon(flk_table *table);
void flk_add_packed_neon(uint8_t *lanes, uint32_t width,
                         const flk_packed *packed, size_t n);

#endif

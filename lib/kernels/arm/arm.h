/* SPDX-License-Identifier: Apache-2.0 */
/* What neon.c replaces in a table. For 64-bit ARM alone, where every processor
 * has it; that of 32-bit ARM flushes denormals to zero and has no place here.
 */
#ifndef FLK_ARM_ARM_H
#define FLK_ARM_ARM_H

#include "kernels/kernels.h"

void flk_fill_neon(flk_table *table);

#endif

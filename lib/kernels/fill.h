/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of a table that every machine has; those of instruction sets are in
 * x86/x86.h and arm/arm.h. */
#ifndef FLK_FILL_H
#define FLK_FILL_H

#include "kernels/kernels.h"

/* What there is one version of. */
void flk_fill_shared(flk_table *table);
/* The rest in plain C. */
void flk_fill_plain(flk_table *table);

#endif

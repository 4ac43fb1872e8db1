/* SPDX-License-Identifier: Apache-2.0 */
/* What portable.c replaces in a table. */
#ifndef FLK_PORTABLE_H
#define FLK_PORTABLE_H

#include "kernels/kernels.h"

void flk_fill_portable(flk_table *table);

#endif

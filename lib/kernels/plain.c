/* SPDX-License-Identifier: Apache-2.0 */
/* The plain C functions that instruction sets have their own versions of: the
 * specification. */
#include "kernels/fill.h"

void flk_fill_plain(flk_table *table)
{
  table->name = "plain";
  table->find_not_finite = flk_find_not_finite_c;
  table->sum_squares = flk_sum_squares_c;
  table->sum_squares_group = flk_sum_squares_group_c;
  table->rotate_in = flk_rotate_in_c;
  table->encode = flk_encode_c;
  table->decode = flk_decode_c;
  table->rotate_out = flk_rotate_out_c;
  table->add_packed = flk_add_packed_c;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* THC's table mode: which of the grid's values 0..g the 2^bits indices stand
 * for. docs/design/thc.md has the formulas. */
#ifndef FLI_TABLE_H
#define FLI_TABLE_H

#include "compress/compressor.h"

enum { FLI_TABLE_MAX = 256, FLI_GRANULARITY_MAX = 255 };

/* Expected squared rounding error of one N(0, 1) coordinate on [-t, t] = grid
 * values 0..g, when it is rounded at random to the two neighbours of
 * `values`, which are 2^bits, the last of them g. */
double fli_table_cost(const uint8_t *values, uint32_t bits, double t);

/* The table of least cost: 2^bits values to `values`, its cost to `cost`
 * unless that is NULL. 1 <= bits <= 8, 2^bits - 1 <= g <= 255, clip within
 * FLI_CLIP_MIN..FLI_CLIP_MAX. FL_E_NOMEM. */
fl_status fli_table_solve(fl_context *context, uint32_t bits, uint32_t g,
                          double clip, uint8_t *values, double *cost);
/* The granularity in 2^bits - 1 .. most whose table costs least; the smallest
 * of equal ones; and that table. FL_E_NOMEM. */
fl_status fli_table_granularity(fl_context *context, uint32_t bits,
                                uint32_t most, double clip, uint32_t *g,
                                uint8_t *values);
/* The table of granularity *g, or for 0 of 2^bits - 1 .. most, whose cost and
 * clamping error at its best clip are least together; never more than those of
 * a uniform grid where *g is 0. FL_E_NOMEM. */
fl_status fli_table_fit(fl_context *context, uint32_t bits, uint32_t most,
                        uint32_t *g, uint8_t *values);
/* Greatest granularity with which a sum of `workers` updates keeps the lanes
 * it needs for that many bits anyway; at most 8 (2^bits - 1) and 255. */
uint32_t fli_table_most(uint32_t bits, uint32_t workers);

/* For every grid value c = 0..g, (T(j + 1) - T(j)) << 24 | T(j) << 16 | j, j
 * the largest index with T(j) <= c; the gap at c = g is 1. g + 1 entries. */
void fli_table_entries(uint32_t *entries, const uint8_t *values, uint32_t bits);

/* Take or solve the table that options ask for: sets granularity, values and
 * entries of a compressor whose bits and clip are set; a clip of 0 is that of
 * the table with the least error. FL_E_OPTIONS, FL_E_NOMEM. */
fl_status fli_table_configure(fl_compressor *compressor,
                              const fl_compressor_options *options);
/* What it solves: granularity and values. */
fl_status fli_table_choose(fl_compressor *compressor,
                           const fl_compressor_options *options);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Where a model's time goes: operations that its layers need, and the time
 * that each of them takes. */
#ifndef BENCH_MODEL_COSTS_H
#define BENCH_MODEL_COSTS_H

#include "model/model.h"

/* Additions and multiplications of a batch, forward, and back as well. Direct
 * methods of dense layers, convolutions and attention are counted, padding
 * with zeros included; not what is computed a second time, nor padding of
 * channels. */
double model_flops(const fl_model *model, size_t batch, int is_training);

/* From now on, passes of this model are timed layer by layer with the caller's
 * clock, in us. One model at a time. */
void profile_begin(const fl_model *model, double (*clock_us)(void));
/* What layer `position` of the chain took since, forward or back. */
double profile_us(uint32_t position, int is_backward);
/* No longer. */
void profile_stop(void);
/* No longer; and print what a step took, over `steps` steps. */
void profile_end(uint64_t steps, const char *prefix, const char *suffix);

#endif

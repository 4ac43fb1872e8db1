/* SPDX-License-Identifier: Apache-2.0 */
/* The update of the weights: formulas, their state, and the schedule of the
 * rate. */
#ifndef FLI_OPTIMISER_H
#define FLI_OPTIMISER_H

#include <fl/train.h>

typedef struct fli_optimiser {
  fl_optimiser_options options;
  /* Momentum, or first and second moments, of the flat weights from `first`
   * on; NULL where the formula has none. */
  float *state[2];
  uint64_t first;
  uint64_t n;
  uint64_t updates; /* done */
} fli_optimiser;

extern const fl_optimiser_options fli_optimiser_defaults;

/* Arrays of state that `options` want: 0, 1 or 2. */
uint32_t fli_optimiser_arrays(const fl_optimiser_options *options);
/* Whether the update is w = (1 - rate decay) w - rate g. */
int fli_optimiser_is_plain(const fl_optimiser_options *options);
/* Make one for weights first .. first + n - 1, all state zero. FL_E_OPTIONS,
 * FL_E_NOMEM. */
fl_status fli_optimiser_init(fli_optimiser *optimiser, fl_context *context,
                             const fl_optimiser_options *options,
                             uint64_t first, uint64_t n);
void fli_optimiser_free(fli_optimiser *optimiser, fl_context *context);
/* Like `old`, for another range of weights: state of those in both is kept. */
fl_status fli_optimiser_move(fli_optimiser *optimiser, fl_context *context,
                             const fli_optimiser *old, uint64_t first,
                             uint64_t n);

/* Rate of the next update, by the schedule. */
float fli_optimiser_rate(const fli_optimiser *optimiser);
/* Update n weights, `at` in the flat ones, with scale x gradient, as part of
 * update number updates + 1. Any range, each weight once per update. */
void fli_optimiser_apply(const fli_optimiser *optimiser, float rate,
                         float *weights, const float *gradient, float scale,
                         uint64_t at, uint64_t n);

#endif

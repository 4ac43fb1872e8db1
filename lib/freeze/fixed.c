/* SPDX-License-Identifier: Apache-2.0 */
/* A schedule, for pre-training that is trusted; and the criterion that measures
 * nothing, for plans that come from elsewhere. */
#include "freeze/freeze.h"

static void begin(fl_freeze *freeze)
{
  const fl_freeze_options *o = &freeze->options;
  uint32_t first_active = 0;
  for (uint32_t i = 0; i < o->n_fixed; i++) {
    if (o->fixed[i].step > freeze->state.step) break;
    first_active = o->fixed[i].first_active;
  }
  freeze->state.decided = first_active;
  fli_freeze_publish(freeze, NULL, FL_FREEZE_REASON_FIXED);
}

const fli_criterion fli_criterion_fixed = {.begin = begin};
const fli_criterion fli_criterion_none = {.has_bootstrapping = 0};

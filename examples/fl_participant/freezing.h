/* SPDX-License-Identifier: Apache-2.0 */
/* Following the aggregator's freeze plan, and telling it what to decide from:
 * what a controller measures of the front-most trained module. */
#ifndef FL_PARTICIPANT_FREEZING_H
#define FL_PARTICIPANT_FREEZING_H

#include <fl/cache.h>
#include <fl/client.h>
#include <fl/freeze.h>
#include <fl/train.h>

struct freezing {
  fl_freeze *controller; /* NULL until a plan came */
  fl_cache *cache; /* of what comes out of frozen modules; NULL, borrowed */
};

/* Before training: freeze what the task says. */
fl_status freezing_begin(struct freezing *freezing, fl_model *model,
                         const fl_train_task *task, uint32_t samples);
/* After it: add the report, if there is one, and say when the cache was given
 * up. */
void freezing_end(struct freezing *freezing, fl_train_result *result);
/* The cache stays. */
void freezing_close(struct freezing *freezing);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What a run begins with. Every function leaves a line on stderr when it
 * fails. */
#ifndef FL_AGGREGATOR_SETUP_H
#define FL_AGGREGATOR_SETUP_H

#include <fl/model.h>
#include <fl/server.h>

#include "common/idx.h"
#include "common/stored.h"
#include "fl_aggregator/config.h"

/* The model to train with its initial weights. 0 or -1. */
int setup_model(fl_model **model, const struct config *config);
/* Test data, if the settings name any, that fit the model. 0 or -1. */
int setup_test_data(struct idx_set *test, const fl_model *model,
                    const struct config *config);
/* Where the server may come from and is kept; both may be empty. */
struct kept {
  struct stored *snapshot;
  const fl_store *store;
};
/* A server with the job: from store or snapshot when it is there, else new.
 * NULL on failure. */
fl_server *setup_server(const fl_model *model, const struct kept *kept,
                        const struct config *config, int *is_restored);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The same recommender, federated: rows stay with shards of the customers. */
#ifndef RECOMMENDER_FEDERATED_H
#define RECOMMENDER_FEDERATED_H

#include "recommender/run.h"

/* Train over config->shards devices within outcome->budget on the server, and
 * tell it as it goes. FL_E_CANCELLED, SAID: as run_training. */
fl_status run_federated(const struct config *config, struct data *data,
                        fl_cancel *stop, struct outcome *outcome);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The store behind --state. */
#ifndef FL_AGGREGATOR_DURABLE_H
#define FL_AGGREGATOR_DURABLE_H

#include <fl/store.h>

#include "fl_aggregator/config.h"

/* Open the file that the settings name, of as many bytes at most; with `fresh`
 * the state in it is dropped. 0, or -1 with a line on stderr. */
int durable_open(fl_store **store, const struct config *config);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The store behind --state. */
#ifndef FL_AGGREGATOR_DURABLE_H
#define FL_AGGREGATOR_DURABLE_H

#include <fl/store.h>

/* Open the file; `is_fresh` drops the server's state in it. 0, or -1 with a
 * line on stderr. */
int durable_open(fl_store **store, const char *path, int is_fresh);

#endif

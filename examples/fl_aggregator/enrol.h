/* SPDX-License-Identifier: Apache-2.0 */
/* Who may take part in a run. */
#ifndef FL_AGGREGATOR_ENROL_H
#define FL_AGGREGATOR_ENROL_H

#include "fl_aggregator/config.h"

/* What the settings say together: 0, or -1 with a line on stderr. */
int enrol_check(const struct config *config);
/* `server_key`, FL_PUBLIC_KEY_BYTES, is filled in and borrowed. */
void enrol_options(const struct config *config, fl_server_options *options,
                   uint8_t *server_key);
/* Bring the server's list to what the file says: `server`, or NULL with a line
 * on stderr, and it is freed. NULL gives NULL. */
fl_server *enrol_load(fl_server *server, const struct config *config);

#endif

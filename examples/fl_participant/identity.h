/* SPDX-License-Identifier: Apache-2.0 */
/* What --key, --server-key and --leave say. */
#ifndef FL_PARTICIPANT_IDENTITY_H
#define FL_PARTICIPANT_IDENTITY_H

#include <fl/client.h>

#include "fl_participant/config.h"

/* 0, or -1 with a line on stderr. */
int identity_apply(fl_client *client, const struct config *config);

#endif

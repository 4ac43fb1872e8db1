/* SPDX-License-Identifier: Apache-2.0 */
/* What tests want to know of the inside of a client, for those that look into a
 * server as well: the two have names in common. */
#ifndef CLIENT_VIEW_H
#define CLIENT_VIEW_H

#include <fl/client.h>

/* Bytes that its state has at most: docs/design/client.md. */
uint64_t client_view_most_bytes(const fl_client *client);
int client_view_is_done(const fl_client *client);
/* 1 when a poll would do more than look at the clock. */
int client_view_wants_poll(const fl_client *client);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What lib/server and lib/client want of slices beyond the public functions. */
#ifndef FLI_EMBEDDING_SLICE_USE_H
#define FLI_EMBEDDING_SLICE_USE_H

#include <fl/slices.h>
#include "wire/writer.h"

enum {
  FLI_SLICE_ANSWER_MAX = 256 << 10, /* values of an answer, bytes */
  FLI_SLICE_PLAN_MAX = 4096
};

/* To a job or client, one at a time; 0: it is attached already. */
int fli_slice_server_attach(fl_slice_server *server);
void fli_slice_server_detach(fl_slice_server *server);
int fli_slice_client_attach(fl_slice_client *client);
void fli_slice_client_detach(fl_slice_client *client);

/* fl_slice_server_add in two: check says what is wrong, and makes room, so that
 * fold cannot fail. */
fl_status fli_slice_check(fl_slice_server *server, const uint8_t *data,
                          size_t n);
void fli_slice_fold(fl_slice_server *server, const uint8_t *data, size_t n);
/* fl_slice_server_step in two: what prepare has done may be repeated, and
 * finish cannot fail. */
fl_status fli_slice_prepare(fl_slice_server *server);
void fli_slice_finish(fl_slice_server *server);
/* The largest update. */
uint64_t fli_slice_update_max(const fl_slice_server *server);
/* The state, without container. */
fl_status fli_slice_write_state(const fl_slice_server *server, fli_bytes *out);
fl_status fli_slice_read_state(fl_slice_server *server, const uint8_t *data,
                               size_t n);
/* The largest request of a client, bytes. */
size_t fli_slice_request_max(const fl_slice_server *server);
/* How many ids one client may have. */
uint64_t fli_slice_max_ids(const fl_slice_server *server);
/* All answers of the round have come. */
int fli_slice_is_ready(const fl_slice_client *client);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Snapshots of servers with cohorts, whole, torn and with other bytes. The
 * payloads are put into containers of their own, so that it is not the
 * container's hash that refuses. */
#ifndef COHORT_SNAPSHOT_H
#define COHORT_SNAPSHOT_H

#include "cohort_world.h"
#include "server/state.h"
#include "wire/container.h"

/* Bytes at the begin and at the end of a payload that are looked at closely,
 * and those that are looked at one by one: draws and guests. */
enum { SNAPSHOT_ENDS = 4096, SNAPSHOT_LAST = 256 };

static inline void snapshot_save(const cw_world *w, fl_buffer **buffer)
{
  fl_writer writer;
  CW_MUST(fl_buffer_new(buffer, NULL));
  CW_MUST(fl_buffer_as_writer(*buffer, &writer));
  CW_MUST(fl_server_save(w->server, &writer));
}

/* Of the server as it is. */
static inline void snapshot_payload(const cw_world *w, fli_bytes *payload)
{
  fl_buffer *buffer = NULL;
  fl_reader reader;
  uint32_t version;
  snapshot_save(w, &buffer);
  CW_MUST(fl_buffer_as_reader(buffer, &reader));
  CW_MUST(fli_container_read(&reader, FLI_STATE_SERVER,
                             FLI_SERVER_STATE_VERSION, UINT64_MAX, &version,
                             payload));
  fl_buffer_free(buffer);
}

/* What restoring n bytes of it says; who is let in goes on until nothing
 * changes. */
static inline fl_status snapshot_restore(const fli_bytes *payload, size_t n)
{
  fl_server *server = NULL;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  fli_bytes part;
  fli_bytes_init(&part, NULL);
  CW_MUST(fl_buffer_new(&buffer, NULL));
  CW_MUST(fl_buffer_as_writer(buffer, &writer));
  CW_MUST(fli_bytes_append(&part, payload->data, n));
  CW_MUST(fli_container_write(&writer, FLI_STATE_SERVER,
                              FLI_SERVER_STATE_VERSION, &part));
  CW_MUST(fl_buffer_as_reader(buffer, &reader));
  const fl_status st = fl_server_restore(&server, NULL, NULL, &reader);
  if (st == FL_OK) {
    CW_MUST(fl_server_tick(server, 1));
    CW_MUST(fl_server_tick(server, 4000 * CW_SECOND));
  }
  fl_server_free(server);
  fl_buffer_free(buffer);
  fli_bytes_free(&part);
  return st;
}

static inline size_t snapshot_step(const fli_bytes *payload, size_t at,
                                   size_t dense, size_t sparse)
{
  if (at + SNAPSHOT_LAST >= payload->size) return 1;
  const int is_end = at < SNAPSHOT_ENDS || at + SNAPSHOT_ENDS >= payload->size;
  return is_end ? dense : sparse;
}

/* Whole it is accepted, torn at any length refused. */
static inline void snapshot_tear(const fli_bytes *payload)
{
  cr_assert_eq(snapshot_restore(payload, payload->size), FL_OK);
  for (size_t n = 0; n < payload->size;
       n += snapshot_step(payload, n, 47, 1531))
    cr_assert_neq(snapshot_restore(payload, n), FL_OK, "%zu bytes", n);
}

/* Other bytes are refused or harmless: nothing is read that is not there. */
static inline void snapshot_flip(const fli_bytes *payload)
{
  for (size_t i = 0; i < payload->size;
       i += snapshot_step(payload, i, 37, 1499)) {
    const uint8_t was = payload->data[i];
    const uint8_t others[] = {was ^ 1, was ^ 0x80, 0xff};
    for (size_t k = 0; k < sizeof others; k++) {
      payload->data[i] = others[k];
      (void)snapshot_restore(payload, payload->size);
    }
    payload->data[i] = was;
  }
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The lists of keys and bans in a snapshot: two bins of entries, by name.
 *
 *   name (16) | owner (16) | u64 LE what is left, in ns | u8 flags
 *
 * Names are keyed by the server's secret, which is in the snapshot, too. */
#include "server/server.h"

#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"

enum { ENTRY_BYTES = 2 * FLI_NAME_BYTES + 9, HAS_OWNER = 1, IS_TAKEN = 2 };

static uint64_t left_of(const fl_server *server, uint64_t until_ns)
{
  if (until_ns == UINT64_MAX) return UINT64_MAX;
  return until_ns > server->now_ns ? until_ns - server->now_ns : 0;
}

static void store_mark(uint8_t out[ENTRY_BYTES], const fl_server *server,
                       const fli_mark *mark)
{
  memcpy(out, mark->name, FLI_NAME_BYTES);
  memcpy(out + FLI_NAME_BYTES, mark->owner, FLI_NAME_BYTES);
  fli_store_u64(out + 2 * FLI_NAME_BYTES, left_of(server, mark->until_ns));
  out[ENTRY_BYTES - 1] = (uint8_t)((mark->has_owner ? HAS_OWNER : 0) |
                                   (mark->is_taken ? IS_TAKEN : 0));
}

static fl_status write_marks(fli_msg_writer *writer, const fl_server *server,
                             const fli_marks *marks)
{
  fl_status st = FL_OK;
  const size_t n = marks->count;
  const fli_mark **sorted = fli_marks_sorted(marks);
  uint8_t *entries = fli_alloc(server->context, n, ENTRY_BYTES);
  if (!sorted || !entries) FLI_TRY(fli_nomem(n * ENTRY_BYTES));
  for (size_t i = 0; i < n; i++)
    store_mark(entries + i * ENTRY_BYTES, server, sorted[i]);
  fli_writer_bin(writer, entries, n * ENTRY_BYTES);
out:
  if (entries) fli_free(server->context, entries, n * ENTRY_BYTES);
  if (sorted) fli_free(server->context, (void *)sorted, n * sizeof *sorted);
  return st;
}

fl_status fli_trust_write(fli_msg_writer *writer, const fl_server *server)
{
  fl_status st = write_marks(writer, server, &server->trust.allowed);
  if (st == FL_OK) st = write_marks(writer, server, &server->trust.banned);
  return st;
}

static fl_status read_marks(fli_marks *marks, fli_msg_reader *reader)
{
  size_t size = 0;
  const uint8_t *at = fli_reader_bin(reader, &size);
  const fl_status st = fli_reader_status(reader);
  if (st != FL_OK) return st;
  if (size % ENTRY_BYTES != 0)
    return fli_error(FL_E_FORMAT, "state: a list of keys or bans is cut");
  for (; size > 0; size -= ENTRY_BYTES, at += ENTRY_BYTES) {
    const uint8_t flags = at[ENTRY_BYTES - 1];
    if (flags > (HAS_OWNER | IS_TAKEN) || fli_marks_find(marks, at))
      return fli_error(FL_E_FORMAT, "state: an entry of keys or bans");
    fli_mark *mark = fli_marks_add(marks, at);
    if (!mark) return fli_nomem(sizeof *mark);
    memcpy(mark->owner, at + FLI_NAME_BYTES, FLI_NAME_BYTES);
    mark->until_ns = fli_load_u64(at + 2 * FLI_NAME_BYTES);
    mark->has_owner = (flags & HAS_OWNER) != 0;
    mark->is_taken = (flags & IS_TAKEN) != 0;
  }
  return FL_OK;
}

fl_status fli_trust_read(fl_server *server, fli_msg_reader *reader)
{
  fl_status st = read_marks(&server->trust.allowed, reader);
  if (st == FL_OK) st = read_marks(&server->trust.banned, reader);
  return st;
}

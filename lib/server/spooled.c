/* SPDX-License-Identifier: Apache-2.0 */
/* Updates that a rule needs separately, in the server's store: their bytes as
 * they came, in pieces, so that a step can read a tile of each.
 *
 *   server/spool/JRRAASSP   job, round, attempt, slot, piece; big-endian
 *
 * Pieces are put with the state whose members they are of, in one commit, and
 * only after that an update is let go here. The state names size and hash
 * instead of the bytes. A job's pieces are removed with the first state in
 * which it has none. */
#include "server/rule.h"

#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "store/store.h"

enum { SPOOL_PIECE = 16 * 1024, JOB_BYTES = 4, KEY_BYTES = 13 + 24 };
static const char prefix[] = "server/spool/";

static void store_be(uint8_t *out, uint64_t value, int n)
{
  for (int i = 0; i < n; i++)
    out[i] = (uint8_t)(value >> 8 * (n - 1 - i));
}

static void make_key(uint8_t key[KEY_BYTES], const fli_job *job, uint32_t slot,
                     uint64_t piece)
{
  uint8_t *at = key + sizeof prefix - 1;
  memcpy(key, prefix, sizeof prefix - 1);
  store_be(at, job->index, 4);
  store_be(at + 4, job->round, 8);
  store_be(at + 12, job->attempt, 4);
  store_be(at + 16, slot, 4);
  store_be(at + 20, piece, 4);
}

static size_t piece_size(uint64_t size, uint64_t at)
{
  return size - at < SPOOL_PIECE ? (size_t)(size - at) : SPOOL_PIECE;
}

/* ---- putting ---- */

static fl_status put_update(const fli_job *job, fli_member *member)
{
  const fl_store *store = job->server->journal.store;
  const fli_bytes *update = &member->update;
  const uint32_t slot = (uint32_t)(member - job->members);
  for (size_t at = 0; at < update->size; at += SPOOL_PIECE) {
    uint8_t key[KEY_BYTES];
    make_key(key, job, slot, at / SPOOL_PIECE);
    const fl_status st = fl_store_put(store, key, sizeof key, update->data + at,
                                      piece_size(update->size, at));
    if (st != FL_OK) return st;
  }
  fli_hash(member->spool_hash, update->data, update->size);
  member->spooled = update->size;
  return FL_OK;
}

static fl_status put_job(fli_job *job)
{
  uint8_t key[KEY_BYTES];
  uint32_t n = 0;
  for (uint32_t i = 0; i < job->n_members; i++) {
    fli_member *member = &job->members[i];
    n += member->spooled > 0 || member->update.size > 0;
    if (member->spooled > 0 || member->update.size == 0) continue;
    const fl_status st = put_update(job, member);
    if (st != FL_OK) return st;
  }
  if (n > 0) job->is_spool_there = 1;
  if (n > 0 || !job->is_spool_there) return FL_OK;
  make_key(key, job, 0, 0);
  return fl_store_clear(job->server->journal.store, key,
                        sizeof prefix - 1 + JOB_BYTES);
}

fl_status fli_spooled_put(fl_server *server)
{
  fl_status st = FL_OK;
  for (size_t i = 0; st == FL_OK && i < server->n_jobs; i++) {
    /* Controls lie behind updates, and are read from there. */
    if (server->jobs[i]->is_spooling && !fli_controls_are_used(server->jobs[i]))
      st = put_job(server->jobs[i]);
  }
  return st;
}

void fli_spooled_settle(fl_server *server, int is_committed)
{
  for (size_t i = 0; i < server->n_jobs; i++) {
    fli_job *job = server->jobs[i];
    int is_there = 0;
    for (uint32_t k = 0; job->is_spooling && k < job->n_members; k++) {
      fli_member *member = &job->members[k];
      if (member->update.size > 0 && member->spooled > 0) {
        if (is_committed) {
          fli_bytes_free(&member->update);
        } else {
          member->spooled = 0;
        }
      }
      is_there |= member->spooled > 0;
    }
    if (is_committed) job->is_spool_there = is_there;
  }
}

/* ---- reading ---- */

/* Borrow what a piece has from byte `at` of the update on. */
static fl_status lend(const fli_job *job, const fli_member *member, uint64_t at,
                      const uint8_t **data, size_t *n)
{
  uint8_t key[KEY_BYTES];
  const void *value = NULL;
  const uint64_t piece = at / SPOOL_PIECE;
  size_t size = 0;
  make_key(key, job, (uint32_t)(member - job->members), piece);
  const fl_status st =
      fl_store_get(job->server->journal.store, key, sizeof key, &value, &size);
  if (st != FL_OK && st != FL_E_NOT_FOUND) return st;
  if (st != FL_OK || size != piece_size(member->spooled, piece * SPOOL_PIECE))
    return fli_error(FL_E_FORMAT, "store: a piece of an update: damaged");
  *data = (const uint8_t *)value + at % SPOOL_PIECE;
  *n = size - (size_t)(at % SPOOL_PIECE);
  return FL_OK;
}

fl_status fli_spooled_read(const fli_job *job, const fli_member *member,
                           uint64_t at, size_t n, fli_spooled_fn take,
                           void *user)
{
  for (uint64_t end = at + n; at < end;) {
    const uint8_t *data = NULL;
    size_t lent = 0;
    const fl_status st = lend(job, member, at, &data, &lent);
    if (st != FL_OK) return st;
    if (lent > end - at) lent = (size_t)(end - at);
    take(user, data, lent);
    at += lent;
  }
  return FL_OK;
}

static void append(void *user, const uint8_t *data, size_t n)
{
  fli_bytes *bytes = user; /* has room */
  memcpy(bytes->data + bytes->size, data, n);
  bytes->size += n;
}

fl_status fli_spooled_load(const fli_job *job, const fli_member *member,
                           fli_bytes *bytes)
{
  uint8_t hash[FLI_HASH_BYTES];
  fl_status st = FL_OK;
  if (member->spooled > SIZE_MAX) return fli_nomem(SIZE_MAX);
  bytes->size = 0;
  FLI_TRY(fli_bytes_reserve(bytes, (size_t)member->spooled));
  bytes->size = 0;
  FLI_TRY(
      fli_spooled_read(job, member, 0, (size_t)member->spooled, append, bytes));
  fli_hash(hash, bytes->data, bytes->size);
  if (memcmp(hash, member->spool_hash, sizeof hash) != 0)
    st = fli_error(FL_E_FORMAT, "store: an update: damaged");
out:
  return st;
}

/* ---- the state ---- */

fl_status fli_spooled_write(fli_msg_writer *writer, const fli_job *job,
                            const fli_member *member)
{
  fl_status st = FL_OK;
  uint8_t name[FLI_SPOOL_NAME];
  fli_bytes bytes;
  fli_bytes_init(&bytes, job->context);
  if (member->spooled > 0 && job->server->journal.is_putting) {
    fli_store_u64(name, member->spooled);
    memcpy(name + 8, member->spool_hash, FLI_HASH_BYTES);
    fli_writer_bin(writer, name, sizeof name);
  } else if (member->update.size > 0) {
    fli_writer_bin(writer, member->update.data, member->update.size);
  } else {
    FLI_TRY(fli_spooled_load(job, member, &bytes));
    fli_writer_bin(writer, bytes.data, bytes.size);
  }
out:
  fli_bytes_free(&bytes);
  return st;
}

fl_status fli_spooled_take(fli_job *job, fli_member *member,
                           const uint8_t name[FLI_SPOOL_NAME])
{
  if (!job->server->journal.store)
    return fli_error(FL_E_FORMAT, "state: an update that a store has");
  member->spooled = fli_load_u64(name);
  memcpy(member->spool_hash, name + 8, FLI_HASH_BYTES);
  if (member->spooled > fl_compressor_max_update_size(job->compressor))
    return fli_error(FL_E_FORMAT, "state: the size of an update");
  return FL_OK;
}

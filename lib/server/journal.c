/* SPDX-License-Identifier: Apache-2.0 */
/* What the server keeps in its store, so that it can be killed at any moment:
 *
 *   server/head             "FLSV" | u32 schema | u32 pieces | u64 bytes | hash
 *   server/state/NNNN       fl_server_save's bytes in pieces of 64 KiB
 *   server/update/JRRAASS   an update that was counted since: see put_update
 *   server/spool/JRRAASSP   a piece of one that is in the state: see spooled.c
 *   server/bound/JI         the key that a client has got since: see bound.c
 *
 * A step of a job (a round begins, its scale is agreed, ...) puts the whole
 * state and drops the updates, which are in it. Pieces that did not change are
 * not put again: weights, which come first, change once a round. Between two
 * steps only updates and keys are added; they are replayed by recover.c, in any
 * order, for sums are of integers. Jobs whose updates are more than their sum
 * (cohorts, strategies that need them separately, slices) put the whole state
 * instead.
 *
 * Bytes go out by fl_server_send alone, and it commits first, but for chunks of
 * a download whose manifest has been sent. When the store
 * fails, what is pending is forgotten there and still in memory here: the next
 * try puts the whole state, whatever the store has by then. */
#include "server/server.h"

#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "server/rule.h"
#include "store/store.h"

enum { PIECE_BYTES = 64 * 1024, MANY_UPDATES = 256, HEAD_BYTES = 20 };
#define RETRY_NS UINT64_C(1000000000)

const char fli_journal_head_key[] = "server/head";
const char fli_journal_update_prefix[] = "server/update/";
const char fli_journal_bound_prefix[] = "server/bound/";
static const char state_prefix[] = "server/state/";

static void store_be(uint8_t *out, uint64_t value, int n)
{
  for (int i = 0; i < n; i++)
    out[i] = (uint8_t)(value >> 8 * (n - 1 - i));
}

void fli_journal_piece_key(uint8_t key[FLI_PIECE_KEY_BYTES], uint32_t piece)
{
  memcpy(key, state_prefix, sizeof state_prefix - 1);
  store_be(key + sizeof state_prefix - 1, piece, 4);
}

void fli_journal_update_key(uint8_t key[FLI_UPDATE_KEY_BYTES],
                            const fli_job *job, uint32_t slot)
{
  uint8_t *at = key + sizeof fli_journal_update_prefix - 1;
  memcpy(key, fli_journal_update_prefix, sizeof fli_journal_update_prefix - 1);
  store_be(at, job->index, 4);
  store_be(at + 4, job->round, 8);
  store_be(at + 12, job->attempt, 4);
  store_be(at + 16, slot, 4);
}

fl_status fli_journal_check_empty(const fl_store *store)
{
  const void *value = NULL;
  size_t n = 0;
  if (!store) return FL_OK;
  const fl_status st = fl_store_get(store, fli_journal_head_key,
                                    strlen(fli_journal_head_key), &value, &n);
  if (st == FL_E_NOT_FOUND) return FL_OK;
  if (st != FL_OK) return st;
  return fli_error(FL_E_STATE, "store: has the state of a server already");
}

void fli_journal_free(fl_server *server)
{
  fli_journal *journal = &server->journal;
  fli_free(server->context, journal->pieces,
           journal->piece_capacity * sizeof *journal->pieces);
  /* What is not committed was not acknowledged. */
  if (journal->store && journal->n_updates > 0)
    (void)fl_store_rollback(journal->store);
}

/* ---- what is pending ---- */

static int is_pending(const fli_journal *journal)
{
  return journal->store && (journal->is_step_due || journal->n_updates > 0);
}

void fli_journal_step(fl_server *server)
{
  fli_journal *journal = &server->journal;
  if (!journal->is_failing) journal->due_ns = 0;
  journal->is_step_due = 1;
}

/* The first that is to be committed sets the time for all of the window. */
static void open_window(fl_server *server)
{
  fli_journal *journal = &server->journal;
  if (is_pending(journal)) return;
  journal->due_ns = fli_later(server->now_ns, server->options.commit_window_ns);
}

void fli_journal_note(fl_server *server)
{
  open_window(server);
  server->journal.is_step_due = 1;
}

int fli_journal_may_send(const fl_server *server)
{
  const fli_journal *journal = &server->journal;
  return !is_pending(journal) || server->now_ns >= journal->due_ns;
}

/* One more record waits for its commit. */
static void count_one(fl_server *server)
{
  fli_journal *journal = &server->journal;
  open_window(server);
  journal->n_updates++;
  if (journal->n_updates >= MANY_UPDATES && !journal->is_failing)
    journal->due_ns = 0;
}

void fli_journal_add(fl_server *server, const uint8_t *key, size_t n_key,
                     const uint8_t *value, size_t n)
{
  const fli_journal *journal = &server->journal;
  if (!journal->store) return;
  count_one(server);
  if (!journal->is_step_due &&
      fl_store_put(journal->store, key, n_key, value, n) != FL_OK)
    fli_journal_step(server);
}

uint64_t fli_journal_next_timeout(const fl_server *server)
{
  return fli_journal_may_send(server) ? UINT64_MAX : server->journal.due_ns;
}

/* ---- updates ---- */

/* hash of the rest (32) | u64 samples | f64 loss | u32 has report | u32 module
 * | f64 report | u32 bytes of clamp counts | clamp counts | update */
static fl_status put_update(const fli_peer *peer, const fli_member *member)
{
  enum { FIXED_BYTES = FLI_HASH_BYTES + 36 };
  const fli_job *job = peer->participant->job;
  const fli_incoming *from = &peer->incoming;
  const uint32_t slot = (uint32_t)(member - job->members);
  uint8_t key[FLI_UPDATE_KEY_BYTES], fixed[FIXED_BYTES] = {0};
  uint8_t *at = fixed + FLI_HASH_BYTES;
  fl_status st = FL_OK;
  fli_bytes record;
  fli_bytes_init(&record, peer->server->context);
  fli_store_u64(at, member->samples);
  fli_store_u64(at + 8, fli_f64_bits(member->loss));
  fli_store_u32(at + 16, member->has_report);
  fli_store_u32(at + 20, member->report_module);
  fli_store_u64(at + 24, fli_f64_bits(member->report_value));
  fli_store_u32(at + 32, (uint32_t)from->clamped.size);
  FLI_TRY(fli_bytes_append(&record, fixed, sizeof fixed));
  FLI_TRY(fli_bytes_append(&record, from->clamped.data, from->clamped.size));
  FLI_TRY(fli_bytes_append(&record, from->data.data, from->data.size));
  fli_hash(record.data, record.data + FLI_HASH_BYTES,
           record.size - FLI_HASH_BYTES);
  fli_journal_update_key(key, job, slot);
  FLI_TRY(fl_store_put(job->server->journal.store, key, sizeof key, record.data,
                       record.size));
out:
  fli_bytes_free(&record);
  return st;
}

/* What an update has changed besides the sum: it is in the whole state only. */
static int has_more(const fli_job *job)
{
  return job->front || job->is_spooling || job->slices || job->buffered;
}

void fli_journal_update(fli_peer *peer, const fli_member *member)
{
  fl_server *server = peer->server;
  fli_journal *journal = &server->journal;
  if (!journal->store) return;
  count_one(server);
  if (has_more(peer->participant->job)) journal->is_step_due = 1;
  /* It will be in the whole state, if that is put before the next commit. */
  if (!journal->is_step_due && put_update(peer, member) != FL_OK)
    fli_journal_step(server);
}

/* ---- the whole state ---- */

typedef struct pieces {
  fl_server *server;
  uint8_t *buffer;
  size_t held;
  uint32_t n;
  uint64_t bytes;
} pieces;

static fl_status put_piece(pieces *self)
{
  fli_journal *journal = &self->server->journal;
  uint8_t key[FLI_PIECE_KEY_BYTES], hash[FLI_HASH_BYTES];
  void *items = journal->pieces;
  fl_status st =
      fli_grow(self->server->context, &items, &journal->piece_capacity,
               (size_t)self->n + 1, sizeof *journal->pieces);
  if (st != FL_OK) return st;
  journal->pieces = items;
  fli_hash(hash, self->buffer, self->held);
  if (self->n >= journal->n_pieces ||
      memcmp(journal->pieces[self->n], hash, FLI_PIECE_HASH_BYTES) != 0) {
    fli_journal_piece_key(key, self->n);
    st =
        fl_store_put(journal->store, key, sizeof key, self->buffer, self->held);
    if (st != FL_OK) return st;
    memcpy(journal->pieces[self->n], hash, FLI_PIECE_HASH_BYTES);
    journal->pieces_put++;
  }
  self->n++;
  self->held = 0;
  return FL_OK;
}

static fl_status write_piece(void *user, const void *data, size_t n)
{
  pieces *self = user;
  const uint8_t *from = data;
  self->bytes += n;
  while (n > 0) {
    const size_t room = PIECE_BYTES - self->held;
    const size_t taken = n < room ? n : room;
    memcpy(self->buffer + self->held, from, taken);
    self->held += taken;
    from += taken;
    n -= taken;
    if (self->held < PIECE_BYTES) continue;
    const fl_status st = put_piece(self);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

static fl_status put_head(const pieces *self)
{
  uint8_t head[HEAD_BYTES + FLI_HASH_BYTES] = {'F', 'L', 'S', 'V'};
  fli_store_u32(head + 4, FLI_JOURNAL_SCHEMA);
  fli_store_u32(head + 8, self->n);
  fli_store_u64(head + 12, self->bytes);
  fli_hash(head + HEAD_BYTES, head, HEAD_BYTES);
  return fl_store_put(self->server->journal.store, fli_journal_head_key,
                      strlen(fli_journal_head_key), head, sizeof head);
}

static fl_status drop_pieces(fli_journal *journal, uint32_t from)
{
  fl_status st = FL_OK;
  for (uint32_t i = from; st == FL_OK && i < journal->n_pieces; i++) {
    uint8_t key[FLI_PIECE_KEY_BYTES];
    fli_journal_piece_key(key, i);
    st = fl_store_remove(journal->store, key, sizeof key);
  }
  return st;
}

static fl_status put_state(fl_server *server)
{
  fl_status st = FL_OK;
  fli_journal *journal = &server->journal;
  pieces self = {.server = server};
  const fl_writer writer = {.write = write_piece, .user = &self};
  journal->pieces_put = 0;
  self.buffer = fli_alloc(server->context, PIECE_BYTES, 1);
  if (!self.buffer) FLI_TRY(fli_nomem(PIECE_BYTES));
  if (journal->n_pieces == 0)
    FLI_TRY(
        fl_store_clear(journal->store, state_prefix, sizeof state_prefix - 1));
  FLI_TRY(fli_spooled_put(server));
  journal->is_putting = 1;
  st = fl_server_save(server, &writer);
  journal->is_putting = 0;
  if (st != FL_OK) goto out;
  if (self.held > 0) FLI_TRY(put_piece(&self));
  FLI_TRY(drop_pieces(journal, self.n));
  journal->n_pieces = self.n;
  FLI_TRY(put_head(&self));
  FLI_TRY(fl_store_clear(journal->store, fli_journal_update_prefix,
                         strlen(fli_journal_update_prefix)));
  FLI_TRY(fl_store_clear(journal->store, fli_journal_bound_prefix,
                         strlen(fli_journal_bound_prefix)));
out:
  fli_free(server->context, self.buffer, PIECE_BYTES);
  return st;
}

/* ---- commits ---- */

static void fail(fl_server *server)
{
  fli_journal *journal = &server->journal;
  const fl_store *store = journal->store;
  fl_server_event event = fli_event_blank(FL_SERVER_STORE_FAILED);
  fli_events_add(&server->events, &event, "", "%s", fl_last_error());
  journal->is_step_due = 1;
  journal->is_failing = 1;
  journal->n_pieces = 0;
  journal->due_ns = fli_later(server->now_ns, RETRY_NS);
  (void)store->rollback(store->user); /* the hook: the text stays */
}

static fl_status commit(fl_server *server)
{
  fli_journal *journal = &server->journal;
  fl_status st = FL_OK;
  /* After a failed put: what there was before it cannot be committed. */
  if (journal->is_step_due) st = fl_store_rollback(journal->store);
  if (st == FL_OK && journal->is_step_due) st = put_state(server);
  if (st == FL_OK) st = fl_store_commit(journal->store);
  fli_spooled_settle(server, st == FL_OK);
  if (st != FL_OK) {
    fail(server);
    return st;
  }
  journal->is_step_due = 0;
  journal->is_failing = 0;
  journal->n_updates = 0;
  return FL_OK;
}

int fli_journal_commit(fl_server *server)
{
  if (!is_pending(&server->journal)) return 1;
  if (!fli_journal_may_send(server)) return 0;
  if (commit(server) == FL_OK) return 1;
  fli_clear_error(); /* it is an event */
  return 0;
}

fl_status fl_server_commit(fl_server *server)
{
  fli_clear_error();
  if (!server) return fli_error(FL_E_ARGUMENT, "server: is NULL");
  return is_pending(&server->journal) ? commit(server) : FL_OK;
}

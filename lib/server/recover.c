/* SPDX-License-Identifier: Apache-2.0 */
/* A server from its store (journal.c): the state of the last step of a job, and
 * the keys that were bound and the updates that were counted since, each once
 * more through the checks that it passed. The schema is that of the keys; the
 * state has a version of its own (state.h). */
#include "server/server.h"

#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "store/store.h"

enum { HEAD_BYTES = 20, FIXED_BYTES = FLI_HASH_BYTES + 36 };

static fl_status damaged(const char *what)
{
  return fli_error(FL_E_FORMAT, "store: %s: damaged", what);
}

/* ---- the state ---- */

typedef struct pieces {
  const fl_store *store;
  uint32_t n, next;
  const uint8_t *data; /* lent by the store */
  size_t left;
} pieces;

static fl_status next_piece(pieces *self)
{
  uint8_t key[FLI_PIECE_KEY_BYTES];
  const void *value = NULL;
  fli_journal_piece_key(key, self->next++);
  const fl_status st =
      fl_store_get(self->store, key, sizeof key, &value, &self->left);
  if (st == FL_E_NOT_FOUND) return damaged("a piece of the state");
  self->data = value;
  return st;
}

static fl_status read_piece(void *user, void *buf, size_t n, size_t *got)
{
  pieces *self = user;
  *got = 0;
  while (self->left == 0 && self->next < self->n) {
    const fl_status st = next_piece(self);
    if (st != FL_OK) return st;
  }
  *got = n < self->left ? n : self->left;
  if (*got == 0) return FL_OK;
  memcpy(buf, self->data, *got);
  self->data += *got;
  self->left -= *got;
  return FL_OK;
}

static fl_status read_head(const fl_store *store, uint32_t *n_pieces)
{
  const void *value = NULL;
  uint8_t hash[FLI_HASH_BYTES];
  size_t n = 0;
  const fl_status st = fl_store_get(store, fli_journal_head_key,
                                    strlen(fli_journal_head_key), &value, &n);
  if (st == FL_E_NOT_FOUND)
    return fli_error(st, "store: has no state of a server");
  if (st != FL_OK) return st;
  const uint8_t *head = value;
  if (n < 8 || memcmp(head, "FLSV", 4) != 0) return damaged("its head");
  const uint32_t schema = fli_load_u32(head + 4);
  if (schema != FLI_JOURNAL_SCHEMA)
    return fli_error(FL_E_VERSION, "store: schema: got %u, want %d", schema,
                     (int)FLI_JOURNAL_SCHEMA);
  if (n != HEAD_BYTES + sizeof hash) return damaged("its head");
  fli_hash(hash, head, HEAD_BYTES);
  if (memcmp(hash, head + HEAD_BYTES, sizeof hash) != 0)
    return damaged("its head");
  *n_pieces = fli_load_u32(head + 8);
  return FL_OK;
}

/* ---- updates ---- */

typedef struct update {
  uint64_t samples;
  double loss;
  uint32_t has_report, report_module;
  double report_value;
  fli_bytes clamped, data; /* views */
} update;

static fl_status parse_update(update *out, const uint8_t *value, size_t n)
{
  uint8_t hash[FLI_HASH_BYTES];
  if (n < FIXED_BYTES) return damaged("an update");
  fli_hash(hash, value + FLI_HASH_BYTES, n - FLI_HASH_BYTES);
  if (memcmp(hash, value, sizeof hash) != 0) return damaged("an update");
  const uint8_t *at = value + FLI_HASH_BYTES;
  const size_t clamped = fli_load_u32(at + 32);
  if (clamped > n - FIXED_BYTES) return damaged("an update");
  memset(out, 0, sizeof *out);
  out->samples = fli_load_u64(at);
  out->loss = fli_f64_from_bits(fli_load_u64(at + 8));
  out->has_report = fli_load_u32(at + 16);
  out->report_module = fli_load_u32(at + 20);
  out->report_value = fli_f64_from_bits(fli_load_u64(at + 24));
  /* Views of bytes that nobody writes to. */
  out->clamped.data = (uint8_t *)(uintptr_t)(value + FIXED_BYTES);
  out->clamped.size = clamped;
  out->data.data = out->clamped.data + clamped;
  out->data.size = n - FIXED_BYTES - clamped;
  return FL_OK;
}

static fl_status replay(fli_job *job, fli_member *member, const update *from)
{
  const size_t clamped = job->is_public ? (size_t)job->n_norms * 2 : 0;
  uint64_t samples = 0;
  uint32_t slot = 0;
  if (from->clamped.size != clamped) return damaged("an update");
  fl_status st = fl_partial_peek(job->partial, from->data.data, from->data.size,
                                 &slot, &samples);
  if (st != FL_OK) return st;
  if (slot != (uint32_t)(member - job->members) || samples != from->samples)
    return damaged("an update");
  st = fl_partial_add(job->partial, from->data.data, from->data.size);
  if (st != FL_OK) return st;
  if (job->is_public) fli_norms_count(job, member, &from->clamped);
  fli_collect_count(job, member, from->loss, samples);
  if (from->has_report && fli_freezing_reports(job)) {
    member->has_report = 1;
    member->report_module = from->report_module;
    member->report_value = from->report_value;
  }
  return FL_OK;
}

/* The update of one slot of a running round, if the store has it. */
static fl_status replay_slot(const fl_store *store, fli_job *job, uint32_t slot,
                             uint32_t *n_found)
{
  uint8_t key[FLI_UPDATE_KEY_BYTES];
  const void *value = NULL;
  size_t n = 0;
  update found;
  fli_journal_update_key(key, job, slot);
  fl_status st = fl_store_get(store, key, sizeof key, &value, &n);
  if (st == FL_E_NOT_FOUND) return FL_OK;
  if (st == FL_OK) st = parse_update(&found, value, n);
  if (st != FL_OK) return st;
  ++*n_found;
  return replay(job, &job->members[slot], &found);
}

static fl_status count_updates(const fl_store *store, uint32_t *count)
{
  const size_t prefix = strlen(fli_journal_update_prefix);
  const void *key = fli_journal_update_prefix;
  size_t n = prefix;
  fl_status st = FL_OK;
  for (*count = 0;; ++*count) {
    st = fl_store_next(store, key, n, &key, &n);
    if (st == FL_E_EMPTY) return FL_OK;
    if (st != FL_OK) return st;
    if (!fli_store_key_has(key, n, fli_journal_update_prefix, prefix))
      return FL_OK;
  }
}

/* Every update that is there has to be of a round that runs. */
static fl_status replay_all(fl_server *server, const fl_store *store)
{
  uint32_t n_found = 0, n_there = 0;
  for (size_t i = 0; i < server->n_jobs; i++) {
    fli_job *job = server->jobs[i];
    const uint32_t n = job->phase == FLI_PHASE_UPDATES ? job->n_members : 0;
    for (uint32_t slot = 0; slot < n; slot++) {
      if (job->members[slot].is_counted) continue;
      const fl_status st = replay_slot(store, job, slot, &n_found);
      if (st != FL_OK) return st;
    }
  }
  const fl_status st = count_updates(store, &n_there);
  if (st != FL_OK) return st;
  return n_found == n_there ? FL_OK : damaged("updates of no running round");
}

fl_status fl_server_recover(fl_server **out, fl_context *context,
                            const fl_server_options *options)
{
  fl_status st = FL_OK;
  fl_server *server = NULL;
  pieces self = {.store = NULL};
  const fl_reader reader = {.read = read_piece, .user = &self};
  fli_clear_error();
  if (!out || !options ||
      options->struct_size < offsetof(fl_server_options, commit_window_ns) ||
      !options->store)
    return fli_error(FL_E_ARGUMENT, "fl_server_recover: NULL, or no store");
  self.store = options->store;
  FLI_TRY(read_head(self.store, &self.n));
  FLI_TRY(fli_server_read(&server, context, options, &reader));
  FLI_TRY(fli_bound_replay(server, self.store));
  FLI_TRY(replay_all(server, self.store));
  *out = server;
  server = NULL;
out:
  fl_server_free(server);
  return st;
}

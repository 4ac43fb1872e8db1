/* SPDX-License-Identifier: Apache-2.0 */
/* Keys that clients have got since the last step. An id belongs to the first
 * key that came with it: that has to be durable before the client hears
 * WELCOME, or another key could take the id after a kill. The whole state of a
 * million clients is too much to put for one that joins, so this is a record
 *
 *   "server/bound/" | u32 job | id   ->   name of the key (16) | hash of both
 *
 * until the next step has it in the state. A client of cohorts has got a place
 * among them as well, which only the state can say. */
#include "server/server.h"

#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "store/store.h"

enum {
  PREFIX = sizeof "server/bound/" - 1,
  MOST_KEY = PREFIX + 4 + FLI_ID_BYTES,
  VALUE = FLI_NAME_BYTES + FLI_HASH_BYTES
};

static void hash_record(uint8_t hash[FLI_HASH_BYTES], const uint8_t *key,
                        size_t n, const uint8_t name[FLI_NAME_BYTES])
{
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_update(&hasher, key, n);
  fli_hasher_update(&hasher, name, FLI_NAME_BYTES);
  fli_hasher_final(&hasher, hash);
}

void fli_bound_note(const fli_participant *who)
{
  fl_server *server = who->home->server;
  const size_t n_id = strlen(who->id);
  const size_t n = PREFIX + 4 + n_id;
  uint8_t key[MOST_KEY], value[VALUE];
  if (who->home->cohorts) {
    fli_journal_note(server);
    return;
  }
  memcpy(key, fli_journal_bound_prefix, PREFIX);
  fli_store_u32(key + PREFIX, who->home->index);
  memcpy(key + PREFIX + 4, who->id, n_id);
  memcpy(value, who->standing->key, FLI_NAME_BYTES);
  hash_record(value + FLI_NAME_BYTES, key, n, value);
  fli_journal_add(server, key, n, value, sizeof value);
}

static fl_status damaged(void)
{
  return fli_error(FL_E_FORMAT, "store: a client's key: damaged");
}

/* Find or make the client. */
static fl_status call(fli_job *job, const char *id, fli_participant **who)
{
  fl_status st = fli_registry_call(job, id, who);
  if (st != FL_OK || *who) return st;
  st = fli_registry_add(job, id, who);
  if (st == FL_OK) fli_registry_detach(*who, 1);
  return st;
}

static fl_status bind(fli_job *job, const char *id,
                      const uint8_t name[FLI_NAME_BYTES])
{
  fli_participant *who = NULL;
  const fl_status st = call(job, id, &who);
  if (st != FL_OK) return st;
  fli_standing *standing = fli_standing_of(who);
  if (!standing) return fli_nomem(sizeof *standing);
  if (standing->has_key && memcmp(standing->key, name, FLI_NAME_BYTES) != 0)
    return damaged();
  memcpy(standing->key, name, FLI_NAME_BYTES);
  standing->has_key = 1;
  fli_enrol_take(job->server, name, id);
  return FL_OK;
}

static fl_status replay_one(fl_server *server, const fl_store *store,
                            const uint8_t *key, size_t n)
{
  char id[FLI_ID_BYTES] = "";
  uint8_t hash[FLI_HASH_BYTES];
  const void *value = NULL;
  size_t size = 0;
  const fl_status st = fl_store_get(store, key, n, &value, &size);
  if (st != FL_OK) return st;
  if (size != VALUE) return damaged();
  const uint8_t *name = value;
  const uint32_t index = fli_load_u32(key + PREFIX);
  hash_record(hash, key, n, name);
  if (memcmp(hash, name + FLI_NAME_BYTES, sizeof hash) != 0) return damaged();
  memcpy(id, key + PREFIX + 4, n - PREFIX - 4);
  if (strlen(id) != n - PREFIX - 4 || fli_enrol_check_id(id) != FL_OK ||
      index >= server->n_jobs || server->jobs[index]->cohorts)
    return damaged();
  return bind(server->jobs[index], id, name);
}

fl_status fli_bound_replay(fl_server *server, const fl_store *store)
{
  uint8_t key[MOST_KEY];
  const void *next = fli_journal_bound_prefix;
  size_t n = PREFIX;
  for (;;) {
    fl_status st = fl_store_next(store, next, n, &next, &n);
    if (st == FL_E_EMPTY) return FL_OK;
    if (st != FL_OK) return st;
    if (!fli_store_key_has(next, n, fli_journal_bound_prefix, PREFIX))
      return FL_OK;
    if (n <= PREFIX + 4 || n >= MOST_KEY) return damaged();
    memcpy(key, next, n);
    next = key;
    st = replay_one(server, store, key, n);
    if (st != FL_OK) return st;
  }
}

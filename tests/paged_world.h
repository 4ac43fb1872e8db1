/* SPDX-License-Identifier: Apache-2.0 */
/* A job with two clients, the first of which has its model in memory or in a
 * storage of blobs: the same bytes, the same model either way. Storage and
 * memory can fail at a chosen call; whoever fails tries again, as a host
 * would. Works under Criterion and in plain programs. */
#ifndef PAGED_WORLD_H
#define PAGED_WORLD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/client.h>
#include <fl/server.h>
#include "crypto/crypto.h"

static inline void pw_must(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "world: %s: %s\n", fl_status_name(st), fl_last_error());
  abort();
}

/* ---- a storage ---- */

enum { PW_BLOBS = 64, PW_NAME = 128 };

typedef struct pw_store {
  struct {
    char name[PW_NAME];
    uint8_t *data; /* NULL: free */
    size_t n;
  } blobs[PW_BLOBS];
  uint64_t calls;
  uint64_t fail_at; /* of the calls, from 1; 0 = none */
  uint64_t allocations;
  uint64_t fail_allocation;
  uint64_t most_read; /* bytes of one call */
  int is_full;        /* nothing can be written */
  const char *lost;   /* reads of blobs with this in their names fail, */
  int lost_for;       /* as often as this */
  uint64_t written;   /* bytes */
} pw_store;

static inline int pw_fails(pw_store *store)
{
  return ++store->calls == store->fail_at;
}

static inline size_t pw_find(const pw_store *store, const char *name)
{
  size_t i = 0;
  while (i < PW_BLOBS &&
         (!store->blobs[i].data || strcmp(store->blobs[i].name, name) != 0))
    i++;
  return i;
}

static inline fl_status pw_size(void *user, const char *name, uint64_t *size)
{
  pw_store *store = user;
  if (pw_fails(store)) return FL_E_IO;
  const size_t i = pw_find(store, name);
  if (i == PW_BLOBS) return FL_E_NOT_FOUND;
  *size = store->blobs[i].n;
  return FL_OK;
}

static inline fl_status pw_read(void *user, const char *name, uint64_t offset,
                                void *buf, size_t n)
{
  pw_store *store = user;
  if (pw_fails(store)) return FL_E_IO;
  if (store->lost_for > 0 && strstr(name, store->lost)) {
    store->lost_for--;
    return FL_E_IO;
  }
  const size_t i = pw_find(store, name);
  if (i == PW_BLOBS) return FL_E_NOT_FOUND;
  if (offset > store->blobs[i].n || n > store->blobs[i].n - offset)
    return FL_E_IO;
  if (n > store->most_read) store->most_read = n;
  memcpy(buf, store->blobs[i].data + offset, n);
  return FL_OK;
}

static inline fl_status pw_remove(void *user, const char *name)
{
  pw_store *store = user;
  if (pw_fails(store)) return FL_E_IO;
  const size_t i = pw_find(store, name);
  if (i == PW_BLOBS) return FL_OK;
  free(store->blobs[i].data);
  store->blobs[i].data = NULL;
  return FL_OK;
}

static inline fl_status pw_write(void *user, const char *name, const void *buf,
                                 size_t n)
{
  pw_store *store = user;
  if (pw_fails(store) || store->is_full) return FL_E_IO;
  size_t i = pw_find(store, name);
  for (size_t k = 0; k < PW_BLOBS && i == PW_BLOBS; k++)
    if (!store->blobs[k].data) i = k;
  uint8_t *copy = malloc(n + 1);
  if (i == PW_BLOBS || !copy || strlen(name) >= PW_NAME) abort();
  memcpy(copy, buf, n);
  store->written += n;
  free(store->blobs[i].data);
  strcpy(store->blobs[i].name, name);
  store->blobs[i].data = copy;
  store->blobs[i].n = n;
  return FL_OK;
}

static inline fl_status pw_sync(void *user)
{
  return pw_fails(user) ? FL_E_IO : FL_OK;
}

static inline void *pw_alloc(void *user, size_t size, size_t alignment)
{
  pw_store *store = user;
  if (++store->allocations == store->fail_allocation) return NULL;
  return aligned_alloc(alignment,
                       (size + alignment - 1) / alignment * alignment);
}

static inline void pw_dealloc(void *user, void *p, size_t size,
                              size_t alignment)
{
  (void)user;
  (void)size;
  (void)alignment;
  free(p);
}

static inline void pw_log(void *user, uint32_t level, const char *text)
{
  (void)user;
  (void)level;
  (void)text;
}

static inline void pw_clear(pw_store *store)
{
  for (size_t i = 0; i < PW_BLOBS; i++)
    free(store->blobs[i].data);
  memset(store, 0, sizeof *store);
}

/* ---- the world ---- */

/* Tails, full units, a tensor over pages, tiny ones. */
static const uint64_t pw_shapes[] = {3, 4096, 70001, 1, 90000, 40000};
enum { PW_TENSORS = sizeof pw_shapes / sizeof pw_shapes[0], PW_CLIENTS = 2 };

typedef struct pw_world {
  pw_store *store;
  fl_context *contexts[PW_CLIENTS]; /* of the first: with the store */
  fl_paged *paged;                  /* NULL: in memory */
  fl_client_options options[PW_CLIENTS];
  fl_client *clients[PW_CLIENTS];
  uint64_t peers[PW_CLIENTS];
  int is_away[PW_CLIENTS];
  int is_done[PW_CLIENTS];
  uint64_t accepted[PW_CLIENTS];
  uint64_t stale;
  uint32_t aborted; /* the reason of the first client */
  char text[128];
  uint64_t next_peer;
  fl_model *model;
  fl_server *server;
  uint64_t n;
  uint32_t rounds;
  int epochs;
  uint64_t now_ns;
  fli_hasher said; /* chunks of the first client */
  uint64_t bytes_down;
  float *trained; /* n */
} pw_world;

typedef struct pw_how {
  uint32_t codec, mode;
  uint32_t rounds;
  int epochs; /* 0 = 1 */
  int is_paged;
  uint64_t budget;
  uint32_t is_public;
  int has_modules; /* and the first is frozen from round 2 on */
  uint32_t feedback;
  uint32_t evaluate_every;
} pw_how;

static inline fl_status pw_entropy(void *user, void *buf, size_t n)
{
  (void)user;
  memset(buf, 0x5c, n);
  return FL_OK;
}

static inline void pw_model(pw_world *w, const pw_how *how)
{
  fl_model_builder *builder = NULL;
  char name[8];
  pw_must(fl_model_builder_new(&builder, NULL));
  for (uint32_t i = 0; i < PW_TENSORS; i++) {
    (void)snprintf(name, sizeof name, "t%u", i);
    if (how->has_modules) pw_must(fl_model_builder_module(builder, i / 3));
    pw_must(fl_model_builder_tensor(builder, name, &pw_shapes[i], 1, 1));
    w->n += pw_shapes[i];
  }
  pw_must(fl_model_builder_build(builder, &w->model));
  fl_model_builder_free(builder);
}

static inline void pw_job(pw_world *w, const pw_how *how)
{
  const fl_freeze_fixed fixed[1] = {{.step = 2, .first_active = 1}};
  fl_compressor_options codec;
  fl_freeze_options freeze;
  fl_job_options job;
  pw_must(fl_compressor_options_init(&codec, sizeof codec));
  codec.codec = how->codec;
  if (how->mode) codec.thc_mode = how->mode;
  memset(codec.rotation_seed, 3, sizeof codec.rotation_seed);
  pw_must(fl_freeze_options_init(&freeze, sizeof freeze));
  freeze.criterion = FL_FREEZE_FIXED;
  freeze.max_frozen = 1;
  freeze.fixed = fixed;
  freeze.n_fixed = 1;
  pw_must(fl_job_options_init(&job, sizeof job));
  job.codec = &codec;
  job.rounds = how->rounds;
  job.min_clients = PW_CLIENTS;
  job.retry_pause_ns = 1;
  job.return_grace_ns = 30000000;
  job.error_feedback = how->feedback;
  job.evaluate_every = how->evaluate_every;
  if (how->is_public) job.scale_mode = FL_SCALE_PUBLIC;
  if (how->has_modules) job.freeze = &freeze;
  pw_must(fl_server_add_job(w->server, w->model, &job, NULL));
}

static inline fl_status pw_start(pw_world *w)
{
  return fl_client_new(&w->clients[0], w->contexts[0], &w->options[0]);
}

static inline void pw_paged(pw_world *w, uint64_t budget)
{
  fl_paged_options options;
  pw_must(fl_paged_options_init(&options, sizeof options));
  options.name = "model";
  options.memory_budget = budget;
  pw_must(fl_paged_new(&w->paged, w->contexts[0], &options));
  w->options[0].paged = w->paged;
}

/* But for the first client, see pw_start. */
static inline void pw_open(pw_world *w, const pw_how *how, pw_store *store)
{
  memset(w, 0, sizeof *w);
  w->store = store;
  w->rounds = how->rounds;
  w->epochs = how->epochs > 0 ? how->epochs : 1;
  fl_storage storage = {.struct_size = sizeof storage,
                        .user = store,
                        .size = pw_size,
                        .read = pw_read,
                        .write = pw_write,
                        .remove = pw_remove,
                        .sync = pw_sync};
  fl_context_options hooks;
  pw_must(fl_context_options_init(&hooks, sizeof hooks));
  hooks.user = store;
  hooks.alloc = pw_alloc;
  hooks.dealloc = pw_dealloc;
  hooks.log = pw_log;
  hooks.storage = &storage;
  pw_must(fl_context_new(&w->contexts[0], &hooks));
  pw_must(fl_context_options_init(&hooks, sizeof hooks));
  hooks.entropy = pw_entropy;
  hooks.log = pw_log;
  pw_must(fl_context_new(&w->contexts[1], &hooks));
  pw_model(w, how);
  w->trained = malloc((size_t)w->n * sizeof *w->trained);
  pw_must(fl_server_new(&w->server, w->contexts[1], NULL));
  pw_job(w, how);
  for (int i = 0; i < PW_CLIENTS; i++) {
    pw_must(fl_client_options_init(&w->options[i], sizeof w->options[i]));
    w->options[i].client_id = i == 0 ? "first" : "second";
    w->options[i].chunk_size = 8192;
    w->options[i].max_frame_size = 300 << 10;
    w->peers[i] = ++w->next_peer;
  }
  if (how->is_paged) pw_paged(w, how->budget);
  fli_hasher_init(&w->said);
  pw_must(fl_client_new(&w->clients[1], w->contexts[1], &w->options[1]));
}

/* A world of a paged client that has started; two rounds if nothing is said. */
static inline void pw_open_paged(pw_world *w, pw_how how, pw_store *store)
{
  if (how.rounds == 0) how.rounds = 2;
  how.is_paged = 1;
  pw_open(w, &how, store);
  pw_must(pw_start(w));
}

static inline void pw_close(pw_world *w)
{
  for (int i = 0; i < PW_CLIENTS; i++)
    fl_client_free(w->clients[i]);
  fl_paged_free(w->paged);
  fl_server_free(w->server);
  fl_model_free(w->model);
  free(w->trained);
  fl_context_free(w->contexts[0]);
  fl_context_free(w->contexts[1]);
}

/* With what its store has. */
static inline void pw_close_all(pw_world *w)
{
  pw_store *store = w->store;
  pw_close(w);
  pw_clear(store);
}

/* ---- training ---- */

static inline void pw_train(const fl_train_task *task, int who, uint64_t first,
                            uint64_t n, const float *before, float *after)
{
  for (uint64_t i = 0; i < n; i++)
    after[i] = before[i] + (float)((first + i) * 7 % 31 + task->round) *
                               (who ? .0125f : -.01f);
}

/* Whoever fails once is called once more. */
static inline void pw_get(fl_paged *paged, uint64_t first, uint64_t n,
                          float *weights)
{
  if (fl_paged_read(paged, first, n, weights) != FL_OK)
    pw_must(fl_paged_read(paged, first, n, weights));
}

static inline void pw_put(fl_paged *paged, uint64_t first, uint64_t n,
                          const float *weights)
{
  if (fl_paged_write(paged, first, n, weights) != FL_OK)
    pw_must(fl_paged_write(paged, first, n, weights));
}

/* Tensor by tensor, the last one first; a tensor that was not given stays. */
static inline void pw_train_paged(pw_world *w, const fl_train_task *task)
{
  uint64_t first = fl_paged_weight_count(task->paged);
  for (uint32_t t = PW_TENSORS; t-- > 0;) {
    const uint64_t n = pw_shapes[t];
    first -= n;
    pw_get(task->paged, first, n, w->trained);
    if (t == 3) continue; /* not trained */
    pw_train(task, 0, first, n, w->trained, w->trained);
    /* In two pieces, and the first of them twice. */
    pw_put(task->paged, first, n / 2, w->trained);
    pw_put(task->paged, first + n / 2, n - n / 2, w->trained + n / 2);
    pw_put(task->paged, first, n / 2, w->trained);
  }
}

static inline void pw_submit(pw_world *w, int who, const fl_train_task *task)
{
  fl_train_result result;
  pw_must(fl_train_result_init(&result, sizeof result));
  result.samples = 5 + (uint64_t)who;
  result.loss = .5;
  if (who == 0 && w->paged) {
    for (int i = 0; i < w->epochs; i++)
      pw_train_paged(w, task);
    if (fl_client_submit(w->clients[0], &result) != FL_OK)
      pw_must(fl_client_submit(w->clients[0], &result));
    return;
  }
  for (int i = 0; i < w->epochs; i++)
    pw_train(task, who, 0, w->n, i == 0 ? task->weights : w->trained,
             w->trained);
  if (who == 0) w->trained[3 + 4096 + 70001] = task->weights[3 + 4096 + 70001];
  result.weights = w->trained;
  result.n = w->n;
  if (fl_client_submit(w->clients[who], &result) != FL_OK)
    pw_must(fl_client_submit(w->clients[who], &result));
}

/* The first weights tell. */
static inline void pw_score(pw_world *w, int who, const fl_train_task *task)
{
  float first[2];
  fl_score score;
  pw_must(fl_score_init(&score, sizeof score));
  if (task->weights)
    memcpy(first, task->weights, sizeof first);
  else if (fl_paged_read(task->paged, 0, 2, first) != FL_OK)
    pw_must(fl_paged_read(task->paged, 0, 2, first));
  score.loss = (double)first[1] * (double)first[1];
  score.count = 1;
  pw_must(fl_client_submit_score(w->clients[who], &score));
}

/* ---- time ---- */

static inline void pw_lose(pw_world *w, int who)
{
  pw_must(fl_server_disconnected(w->server, w->peers[who]));
  if (w->clients[who]) pw_must(fl_client_disconnected(w->clients[who]));
  w->peers[who] = ++w->next_peer;
}

/* What the client says, but for HELLO and such: they have tokens and nonces. */
static inline void pw_note(pw_world *w, const uint8_t *data, size_t n)
{
  if (n > 4096) fli_hasher_update(&w->said, data, n);
}

static inline void pw_exchange(pw_world *w, int who)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  if (fl_client_send(w->clients[who], &data, &n) != FL_OK) return;
  if (who == 0) pw_note(w, data, n);
  pw_must(fl_server_recv(w->server, w->peers[who], data, n));
  pw_must(fl_server_send(w->server, w->peers[who], &data, &n));
  if (who == 0) w->bytes_down += n;
  if (fl_client_recv(w->clients[who], data, n) != FL_OK) pw_lose(w, who);
}

static inline void pw_poll(pw_world *w, int who)
{
  fl_client_event event;
  pw_must(fl_client_event_init(&event, sizeof event));
  if (fl_client_poll(w->clients[who], w->now_ns, &event) != FL_OK) return;
  switch (event.kind) {
  case FL_CLIENT_NEED_TRAIN: pw_submit(w, who, &event.task); break;
  case FL_CLIENT_NEED_EVALUATE: pw_score(w, who, &event.task); break;
  case FL_CLIENT_ACCEPTED: w->accepted[who] = event.round; break;
  case FL_CLIENT_STALE:
    if (who == 0) {
      w->stale++;
      (void)snprintf(w->text, sizeof w->text, "%s", event.text);
    }
    break;
  case FL_CLIENT_DONE: w->is_done[who] = 1; break;
  case FL_CLIENT_ABORTED:
    w->is_done[who] = 1;
    if (who == 0) {
      w->aborted = event.reason;
      (void)snprintf(w->text, sizeof w->text, "%s", event.text);
    }
    break;
  default: break;
  }
}

static inline void pw_turn(pw_world *w)
{
  for (int who = 0; who < PW_CLIENTS; who++) {
    if (!w->clients[who] || w->is_away[who]) continue;
    pw_poll(w, who);
    pw_exchange(w, who);
  }
  pw_must(fl_server_tick(w->server, w->now_ns += 1000000));
}

/* After round 1 the first client of a long job is away for two rounds. */
static inline void pw_run(pw_world *w)
{
  int has_left = 0;
  for (int i = 0; i < 20000; i++) {
    if (w->is_done[0] && (w->is_done[1] || w->aborted)) return;
    if (!has_left && w->rounds > 3 && w->accepted[0] == 1) {
      has_left = 1;
      w->is_away[0] = 1;
      pw_lose(w, 0);
    }
    if (w->is_away[0] && w->accepted[1] >= 3) w->is_away[0] = 0;
    pw_turn(w);
  }
  fprintf(stderr, "world: no end\n");
  abort();
}

#endif

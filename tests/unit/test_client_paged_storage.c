/* SPDX-License-Identifier: Apache-2.0 */
/* What a paged model has in its storage: weights while they are trained, chains
 * that lead somewhere or nowhere, a state that comes back, and nothing in the
 * end. */
#include <criterion/criterion.h>

#include "client/paged.h"
#include "compress/compressor.h"
#include "paged_world.h"
#include "wire/messages.h"

enum { CHUNK = 8192, TURNS = 5000 };

static void turn_until_held(pw_world *w)
{
  for (int i = 0; i < TURNS && !w->clients[0]->canonical.is_valid; i++)
    pw_turn(w);
  cr_assert(w->clients[0]->canonical.is_valid);
}

static void turn_until_trained(pw_world *w)
{
  for (int i = 0; i < TURNS && !w->clients[0]->trained.is_valid; i++)
    pw_turn(w);
  cr_assert(w->clients[0]->trained.is_valid);
}

/* Turns of all, but the first client is polled as long as it has a plan. */
static void turn_until_planned(pw_world *w)
{
  fl_client_event event;
  pw_must(fl_client_event_init(&event, sizeof event));
  w->is_away[0] = 1;
  for (int i = 0; i < TURNS; i++) {
    pw_exchange(w, 0);
    if (w->clients[0]->phase == FLI_PHASE_TRAIN) return;
    pw_must(fl_client_poll(w->clients[0], w->now_ns, &event));
    pw_turn(w);
  }
  cr_assert(0, "no plan");
}

static fl_client_event take_task(pw_world *w)
{
  fl_client_event event;
  pw_must(fl_client_event_init(&event, sizeof event));
  turn_until_planned(w);
  for (int i = 0; i < 9 && event.kind != FL_CLIENT_NEED_TRAIN; i++)
    pw_must(fl_client_poll(w->clients[0], w->now_ns, &event));
  cr_assert_eq(event.kind, (uint32_t)FL_CLIENT_NEED_TRAIN);
  return event;
}

static size_t blobs_of(const pw_store *store, const char *begin)
{
  size_t n = 0;
  for (size_t i = 0; i < PW_BLOBS; i++)
    n += store->blobs[i].data &&
         strncmp(store->blobs[i].name, begin, strlen(begin)) == 0;
  return n;
}

/* ---- training ---- */

static void run_epochs(uint32_t codec, int is_paged, float **weights,
                       uint8_t said[FLI_HASH_BYTES])
{
  pw_world w;
  uint64_t version = 0;
  pw_store store = {.calls = 0};
  const pw_how how = {
      .codec = codec, .rounds = 2, .epochs = 3, .is_paged = is_paged};
  pw_open(&w, &how, &store);
  pw_must(pw_start(&w));
  pw_run(&w);
  *weights = malloc((size_t)w.n * sizeof **weights);
  pw_must(fl_client_copy_weights(w.clients[0], *weights, w.n, &version));
  cr_expect_eq(version, 2u);
  fli_hasher_final(&w.said, said);
  pw_close_all(&w);
}

Test(client_paged_storage, training_of_many_epochs_is_that_in_memory)
{
  static const uint32_t codecs[] = {FL_CODEC_F32, FL_CODEC_THC};
  for (size_t i = 0; i < 2; i++) {
    float *got, *want;
    uint64_t n = 0;
    uint8_t said[2][FLI_HASH_BYTES];
    for (size_t t = 0; t < PW_TENSORS; t++)
      n += pw_shapes[t];
    run_epochs(codecs[i], 0, &want, said[0]);
    run_epochs(codecs[i], 1, &got, said[1]);
    cr_expect_arr_eq(got, want, (size_t)n * sizeof *got);
    cr_expect_arr_eq(said[0], said[1], sizeof said[0]);
    free(got);
    free(want);
  }
}

Test(client_paged_storage, what_was_written_is_read_until_it_is_submitted)
{
  pw_world w;
  pw_store store = {.calls = 0};
  fl_train_result result;
  /* Over the end of the first page, and small next to what was there. */
  const uint64_t first = FLI_PAGE_BYTES / sizeof(float) - 2;
  const float want[4] = {1e-30f, 0x1.000002p0f, -3e9f, 0.1f};
  float before[6], got[6];
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
  const fl_client_event event = take_task(&w);
  pw_must(fl_paged_read(w.paged, first - 1, 6, before));
  pw_must(fl_paged_write(event.task.paged, first, 4, want));
  pw_must(fl_paged_read(w.paged, first - 1, 6, got));
  cr_expect_arr_eq(got + 1, want, sizeof want);
  cr_expect_eq(got[0], before[0]);
  cr_expect_eq(got[5], before[5]);
  /* What is refused is not taken, not even in part. */
  float bad[2] = {7.0f, want[0] / 0.0f};
  cr_expect_eq(fl_paged_write(w.paged, first, 2, bad), FL_E_NOT_FINITE);
  pw_must(fl_paged_read(w.paged, first, 1, got));
  cr_expect_eq(got[0], want[0]);
  pw_must(fl_train_result_init(&result, sizeof result));
  /* A submit that fails is called again; until then nothing is written. */
  store.fail_at = store.calls + 1;
  cr_expect_eq(fl_client_submit(w.clients[0], &result), FL_E_IO);
  cr_expect_eq(fl_paged_write(w.paged, first, 4, want), FL_E_STATE);
  pw_must(fl_client_submit(w.clients[0], &result));
  pw_must(fl_paged_read(w.paged, first - 1, 6, got));
  cr_expect_arr_eq(got, before, sizeof got);
  pw_close_all(&w);
}

Test(client_paged_storage, a_submit_that_fails_anywhere_is_done_by_the_next)
{
  uint8_t want[FLI_HASH_BYTES] = {0};
  for (uint64_t at = 0;; at++) {
    pw_world w;
    pw_store store = {.calls = 0};
    fl_train_result result;
    float x[3] = {5.0f, 6.0f, 7.0f};
    pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
    (void)take_task(&w);
    pw_must(fl_train_result_init(&result, sizeof result));
    pw_must(fl_paged_write(w.paged, 9, 3, x));
    pw_must(fl_paged_write(w.paged, w.n - 3, 3, x));
    if (at > 0) store.fail_at = store.calls + at;
    const fl_status st = fl_client_submit(w.clients[0], &result);
    if (st != FL_OK) pw_must(fl_client_submit(w.clients[0], &result));
    if (at == 0) memcpy(want, w.paged->update_hash, sizeof want);
    cr_expect_arr_eq(w.paged->update_hash, want, sizeof want);
    pw_close_all(&w);
    if (at == 0) continue;
    if (st == FL_OK) {
      cr_expect_gt(at, 8u);
      return;
    }
    cr_expect_eq(st, FL_E_IO);
  }
}

Test(client_paged_storage, nothing_is_written_before_training_is_asked_for)
{
  pw_world w;
  pw_store store = {.calls = 0};
  const float x[2] = {1, 2};
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
  turn_until_planned(&w);
  cr_expect_eq(fl_paged_write(w.paged, 0, 2, x), FL_E_STATE);
  pw_close_all(&w);
}

typedef struct calls {
  fl_paged *paged;
  int trained, scored;
} calls;

static fl_status train_there(const fl_train_task *task, fl_train_result *result,
                             void *user)
{
  calls *c = user;
  float x[2] = {0};
  cr_expect_null(task->weights);
  cr_expect_eq(task->paged, c->paged);
  for (int step = 0; step < 3; step++) {
    pw_must(fl_paged_read(task->paged, 7, 2, x));
    x[0] += 1.0f;
    pw_must(fl_paged_write(task->paged, 7, 2, x));
  }
  c->trained++;
  result->samples = 1;
  return FL_OK;
}

static fl_status score_there(const float *weights, uint64_t n, fl_score *score,
                             void *user)
{
  calls *c = user;
  float x[2] = {0};
  cr_expect_null(weights);
  cr_expect_eq(score->paged, c->paged);
  pw_must(fl_paged_read(score->paged, 7, 2, x));
  cr_expect_eq(fl_paged_write(score->paged, 7, 2, x), FL_E_STATE);
  c->scored++;
  score->loss = (double)x[0];
  score->count = n > 0;
  return FL_OK;
}

Test(client_paged_storage, callbacks_read_where_the_model_is)
{
  pw_world w;
  pw_store store = {.calls = 0};
  float x = 0.0f;
  calls c = {.trained = 0};
  const pw_how how = {
      .codec = FL_CODEC_F32, .rounds = 2, .is_paged = 1, .evaluate_every = 1};
  pw_open(&w, &how, &store);
  c.paged = w.paged;
  w.options[0].train = train_there;
  w.options[0].evaluate = score_there;
  w.options[0].user = &c;
  pw_must(pw_start(&w));
  pw_run(&w);
  cr_expect_eq(w.aborted, 0u, "%s", w.text);
  cr_expect_eq(c.trained, 2);
  cr_expect_eq(c.scored, 2);
  pw_must(fl_paged_read(w.paged, 7, 1, &x));
  cr_expect_gt(x, 0.5f);
  pw_close_all(&w);
}

Test(client_paged_storage, a_value_that_is_not_finite_is_named)
{
  pw_world w;
  pw_store store = {.calls = 0};
  fl_scale scale;
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
  turn_until_trained(&w);
  fl_client *client = w.clients[0];
  float *norms = calloc((size_t)client->n_norms, sizeof *norms);
  pw_must(fl_scale_init(&scale, sizeof scale));
  pw_must(client->paging->measure(client, &scale, norms));
  w.paged->has_window = 0;
  const size_t i = pw_find(&store, "model-u-0");
  cr_assert_lt(i, (size_t)PW_BLOBS);
  memset(store.blobs[i].data + 4 * 1024, 0xff, 4);
  cr_expect_eq(client->paging->measure(client, &scale, norms), FL_E_NOT_FINITE);
  cr_expect_not_null(strstr(fl_last_error(), "coordinate 1024: got "), "%s",
                     fl_last_error());
  cr_expect_not_null(strstr(fl_last_error(), "nan"), "%s", fl_last_error());
  free(norms);
  pw_close_all(&w);
}

/* ---- names, and the end ---- */

Test(client_paged_storage, names_are_what_a_storage_takes)
{
  static const char *const bad[] = {"Model", "a b", "a/b", "a\n",
                                    "caf\xc3\xa9"};
  pw_world w;
  pw_store store = {.calls = 0};
  fl_paged *paged = NULL;
  fl_paged_options options;
  pw_must(fl_paged_options_init(&options, sizeof options));
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    options.name = bad[i];
    cr_expect_eq(fl_paged_new(&paged, w.contexts[0], &options), FL_E_OPTIONS,
                 "%s", bad[i]);
  }
  options.name = "az09._-";
  pw_must(fl_paged_new(&paged, w.contexts[0], &options));
  fl_paged_free(paged);
  pw_close_all(&w);
}

/* A chain that never becomes whole. */
static void stage_chain(fl_client *client, uint64_t total)
{
  static const uint8_t junk[CHUNK];
  fli_bytes out;
  const uint64_t version = client->canonical.version;
  const fli_manifest manifest = {.kind = FLI_TRANSFER_STEPS,
                                 .transfer = 77,
                                 .total = total,
                                 .chunk_size = CHUNK,
                                 .model_version = version + 1,
                                 .base_version = version};
  fli_bytes_init(&out, NULL);
  pw_must(fli_write_manifest(&out, &manifest));
  for (uint64_t at = 0; at + CHUNK <= total; at += CHUNK) {
    const fli_chunk chunk = {
        .transfer = 77, .offset = at, .data = junk, .size = CHUNK};
    pw_must(fli_write_chunk(&out, &chunk));
  }
  pw_must(fl_client_recv(client, out.data, out.size));
  fli_bytes_free(&out);
}

Test(client_paged_storage, a_chain_that_was_left_goes_with_its_client)
{
  pw_world w;
  pw_store store = {.calls = 0};
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
  turn_until_held(&w);
  stage_chain(w.clients[0], 4 * w.n + 60000);
  cr_expect_geq(blobs_of(&store, "model-s"), 3u);
  fl_client_free(w.clients[0]);
  w.clients[0] = NULL;
  cr_expect_eq(blobs_of(&store, "model-s"), 0u);
  cr_expect_gt(blobs_of(&store, "model-"), 0u);
  pw_close_all(&w);
}

Test(client_paged_storage, a_full_copy_replaces_a_chain_that_was_left)
{
  pw_world w;
  pw_store store = {.calls = 0};
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
  turn_until_held(&w);
  stage_chain(w.clients[0], 4 * w.n + 60000);
  pw_lose(&w, 0);
  w.clients[0]->canonical.is_valid = 0;
  turn_until_held(&w);
  cr_expect_eq(blobs_of(&store, "model-s"), 0u);
  pw_close_all(&w);
}

/* By a handle that has never had a client: after a kill with all kinds of
 * blobs, and with every call of the storage failing once. */
Test(client_paged_storage, nothing_stays_whoever_removes_it)
{
  for (uint64_t at = 0;; at++) {
    pw_world w;
    char name[32];
    uint8_t byte = 1;
    pw_store store = {.calls = 0};
    const pw_how how = {.codec = FL_CODEC_F32, .is_paged = 1, .rounds = 1};
    pw_open(&w, &how, &store);
    for (int page = 0; page < 6; page++) {
      for (const char *r = page < 5 ? "abu" : ""; *r; r++) {
        if (*r == 'u' && page == 2) continue; /* not trained */
        (void)snprintf(name, sizeof name, "model-%c-%x", *r, page);
        pw_must(pw_write(&store, name, &byte, 1));
      }
      (void)snprintf(name, sizeof name, "model-s-%x", page);
      if (page != 1) pw_must(pw_write(&store, name, &byte, 1));
    }
    pw_must(pw_write(&store, "other", &byte, 1));
    if (at > 0) store.fail_at = store.calls + at;
    const fl_status st = fl_paged_remove(w.paged);
    if (at == 0) cr_expect_eq(st, FL_OK);
    if (st != FL_OK) {
      cr_expect_eq(st, FL_E_IO);
      pw_must(fl_paged_remove(w.paged));
    }
    cr_expect_eq(blobs_of(&store, "model-"), 0u, "call %d", (int)at);
    cr_expect_eq(blobs_of(&store, "other"), 1u);
    pw_close_all(&w);
    if (at > 0 && st == FL_OK) return;
  }
}

/* ---- chains ---- */

/* `n` records that change nothing, as a chain to `versions` behind the model's:
 * what the client says. */
static fl_status send_chain(pw_world *w, uint64_t n, uint64_t versions)
{
  fl_client *client = w->clients[0];
  const uint64_t base = client->canonical.version;
  fl_scale scale;
  fl_encode_options encode;
  fli_bytes steps, out;
  float norms[PW_TENSORS] = {0}, *zeros = calloc((size_t)w->n, sizeof *zeros);
  uint8_t payload[1024];
  size_t size = 0;
  pw_must(fl_scale_init(&scale, sizeof scale));
  pw_must(fl_encode_options_init(&encode, sizeof encode));
  scale.norms = norms;
  scale.n_norms = client->n_norms;
  pw_must(fl_compressor_encode(client->compressor, &scale, &encode, zeros, w->n,
                               payload, sizeof payload, &size, NULL));
  fli_bytes_init(&steps, NULL);
  fli_bytes_init(&out, NULL);
  for (uint64_t i = 0; i < n; i++)
    pw_must(fli_step_write(&steps, base + i, 1.0f, &scale, payload, size));
  fli_manifest manifest = {.kind = FLI_TRANSFER_STEPS,
                           .transfer = 77,
                           .total = steps.size,
                           .chunk_size = CHUNK,
                           .model_version = base + versions,
                           .base_version = base};
  fli_hash(manifest.hash, steps.data, steps.size);
  pw_must(fli_write_manifest(&out, &manifest));
  for (uint64_t at = 0; at < steps.size; at += CHUNK) {
    const uint64_t left = steps.size - at;
    const fli_chunk chunk = {.transfer = 77,
                             .offset = at,
                             .data = steps.data + at,
                             .size = (size_t)(left < CHUNK ? left : CHUNK)};
    pw_must(fli_write_chunk(&out, &chunk));
  }
  w->store->written = 0;
  const fl_status st = fl_client_recv(client, out.data, out.size);
  fli_bytes_free(&steps);
  fli_bytes_free(&out);
  free(zeros);
  return st;
}

Test(client_paged_storage, records_that_change_nothing_write_the_model_once)
{
  static const struct {
    uint64_t n, versions;
    fl_status status;
  } cases[] = {{1, 1, FL_OK},
               {64, 64, FL_OK},
               {65, 65, FL_E_FORMAT},
               {3, 2, FL_E_FORMAT},
               {200, 1, FL_E_FORMAT}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    pw_world w;
    pw_store store = {.calls = 0};
    pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
    turn_until_held(&w);
    const uint64_t base = w.clients[0]->canonical.version;
    cr_expect_eq(send_chain(&w, cases[i].n, cases[i].versions), cases[i].status,
                 "chain %zu", i);
    /* The chain itself, and a model. */
    cr_expect_leq(store.written, 4 * w.n + 3 * FLI_PAGE_BYTES, "chain %zu", i);
    if (cases[i].status == FL_OK)
      cr_expect_eq(w.clients[0]->canonical.version, base + cases[i].n);
    else /* a full copy mends it */
      cr_expect_not(w.clients[0]->canonical.is_valid);
    cr_expect_eq(blobs_of(&store, "model-s"), 0u);
    pw_close_all(&w);
  }
}

/* ---- saved states ---- */

static fl_buffer *save(pw_world *w)
{
  fl_writer writer;
  fl_buffer *state = NULL;
  pw_must(fl_buffer_new(&state, NULL));
  pw_must(fl_buffer_as_writer(state, &writer));
  pw_must(fl_client_save(w->clients[0], &writer));
  fl_client_free(w->clients[0]);
  w->clients[0] = NULL;
  return state;
}

static fl_status come_back(pw_world *w, fl_buffer *state)
{
  fl_reader reader;
  pw_must(fl_buffer_as_reader(state, &reader));
  return fl_client_restore(&w->clients[0], w->contexts[0], &w->options[0],
                           &reader);
}

Test(client_paged_storage, a_storage_that_fails_is_not_one_that_lacks_a_model)
{
  for (uint64_t at = 1;; at++) {
    pw_world w;
    pw_store store = {.calls = 0};
    pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
    turn_until_trained(&w);
    fl_buffer *state = save(&w);
    store.fail_at = store.calls + at;
    const fl_status st = come_back(&w, state);
    if (st != FL_OK) {
      cr_expect_eq(st, FL_E_IO);
      cr_expect_null(w.clients[0]);
      pw_must(come_back(&w, state));
    }
    cr_expect(w.clients[0]->canonical.is_valid, "call %d", (int)at);
    cr_expect(w.clients[0]->trained.is_valid, "call %d", (int)at);
    fl_buffer_free(state);
    pw_close_all(&w);
    if (st == FL_OK) {
      cr_expect_gt(at, 12u); /* two times four pages, looked at and read */
      return;
    }
  }
}

/* Blobs that are missing or short are of a model that is not there. */
Test(client_paged_storage, a_blob_that_is_missing_or_short_is_fetched_again)
{
  for (int i = 0; i < 4; i++) {
    pw_world w;
    pw_store store = {.calls = 0};
    const char *name = i % 2 ? "model-u-1" : "model-b-1";
    pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
    turn_until_trained(&w);
    fl_buffer *state = save(&w);
    const size_t k = pw_find(&store, name);
    cr_assert_lt(k, (size_t)PW_BLOBS);
    if (i < 2)
      store.blobs[k].n /= 2;
    else
      pw_must(pw_remove(&store, name));
    pw_must(come_back(&w, state));
    cr_expect_eq(w.clients[0]->canonical.is_valid, i % 2);
    cr_expect_not(w.clients[0]->trained.is_valid);
    fl_buffer_free(state);
    pw_must(fl_server_disconnected(w.server, w.peers[0]));
    w.peers[0] = ++w.next_peer;
    pw_run(&w);
    cr_expect_eq(w.aborted, 0u, "%s", w.text);
    pw_close_all(&w);
  }
}

/* ---- every failure ---- */

static float *run_short(pw_store *store, uint64_t *version)
{
  pw_world w;
  const pw_how how = {.codec = FL_CODEC_F32, .rounds = 1, .is_paged = 1};
  pw_open(&w, &how, store);
  if (pw_start(&w) != FL_OK) pw_must(pw_start(&w));
  pw_run(&w);
  cr_assert_eq(w.aborted, 0u, "%s", w.text);
  store->fail_at = 0;
  store->fail_allocation = 0;
  float *weights = malloc((size_t)w.n * sizeof *weights);
  pw_must(fl_client_copy_weights(w.clients[0], weights, w.n, version));
  pw_close(&w);
  return weights;
}

static void fail_each(int is_storage)
{
  pw_store store = {.calls = 0};
  uint64_t version = 0, n = 0;
  for (size_t t = 0; t < PW_TENSORS; t++)
    n += pw_shapes[t];
  float *want = run_short(&store, &version);
  cr_assert_eq(version, 1u);
  const uint64_t all = is_storage ? store.calls : store.allocations;
  cr_expect_gt(all, 20u);
  pw_clear(&store);
  /* The first allocations are the world's own. */
  for (uint64_t at = is_storage ? 1 : 4; at <= all; at++) {
    if (is_storage)
      store.fail_at = at;
    else
      store.fail_allocation = at;
    float *got = run_short(&store, &version);
    cr_expect_eq(version, 1u, "call %d", (int)at);
    cr_expect_arr_eq(got, want, (size_t)n * sizeof *got, "call %d", (int)at);
    free(got);
    pw_clear(&store);
  }
  free(want);
}

Test(client_paged_storage, each_call_of_the_storage_may_fail_once)
{
  fail_each(1);
}

Test(client_paged_storage, each_allocation_may_fail_once)
{
  fail_each(0);
}

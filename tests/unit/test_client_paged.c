/* SPDX-License-Identifier: Apache-2.0 */
/* A client whose model lies in a storage, against one that has it in memory:
 * the same bytes go up, the same models come out, whatever fails on the way. */
#include <criterion/criterion.h>

#include "base/compiler.h"
#include "client/client.h"
#include "paged_world.h"

static const struct {
  uint32_t codec, mode, is_public, evaluate_every;
  int has_modules;
} hows[] = {{FL_CODEC_F32, 0, 0, 2, 0},
            {FL_CODEC_BF16, 0, 0, 0, 1},
            {FL_CODEC_THC, FL_THC_DITHER, 0, 2, 0},
            {FL_CODEC_THC, FL_THC_UNIFORM, 0, 0, 1},
            {FL_CODEC_THC, FL_THC_TABLE, 0, 0, 0},
            {FL_CODEC_THC, FL_THC_DITHER, 1, 0, 1}};

static pw_how how_of(size_t i, int is_paged)
{
  return (pw_how){.codec = hows[i].codec,
                  .mode = hows[i].mode,
                  .rounds = 5,
                  .is_paged = is_paged,
                  .is_public = hows[i].is_public,
                  .has_modules = hows[i].has_modules,
                  .evaluate_every = hows[i].evaluate_every};
}

typedef struct outcome {
  float *weights;
  uint64_t n, version;
  uint8_t said[FLI_HASH_BYTES];
} outcome;

static outcome outcome_of(pw_world *w)
{
  w->store->fail_at = 0;
  outcome out = {.n = w->n, .weights = malloc((size_t)w->n * sizeof(float))};
  pw_must(
      fl_client_copy_weights(w->clients[0], out.weights, w->n, &out.version));
  fli_hasher_final(&w->said, out.said);
  return out;
}

static void expect_same_model(const outcome *got, const outcome *want)
{
  cr_assert_eq(got->n, want->n);
  cr_expect_eq(got->version, want->version);
  cr_expect_arr_eq(got->weights, want->weights,
                   (size_t)got->n * sizeof *got->weights);
}

static outcome run(const pw_how *how, pw_store *store)
{
  pw_world w;
  pw_open(&w, how, store);
  if (pw_start(&w) != FL_OK) pw_must(pw_start(&w));
  pw_run(&w);
  cr_assert_eq(w.aborted, 0u, "%s", w.text);
  cr_assert_eq(w.accepted[0], (uint64_t)how->rounds);
  const outcome out = outcome_of(&w);
  pw_close(&w);
  return out;
}

Test(client_paged, says_and_holds_what_a_client_in_memory_does)
{
  for (size_t i = 0; i < FLI_COUNT_OF(hows); i++) {
    pw_store store = {.calls = 0};
    const pw_how plain = how_of(i, 0), paged = how_of(i, 1);
    const outcome want = run(&plain, &store);
    cr_expect_eq(store.calls, 0u);
    const outcome got = run(&paged, &store);
    cr_expect_gt(store.calls, 0u);
    expect_same_model(&got, &want);
    cr_expect_arr_eq(got.said, want.said, sizeof got.said, "codec %zu", i);
    free(want.weights);
    free(got.weights);
    pw_clear(&store);
  }
}

/* Every call of the storage fails once, or some of many. */
Test(client_paged, a_storage_that_fails_once_changes_nothing)
{
  const size_t of[] = {1, 2};
  for (size_t k = 0; k < FLI_COUNT_OF(of); k++) {
    pw_store store = {.calls = 0};
    pw_how how = how_of(of[k], 1);
    const outcome want = run(&how, &store);
    const uint64_t calls = store.calls;
    pw_clear(&store);
    for (uint64_t at = 1; at <= calls; at += 1 + calls / 24) {
      store.fail_at = at;
      const outcome got = run(&how, &store);
      expect_same_model(&got, &want);
      free(got.weights);
      pw_clear(&store);
    }
    free(want.weights);
  }
}

static void reopen(pw_world *w, fl_buffer *state, uint64_t budget)
{
  fl_reader reader;
  fl_client_free(w->clients[0]);
  w->clients[0] = NULL;
  fl_paged_free(w->paged);
  pw_paged(w, budget);
  pw_must(fl_buffer_as_reader(state, &reader));
  pw_must(fl_client_restore(&w->clients[0], w->contexts[0], &w->options[0],
                            &reader));
  pw_must(fl_server_disconnected(w->server, w->peers[0]));
  w->peers[0] = ++w->next_peer;
}

static void damage(pw_store *store, size_t which)
{
  size_t seen = 0;
  for (size_t i = 0; i < PW_BLOBS; i++)
    if (store->blobs[i].data && seen++ == which) store->blobs[i].data[9] ^= 1;
}

/* Killed after turn `at`, with a state that was saved then; `torn`: a blob has
 * changed since, or none. */
static outcome run_killed(const pw_how *how, pw_store *store, int at, int torn)
{
  pw_world w;
  fl_writer writer;
  fl_buffer *state = NULL;
  pw_open(&w, how, store);
  pw_must(pw_start(&w));
  for (int i = 0; i < at; i++)
    pw_turn(&w);
  if (!w.is_done[0]) {
    pw_must(fl_buffer_new(&state, NULL));
    pw_must(fl_buffer_as_writer(state, &writer));
    pw_must(fl_client_save(w.clients[0], &writer));
    if (torn >= 0) damage(store, (size_t)torn);
    reopen(&w, state, 0);
    fl_buffer_free(state);
  }
  pw_run(&w);
  cr_assert_eq(w.aborted, 0u, "%s", w.text);
  const outcome out = outcome_of(&w);
  pw_close(&w);
  return out;
}

Test(client_paged, goes_on_after_a_kill_at_any_time)
{
  pw_store store = {.calls = 0};
  pw_how how = how_of(2, 1);
  how.rounds = 2;
  const outcome want = run(&how, &store);
  pw_clear(&store);
  for (int at = 0; at < 120; at += 9) {
    const outcome got = run_killed(&how, &store, at, -1);
    expect_same_model(&got, &want);
    free(got.weights);
    pw_clear(&store);
  }
  free(want.weights);
}

Test(client_paged, what_a_torn_storage_lacks_is_fetched_again)
{
  pw_store store = {.calls = 0};
  pw_how how = how_of(2, 1);
  how.rounds = 2;
  const outcome want = run(&how, &store);
  pw_clear(&store);
  for (int at = 10; at < 100; at += 30)
    for (int torn = 0; torn < 6; torn++) {
      const outcome got = run_killed(&how, &store, at, torn);
      expect_same_model(&got, &want);
      free(got.weights);
      pw_clear(&store);
    }
  free(want.weights);
}

/* ---- what is refused ---- */

Test(client_paged, error_feedback_is_refused_by_name)
{
  pw_world w;
  pw_store store = {.calls = 0};
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_THC, .feedback = 1}, &store);
  for (int i = 0; i < 5; i++)
    pw_turn(&w);
  cr_expect_eq(w.aborted, (uint32_t)FL_REJECT_VERSION);
  cr_expect_not_null(strstr(w.text, "error feedback"), "%s", w.text);
  pw_close_all(&w);
}

Test(client_paged, a_budget_that_is_too_small_is_refused_with_figures)
{
  pw_world w;
  pw_store store = {.calls = 0};
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32, .budget = 1 << 20}, &store);
  for (int i = 0; i < 5; i++)
    pw_turn(&w);
  cr_expect_eq(w.aborted, (uint32_t)FL_REJECT_TOO_LARGE);
  cr_expect_not_null(strstr(w.text, "got 1048576 bytes, want "), "%s", w.text);
  pw_close_all(&w);
}

/* A model of a server that does not mind what it costs: none of it is held. */
Test(client_paged, a_budget_is_looked_at_before_memory_is)
{
  pw_world w;
  uint64_t before = 0, peak = 0;
  pw_store store = {.calls = 0};
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_THC, .budget = 1 << 20}, &store);
  pw_must(fl_context_get_memory(w.contexts[0], &before, NULL));
  for (int i = 0; i < 5; i++)
    pw_turn(&w);
  cr_expect_eq(w.aborted, (uint32_t)FL_REJECT_TOO_LARGE, "%s", w.text);
  cr_expect_null(w.clients[0]->compressor);
  pw_must(fl_context_get_memory(w.contexts[0], NULL, &peak));
  cr_expect_lt(peak - before, 16u << 10); /* signs alone: 27 KiB */
  pw_close_all(&w);
}

Test(client_paged, a_client_keeps_to_its_budget)
{
  const uint64_t budget = 5 << 19;
  for (size_t i = 0; i < FLI_COUNT_OF(hows); i++) {
    pw_world w;
    uint64_t peak = 0;
    pw_store store = {.calls = 0};
    pw_how how = how_of(i, 1);
    how.budget = budget;
    pw_open(&w, &how, &store);
    pw_must(pw_start(&w));
    pw_run(&w);
    cr_expect_eq(w.aborted, 0u, "%s", w.text);
    pw_must(fl_context_get_memory(w.contexts[0], NULL, &peak));
    cr_expect_leq(peak, budget, "codec %zu", i);
    pw_close_all(&w);
  }
}

Test(client_paged, options_say_what_is_wrong)
{
  pw_world w;
  pw_store store = {.calls = 0};
  fl_paged *paged = NULL;
  fl_paged_options options;
  char name[FL_PAGED_NAME_BYTES + 2];
  pw_must(fl_paged_options_init(&options, sizeof options));
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
  cr_expect_eq(fl_paged_new(&paged, w.contexts[0], &options), FL_E_OPTIONS);
  memset(name, 'a', sizeof name);
  name[sizeof name - 1] = 0;
  options.name = name;
  cr_expect_eq(fl_paged_new(&paged, w.contexts[0], &options), FL_E_OPTIONS);
  options.name = "Model";
  cr_expect_eq(fl_paged_new(&paged, w.contexts[0], &options), FL_E_OPTIONS);
  cr_expect_not_null(strstr(fl_last_error(), "Model"));
  options.name = "a";
  cr_expect_eq(fl_paged_new(&paged, NULL, &options), FL_E_OPTIONS);
  cr_expect_not_null(strstr(fl_last_error(), "no storage"));
  cr_expect_eq(fl_paged_new(NULL, w.contexts[0], &options), FL_E_ARGUMENT);
  cr_expect_null(paged);
  /* One client at a time. */
  fl_client *other = NULL;
  cr_expect_eq(fl_client_new(&other, w.contexts[0], &w.options[0]), FL_E_STATE);
  cr_expect_null(other);
  cr_expect_eq(fl_paged_remove(w.paged), FL_E_STATE);
  pw_close_all(&w);
}

Test(client_paged, weights_are_read_and_written_where_they_are)
{
  pw_world w;
  pw_store store = {.calls = 0};
  fl_client_event event;
  fl_train_result result;
  float x[4] = {1, 2, 3, 4};
  pw_must(fl_train_result_init(&result, sizeof result));
  pw_must(fl_client_event_init(&event, sizeof event));
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
  cr_expect_eq(fl_paged_weight_count(w.paged), 0u);
  cr_expect_eq(fl_paged_read(w.paged, 0, 1, x), FL_E_EMPTY);
  cr_expect_eq(fl_paged_write(w.paged, 0, 1, x), FL_E_EMPTY);
  w.is_away[0] = 1;
  for (int i = 0; i < 400 && event.kind != FL_CLIENT_NEED_TRAIN; i++) {
    pw_must(fl_client_poll(w.clients[0], w.now_ns, &event));
    pw_exchange(&w, 0);
    pw_turn(&w);
  }
  cr_assert_eq(event.kind, (uint32_t)FL_CLIENT_NEED_TRAIN);
  cr_expect_null(event.task.weights);
  cr_assert_eq(event.task.paged, w.paged);
  cr_assert_eq(fl_paged_weight_count(w.paged), w.n);
  pw_must(fl_paged_read(w.paged, w.n - 4, 4, x));
  cr_expect_eq(fl_paged_read(w.paged, w.n - 3, 4, x), FL_E_RANGE);
  cr_expect_eq(fl_paged_read(w.paged, UINT64_MAX, 2, x), FL_E_RANGE);
  cr_expect_eq(fl_paged_read(w.paged, 0, 1, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_paged_write(w.paged, w.n, 1, x), FL_E_RANGE);
  pw_must(fl_paged_write(w.paged, w.n, 0, x));
  x[2] = x[0] / 0.0f;
  cr_expect_eq(fl_paged_write(w.paged, 70, 4, x), FL_E_NOT_FINITE);
  cr_expect_not_null(strstr(fl_last_error(), "72"), "%s", fl_last_error());
  result.weights = x;
  result.n = w.n;
  cr_expect_eq(fl_client_submit(w.clients[0], &result), FL_E_ARGUMENT);
  result.weights = NULL;
  pw_must(fl_client_submit(w.clients[0], &result));
  cr_expect_eq(fl_paged_write(w.paged, 0, 1, x), FL_E_STATE);
  pw_close_all(&w);
}

Test(client_paged, a_state_of_a_paged_model_needs_one)
{
  pw_world w;
  fl_buffer *state = NULL;
  fl_writer writer;
  fl_reader reader;
  fl_client *client = NULL;
  pw_store store = {.calls = 0};
  pw_open_paged(&w, (pw_how){.codec = FL_CODEC_F32}, &store);
  pw_run(&w);
  pw_must(fl_buffer_new(&state, NULL));
  pw_must(fl_buffer_as_writer(state, &writer));
  pw_must(fl_client_save(w.clients[0], &writer));
  pw_must(fl_buffer_as_reader(state, &reader));
  w.options[0].paged = NULL;
  cr_expect_eq(
      fl_client_restore(&client, w.contexts[0], &w.options[0], &reader),
      FL_E_CONFLICT);
  fl_buffer_free(state);
  /* Nothing stays when all is over. */
  fl_client_free(w.clients[0]);
  w.clients[0] = NULL;
  pw_must(fl_paged_remove(w.paged));
  for (size_t i = 0; i < PW_BLOBS; i++)
    cr_expect_null(store.blobs[i].data);
  pw_close_all(&w);
}

/* Every allocation of the client fails once, or some of many. */
Test(client_paged, memory_that_fails_once_changes_nothing)
{
  pw_store store = {.calls = 0};
  pw_how how = how_of(2, 1);
  how.rounds = 2;
  const outcome want = run(&how, &store);
  const uint64_t all = store.allocations;
  pw_clear(&store);
  for (uint64_t at = all / 20; at < all; at += 1 + all / 20) {
    store.fail_allocation = at;
    const outcome got = run(&how, &store);
    expect_same_model(&got, &want);
    free(got.weights);
    pw_clear(&store);
  }
  free(want.weights);
}

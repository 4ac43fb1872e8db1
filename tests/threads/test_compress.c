/* SPDX-License-Identifier: Apache-2.0 */
/* Compression on the host's threads: the same bytes for any number of threads
 * and for a hook that fails or does only half of its work, and one compressor
 * in the hands of many threads at once. */
#include <pthread.h>

#include <fl/feedback.h>

#include "check.h"
#include "compress_fixture.h"

enum { DIM = 100 * 4096 + 77, MAX_THREADS = 5 };

typedef struct hook {
  uint32_t threads;
  int is_lazy; /* runs every other item, then fails */
} hook;

typedef struct share {
  const hook *hook;
  uint32_t first;
  uint64_t count;
  fl_task_fn task;
  void *arg;
} share;

static void *run_share(void *arg)
{
  const share *s = arg;
  for (uint64_t i = s->first; i < s->count; i += s->hook->threads) {
    s->task(s->arg, i);
  }
  return NULL;
}

static fl_status parallel_for(void *user, uint64_t count, fl_task_fn task,
                              void *arg)
{
  const hook *h = user;
  pthread_t threads[MAX_THREADS];
  share shares[MAX_THREADS];
  if (h->is_lazy) {
    for (uint64_t i = 0; i < count; i += 2)
      task(arg, i);
    return FL_E_CALLBACK;
  }
  for (uint32_t t = 0; t < h->threads; t++) {
    shares[t] = (share){h, t, count, task, arg};
    CHECK(pthread_create(&threads[t], NULL, run_share, &shares[t]) == 0);
  }
  for (uint32_t t = 0; t < h->threads; t++)
    pthread_join(threads[t], NULL);
  return FL_OK;
}

static fl_context *make_context(hook *h)
{
  fl_context_options options;
  fl_context *context = NULL;
  cf_must(fl_context_options_init(&options, sizeof options));
  options.parallel_for = parallel_for;
  options.user = h;
  options.log_level = FL_LOG_ERROR;
  cf_must(fl_context_new(&context, &options));
  return context;
}

/* One round of two updates; what it gave, one behind the other. */
static cf_bytes play(fl_context *context, uint32_t codec)
{
  fl_compressor_options options;
  cf_round r;
  uint64_t n = DIM;
  cf_options(&options, codec, FL_THC_DITHER, 4);
  cf_open(&r, context, &options, &n, 1, 2);
  float *x = cf_normal(DIM, 4);
  cf_agree(&r, x, 1);
  fl_partial *partial = cf_partial(&r);
  cf_bytes a = cf_encode(&r, 0, x), b = cf_encode(&r, 1, x);
  cf_must(fl_partial_add(partial, a.data, a.size));
  cf_must(fl_partial_add(partial, b.data, b.size));
  cf_bytes sum = cf_sum(partial);
  cf_bytes all = {NULL, a.size + sum.size + DIM * sizeof(float)};
  all.data = cf_get(all.size);
  memcpy(all.data, a.data, a.size);
  memcpy(all.data + a.size, sum.data, sum.size);
  cf_must(fl_partial_decode(partial, x, DIM));
  memcpy(all.data + a.size + sum.size, x, DIM * sizeof(float));
  fl_partial_free(partial);
  free(a.data);
  free(b.data);
  free(sum.data);
  free(x);
  cf_close(&r);
  return all;
}

enum { BATCH = 20 };

/* The sum of a batch, weighted where the codec takes weights. */
static cf_bytes play_batch(fl_context *context, uint32_t codec)
{
  fl_compressor_options options;
  cf_round r;
  uint64_t n = DIM;
  cf_bytes updates[BATCH];
  const uint8_t *data[BATCH];
  size_t size[BATCH];
  uint32_t weights[BATCH];
  cf_options(&options, codec, FL_THC_UNIFORM, 4);
  cf_open(&r, context, &options, &n, 1, BATCH);
  float *x = cf_normal(DIM, 4);
  cf_agree(&r, x, 1);
  for (uint32_t i = 0; i < BATCH; i++) {
    updates[i] = cf_encode(&r, i, x);
    data[i] = updates[i].data;
    size[i] = updates[i].size;
    weights[i] = 1 + 3 * i;
  }
  fl_partial *partial = cf_partial(&r);
  cf_must(fl_partial_add_batch(partial, data, size,
                               codec == FL_CODEC_THC ? weights : NULL, BATCH,
                               NULL));
  cf_bytes sum = cf_sum(partial);
  for (uint32_t i = 0; i < BATCH; i++)
    free(updates[i].data);
  free(x);
  fl_partial_free(partial);
  cf_close(&r);
  return sum;
}

/* Two rounds of error feedback; what is held in the end, then the bytes. */
static cf_bytes play_feedback(fl_context *context, uint32_t codec)
{
  fl_compressor_options options;
  cf_round r;
  uint64_t n = DIM;
  fl_feedback *feedback = NULL;
  cf_options(&options, codec, FL_THC_DITHER, 4);
  cf_open(&r, context, &options, &n, 1, 2);
  cf_must(fl_feedback_new(&feedback, r.compressor, NULL));
  float *x = cf_normal(DIM, 4);
  size_t held = DIM * sizeof(float), size = 0;
  size_t capacity = (size_t)fl_compressor_max_update_size(r.compressor);
  uint8_t *bytes = cf_get(held + capacity);
  r.scale.weight_cap = 3;
  for (int round = 0; round < 2; round++) {
    cf_must(fl_feedback_measure(feedback, &r.scale, 2, x, DIM, r.norms,
                                r.scale.n_norms));
    cf_must(fl_feedback_encode(feedback, &r.scale, NULL, bytes + held, capacity,
                               &size, NULL));
    cf_must(fl_feedback_settle(feedback, 1, NULL, 0));
  }
  cf_must(fl_feedback_copy_memory(feedback, x, DIM));
  memcpy(bytes, x, held);
  free(x);
  fl_feedback_free(feedback);
  cf_close(&r);
  return (cf_bytes){bytes, held + size};
}

static void expect_equal(cf_bytes want, cf_bytes got)
{
  CHECK(cf_equal(want, got));
  free(want.data);
  free(got.data);
}

static void expect_same(uint32_t threads, int is_lazy)
{
  static const uint32_t codecs[] = {FL_CODEC_F32, FL_CODEC_THC};
  for (int i = 0; i < 2; i++) {
    hook h = {.threads = threads, .is_lazy = is_lazy};
    fl_context *context = make_context(&h);
    expect_equal(play(NULL, codecs[i]), play(context, codecs[i]));
    expect_equal(play_feedback(NULL, codecs[i]),
                 play_feedback(context, codecs[i]));
    expect_equal(play_batch(NULL, codecs[i]), play_batch(context, codecs[i]));
    fl_context_free(context);
  }
}

static void bytes_do_not_depend_on_the_number_of_threads(void)
{
  expect_same(1, 0);
  expect_same(2, 0);
  expect_same(3, 0);
  expect_same(4, 0);
  expect_same(MAX_THREADS, 0);
}

static void failing_hook_costs_no_byte(void)
{
  expect_same(1, 1);
}

typedef struct user {
  const cf_round *r;
  const float *x;
  uint32_t slot;
  cf_bytes update;
} user;

static void *encode_alone(void *arg)
{
  user *u = arg;
  for (int i = 0; i < 5; i++) {
    free(u->update.data);
    u->update = cf_encode(u->r, u->slot, u->x);
  }
  return NULL;
}

static void one_compressor_serves_many_threads(void)
{
  cf_round r;
  pthread_t threads[MAX_THREADS];
  user users[MAX_THREADS];
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 20000, MAX_THREADS);
  float *x = cf_normal(20000, 4);
  cf_agree(&r, x, 1);
  for (uint32_t t = 0; t < MAX_THREADS; t++) {
    users[t] = (user){.r = &r, .x = x, .slot = t};
    CHECK(pthread_create(&threads[t], NULL, encode_alone, &users[t]) == 0);
  }
  for (uint32_t t = 0; t < MAX_THREADS; t++) {
    pthread_join(threads[t], NULL);
    cf_bytes want = cf_encode(&r, t, x);
    CHECK(cf_equal(want, users[t].update));
    free(want.data);
    free(users[t].update.data);
  }
  free(x);
  cf_close(&r);
}

int main(void)
{
  CHECK_CASE(bytes_do_not_depend_on_the_number_of_threads);
  CHECK_CASE(failing_hook_costs_no_byte);
  CHECK_CASE(one_compressor_serves_many_threads);
  return check_report();
}

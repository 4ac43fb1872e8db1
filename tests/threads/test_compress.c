/* SPDX-License-Identifier: Apache-2.0 */
/* Compression on the host's threads: the same bytes for any number of threads
 * and for a hook that fails or does only half of its work, and one compressor
 * in the hands of many threads at once. */
#include <pthread.h>

#include <fl/feedback.h>

#include "check.h"
#include "compress_fixture.h"

/* Two segments, each with a tail; vectors are looked at from two places. */
enum { FIRST = 67 * 4096 + 77, SECOND = 33 * 4096 + 300, MAX_THREADS = 5 };
enum { DIM = FIRST + SECOND, SHIFT = 5, BATCH = 20 };

typedef struct kind {
  uint32_t codec;
  uint32_t mode;
  int has_weights;
} kind;

static const kind kinds[] = {{FL_CODEC_F32, FL_THC_DITHER, 0},
                             {FL_CODEC_BF16, FL_THC_DITHER, 0},
                             {FL_CODEC_THC, FL_THC_UNIFORM, 1},
                             {FL_CODEC_THC, FL_THC_DITHER, 0},
                             {FL_CODEC_THC, FL_THC_TABLE, 1}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static float *values; /* DIM + SHIFT */

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

static void open_round(cf_round *r, fl_context *context, const kind *k,
                       uint32_t slots)
{
  static const uint64_t sizes[] = {FIRST, SECOND};
  fl_compressor_options options;
  cf_options(&options, k->codec, k->mode, 4);
  cf_open(r, context, &options, sizes, 2, slots);
  cf_agree(r, values, 1);
  cf_agree(r, values + SHIFT, 1);
}

/* A sum of three updates, of which one leaves a segment out, merged of two;
 * then what it decodes to, behind the first update's bytes. */
static cf_bytes play(fl_context *context, const kind *k)
{
  static const uint8_t mask[] = {0, 1};
  cf_round r;
  open_round(&r, context, k, 3);
  fl_partial *one = cf_partial(&r), *two = cf_partial(&r);
  cf_bytes updates[] = {cf_encode(&r, 0, values),
                        cf_encode_some(&r, 1, 1, mask, 2, values + SHIFT),
                        cf_encode(&r, 2, values + SHIFT)};
  cf_must(fl_partial_add(one, updates[0].data, updates[0].size));
  cf_must(fl_partial_add(two, updates[1].data, updates[1].size));
  cf_must(fl_partial_add(two, updates[2].data, updates[2].size));
  cf_must(fl_partial_merge(one, two));
  cf_bytes sum = cf_sum(one);
  size_t size = updates[0].size + updates[1].size;
  cf_bytes all = {NULL, size + sum.size + DIM * sizeof(float)};
  float *mean = cf_get(DIM * sizeof(float));
  cf_must(fl_partial_decode(one, mean, DIM));
  all.data = cf_get(all.size);
  memcpy(all.data, updates[0].data, updates[0].size);
  memcpy(all.data + updates[0].size, updates[1].data, updates[1].size);
  memcpy(all.data + size, sum.data, sum.size);
  memcpy(all.data + size + sum.size, mean, DIM * sizeof(float));
  free(mean);
  free(sum.data);
  for (int i = 0; i < 3; i++)
    free(updates[i].data);
  fl_partial_free(one);
  fl_partial_free(two);
  cf_close(&r);
  return all;
}

/* The sum of a batch, weighted where the codec takes weights. */
static cf_bytes play_batch(fl_context *context, const kind *k)
{
  cf_round r;
  cf_bytes update;
  uint8_t *data[BATCH];
  size_t size[BATCH];
  uint32_t weights[BATCH];
  open_round(&r, context, k, BATCH);
  for (uint32_t i = 0; i < BATCH; i++) {
    update = cf_encode(&r, i, values + i % SHIFT);
    data[i] = update.data;
    size[i] = update.size;
    weights[i] = 1 + 3 * i;
  }
  fl_partial *partial = cf_partial(&r);
  cf_must(fl_partial_add_batch(partial, (const uint8_t *const *)data, size,
                               k->has_weights ? weights : NULL, BATCH, NULL));
  cf_bytes sum = cf_sum(partial);
  for (uint32_t i = 0; i < BATCH; i++)
    free(data[i]);
  fl_partial_free(partial);
  cf_close(&r);
  return sum;
}

/* The same batch with a value in it that is found while it is added. */
static cf_bytes play_bad_batch(fl_context *context, const kind *k)
{
  cf_round r;
  cf_bytes update[BATCH];
  const uint8_t *data[BATCH];
  size_t size[BATCH];
  open_round(&r, context, k, BATCH);
  for (uint32_t i = 0; i < BATCH; i++) {
    update[i] = cf_encode(&r, i, values + i % SHIFT);
    data[i] = update[i].data;
    size[i] = update[i].size;
  }
  memset(update[7].data + update[7].size / 2, 0xff, 8);
  fl_partial *partial = cf_partial(&r);
  cf_must(fl_partial_add_batch(partial, data, size, NULL, BATCH, NULL));
  cf_bytes sum = cf_sum(partial);
  CHECK_EQ_U64(fl_partial_count(partial),
               BATCH - (k->codec != FL_CODEC_THC ? 1 : 0));
  for (uint32_t i = 0; i < BATCH; i++)
    free(update[i].data);
  fl_partial_free(partial);
  cf_close(&r);
  return sum;
}

/* Three rounds of error feedback, the second of them with a segment that was
 * not counted; what is held in the end, then the bytes. */
static cf_bytes play_feedback(fl_context *context, const kind *k)
{
  static const uint8_t mask[] = {1, 0};
  cf_round r;
  fl_feedback *feedback = NULL;
  open_round(&r, context, k, 2);
  cf_must(fl_feedback_new(&feedback, r.compressor, NULL));
  size_t held = DIM * sizeof(float), size = 0;
  size_t capacity = (size_t)fl_compressor_max_update_size(r.compressor);
  uint8_t *bytes = cf_get(held + capacity);
  float *memory = cf_get(held);
  r.scale.weight_cap = 3;
  for (int round = 0; round < 3; round++) {
    cf_must(fl_feedback_measure(feedback, &r.scale, 2, values + round, DIM,
                                r.norms, r.scale.n_norms));
    cf_must(fl_feedback_encode(feedback, &r.scale, NULL, bytes + held, capacity,
                               &size, NULL));
    cf_must(fl_feedback_settle(feedback, 1, round == 1 ? mask : NULL,
                               round == 1 ? 2 : 0));
  }
  cf_must(fl_feedback_copy_memory(feedback, memory, DIM));
  memcpy(bytes, memory, held);
  free(memory);
  fl_feedback_free(feedback);
  cf_close(&r);
  return (cf_bytes){bytes, held + size};
}

typedef cf_bytes (*play_fn)(fl_context *context, const kind *k);

/* What every play gives without a hook. */
static const play_fn plays[] = {play, play_batch, play_bad_batch,
                                play_feedback};
enum { PLAYS = sizeof plays / sizeof plays[0] };
static cf_bytes wanted[KINDS][PLAYS];

static void make_wanted(void)
{
  for (int k = 0; k < KINDS; k++) {
    for (int p = 0; p < PLAYS; p++)
      wanted[k][p] = plays[p](NULL, &kinds[k]);
  }
}

static void free_wanted(void)
{
  for (int k = 0; k < KINDS; k++) {
    for (int p = 0; p < PLAYS; p++)
      free(wanted[k][p].data);
  }
}

static void expect_same(uint32_t threads, int is_lazy)
{
  hook h = {.threads = threads, .is_lazy = is_lazy};
  fl_context *context = make_context(&h);
  for (int k = 0; k < KINDS; k++) {
    for (int p = 0; p < PLAYS; p++) {
      cf_bytes got = plays[p](context, &kinds[k]);
      CHECK(cf_equal(got, wanted[k][p]));
      free(got.data);
    }
  }
  fl_context_free(context);
}

static void bytes_do_not_depend_on_the_number_of_threads(void)
{
  for (uint32_t threads = 1; threads <= MAX_THREADS; threads++)
    expect_same(threads, 0);
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
  values = cf_normal(DIM + SHIFT, 4);
  make_wanted();
  CHECK_CASE(bytes_do_not_depend_on_the_number_of_threads);
  CHECK_CASE(failing_hook_costs_no_byte);
  CHECK_CASE(one_compressor_serves_many_threads);
  free_wanted();
  free(values);
  return check_report();
}

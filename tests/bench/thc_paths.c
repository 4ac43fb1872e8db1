/* SPDX-License-Identifier: Apache-2.0 */
/* The paths of bench_thc. Buffers are distinct and written before anything is
 * timed; sums are timed on lanes that exist already. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include "thc_paths.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/dmath.h"
#include "compress/compressor.h"

enum {
  /* u16 lanes hold 4369 updates of 4 bits. */
  MANY_SLOTS = 4096,
  FIRST_WIDE = 18, /* one more than u8 lanes hold */
  PAGE = 4096,
  GRANULARITY = 30,
  SLOT_AT = 56 /* of an update's bytes */
};

const char *const bench_path_names[PATHS] = {
    "memcpy",         "read",         "measure",       "measure_ef",
    "encode_uniform", "encode_table", "encode_dither", "encode_ef",
    "decode",         "aggregate_u8", "aggregate_u16", "aggregate8",
    "aggregate8_u8"};

static volatile uint64_t sink;

void bench_require(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  exit(1);
}

/* Memory that was written to. */
static void *get(size_t bytes)
{
  void *p = malloc(bytes);
  if (!p) bench_require(FL_E_NOMEM);
  memset(p, 1, bytes);
  return p;
}

/* ---- threads ---- */

static fl_status run_tasks(void *user, uint64_t count, fl_task_fn task,
                           void *arg)
{
  const bench_threads *threads = user;
  if (threads->is_parallel) {
    fli_host_pool_run(threads->pool, count, task, arg);
    return FL_OK;
  }
  for (uint64_t i = 0; i < count; i++)
    task(arg, i);
  return FL_OK;
}

void bench_threads_init(bench_threads *threads, uint32_t count)
{
  fl_context_options options;
  *threads = (bench_threads){0};
  if (count > 1) bench_require(fli_host_pool_new(&threads->pool, count));
  bench_require(fl_context_options_init(&options, sizeof options));
  options.user = threads;
  options.parallel_for = run_tasks;
  bench_require(fl_context_new(&threads->context, &options));
}

void bench_threads_free(bench_threads *threads)
{
  fl_context_free(threads->context);
  if (threads->pool) fli_host_pool_free(threads->pool);
}

/* Others may be using the machine: with one thread, time of the processor. */
static double seconds(const bench_paths *b)
{
  struct timespec now;
  clock_gettime(b->threads->pool ? CLOCK_MONOTONIC : CLOCK_PROCESS_CPUTIME_ID,
                &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* ---- what is there before ---- */

static fl_compressor *make(bench_paths *b, uint32_t mode)
{
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  bench_require(fl_compressor_options_init(&options, sizeof options));
  options.thc_mode = mode;
  if (mode == FL_THC_TABLE) {
    options.granularity = GRANULARITY;
    options.clip = (float)-fli_probit(1.0 / 64.0);
  }
  bench_require(
      fl_compressor_new(&compressor, b->threads->context, &options, &b->n, 1));
  compressor->kernels = b->kernels;
  return compressor;
}

static void encode(const bench_paths *b, fl_compressor *compressor,
                   const fl_scale *scale, uint32_t slot, uint8_t *update)
{
  fl_encode_options options;
  bench_require(fl_encode_options_init(&options, sizeof options));
  options.slot = slot;
  bench_require(fl_compressor_encode(compressor, scale, &options, b->x, b->n,
                                     update, b->size, NULL, NULL));
}

static void measure_with_feedback(bench_paths *b, fl_feedback *feedback)
{
  bench_require(fl_feedback_measure(feedback, &b->few, 1, b->x, b->n,
                                    b->corrected_norms, b->few.n_norms));
}

static void encode_with_feedback(bench_paths *b, fl_feedback *feedback)
{
  bench_require(fl_feedback_encode(feedback, &b->corrected, NULL, b->encoded,
                                   b->size, NULL, NULL));
}

/* Measured, with a memory of what one encoding has lost. */
static void warm_up(bench_paths *b, fl_feedback *feedback)
{
  bench_require(fl_feedback_reset(feedback));
  measure_with_feedback(b, feedback);
  encode_with_feedback(b, feedback);
  bench_require(fl_feedback_settle(feedback, 1, NULL, 0));
  measure_with_feedback(b, feedback);
}

/* The time of the measurement, which is then undone: swapped vectors. */
static double measure_and_withdraw(bench_paths *b)
{
  double start = seconds(b);
  measure_with_feedback(b, b->idle);
  double elapsed = seconds(b) - start;
  bench_require(fl_feedback_withdraw(b->idle, b->x, b->n));
  return elapsed;
}

/* Add the eight updates under the names of slots that follow. */
static void add8(bench_paths *b, fl_partial *partial, uint32_t first_slot)
{
  fl_status results[BENCH_UPDATES];
  for (uint32_t i = 0; i < BENCH_UPDATES; i++)
    fli_store_u32(b->update[i] + SLOT_AT, first_slot + i);
  bench_require(fl_partial_add_batch(partial, (const uint8_t *const *)b->update,
                                     b->sizes, NULL, BENCH_UPDATES, results));
  for (uint32_t i = 0; i < BENCH_UPDATES; i++)
    bench_require(results[i]);
}

static void add(bench_paths *b, fl_partial *partial, uint32_t slot)
{
  uint8_t *update = b->update[slot % BENCH_UPDATES];
  fli_store_u32(update + SLOT_AT, slot);
  bench_require(fl_partial_add(partial, update, b->size));
}

/* The sum of the first `count` slots. */
static fl_partial *sum_of(bench_paths *b, uint32_t count)
{
  fl_partial *partial = NULL;
  bench_require(fl_partial_new(&partial, b->uniform, &b->many));
  for (uint32_t slot = 0; slot < count; slot++)
    add(b, partial, slot);
  return partial;
}

static fl_partial *dithered_sum(bench_paths *b)
{
  fl_partial *partial = NULL;
  bench_require(fl_partial_new(&partial, b->dither, &b->few));
  for (uint32_t slot = 0; slot < BENCH_UPDATES; slot++) {
    encode(b, b->dither, &b->few, slot, b->encoded);
    bench_require(fl_partial_add(partial, b->encoded, b->size));
  }
  return partial;
}

static void fill(float *x, uint64_t n)
{
  uint32_t state = 1;
  for (uint64_t i = 0; i < n; i++) {
    float sum = 0.0f;
    for (int k = 0; k < 4; k++) {
      state = state * 1664525u + 1013904223u;
      sum += (float)(state >> 8) * 0x1p-24f - 0.5f;
    }
    x[i] = sum;
  }
}

static size_t whole_pages(size_t bytes)
{
  return (bytes + PAGE - 1) / PAGE * PAGE;
}

/* Nine buffers, each one cache line farther into its page than the last. */
static void place_updates(bench_paths *b, size_t offset)
{
  const size_t each = whole_pages(b->size) + PAGE + 64;
  b->update_memory = get((BENCH_UPDATES + 1) * each + 2 * PAGE);
  char *p = b->update_memory + PAGE - (uintptr_t)b->update_memory % PAGE;
  p += offset;
  for (uint32_t i = 0; i < BENCH_UPDATES; i++) {
    b->update[i] = (uint8_t *)p + i * each;
    b->sizes[i] = b->size;
    encode(b, b->uniform, &b->many, i, b->update[i]);
  }
  b->encoded = (uint8_t *)p + BENCH_UPDATES * each;
}

static void measure(const bench_paths *b, fl_compressor *compressor,
                    float *norms)
{
  bench_require(fl_compressor_measure(compressor, &b->few, 1, b->x, b->n, norms,
                                      fl_compressor_norm_count(compressor)));
}

static void init_feedback(bench_paths *b)
{
  b->corrected_norms = get((size_t)b->few.n_norms * sizeof(float));
  b->corrected = b->few;
  b->corrected.norms = b->corrected_norms;
  bench_require(fl_feedback_new(&b->idle, b->uniform, NULL));
  bench_require(fl_feedback_new(&b->measured, b->uniform, NULL));
  warm_up(b, b->idle);
  bench_require(fl_feedback_withdraw(b->idle, b->x, b->n));
  warm_up(b, b->measured);
}

void bench_paths_init(bench_paths *b, uint64_t n, size_t offset)
{
  const size_t bytes = (size_t)n * sizeof(float);
  b->n = n;
  b->memory = get(2 * whole_pages(bytes) + 4 * PAGE);
  char *start = b->memory + PAGE - (uintptr_t)b->memory % PAGE + offset;
  b->x = (float *)(void *)start;
  b->out = (float *)(void *)(start + whole_pages(bytes) + PAGE);
  fill(b->x, n);
  b->uniform = make(b, FL_THC_UNIFORM);
  b->table = make(b, FL_THC_TABLE);
  b->dither = make(b, FL_THC_DITHER);
  uint64_t n_norms = fl_compressor_norm_count(b->uniform);
  b->norms = get(n_norms * sizeof(float));
  bench_require(fl_scale_init(&b->few, sizeof b->few));
  b->few.slots = BENCH_UPDATES;
  measure(b, b->uniform, b->norms);
  b->few.norms = b->norms;
  b->few.n_norms = n_norms;
  b->many = b->few;
  b->many.slots = MANY_SLOTS;
  b->size = (size_t)fl_compressor_max_update_size(b->uniform);
  place_updates(b, offset);
  init_feedback(b);
  b->sum = dithered_sum(b);
  b->wide = sum_of(b, FIRST_WIDE);
  b->next_slot = FIRST_WIDE;
}

void bench_paths_free(bench_paths *b)
{
  fl_feedback_free(b->idle);
  fl_feedback_free(b->measured);
  fl_partial_free(b->sum);
  fl_partial_free(b->wide);
  fl_compressor_free(b->uniform);
  fl_compressor_free(b->table);
  fl_compressor_free(b->dither);
  free(b->update_memory);
  free(b->norms);
  free(b->corrected_norms);
  free(b->memory);
}

/* ---- paths ---- */

static void read_all(const bench_paths *b)
{
  uint64_t sum = 0;
  const uint8_t *p = (const uint8_t *)b->x;
  for (uint64_t i = 0; i + 64 <= b->n * sizeof(float); i += 64)
    sum += fli_load_u64(p + i);
  sink = sum;
}

/* `count` updates (1 or 8) into u8 lanes that hold one. */
static double add_narrow(bench_paths *b, uint32_t count)
{
  fl_partial *partial = sum_of(b, 1);
  double start = seconds(b);
  if (count == 1) {
    add(b, partial, 1);
  } else {
    add8(b, partial, 1);
  }
  double elapsed = seconds(b) - start;
  fl_partial_free(partial);
  return elapsed;
}

static void add_wide(bench_paths *b, uint32_t count)
{
  if (count == 1) {
    add(b, b->wide, b->next_slot);
  } else {
    add8(b, b->wide, b->next_slot);
  }
  b->next_slot += count;
}

double bench_paths_run(bench_paths *b, int path)
{
  double start = seconds(b);
  switch (path) {
  case PATH_MEMCPY: memcpy(b->out, b->x, b->n * sizeof(float)); break;
  case PATH_READ: read_all(b); break;
  case PATH_MEASURE_EF: return measure_and_withdraw(b);
  case PATH_MEASURE: measure(b, b->uniform, b->norms); break;
  case PATH_UNIFORM: encode(b, b->uniform, &b->few, 0, b->encoded); break;
  case PATH_TABLE: encode(b, b->table, &b->few, 0, b->encoded); break;
  case PATH_DITHER: encode(b, b->dither, &b->few, 0, b->encoded); break;
  case PATH_ENCODE_EF: encode_with_feedback(b, b->measured); break;
  case PATH_DECODE:
    bench_require(fl_partial_decode(b->sum, b->out, b->n));
    break;
  case PATH_ADD_U8: return add_narrow(b, 1);
  case PATH_ADD_U16: add_wide(b, 1); break;
  case PATH_ADD8_U16: add_wide(b, BENCH_UPDATES); break;
  default: return add_narrow(b, BENCH_UPDATES);
  }
  return seconds(b) - start;
}

double bench_paths_bytes(const bench_paths *b, int path)
{
  const int is_eight = path == PATH_ADD8_U8 || path == PATH_ADD8_U16;
  return (double)b->n * sizeof(float) * (is_eight ? BENCH_UPDATES : 1);
}

/* ---- what comes out ---- */

static int is_equal(const char *what, const void *got, const void *want,
                    size_t size)
{
  if (memcmp(got, want, size) == 0) return 1;
  fprintf(stderr, "%s: differs from what the plain C functions make\n", what);
  return 0;
}

static void use(bench_paths *b, const flk_table *kernels)
{
  fl_compressor *all[] = {b->uniform, b->table, b->dither};
  for (size_t i = 0; i < FLI_COUNT_OF(all); i++)
    all[i]->kernels = kernels;
}

/* Bytes of the sum of `count` updates that are added one by one, and of eight
 * at once; the caller's. */
static uint8_t *sum_bytes(bench_paths *b, uint32_t count, size_t *size)
{
  fl_partial *partial = sum_of(b, count);
  add8(b, partial, count);
  bench_require(fl_partial_copy_sum(partial, NULL, 0, size));
  uint8_t *bytes = get(*size);
  bench_require(fl_partial_copy_sum(partial, bytes, *size, NULL));
  fl_partial_free(partial);
  return bytes;
}

static int check_sums(bench_paths *b)
{
  int is_good = 1;
  for (uint32_t count = 1; count <= FIRST_WIDE; count += FIRST_WIDE - 1) {
    size_t size;
    use(b, b->kernels);
    uint8_t *got = sum_bytes(b, count, &size);
    use(b, flk_kernels_at(0));
    uint8_t *want = sum_bytes(b, count, &size);
    is_good &= is_equal("aggregate", got, want, size);
    free(got);
    free(want);
  }
  return is_good;
}

/* What error feedback has kept, as `out`. */
static void settle(bench_paths *b)
{
  bench_require(fl_feedback_settle(b->measured, 1, NULL, 0));
  bench_require(fl_feedback_copy_memory(b->measured, b->out, b->n));
}

/* Whatever a path writes, one after the other: norms, update, floats. */
static size_t trace(bench_paths *b, int path, uint8_t *to)
{
  const int is_feedback = path == PATH_MEASURE_EF || path == PATH_ENCODE_EF;
  const size_t norms = (size_t)b->few.n_norms * sizeof(float);
  const size_t floats = (size_t)b->n * sizeof(float);
  if (path == PATH_ENCODE_EF) warm_up(b, b->measured);
  memset(b->encoded, 0, b->size);
  memset(b->out, 0, floats);
  bench_paths_run(b, path);
  if (path == PATH_ENCODE_EF) settle(b);
  memcpy(to, is_feedback ? b->corrected_norms : b->norms, norms);
  memcpy(to + norms, b->encoded, b->size);
  memcpy(to + norms + b->size, b->out, floats);
  return norms + b->size + floats;
}

int bench_paths_check(bench_paths *b)
{
  const size_t most = (size_t)(b->few.n_norms + b->n) * sizeof(float) + b->size;
  uint8_t *got = get(most), *want = get(most);
  int is_good = 1;
  for (int path = PATH_MEASURE; path <= PATH_DECODE; path++) {
    use(b, b->kernels);
    size_t size = trace(b, path, got);
    use(b, flk_kernels_at(0));
    trace(b, path, want);
    is_good &= is_equal(bench_path_names[path], got, want, size);
  }
  free(got);
  free(want);
  is_good &= check_sums(b);
  use(b, b->kernels);
  return is_good;
}

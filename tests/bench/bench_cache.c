/* SPDX-License-Identifier: Apache-2.0 */
/* Speed of the activation cache: gigabytes of float32 rows per second that put
 * takes and get gives, by data type, plain and sealed, in memory and in a
 * mapped file, beside a memcpy of the same rows from an array of all of them.
 * Batches of 64 samples in shuffled order, each sample once in a run. CPU time
 * of the thread, the kernel's share included; medians over runs in which all
 * take turns. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime, mkdtemp */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <fl/cache.h>
#include "adapters/host/storage.h"
#include "base/rng.h"

enum { BATCH = 64, RUNS_MAX = 99, BENCHES = 12 };

static const char help[] =
    "usage: bench_cache [--samples N] [--values N] [--runs N] [--folder DIR]\n"
    "Print `key GB/s` lines; a GB is 1e9 bytes of float32 rows.\n"
    "  --samples  rows of the cache, a multiple of 64 (default 4096)\n"
    "  --values   values of a row (default 4096)\n"
    "  --runs     medians are over that many, at most 99 (default 7)\n"
    "  --folder   a folder is made in this one for the mapped file (default\n"
    "             /tmp); what the file's disk is matters with more data than\n"
    "             memory only\n";

typedef struct bench {
  fl_cache *cache;
  char name[32];
  double put[RUNS_MAX];
  double get[RUNS_MAX];
} bench;

static uint64_t n_samples = 4096, n_values = 4096, n_runs = 7;
static const char *parent = "/tmp";
static uint32_t *order;
static float *all;
static float *batch;
static bench benches[BENCHES];
static size_t n_benches;

static void must(int is_good, const char *what)
{
  if (is_good) return;
  fprintf(stderr, "bench_cache: %s: %s\n", what, fl_last_error());
  exit(1);
}

static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* GB/s of one pass over all samples. */
typedef void (*batch_fn)(fl_cache *cache, const uint64_t *ids);

static double pass(batch_fn function, fl_cache *cache)
{
  uint64_t ids[BATCH];
  double begin = now();
  for (uint64_t first = 0; first < n_samples; first += BATCH) {
    for (uint64_t i = 0; i < BATCH; i++)
      ids[i] = order[first + i];
    function(cache, ids);
  }
  return 4e-9 * (double)(n_samples * n_values) / (now() - begin);
}

static void put_batch(fl_cache *cache, const uint64_t *ids)
{
  must(fl_cache_put(cache, ids, BATCH, batch) == FL_OK, "put");
}

static void get_batch(fl_cache *cache, const uint64_t *ids)
{
  must(fl_cache_get(cache, ids, BATCH, batch) == FL_OK, "get");
}

static void copy_in(fl_cache *cache, const uint64_t *ids)
{
  (void)cache;
  for (uint64_t i = 0; i < BATCH; i++)
    memcpy(all + ids[i] * n_values, batch + i * n_values, 4 * n_values);
}

static void copy_out(fl_cache *cache, const uint64_t *ids)
{
  (void)cache;
  for (uint64_t i = 0; i < BATCH; i++)
    memcpy(batch + i * n_values, all + ids[i] * n_values, 4 * n_values);
}

static void add_bench(fl_context *context, uint32_t dtype, int is_sealed,
                      int is_mapped)
{
  static const uint8_t key[FL_CACHE_KEY_BYTES];
  static const char *const types[] = {"", "f32", "f16", "i8"};
  static const uint8_t tag[FL_HASH_BYTES];
  bench *b = &benches[n_benches++];
  fl_cache_options options;
  snprintf(b->name, sizeof b->name, "%s_%s_%s", types[dtype],
           is_sealed ? "sealed" : "plain", is_mapped ? "mapped" : "memory");
  must(fl_cache_options_init(&options, sizeof options) == FL_OK, "options");
  options.dtype = dtype;
  options.byte_cap = UINT64_MAX;
  if (is_sealed) options.key = key;
  if (is_mapped) options.name = b->name;
  must(fl_cache_new(&b->cache, context, &options) == FL_OK, "new");
  must(fl_cache_begin(b->cache, tag, n_samples, n_values) == FL_OK, "begin");
  (void)pass(put_batch, b->cache); /* pages that are there */
}

static int compare(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void print_median(const char *prefix, const char *name, double *values)
{
  qsort(values, (size_t)n_runs, sizeof *values, compare);
  printf("%s_%s %.2f\n", prefix, name, values[n_runs / 2]);
}

static void run_all(void)
{
  static double copied_in[RUNS_MAX], copied_out[RUNS_MAX];
  for (uint64_t run = 0; run < n_runs; run++) {
    copied_in[run] = pass(copy_in, NULL);
    copied_out[run] = pass(copy_out, NULL);
    for (size_t i = 0; i < n_benches; i++) {
      benches[i].put[run] = pass(put_batch, benches[i].cache);
      benches[i].get[run] = pass(get_batch, benches[i].cache);
    }
  }
  print_median("put", "memcpy", copied_in);
  for (size_t i = 0; i < n_benches; i++)
    print_median("put", benches[i].name, benches[i].put);
  print_median("get", "memcpy", copied_out);
  for (size_t i = 0; i < n_benches; i++)
    print_median("get", benches[i].name, benches[i].get);
}

static void fill(void)
{
  fli_rng rng;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  order = malloc(n_samples * sizeof *order);
  all = malloc(n_samples * n_values * sizeof *all);
  batch = malloc(BATCH * n_values * sizeof *batch);
  must(order && all && batch, "no memory");
  for (uint64_t i = 0; i < n_samples; i++)
    order[i] = (uint32_t)i;
  fli_rng_shuffle(&rng, order, (uint32_t)n_samples);
  /* As behind a ReLU: half of the values are 0. */
  for (uint64_t i = 0; i < BATCH * n_values; i++) {
    float v = fli_rng_f32(&rng) - 0.5f;
    batch[i] = v > 0 ? v : 0;
  }
  (void)pass(copy_in, NULL);
}

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
  char *end;
  unsigned long long value = text ? strtoull(text, &end, 10) : 0;
  if (text && *text != '-' && *end == '\0' && value >= least && value <= most)
    return value;
  fprintf(stderr, "bench_cache: got %s, want %llu..%llu\n", text ? text : "-",
          (unsigned long long)least, (unsigned long long)most);
  exit(2);
}

static void read_options(int argc, char **argv)
{
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(argv[i], "--help") == 0) {
      fputs(help, stdout);
      exit(0);
    } else if (strcmp(argv[i], "--samples") == 0) {
      n_samples = number(value, BATCH, 1 << 24) / BATCH * BATCH;
    } else if (strcmp(argv[i], "--values") == 0) {
      n_values = number(value, 1, 1 << 24);
    } else if (strcmp(argv[i], "--runs") == 0) {
      n_runs = number(value, 1, RUNS_MAX);
    } else if (strcmp(argv[i], "--folder") == 0 && value) {
      parent = value;
    } else {
      fputs(help, stderr);
      exit(2);
    }
  }
}

int main(int argc, char **argv)
{
  char folder[4096];
  fli_host_storage *storage = NULL;
  fl_storage hooks;
  fl_context_options options;
  fl_context *context = NULL;
  read_options(argc, argv);
  snprintf(folder, sizeof folder, "%s/fl-bench-cache-XXXXXX", parent);
  must(mkdtemp(folder) != NULL, "no folder");
  must(fli_host_storage_new(&storage, folder) == FL_OK, "storage");
  fli_host_storage_hooks(storage, &hooks);
  must(fl_context_options_init(&options, sizeof options) == FL_OK, "options");
  options.storage = &hooks;
  must(fl_context_new(&context, &options) == FL_OK, "context");
  fill();
  for (uint32_t dtype = FL_CACHE_F32; dtype <= FL_CACHE_I8; dtype++) {
    for (int kind = 0; kind < 4; kind++)
      add_bench(context, dtype, kind >> 1, kind & 1);
  }
  run_all();
  for (size_t i = 0; i < n_benches; i++) {
    must(fl_cache_wipe(benches[i].cache) == FL_OK, "wipe");
    fl_cache_free(benches[i].cache);
  }
  fl_context_free(context);
  fli_host_storage_free(storage);
  free(order);
  free(all);
  free(batch);
  return rmdir(folder) != 0;
}

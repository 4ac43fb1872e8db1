/* SPDX-License-Identifier: Apache-2.0 */
/* What a lookup costs in the embedding store: ns per id of forward and of a
 * full step (forward, backward with row-wise AdaGrad), batches of 2048 bags of
 * 10 ids, for tables of several sizes, dimensions, streams of ids and shares of
 * the full table's bytes as budget. Beside them in the same run the machine's
 * limit: random rows of the same bytes, read with prefetch, 10^6 of them. Ids
 * are hashes of ranks, so that nothing about them is regular; streams differ
 * from batch to batch. CPU time of the thread, medians over runs in which
 * forward and step take turns. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <fl/embedding.h>

#include "adapters/host/pages.h"
#include "base/compiler.h"
#include "base/rng.h"

enum {
  BAGS = 2048,
  EACH = 10,
  IDS = BAGS * EACH,
  BATCHES = 64,
  RUNS_MAX = 99,
  ADJUST_EVERY = 500
};

static const char help[] =
    "usage: bench_embedding [--rows N] [--dim N] [--runs N] [--quick]\n"
    "Print `key value` lines: ns per lookup unless the key says otherwise.\n"
    "  --rows   tables of so many ids only (default: 10000, 1000000, 6000000)\n"
    "  --dim    of that dimension only (default: 32, 64)\n"
    "  --runs   medians are over that many, at most 99 (default 5)\n"
    "  --quick  no budgets and no changing hot set\n"
    "  --huge-pages  the store's memory is libfl-host's in huge pages\n";

static uint64_t only_rows, only_dim, n_runs = 5;
static int is_quick;
static fl_context *context; /* NULL: the default */
static uint64_t *stream;    /* BATCHES batches */
static float *out, *gradient;

static void must(int is_good, const char *what)
{
  if (is_good) return;
  fprintf(stderr, "bench_embedding: %s: %s\n", what, fl_last_error());
  exit(1);
}

static double now(void)
{
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values)
{
  qsort(values, (size_t)n_runs, sizeof *values, compare);
  return values[n_runs / 2];
}

/* ---- streams of ids ------------------------------------------------------ */

static uint64_t id_of(uint64_t rank)
{
  uint64_t x = rank + 0x9e3779b97f4a7c15u;
  x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
  x = (x ^ x >> 27) * 0x94d049bb133111ebu;
  return x ^ x >> 31;
}

/* Ranks 1..n with probability ~ rank^-1.05, by inversion of the integral. */
static uint64_t zipf(fli_rng *rng, uint64_t n)
{
  const double a = 1.05, u = fli_rng_f64(rng);
  const double most = pow((double)n + 1.0, 1.0 - a);
  uint64_t rank = (uint64_t)pow(1.0 + u * (most - 1.0), 1.0 / (1.0 - a));
  return rank >= n ? n : rank;
}

/* `shift`: which of the ids are the hot ones. */
static void fill_stream(uint64_t n, int is_zipf, uint64_t seed, uint64_t shift)
{
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, n, 0);
  for (size_t i = 0; i < (size_t)BATCHES * IDS; i++) {
    uint64_t rank = is_zipf ? zipf(&rng, n) : fli_rng_u64(&rng) % n;
    stream[i] = id_of((rank + shift) % n);
  }
}

static fl_embedding_bags batch_at(size_t i)
{
  fl_embedding_bags bags;
  must(fl_embedding_bags_init(&bags, sizeof bags) == FL_OK, "bags");
  bags.ids = stream + i % BATCHES * IDS;
  bags.n_ids = IDS;
  bags.n_bags = BAGS;
  return bags;
}

/* ---- the store ----------------------------------------------------------- */

static fl_embedding *make(uint32_t dim, uint64_t budget, uint32_t *table)
{
  static const uint8_t secret[16] = "bench_embedding";
  fl_embedding *e = NULL;
  fl_embedding_options options;
  fl_embedding_table_options shape;
  must(fl_embedding_options_init(&options, sizeof options) == FL_OK, "options");
  options.byte_budget = budget;
  options.secret = secret;
  must(fl_embedding_new(&e, context, &options) == FL_OK, "new");
  must(fl_embedding_table_options_init(&shape, sizeof shape) == FL_OK, "shape");
  shape.dim = dim;
  must(fl_embedding_add_table(e, &shape, table) == FL_OK, "table");
  return e;
}

static void *take_pages(void *user, size_t bytes, size_t alignment)
{
  return fli_host_pages_alloc(user, bytes, alignment);
}

static void give_pages(void *user, void *ptr, size_t bytes, size_t alignment)
{
  fli_host_pages_dealloc(user, ptr, bytes, alignment);
}

static void use_huge_pages(void)
{
  fli_host_pages *pages = NULL;
  fl_context_options hooks;
  must(fli_host_pages_new(&pages) == FL_OK, "huge pages");
  must(fl_context_options_init(&hooks, sizeof hooks) == FL_OK, "hooks");
  hooks.user = pages;
  hooks.alloc = take_pages;
  hooks.dealloc = give_pages;
  must(fl_context_new(&context, &hooks) == FL_OK, "context");
}

/* All ids, as far as there is room. */
static void touch_all(fl_embedding *e, uint32_t table, uint64_t n)
{
  uint64_t ids[IDS];
  for (uint64_t first = 0; first < n; first += IDS) {
    fl_embedding_bags bags = batch_at(0);
    for (uint64_t i = 0; i < IDS; i++)
      ids[i] = id_of((first + i) % n);
    bags.ids = ids;
    must(fl_embedding_forward(e, table, &bags, out) == FL_OK, "touch");
  }
}

static double forward_pass(fl_embedding *e, uint32_t table)
{
  double begin = now();
  for (size_t i = 0; i < BATCHES; i++) {
    fl_embedding_bags bags = batch_at(i);
    must(fl_embedding_forward(e, table, &bags, out) == FL_OK, "forward");
  }
  return (now() - begin) / ((double)BATCHES * IDS);
}

static double step_pass(fl_embedding *e, uint32_t table)
{
  double begin = now();
  for (size_t i = 0; i < BATCHES; i++) {
    fl_embedding_bags bags = batch_at(i);
    must(fl_embedding_forward(e, table, &bags, out) == FL_OK, "forward");
    must(fl_embedding_backward(e, table, &bags, gradient, 0.01f) == FL_OK,
         "backward");
  }
  return (now() - begin) / ((double)BATCHES * IDS);
}

static double lookup_pass(fl_embedding *e, uint32_t table)
{
  double begin = now();
  for (size_t i = 0; i < BATCHES; i++) {
    fl_embedding_bags bags = batch_at(i);
    must(fl_embedding_lookup(e, table, &bags, out) == FL_OK, "lookup");
  }
  return (now() - begin) / ((double)BATCHES * IDS);
}

static void bench(uint64_t rows, uint32_t dim, int is_zipf)
{
  double forward[RUNS_MAX], step[RUNS_MAX], lookup[RUNS_MAX];
  uint32_t table;
  char name[64];
  fl_embedding *e = make(dim, 0, &table);
  touch_all(e, table, rows);
  for (uint64_t run = 0; run < n_runs; run++) {
    fill_stream(rows, is_zipf, run, 0);
    forward[run] = forward_pass(e, table);
    lookup[run] = lookup_pass(e, table);
    step[run] = step_pass(e, table);
  }
  fl_embedding_free(e);
  snprintf(name, sizeof name, "%" PRIu64 "x%u_%s", rows, (unsigned)dim,
           is_zipf ? "zipf" : "uniform");
  printf("forward_%s %.1f\n", name, median(forward));
  printf("lookup_%s %.1f\n", name, median(lookup));
  printf("step_%s %.1f\n", name, median(step));
  fflush(stdout);
}

/* ---- under a budget ------------------------------------------------------ */

/* Time of steps and of adjusts, added to what is there. */
static void train(fl_embedding *e, uint32_t table, size_t batches,
                  double *steps, double *adjusts)
{
  for (size_t i = 1; i <= batches; i++) {
    double begin = now();
    fl_embedding_bags bags = batch_at(i);
    must(fl_embedding_forward(e, table, &bags, out) == FL_OK, "forward");
    must(fl_embedding_backward(e, table, &bags, gradient, 0.01f) == FL_OK,
         "backward");
    double middle = now();
    *steps += middle - begin;
    if (i % ADJUST_EVERY != 0) continue;
    must(fl_embedding_adjust(e, NULL) == FL_OK, "adjust");
    *adjusts += now() - middle;
  }
}

/* Bytes of chunks, and of what they need at the load of .9 that buckets have
 * when they are full. */
static double live_share(const fl_embedding_statistics *s)
{
  double entries = (double)s->rows * 16.0 / 0.9;
  if (entries > (double)s->bytes_entries) entries = (double)s->bytes_entries;
  return 100.0 *
         ((double)(s->bytes_values + s->bytes_squares + s->bytes_sketch +
                   s->bytes_fixed) +
          entries) /
         (double)s->byte_budget;
}

static void bench_budget(uint64_t rows, uint32_t dim, uint32_t percent)
{
  enum { SOME = 1000 };
  uint32_t table;
  double steps = 0, adjusts = 0, first = 0, none = 0;
  char name[64];
  fl_embedding_statistics s;
  uint64_t budget = rows * (dim * 4 + 22) / 100 * percent;
  snprintf(name, sizeof name, "%" PRIu64 "x%u_keep_%u_pct", rows, (unsigned)dim,
           (unsigned)percent);
  fl_embedding *e = make(dim, budget, &table);
  fill_stream(rows, 1, 0, 0);
  train(e, table, SOME, &first, &none);
  for (uint64_t pass = 1; pass <= 3; pass++) {
    fill_stream(rows, 1, pass, 0);
    train(e, table, SOME, &steps, &adjusts);
  }
  printf("step_%s %.1f\n", name, steps / (3.0 * SOME * IDS));
  printf("adjust_share_pct_%s %.2f\n", name, 100 * adjusts / (steps + adjusts));
  must(fl_embedding_statistics_init(&s, sizeof s) == FL_OK, "statistics");
  must(fl_embedding_get_statistics(e, table, &s) == FL_OK, "statistics");
  printf("bytes_per_stored_float_%s %.2f\n", name,
         4.0 * (double)s.bytes_used / (double)s.bytes_values);
  printf("mean_live_dimension_%s %.1f\n", name,
         (double)s.bytes_values / 4 / (double)s.rows);
  for (uint64_t pass = 4; pass <= 6 && percent < 100; pass++) {
    fill_stream(rows, 1, pass, rows / 2);
    train(e, table, SOME + SOME / 10, &first, &none);
  }
  must(fl_embedding_get_statistics(e, table, &s) == FL_OK, "statistics");
  /* A budget that is not full says nothing. */
  if (percent < 100)
    printf("budget_live_share_pct_%s %.1f\n", name, live_share(&s));
  fflush(stdout);
  fl_embedding_free(e);
}

/* ---- the machine's limit ------------------------------------------------- */

static void bench_limit(uint32_t bytes)
{
  enum { ROWS = 1000000, AHEAD = 32 };
  static double values[RUNS_MAX];
  const size_t n = bytes / sizeof(float);
  float *rows = malloc((size_t)ROWS * bytes);
  uint32_t *order = malloc(ROWS * sizeof *order);
  float sums[16] = {0};
  must(rows && order, "no memory");
  memset(rows, 1, (size_t)ROWS * bytes); /* zeros would be one page */
  for (uint32_t i = 0; i < ROWS; i++)
    order[i] = i;
  fli_rng rng;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  fli_rng_shuffle(&rng, order, ROWS);
  for (uint64_t run = 0; run < n_runs; run++) {
    double begin = now();
    for (size_t i = 0; i < ROWS; i++) {
      const float *ahead = rows + order[i + AHEAD < ROWS ? i + AHEAD : i] * n;
      for (size_t at = 0; at < n; at += 16)
        FLI_PREFETCH(ahead + at);
      const float *row = rows + order[i] * n;
      for (size_t at = 0; at < n; at += 16) {
        for (size_t k = 0; k < 16; k++)
          sums[k] += row[at + k];
      }
    }
    values[run] = (now() - begin) / ROWS;
  }
  printf("limit_%u_bytes %.1f\n", (unsigned)bytes, median(values));
  if (sums[0] > 1) printf("limit_sum %g\n", (double)sums[0]);
  free(rows);
  free(order);
}

static uint64_t number(const char *text, uint64_t least, uint64_t most)
{
  char *end;
  unsigned long long value = text ? strtoull(text, &end, 10) : 0;
  if (text && *text != '-' && *end == '\0' && value >= least && value <= most)
    return value;
  fprintf(stderr, "bench_embedding: got %s, want %llu..%llu\n",
          text ? text : "-", (unsigned long long)least,
          (unsigned long long)most);
  exit(2);
}

static void read_options(int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(argv[i], "--help") == 0) {
      fputs(help, stdout);
      exit(0);
    } else if (strcmp(argv[i], "--quick") == 0) {
      is_quick = 1;
    } else if (strcmp(argv[i], "--huge-pages") == 0) {
      use_huge_pages();
    } else if (strcmp(argv[i], "--rows") == 0) {
      only_rows = number(value, 1, 100000000), i++;
    } else if (strcmp(argv[i], "--dim") == 0) {
      only_dim = number(value, 16, 1024), i++;
    } else if (strcmp(argv[i], "--runs") == 0) {
      n_runs = number(value, 1, RUNS_MAX), i++;
    } else {
      fputs(help, stderr);
      exit(2);
    }
  }
}

int main(int argc, char **argv)
{
  static const uint64_t all_rows[] = {10000, 1000000, 6000000};
  static const uint32_t dims[] = {32, 64};
  read_options(argc, argv);
  const size_t dim_max = only_dim > 64 ? (size_t)only_dim : 64;
  stream = malloc((size_t)BATCHES * IDS * sizeof *stream);
  out = malloc(BAGS * dim_max * sizeof *out);
  gradient = malloc(BAGS * dim_max * sizeof *gradient);
  must(stream && out && gradient, "no memory");
  fli_rng rng;
  fli_rng_init(&rng, 2, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < BAGS * dim_max; i++)
    gradient[i] = 0.01f * (fli_rng_f32(&rng) - 0.5f);
  for (size_t d = 0; d < FLI_COUNT_OF(dims); d++) {
    if (only_dim && only_dim != dims[d]) continue;
    bench_limit(4 * dims[d]);
    for (size_t r = 0; r < FLI_COUNT_OF(all_rows); r++) {
      if (only_rows && only_rows != all_rows[r]) continue;
      bench(all_rows[r], dims[d], 1);
      bench(all_rows[r], dims[d], 0);
      if (is_quick || all_rows[r] < 1000000) continue;
      bench_budget(all_rows[r], dims[d], 100);
      bench_budget(all_rows[r], dims[d], 10);
    }
  }
  free(stream);
  free(out);
  free(gradient);
  return 0;
}

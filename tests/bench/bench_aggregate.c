/* SPDX-License-Identifier: Apache-2.0 */
/* What combining the updates of a round costs: sums of encoded updates (f32,
 * THC with 4 bits) and the rules that need them separately. Every update is
 * another one. CPU time of this one thread, median over --runs; parsing frames
 * and looking for NaN is in it, the hash that uploads are checked by is
 * hash_gbs. Prints `key value` lines, K the number of updates:
 *
 *   RULE_kK_s          seconds
 *   RULE_kK_gbs        GB/s of what the updates take, encoded or as float32
 *   RULE_kK_vs_read    the same over one load a cache line of that memory
 *   RULE_kK_extra_mib  most memory that the library held for it
 *   RULE_kK_tN_s       with --threads N: seconds by the clock, of sums alone
 *   RULE_kK_tN_speedup one thread's seconds by the clock over those, run by run
 *                      in turn; the median
 *   RULE_kK_tN_best    the least of one's over the least of N threads: what is
 *                      left of it on a machine that others work on, too
 *   RULE_kK_tN_read, RULE_kK_tN_read_best
 *                      the same two of N threads that only read that memory,
 *                      one load a cache line: what the machine gives at most
 *
 * RULE: f32, thc4 (fl_partial_add_batch, then the mean), and fl_strategy's
 * mean, median, trimmed, krum, geometric over updates in memory. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <fl/compress.h>
#include <fl/strategy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../pool_hooks.h"
#include "base/error.h"
#include "base/rng.h"
#include "crypto/crypto.h"

enum { COUNT_MAX = 4096, RUNS_MAX = 31, BATCH = 64 };

static const char help[] =
    "usage: bench_aggregate [OPTION VALUE]...\n"
    "  --dim N         coordinates; 1000000 (default)\n"
    "  --counts N,...  updates, each 1..4096; 10,100,1000 (default)\n"
    "  --rules NAME,.. f32,thc4,mean,median,trimmed,krum,geometric (default)\n"
    "  --runs N        1..31, of which the median; 5 (default)\n"
    "  --threads N     2..64: sums with as many beside one; none (default)\n";

typedef struct bench {
  uint64_t dim;
  uint32_t count;
  int runs;
  uint32_t threads; /* 0: one alone */
  const char *rules;
  uint8_t *memory; /* of all updates */
  size_t size;     /* of one */
  const uint8_t *data[COUNT_MAX];
  size_t sizes[COUNT_MAX];
  float *vector;
} bench;

static double cpu_s(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return 0.0;
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void require(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  exit(1);
}

static void *allocate(size_t n)
{
  void *memory = aligned_alloc(64, (n + 63) / 64 * 64);
  if (memory) return memory;
  fprintf(stderr, "no memory for %zu bytes\n", n);
  exit(1);
}

static int compare(const void *a, const void *b)
{
  const double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int n)
{
  qsort(values, (size_t)n, sizeof *values, compare);
  return values[n / 2];
}

/* One load a cache line. */
static void read_all(const uint8_t *memory, size_t n)
{
  volatile uint64_t sink;
  uint64_t sum[4] = {0};
  for (size_t at = 0; at + 256 <= n; at += 256) {
    for (size_t i = 0; i < 4; i++) {
      uint64_t word;
      memcpy(&word, memory + at + 64 * i, sizeof word);
      sum[i] += word;
    }
  }
  sink = sum[0] + sum[1] + sum[2] + sum[3];
  (void)sink;
}

static double read_s(const bench *b)
{
  const double begin = cpu_s();
  read_all(b->memory, b->size * b->count);
  return cpu_s() - begin;
}

/* Noise of two uniforms around a common direction. */
static void draw(const bench *b, uint32_t index, float *x)
{
  uint64_t state = 0x9e3779b97f4a7c15u * (index + 1u);
  for (uint64_t i = 0; i < b->dim; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    const uint32_t high = (uint32_t)(state >> 32);
    const int32_t noise = (int32_t)(high & 0xffff) + (int32_t)(high >> 16);
    x[i] = (float)(noise - 65535) * 0x1p-20f + (float)(i % 7) * 0x1p-9f;
  }
}

static void print(const bench *b, const char *rule, double *seconds,
                  double *reads, uint64_t extra)
{
  const double s = median(seconds, b->runs), r = median(reads, b->runs);
  const double bytes = (double)b->size * (double)b->count;
  printf("%s_k%u_s %.4f\n", rule, b->count, s);
  printf("%s_k%u_gbs %.2f\n", rule, b->count, bytes * 1e-9 / s);
  printf("%s_k%u_vs_read %.3f\n", rule, b->count, r / s);
  printf("%s_k%u_extra_mib %.2f\n", rule, b->count, (double)extra / 0x1p20);
  fflush(stdout);
}

/* ---- sums ---------------------------------------------------------------- */

typedef struct codec {
  fl_compressor *compressor;
  fl_scale scale;
  float *norms;
} codec;

static void make_codec(const bench *b, codec *c, fl_context *context,
                       uint32_t id)
{
  fl_compressor_options options;
  require(fl_compressor_options_init(&options, sizeof options));
  options.codec = id;
  options.bits = 4;
  options.workers = b->count;
  require(fl_compressor_new(&c->compressor, context, &options, &b->dim, 1));
  require(fl_scale_init(&c->scale, sizeof c->scale));
  c->scale.slots = b->count;
  c->scale.round = 1;
  c->scale.n_norms = fl_compressor_norm_count(c->compressor);
  c->norms = allocate((size_t)c->scale.n_norms * sizeof(float));
  draw(b, 0, b->vector);
  require(fl_compressor_measure(c->compressor, &c->scale, 1, b->vector, b->dim,
                                c->norms, c->scale.n_norms));
  c->scale.norms = c->norms;
}

/* Updates that are longer than the first are scaled down to it. */
static void encode_all(bench *b, const codec *c)
{
  const size_t room =
      ((size_t)fl_compressor_max_update_size(c->compressor) + 63) / 64 * 64;
  b->memory = allocate(room * b->count);
  for (uint32_t k = 0; k < b->count; k++) {
    fl_encode_options options;
    require(fl_encode_options_init(&options, sizeof options));
    options.slot = k;
    draw(b, k, b->vector);
    b->data[k] = b->memory + room * k;
    require(fl_compressor_encode(c->compressor, &c->scale, &options, b->vector,
                                 b->dim, b->memory + room * k, room,
                                 &b->sizes[k], NULL));
  }
  b->size = room;
}

static void add_all(const bench *b, const codec *c)
{
  fl_partial *partial = NULL;
  require(fl_partial_new(&partial, c->compressor, &c->scale));
  for (uint32_t k = 0; k < b->count; k += BATCH) {
    const uint32_t n = b->count - k < BATCH ? b->count - k : BATCH;
    require(fl_partial_add_batch(partial, b->data + k, b->sizes + k, NULL, n,
                                 NULL));
  }
  if (fl_partial_count(partial) != b->count) {
    fprintf(stderr, "an update was refused: %s\n", fl_last_error());
    exit(1);
  }
  require(fl_partial_decode(partial, b->vector, b->dim));
  fl_partial_free(partial);
}

static double wall_s(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0.0;
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* One share of the memory. */
static void read_share(void *arg, uint64_t index)
{
  const bench *b = arg;
  const size_t each = b->size * b->count / b->threads;
  read_all(b->memory + each * (size_t)index, each);
}

/* Seconds by the clock of one thread and of many, run by run in turn. */
typedef struct race {
  double alone[RUNS_MAX];
  double many[RUNS_MAX];
} race;

static void print_race(const bench *b, const char *rule, const char *what,
                       race *r)
{
  double ratios[RUNS_MAX];
  for (int i = 0; i < b->runs; i++)
    ratios[i] = r->alone[i] / r->many[i];
  printf("%s_k%u_t%u_%s %.2f\n", rule, b->count, b->threads,
         *what ? what : "speedup", median(ratios, b->runs));
  (void)median(r->alone, b->runs); /* sorts */
  (void)median(r->many, b->runs);
  printf("%s_k%u_t%u_%s%sbest %.2f\n", rule, b->count, b->threads, what,
         *what ? "_" : "", r->alone[0] / r->many[0]);
}

static void race_sums(const bench *b, const codec *one, const codec *many,
                      race *r)
{
  for (int i = 0; i < b->runs; i++) {
    double begin = wall_s();
    add_all(b, one);
    r->alone[i] = wall_s() - begin;
    begin = wall_s();
    add_all(b, many);
    r->many[i] = wall_s() - begin;
  }
}

static void race_reads(bench *b, fli_host_pool *pool, race *r)
{
  for (int i = 0; i < b->runs; i++) {
    double begin = wall_s();
    read_all(b->memory, b->size * b->count);
    r->alone[i] = wall_s() - begin;
    begin = wall_s();
    fli_host_pool_run(pool, b->threads, read_share, b);
    r->many[i] = wall_s() - begin;
  }
}

/* The updates are the same, whatever context they were encoded with. */
static void run_threads(bench *b, const codec *one, const char *rule,
                        uint32_t id)
{
  fli_host_pool *pool = NULL;
  fl_context *context = NULL;
  codec many = {0};
  race sums, reads;
  require(fli_host_pool_new(&pool, b->threads));
  require(pool_context(&context, pool, 1));
  make_codec(b, &many, context, id);
  race_sums(b, one, &many, &sums);
  race_reads(b, pool, &reads);
  printf("%s_k%u_t%u_s %.4f\n", rule, b->count, b->threads,
         median(sums.many, b->runs));
  print_race(b, rule, "", &sums);
  print_race(b, rule, "read", &reads);
  fl_compressor_free(many.compressor);
  free(many.norms);
  fl_context_free(context);
  fli_host_pool_free(pool);
}

static void run_sum(bench *b, const char *rule, uint32_t id)
{
  fl_context *context = NULL;
  codec c = {0};
  double seconds[RUNS_MAX], reads[RUNS_MAX];
  uint64_t before = 0, peak = 0;
  require(fl_context_new(&context, NULL));
  make_codec(b, &c, context, id);
  encode_all(b, &c);
  require(fl_context_get_memory(context, &before, &peak));
  for (int r = 0; r < b->runs; r++) {
    reads[r] = read_s(b);
    const double begin = cpu_s();
    add_all(b, &c);
    seconds[r] = cpu_s() - begin;
  }
  require(fl_context_get_memory(context, NULL, &peak));
  print(b, rule, seconds, reads, peak - before);
  if (b->threads > 1) run_threads(b, &c, rule, id);
  fl_compressor_free(c.compressor);
  fl_context_free(context);
  free(c.norms);
  free(b->memory);
}

/* ---- rules --------------------------------------------------------------- */

static void run_rule(bench *b, const char *rule, const char *name)
{
  fl_context *context = NULL;
  fl_strategy *strategy = NULL;
  fl_strategy_options options;
  fl_strategy_round round;
  double seconds[RUNS_MAX], reads[RUNS_MAX];
  uint64_t before = 0, peak = 0;
  const float *rows[COUNT_MAX];
  require(fl_context_new(&context, NULL));
  require(fl_strategy_options_named(&options, sizeof options, name));
  options.byzantine = b->count / 5;
  require(fl_strategy_new(&strategy, context, &options, b->dim));
  require(fl_strategy_round_init(&round, sizeof round));
  for (uint32_t k = 0; k < b->count; k++)
    rows[k] = (const float *)(const void *)(b->memory + b->size * k);
  round.rows = rows;
  round.count = b->count;
  require(fl_context_get_memory(context, &before, NULL));
  for (int r = 0; r < b->runs; r++) {
    reads[r] = read_s(b);
    const double begin = cpu_s();
    require(fl_strategy_step(strategy, &round, b->vector, b->dim));
    seconds[r] = cpu_s() - begin;
  }
  require(fl_context_get_memory(context, NULL, &peak));
  print(b, rule, seconds, reads, peak - before);
  fl_strategy_free(strategy);
  fl_context_free(context);
}

static int is_listed(const char *list, const char *name)
{
  const size_t n = strlen(name);
  for (const char *at = strstr(list, name); at; at = strstr(at + n, name)) {
    if ((at == list || at[-1] == ',') && (at[n] == '\0' || at[n] == ','))
      return 1;
  }
  return 0;
}

static void run_count(bench *b)
{
  static const char *const rules[][2] = {{"mean", "fedavg"},
                                         {"median", "median"},
                                         {"trimmed", "trimmed-mean"},
                                         {"krum", "krum"},
                                         {"geometric", "geometric-median"}};
  int has_rules = 0;
  b->vector = allocate((size_t)b->dim * sizeof(float));
  if (is_listed(b->rules, "f32")) run_sum(b, "f32", FL_CODEC_F32);
  if (is_listed(b->rules, "thc4")) run_sum(b, "thc4", FL_CODEC_THC);
  for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
    has_rules |= is_listed(b->rules, rules[i][0]);
  if (has_rules) {
    b->size = (size_t)b->dim * sizeof(float);
    b->memory = allocate(b->size * b->count);
    for (uint32_t k = 0; k < b->count; k++)
      draw(b, k, (float *)(void *)(b->memory + b->size * k));
    memset(b->vector, 0, b->size);
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
      if (is_listed(b->rules, rules[i][0]))
        run_rule(b, rules[i][0], rules[i][1]);
    }
    free(b->memory);
  }
  free(b->vector);
}

static void run_hash(const bench *b)
{
  const size_t n = (size_t)b->dim * sizeof(float);
  uint8_t hash[FLI_HASH_BYTES];
  double seconds[RUNS_MAX];
  uint8_t *data = allocate(n);
  memset(data, 7, n);
  for (int r = 0; r < b->runs; r++) {
    const double begin = cpu_s();
    fli_hash(hash, data, n);
    seconds[r] = cpu_s() - begin;
  }
  printf("hash_gbs %.2f\n", (double)n * 1e-9 / median(seconds, b->runs));
  free(data);
}

static int fail(void)
{
  fputs(help, stderr);
  return 2;
}

int main(int argc, char **argv)
{
  static bench b = {.dim = 1000000,
                    .runs = 5,
                    .rules = "f32,thc4,mean,median,trimmed,krum,geometric"};
  const char *counts = "10,100,1000";
  if (argc % 2 == 0) return fail();
  for (int i = 1; i < argc; i += 2) {
    const char *value = argv[i + 1];
    if (strcmp(argv[i], "--dim") == 0) {
      b.dim = strtoull(value, NULL, 10);
    } else if (strcmp(argv[i], "--counts") == 0) {
      counts = value;
    } else if (strcmp(argv[i], "--rules") == 0) {
      b.rules = value;
    } else if (strcmp(argv[i], "--runs") == 0) {
      b.runs = atoi(value);
    } else if (strcmp(argv[i], "--threads") == 0) {
      b.threads = (uint32_t)strtoul(value, NULL, 10);
    } else {
      return fail();
    }
  }
  if (b.dim < 1 || b.dim > UINT64_C(1) << 28 || b.runs < 1 ||
      b.runs > RUNS_MAX || b.threads > 64)
    return fail();
  printf("dim %llu\n", (unsigned long long)b.dim);
  run_hash(&b);
  for (char *end; *counts; counts = *end ? end + 1 : end) {
    const unsigned long count = strtoul(counts, &end, 10);
    if (end == counts || count < 1 || count > COUNT_MAX) return fail();
    b.count = (uint32_t)count;
    run_count(&b);
  }
  return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Throughput of the THC paths on one thread, in GB/s of the float32 vector
 * that goes in or comes out, next to memcpy on the same pages in the same run.
 * Every figure is the median of `--runs` rounds, which take the paths in turn.
 * Prints `key value` lines; what the last round made is compared with what the
 * C kernels make.
 *
 *   bench_thc [--isa c|avx2|avx512|best] [--size N[KiB|MiB]] [--offset BYTES]
 *             [--runs N] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <fl/compress.h>
#include "base/bytes.h"
#include "compress/compressor.h"

enum {
  MAX_RUNS = 101,
  SLOTS = 256,
  NARROW = 8,
  DISTINCT = 4,
  WIDE = 18,
  SLOT_AT = 56
};

enum {
  PATH_MEMCPY,
  PATH_READ,
  PATH_MEASURE,
  PATH_UNIFORM,
  PATH_DITHER,
  PATH_DECODE,
  PATH_ADD_U8,
  PATH_ADD_U16,
  PATHS
};
static const char *const path_names[PATHS] = {
    "memcpy",        "read",   "measure",      "encode_uniform",
    "encode_dither", "decode", "aggregate_u8", "aggregate_u16"};

typedef struct bench {
  uint64_t n;
  char *memory; /* x and out lie in here, `offset` bytes in */
  float *x;
  float *out;
  float *norms;
  uint8_t *update[DISTINCT];
  uint8_t *scratch; /* updates of `scale` */
  size_t size;
  fl_partial *narrow; /* 8 updates in u8 lanes */
  fl_partial *wide;   /* u16 lanes */
  uint32_t next_slot; /* of `wide` */
  fl_compressor *uniform;
  fl_compressor *dither;
  fl_scale scale;      /* of as many slots as `narrow` holds */
  fl_scale wide_scale; /* of SLOTS */
  const flk_table *kernels;
} bench;

static volatile uint64_t sink;

static void require(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  exit(1);
}

static void *get(size_t bytes)
{
  void *p = malloc(bytes);
  if (!p) require(FL_E_NOMEM);
  return p;
}

/* Of the processor: others may be using the machine. */
static double seconds(void)
{
  return (double)clock() / CLOCKS_PER_SEC;
}

static fl_compressor *make(uint64_t n, uint32_t mode)
{
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  require(fl_compressor_options_init(&options, sizeof options));
  options.thc_mode = mode;
  require(fl_compressor_new(&compressor, NULL, &options, &n, 1));
  return compressor;
}

static void encode_as(bench *b, const fl_scale *scale,
                      fl_compressor *compressor, const flk_table *kernels,
                      uint8_t *update)
{
  fl_encode_options options;
  require(fl_encode_options_init(&options, sizeof options));
  compressor->kernels = kernels;
  require(fl_compressor_encode(compressor, scale, &options, b->x, b->n, update,
                               b->size, NULL, NULL));
}

static void encode(bench *b, fl_compressor *compressor,
                   const flk_table *kernels, uint8_t *update)
{
  encode_as(b, &b->scale, compressor, kernels, update);
}

static void encode_all(bench *b, const fl_scale *scale)
{
  for (uint32_t i = 0; i < DISTINCT; i++)
    encode_as(b, scale, b->dither, b->kernels, b->update[i]);
}

/* Add updates with the slots first..last-1: the same bytes under other
 * names. */
static void add(bench *b, fl_partial *partial, uint32_t first, uint32_t last)
{
  for (uint32_t slot = first; slot < last; slot++) {
    uint8_t *update = b->update[slot % DISTINCT];
    fli_store_u32(update + SLOT_AT, slot);
    require(fl_partial_add(partial, update, b->size));
  }
}

static fl_partial *sum_of(bench *b, const fl_scale *scale, uint32_t count)
{
  fl_partial *partial = NULL;
  require(fl_partial_new(&partial, b->dither, scale));
  add(b, partial, 0, count);
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

static void prepare(bench *b, uint64_t n, size_t offset)
{
  size_t bytes = (size_t)n * sizeof(float);
  b->n = n;
  b->memory = get(2 * bytes + 3 * 4096);
  memset(b->memory, 0, 2 * bytes + 3 * 4096);
  size_t start = 4096 - (uintptr_t)b->memory % 4096 + offset;
  b->x = (float *)(void *)(b->memory + start);
  b->out = (float *)(void *)(b->memory + start + (bytes + 4095) / 4096 * 4096);
  fill(b->x, n);
  b->uniform = make(n, FL_THC_UNIFORM);
  b->dither = make(n, FL_THC_DITHER);
  uint64_t n_norms = fl_compressor_norm_count(b->dither);
  b->norms = get(n_norms * sizeof(float));
  require(fl_scale_init(&b->scale, sizeof b->scale));
  b->scale.slots = NARROW;
  require(fl_compressor_measure(b->dither, &b->scale, 1, b->x, n, b->norms,
                                n_norms));
  b->scale.norms = b->norms;
  b->scale.n_norms = n_norms;
  b->size = (size_t)fl_compressor_max_update_size(b->dither);
  for (uint32_t i = 0; i < DISTINCT; i++)
    b->update[i] = get(b->size);
  b->scratch = get(b->size);
  encode_all(b, &b->scale);
  b->dither->kernels = b->kernels;
  b->narrow = sum_of(b, &b->scale, NARROW);
  b->wide_scale = b->scale;
  b->wide_scale.slots = SLOTS;
  encode_all(b, &b->wide_scale);
  b->wide = sum_of(b, &b->wide_scale, WIDE);
  b->next_slot = WIDE;
}

static void read_all(const bench *b)
{
  uint64_t sum = 0;
  const uint8_t *p = (const uint8_t *)b->x;
  for (uint64_t i = 0; i + 64 <= b->n * sizeof(float); i += 64)
    sum += fli_load_u64(p + i);
  sink = sum;
}

/* One update into lanes that are there already. */
static double add_narrow(bench *b)
{
  fl_partial *partial = sum_of(b, &b->wide_scale, 1);
  double start = seconds();
  add(b, partial, 1, 2);
  double elapsed = seconds() - start;
  fl_partial_free(partial);
  return elapsed;
}

static void norms(bench *b)
{
  require(fl_compressor_measure(b->dither, &b->scale, 1, b->x, b->n, b->norms,
                                b->scale.n_norms));
}

static void decode(bench *b, const flk_table *kernels)
{
  b->dither->kernels = kernels;
  require(fl_partial_decode(b->narrow, b->out, b->n));
}

/* GB/s of float32 that went through `path` once. */
static double run(bench *b, int path)
{
  double start = seconds(), elapsed = 0.0;
  switch (path) {
  case PATH_MEMCPY: memcpy(b->out, b->x, b->n * sizeof(float)); break;
  case PATH_READ: read_all(b); break;
  case PATH_MEASURE: norms(b); break;
  case PATH_UNIFORM: encode(b, b->uniform, b->kernels, b->scratch); break;
  case PATH_DITHER: encode(b, b->dither, b->kernels, b->scratch); break;
  case PATH_DECODE: decode(b, b->kernels); break;
  case PATH_ADD_U8: elapsed = add_narrow(b); break;
  default: add(b, b->wide, b->next_slot, b->next_slot + 1); b->next_slot++;
  }
  if (elapsed == 0.0) elapsed = seconds() - start;
  return (double)b->n * 4e-9 / elapsed;
}

static int is_equal(const char *what, const void *got, const void *want,
                    size_t size)
{
  if (memcmp(got, want, size) == 0) return 1;
  fprintf(stderr, "%s: differs from what the C kernels make\n", what);
  return 0;
}

/* 1 when both encoders and the decoder make what the C kernels make. */
static int check(bench *b)
{
  const flk_table *c = flk_kernels_at(0);
  int is_good = 1;
  fl_compressor *encoders[] = {b->uniform, b->dither};
  for (int i = 0; i < 2; i++) {
    encode(b, encoders[i], b->kernels, b->update[0]);
    encode(b, encoders[i], c, b->update[1]);
    is_good &= is_equal("encode", b->update[0], b->update[1], b->size);
  }
  size_t bytes = (size_t)b->n * sizeof(float);
  float *got = get(bytes);
  decode(b, b->kernels);
  memcpy(got, b->out, bytes);
  decode(b, c);
  is_good &= is_equal("decode", got, b->out, bytes);
  free(got);
  return is_good;
}

static int compare(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void release(bench *b)
{
  fl_partial_free(b->narrow);
  fl_partial_free(b->wide);
  fl_compressor_free(b->uniform);
  fl_compressor_free(b->dither);
  for (uint32_t i = 0; i < DISTINCT; i++)
    free(b->update[i]);
  free(b->scratch);
  free(b->norms);
  free(b->memory);
}

static const flk_table *find_isa(const char *name)
{
  if (strcmp(name, "best") == 0) return flk_kernels();
  for (size_t i = 0; flk_kernels_at(i); i++) {
    if (strcmp(flk_kernels_at(i)->name, name) == 0) return flk_kernels_at(i);
  }
  return NULL;
}

/* Bytes; 0 for what is not a size. */
static uint64_t parse_size(const char *text)
{
  char *end;
  uint64_t size = strtoull(text, &end, 10);
  if (strcmp(end, "MiB") == 0) return size << 20;
  if (strcmp(end, "KiB") == 0) return size << 10;
  return *end == 0 ? size : 0;
}

static void report(double figures[PATHS][MAX_RUNS], int runs)
{
  double median[PATHS];
  for (int path = 0; path < PATHS; path++) {
    qsort(figures[path], (size_t)runs, sizeof(double), compare);
    median[path] = figures[path][runs / 2];
    printf("%s_gbs %.2f\n", path_names[path], median[path]);
  }
  for (int path = PATH_UNIFORM; path <= PATH_DECODE; path++) {
    printf("%s_vs_memcpy %.3f\n", path_names[path],
           median[path] / median[PATH_MEMCPY]);
  }
}

int main(int argc, char **argv)
{
  uint64_t size = UINT64_C(64) << 20, offset = 0;
  const char *isa = "best";
  int runs = 21;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--isa") == 0) isa = argv[i + 1];
    if (strcmp(argv[i], "--size") == 0) size = parse_size(argv[i + 1]);
    if (strcmp(argv[i], "--offset") == 0) offset = parse_size(argv[i + 1]);
    if (strcmp(argv[i], "--runs") == 0) runs = atoi(argv[i + 1]);
  }
  bench b = {.kernels = find_isa(isa)};
  if (!b.kernels || size < 4 || runs < 1 || runs > MAX_RUNS || offset % 4 > 0 ||
      offset > 4096) {
    fprintf(stderr, "usage: bench_thc [--isa c|avx2|avx512|best] "
                    "[--size N[KiB|MiB]] [--offset BYTES] [--runs 1..101]\n");
    return 1;
  }
  static double figures[PATHS][MAX_RUNS];
  prepare(&b, size / 4, (size_t)offset);
  for (int r = 0; r < runs; r++) {
    for (int path = 0; path < PATHS; path++)
      figures[path][r] = run(&b, path);
  }
  printf("isa %s\nbytes %llu\noffset %llu\n", b.kernels->name,
         (unsigned long long)size, (unsigned long long)offset);
  report(figures, runs);
  int is_good = check(&b);
  release(&b);
  return !is_good;
}

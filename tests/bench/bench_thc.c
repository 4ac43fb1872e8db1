/* SPDX-License-Identifier: Apache-2.0 */
/* Throughput of the THC paths on one thread, in GB/s of the float32 vector
 * that goes in or comes out, next to memcpy in the same run. Every figure is
 * the median of `--runs` rounds, which take the paths in turn. Prints
 * `key value` lines.
 *
 *   bench_thc [--size FLOATS] [--runs N] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <fl/compress.h>

enum { MAX_RUNS = 101, WORKERS = 8 };

enum {
  PATH_MEMCPY,
  PATH_MEASURE,
  PATH_UNIFORM,
  PATH_DITHER,
  PATH_ADD,
  PATH_DECODE,
  PATHS
};
static const char *const path_names[PATHS] = {
    "memcpy_gbs",        "measure_gbs",      "encode_uniform_gbs",
    "encode_dither_gbs", "aggregate_u8_gbs", "decode_gbs"};

typedef struct bench {
  uint64_t n;
  float *x;
  float *out;
  float *norms;
  uint8_t *update[WORKERS];
  uint8_t *sum;
  size_t size;
  size_t sum_size;
  fl_compressor *uniform;
  fl_compressor *dither;
  fl_scale scale;
} bench;

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

static double seconds(void)
{
  struct timespec now;
  timespec_get(&now, TIME_UTC);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
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

static void encode(bench *b, const fl_compressor *compressor, uint32_t slot)
{
  fl_encode_options options;
  require(fl_encode_options_init(&options, sizeof options));
  options.slot = slot;
  require(fl_compressor_encode(compressor, &b->scale, &options, b->x, b->n,
                               b->update[slot], b->size, NULL, NULL));
}

static fl_partial *add_all(bench *b)
{
  fl_partial *partial = NULL;
  require(fl_partial_new(&partial, b->dither, &b->scale));
  for (uint32_t w = 0; w < WORKERS; w++) {
    require(fl_partial_add(partial, b->update[w], b->size));
  }
  return partial;
}

static void prepare(bench *b, uint64_t n)
{
  b->n = n;
  b->x = get(n * sizeof(float));
  b->out = get(n * sizeof(float));
  uint32_t state = 1;
  for (uint64_t i = 0; i < n; i++) {
    float sum = 0.0f;
    for (int k = 0; k < 4; k++) {
      state = state * 1664525u + 1013904223u;
      sum += (float)(state >> 8) * 0x1p-24f - 0.5f;
    }
    b->x[i] = sum;
    b->out[i] = 0.0f;
  }
  b->uniform = make(n, FL_THC_UNIFORM);
  b->dither = make(n, FL_THC_DITHER);
  uint64_t n_norms = fl_compressor_norm_count(b->dither);
  b->norms = get(n_norms * sizeof(float));
  require(fl_scale_init(&b->scale, sizeof b->scale));
  b->scale.slots = WORKERS;
  require(fl_compressor_measure(b->dither, &b->scale, 1, b->x, n, b->norms,
                                n_norms));
  b->scale.norms = b->norms;
  b->scale.n_norms = n_norms;
  b->size = (size_t)fl_compressor_max_update_size(b->dither);
  for (uint32_t w = 0; w < WORKERS; w++) {
    b->update[w] = get(b->size);
    encode(b, b->dither, w);
  }
  fl_partial *partial = add_all(b);
  require(fl_partial_copy_sum(partial, NULL, 0, &b->sum_size));
  b->sum = get(b->sum_size);
  require(fl_partial_copy_sum(partial, b->sum, b->sum_size, &b->sum_size));
  fl_partial_free(partial);
}

/* GB/s of float32 that went through `path` once. */
static double run(bench *b, int path)
{
  double volume = (double)b->n * 4e-9;
  double start = seconds();
  switch (path) {
  case PATH_MEMCPY: memcpy(b->out, b->x, b->n * sizeof(float)); break;
  case PATH_MEASURE:
    require(fl_compressor_measure(b->dither, &b->scale, 1, b->x, b->n, b->norms,
                                  b->scale.n_norms));
    break;
  case PATH_UNIFORM: encode(b, b->uniform, 0); break;
  case PATH_DITHER: encode(b, b->dither, 0); break;
  case PATH_ADD:
    fl_partial_free(add_all(b));
    volume *= WORKERS;
    break;
  default:
    require(fl_compressor_decode(b->dither, &b->scale, b->sum, b->sum_size,
                                 b->out, b->n));
  }
  double elapsed = seconds() - start;
  if (path == PATH_UNIFORM) encode(b, b->dither, 0);
  return volume / elapsed;
}

static int compare(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static void release(bench *b)
{
  fl_compressor_free(b->uniform);
  fl_compressor_free(b->dither);
  for (uint32_t w = 0; w < WORKERS; w++)
    free(b->update[w]);
  free(b->sum);
  free(b->norms);
  free(b->out);
  free(b->x);
}

int main(int argc, char **argv)
{
  uint64_t n = UINT64_C(1) << 20;
  int runs = 11;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--size") == 0) n = strtoull(argv[i + 1], NULL, 10);
    if (strcmp(argv[i], "--runs") == 0) runs = atoi(argv[i + 1]);
  }
  if (n == 0 || runs < 1 || runs > MAX_RUNS) {
    fprintf(stderr, "usage: bench_thc [--size FLOATS] [--runs 1..%d]\n",
            (int)MAX_RUNS);
    return 1;
  }
  static double figures[PATHS][MAX_RUNS];
  bench b = {0};
  prepare(&b, n);
  for (int r = 0; r < runs; r++) {
    for (int path = 0; path < PATHS; path++)
      figures[path][r] = run(&b, path);
  }
  printf("floats %llu\n", (unsigned long long)n);
  for (int path = 0; path < PATHS; path++) {
    qsort(figures[path], (size_t)runs, sizeof(double), compare);
    printf("%s %.2f\n", path_names[path], figures[path][runs / 2]);
  }
  release(&b);
  return 0;
}

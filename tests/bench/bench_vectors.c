/* SPDX-License-Identifier: Apache-2.0 */
/* Speed of the training engine's vector kernels: bytes read and written per
 * second and elements per second, on arrays of 16 KiB (first-level cache) and
 * 1 MiB, beside a memcpy of one such array. CPU time of the thread, medians
 * over runs in which kernel and memcpy take turns. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/compiler.h"
#include "kernels/nn/nn.h"

enum { ARRAYS = 4, FLOATS_MAX = 1 << 18, RUNS = 9, ROW = 64 };

static const char help[] =
    "usage: bench_vectors [--isa NAME|best|all] [--kernel PART]\n"
    "Print `isa kernel bytes_per_array GB/s Gelements/s memcpy_GB/s` lines.\n"
    "  --isa      which table, c, avx2, ...; best (the default) or all\n"
    "  --kernel   only kernels whose name contains PART\n";

static float *arrays[ARRAYS];
static uint8_t *bytes;
static int32_t *ids;
static const flk_nn_table *nn;
static volatile double sink;

static const flk_sgd sgd = {1.0f, 1e-3f, 1e-4f, 0.9f};
static const flk_adam adam = {1.0f, 0.9f, 0.999f, 1e-8f, 1e-4f, 1e-3f, 1.0f};
static const flk_adagrad adagrad = {1.0f, 1e-3f, 1e-4f, 1e-8f};

typedef struct bench {
  const char *name;
  double bytes; /* read and written per element */
  void (*run)(size_t n);
} bench;

#define FORWARD(name, which)                                            \
  static void name(size_t n)                                            \
  {                                                                     \
    nn->activation.forward[which](arrays[1], arrays[0], n);             \
  }                                                                     \
  static void name##_back(size_t n)                                     \
  {                                                                     \
    nn->activation.backward[which](arrays[1], arrays[2], arrays[0], n); \
  }

FORWARD(relu, FLK_RELU)
FORWARD(gelu, FLK_GELU)
FORWARD(silu, FLK_SILU)
FORWARD(tanh_, FLK_TANH)
FORWARD(sigmoid, FLK_SIGMOID)

static void add(size_t n)
{
  nn->vector.add(arrays[2], arrays[0], arrays[1], n);
}

static void axpy(size_t n)
{
  nn->vector.axpy(arrays[1], 1e-9f, arrays[0], n);
}

static void scale(size_t n)
{
  nn->vector.scale(arrays[1], 0.5f, arrays[0], n);
}

static void from_u8(size_t n)
{
  nn->vector.from_u8(arrays[1], bytes, n, 1.0f / 255.0f, 0.0f);
}

static void column_sums(size_t n)
{
  nn->vector.column_sums(arrays[1], arrays[0], n / ROW, ROW, 0);
}

static void sum_squares(size_t n)
{
  sink = nn->vector.sum_squares(arrays[0], n);
}

static void gather(size_t n)
{
  nn->vector.gather(arrays[1], arrays[0], ids, n / ROW, ROW);
}

static void scatter_add(size_t n)
{
  nn->vector.scatter_add(arrays[1], arrays[0], ids, n / ROW, ROW);
}

static void dropout(size_t n)
{
  flk_dropout d;
  flk_dropout_init(&d, 1, 2, 3, 0.1f);
  nn->dropout.forward(arrays[1], arrays[0], bytes, n, 0, &d);
}

static void dropout_back(size_t n)
{
  nn->dropout.backward(arrays[1], arrays[0], bytes, n, 1.1f);
}

static void softmax_of(size_t n, size_t row)
{
  nn->softmax.forward(arrays[1], arrays[0], n / row, row);
}

static void softmax_10(size_t n)
{
  softmax_of(n, 10);
}

static void softmax_64(size_t n)
{
  softmax_of(n, 64);
}

static void softmax_1000(size_t n)
{
  softmax_of(n, 1000);
}

static void softmax_64_back(size_t n)
{
  nn->softmax.backward(arrays[1], arrays[2], arrays[0], n / ROW, ROW);
}

static void cross_entropy_of(size_t n, size_t row)
{
  flk_cross_entropy loss = {.logits = arrays[0],
                            .targets = ids,
                            .gradient = arrays[1],
                            .rows = n / row,
                            .n = row,
                            .ignore = FLK_IGNORE,
                            .factor = 0.1f};
  sink = nn->softmax.cross_entropy(&loss);
}

static void cross_entropy_10(size_t n)
{
  cross_entropy_of(n, 10);
}

static void cross_entropy_1000(size_t n)
{
  cross_entropy_of(n, 1000);
}

static void squared_error(size_t n)
{
  flk_loss loss = {arrays[0], arrays[1], arrays[2], n, 0.1f};
  sink = nn->softmax.squared_error(&loss);
}

static void binary_entropy(size_t n)
{
  flk_loss loss = {arrays[0], arrays[1], arrays[2], n, 0.1f};
  sink = nn->softmax.binary_cross_entropy(&loss);
}

static float means[FLOATS_MAX], rstds[FLOATS_MAX], gamma_[FLOATS_MAX];

static void layer_norm_of(size_t n, size_t row, int is_back)
{
  static float dgamma[1024], dbeta[1024];
  flk_layer_norm norm = {.x = arrays[0],
                         .y = arrays[1],
                         .dy = arrays[2],
                         .gamma = gamma_,
                         .beta = gamma_,
                         .mean = means,
                         .rstd = rstds,
                         .rows = n / row,
                         .n = row,
                         .epsilon = 1e-5f};
  flk_norm_gradients out = {arrays[1], 0, dgamma, dbeta};
  if (is_back) {
    nn->norm.layer_back(&norm, &out);
  } else {
    nn->norm.layer(&norm);
  }
}

#define LAYER_NORM(row)                         \
  static void layer_norm_##row(size_t n)        \
  {                                             \
    layer_norm_of(n, row, 0);                   \
  }                                             \
  static void layer_norm_##row##_back(size_t n) \
  {                                             \
    layer_norm_of(n, row, 1);                   \
  }

LAYER_NORM(8)
LAYER_NORM(10)
LAYER_NORM(64)
LAYER_NORM(1000)

static void group_norm_of(size_t n, int is_back)
{
  static float dgamma[32], dbeta[32];
  flk_group_norm norm = {.x = arrays[0],
                         .y = arrays[1],
                         .dy = arrays[2],
                         .gamma = gamma_,
                         .beta = gamma_,
                         .mean = means,
                         .rstd = rstds,
                         .images = n / (64 * 32),
                         .pixels = 64,
                         .pixel = 32,
                         .channels = 32,
                         .groups = 8,
                         .epsilon = 1e-5f};
  flk_norm_gradients out = {arrays[1], 0, dgamma, dbeta};
  if (is_back) {
    nn->norm.group_back(&norm, &out);
  } else {
    nn->norm.group(&norm);
  }
}

static void group_norm(size_t n)
{
  group_norm_of(n, 0);
}

static void group_norm_back(size_t n)
{
  group_norm_of(n, 1);
}

static void run_sgd(size_t n)
{
  nn->optimiser.sgd(arrays[1], arrays[0], n, &sgd);
}

static void run_momentum(size_t n)
{
  nn->optimiser.momentum(arrays[1], arrays[0], arrays[2], n, &sgd);
}

static void run_nesterov(size_t n)
{
  nn->optimiser.nesterov(arrays[1], arrays[0], arrays[2], n, &sgd);
}

static void run_adam(size_t n)
{
  nn->optimiser.adam(arrays[1], arrays[0], arrays[2], arrays[3], n, &adam);
}

static void run_adamw(size_t n)
{
  nn->optimiser.adamw(arrays[1], arrays[0], arrays[2], arrays[3], n, &adam);
}

static void run_adagrad(size_t n)
{
  nn->optimiser.adagrad(arrays[1], arrays[0], arrays[3], n, &adagrad);
}

static const bench benches[] = {
    {"relu", 8, relu},
    {"relu_back", 12, relu_back},
    {"gelu", 8, gelu},
    {"gelu_back", 12, gelu_back},
    {"silu", 8, silu},
    {"silu_back", 12, silu_back},
    {"tanh", 8, tanh_},
    {"tanh_back", 12, tanh__back},
    {"sigmoid", 8, sigmoid},
    {"sigmoid_back", 12, sigmoid_back},
    {"add", 12, add},
    {"axpy", 12, axpy},
    {"scale", 8, scale},
    {"from_u8", 5, from_u8},
    {"column_sums_64", 4, column_sums},
    {"sum_squares", 4, sum_squares},
    {"gather_64", 8, gather},
    {"scatter_add_64", 12, scatter_add},
    {"dropout", 8, dropout},
    {"dropout_back", 8, dropout_back},
    {"softmax_10", 8, softmax_10},
    {"softmax_64", 8, softmax_64},
    {"softmax_1000", 8, softmax_1000},
    {"softmax_64_back", 12, softmax_64_back},
    {"cross_entropy_10", 8, cross_entropy_10},
    {"cross_entropy_1000", 8, cross_entropy_1000},
    {"squared_error", 12, squared_error},
    {"binary_cross_entropy", 12, binary_entropy},
    {"layer_norm_8", 8, layer_norm_8},
    {"layer_norm_8_back", 12, layer_norm_8_back},
    {"layer_norm_10", 8, layer_norm_10},
    {"layer_norm_10_back", 12, layer_norm_10_back},
    {"layer_norm_64", 8, layer_norm_64},
    {"layer_norm_64_back", 12, layer_norm_64_back},
    {"layer_norm_1000", 8, layer_norm_1000},
    {"layer_norm_1000_back", 12, layer_norm_1000_back},
    {"group_norm_8x4", 8, group_norm},
    {"group_norm_8x4_back", 12, group_norm_back},
    {"sgd", 12, run_sgd},
    {"momentum", 20, run_momentum},
    {"nesterov", 20, run_nesterov},
    {"adam", 28, run_adam},
    {"adamw", 28, run_adamw},
    {"adagrad", 20, run_adagrad}};

static double seconds(void)
{
  struct timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int compare_doubles(const void *a, const void *b)
{
  double x = *(const double *)a;
  double y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
  qsort(values, n, sizeof *values, compare_doubles);
  return values[n / 2];
}

static void copy(size_t n)
{
  memcpy(arrays[1], arrays[0], n * sizeof(float));
}

/* Numbers in -3..3; the second moments of optimisers are never negative. */
static void fill(void)
{
  uint32_t state = 1;
  for (size_t i = 0; i < ARRAYS * (size_t)FLOATS_MAX; i++) {
    state = state * 1664525u + 1013904223u;
    float x = (float)(state >> 8) * 0x1p-24f;
    size_t k = i / FLOATS_MAX;
    arrays[k][i % FLOATS_MAX] = k == 3 ? x : 6.0f * x - 3.0f;
    bytes[i / ARRAYS] = (uint8_t)(state >> 24);
    ids[i / ARRAYS] = (int32_t)(state >> 8) % 8;
    gamma_[i / ARRAYS] = 1.0f;
  }
}

static double time_of(void (*run)(size_t n), size_t n, size_t times)
{
  double start = seconds();
  for (size_t i = 0; i < times; i++) {
    run(n);
  }
  return (seconds() - start) / (double)times;
}

static void measure(const bench *b, size_t n)
{
  double times[RUNS], copies[RUNS];
  size_t repeats = ((size_t)1 << 22) / n;
  fill();
  time_of(b->run, n, repeats / 4);
  for (size_t i = 0; i < RUNS; i++) {
    copies[i] = time_of(copy, n, repeats);
    time_of(b->run, n, 1);
    times[i] = time_of(b->run, n, repeats);
  }
  double elements = (double)n / median(times, RUNS) * 1e-9;
  printf("%s %s %zu %.1f %.2f %.1f\n", nn->name, b->name, n * sizeof(float),
         elements * b->bytes, elements,
         (double)n * 8e-9 / median(copies, RUNS));
}

static void measure_all(const char *part)
{
  static const size_t lengths[] = {1 << 12, 1 << 18};
  for (size_t i = 0; i < FLI_COUNT_OF(benches); i++) {
    if (!strstr(benches[i].name, part)) continue;
    for (size_t k = 0; k < FLI_COUNT_OF(lengths); k++) {
      measure(&benches[i], lengths[k]);
    }
  }
}

/* Arrays begin at lines of 64 bytes, a few apart: not all in the same set of a
 * cache. */
static int allocate(void)
{
  const size_t each = FLOATS_MAX + 80;
  float *memory = aligned_alloc(64, ARRAYS * each * sizeof(float));
  for (size_t i = 0; memory && i < ARRAYS; i++) {
    arrays[i] = memory + i * each;
  }
  bytes = malloc(FLOATS_MAX);
  ids = malloc(FLOATS_MAX * sizeof *ids);
  return memory && bytes && ids;
}

int main(int argc, char **argv)
{
  const char *isa = "best", *part = "";
  if (argc == 2 && strcmp(argv[1], "--help") == 0) {
    fputs(help, stdout);
    return 0;
  }
  int i = 1;
  for (; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--isa") == 0) {
      isa = argv[i + 1];
    } else if (strcmp(argv[i], "--kernel") == 0) {
      part = argv[i + 1];
    } else {
      break;
    }
  }
  if (i != argc || !allocate()) {
    fputs(help, stderr);
    return 1;
  }
  size_t measured = 0;
  for (size_t t = 0; (nn = flk_nn_at(t)) != NULL; t++) {
    int is_best = strcmp(isa, "best") == 0 && !flk_nn_at(t + 1);
    if (!is_best && strcmp(isa, "all") != 0 && strcmp(isa, nn->name) != 0) {
      continue;
    }
    measure_all(part);
    measured++;
  }
  if (measured == 0) fprintf(stderr, "no table \"%s\" here\n", isa);
  return measured == 0;
}

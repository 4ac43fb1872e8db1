/* SPDX-License-Identifier: Apache-2.0 */
/* Speed of convolutions, one thread, batches of 64: GFLOP/s of forward (with
 * bias and ReLU), of the gradients of inputs and of weights (with the ReLU's
 * mask), and of both in one call, and their share of the rate at which this
 * core multiplies and adds in registers. Padding of channels counts as no work.
 * CPU time of the thread, medians over rounds in which all alternate. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "kernels/nn/nn.h"
#include "linalg/conv.h"

enum { BATCH = 64, ROUNDS = 15, ROUNDS_MAX = 1000, N_PASSES = 4 };

static const char help[] =
    "usage: bench_conv [--isa c|avx2|avx512|neon] [--algorithm NAME]\n"
    "                  [--layer NAME] [--pass forward|dx|dw|backward]\n"
    "                  [--rounds N]\n"
    "Print GFLOP/s of convolutions and their share of the core's peak.\n";

static const char *const passes[N_PASSES] = {"forward", "dx", "dw", "backward"};

typedef struct layer {
  const char *name;
  size_t size, channels, pixel, out_channels, kernel, padding, groups;
} layer;

static const layer layers[] = {
    {"lenet_1_6", 28, 1, 1, 6, 5, 2, 1},
    {"lenet_6_16", 14, 6, 8, 16, 5, 0, 1},
    {"vgg_1_16", 28, 1, 1, 16, 3, 1, 1},
    {"vgg_16_16", 28, 16, 16, 16, 3, 1, 1},
    {"vgg_16_32", 14, 16, 16, 32, 3, 1, 1},
    {"vgg_32_32", 14, 32, 32, 32, 3, 1, 1},
    {"vgg_32_64", 7, 32, 32, 64, 3, 1, 1},
    {"vgg_64_64", 7, 64, 64, 64, 3, 1, 1},
    {"depthwise_32", 28, 32, 32, 32, 3, 1, 32},
    {"pointwise_64_64", 14, 64, 64, 64, 1, 0, 1},
};

typedef struct options {
  const char *algorithm; /* NULL: the one that is chosen */
  const char *layer;     /* NULL: all */
  const char *pass;      /* NULL: all */
  size_t rounds;
} options;

typedef struct run {
  const layer *layer;
  fli_conv conv;
  double flop; /* of one pass */
  float *packed, *packed_back;
  fli_conv_range forward, backward;
  double times[N_PASSES][ROUNDS_MAX];
} run;

static double cpu_us(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return 0.0;
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
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

static float *random_floats(fli_rng *rng, size_t n)
{
  float *values = aligned_alloc(64, (n / 16 + 1) * 64);
  if (!values) exit(1);
  for (size_t i = 0; i < n; i++) {
    values[i] = fli_rng_f32(rng) - 0.5f;
  }
  return values;
}

/* Twelve sums of vectors that stay in registers. */
#define MULTIPLY_ADD(name, bytes)                              \
  static float name(size_t n)                                  \
  {                                                            \
    typedef float vec __attribute__((vector_size(bytes)));     \
    vec sum[12];                                               \
    vec x = (vec){0} + 0.999f;                                 \
    float total = 0.0f;                                        \
    for (size_t k = 0; k < 12; k++) {                          \
      sum[k] = x * (float)k;                                   \
    }                                                          \
    for (size_t i = 0; i < n; i++) {                           \
      _Pragma("GCC unroll 12") for (size_t k = 0; k < 12; k++) \
      {                                                        \
        sum[k] = sum[k] * x + x;                               \
      }                                                        \
    }                                                          \
    for (size_t k = 0; k < 12; k++) {                          \
      for (size_t j = 0; j < (bytes) / sizeof(float); j++) {   \
        total += sum[k][j];                                    \
      }                                                        \
    }                                                          \
    return total;                                              \
  }

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) MULTIPLY_ADD(multiply_32, 32)
    __attribute__((target("avx512f"))) MULTIPLY_ADD(multiply_64, 64)
#endif
        MULTIPLY_ADD(multiply_16, 16)

            static double rate(float (*multiply)(size_t), size_t bytes)
{
  enum { N = 50000 };
  volatile float sink;
  double begin = cpu_us();
  sink = multiply(N);
  (void)sink;
  double flop = 2.0 * 12.0 * (double)(bytes / sizeof(float)) * N;
  return flop / (cpu_us() - begin) / 1e3;
}

/* GFLOP/s */
static double peak(void)
{
  double best = rate(multiply_16, 16);
#if defined(__x86_64__)
  if (__builtin_cpu_supports("fma")) {
    double other = rate(multiply_32, 32);
    if (other > best) best = other;
  }
  if (__builtin_cpu_supports("avx512f")) {
    double other = rate(multiply_64, 64);
    if (other > best) best = other;
  }
#endif
  return best;
}

static fli_conv_shape shape_of(const layer *l)
{
  size_t out_size = l->size + 2 * l->padding - l->kernel + 1;
  return (fli_conv_shape){.height = l->size,
                          .width = l->size,
                          .channels = l->channels,
                          .pixel = l->pixel,
                          .out_height = out_size,
                          .out_width = out_size,
                          .out_channels = l->out_channels,
                          .out_pixel = (l->out_channels + 7) / 8 * 8,
                          .kernel_height = l->kernel,
                          .kernel_width = l->kernel,
                          .stride = 1,
                          .padding = l->padding,
                          .groups = l->groups};
}

static int prepare(run *r, const layer *l, const char *algorithm)
{
  fli_conv_shape s = shape_of(l);
  fli_rng rng;
  *r = (run){.layer = l};
  if (!algorithm) {
    fli_conv_init(&r->conv, &s);
  } else if (!fli_conv_init_as(&r->conv, &s, algorithm)) {
    return 0;
  }
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  size_t n_x = BATCH * s.height * s.width * s.pixel;
  size_t n_y = BATCH * s.out_height * s.out_width * s.out_pixel;
  size_t n_weights =
      s.out_channels * s.channels / s.groups * s.kernel_height * s.kernel_width;
  r->flop = 2.0 * (double)n_weights * BATCH * (double)s.out_height *
            (double)s.out_width;
  float *weights = random_floats(&rng, n_weights);
  r->packed = random_floats(&rng, r->conv.n_packed);
  r->packed_back = random_floats(&rng, r->conv.n_packed_back);
  r->conv.algorithm->pack(&r->conv, weights, r->packed);
  r->conv.algorithm->pack_back(&r->conv, weights, r->packed_back);
  free(weights);
  fli_conv_range range = {.n = BATCH, .x = random_floats(&rng, n_x)};
  range.scratch = random_floats(&rng, r->conv.n_scratch);
  r->forward = r->backward = range;
  r->forward.y = random_floats(&rng, n_y);
  r->backward.dy = random_floats(&rng, n_y);
  r->backward.mask = random_floats(&rng, n_y);
  r->backward.dx = random_floats(&rng, n_x);
  r->backward.sums = random_floats(&rng, r->conv.n_sums);
  return 1;
}

static double time_pass(run *r, size_t pass)
{
  float bias[64] = {0};
  fli_conv_range range = r->backward;
  if (pass == 1) range.sums = NULL;
  if (pass == 2) range.dx = NULL;
  double begin = cpu_us();
  if (pass == 0) {
    r->conv.algorithm->forward(&r->conv, r->packed, bias, 1, &r->forward);
  } else {
    r->conv.algorithm->backward(&r->conv, pass == 2 ? NULL : r->packed_back,
                                &range);
  }
  return cpu_us() - begin;
}

static int is_wanted(const char *only, const char *name)
{
  return !only || strcmp(only, name) == 0;
}

static void report(run *r, const options *o, double best)
{
  for (size_t p = 0; p < N_PASSES; p++) {
    if (!is_wanted(o->pass, passes[p])) continue;
    double flop = p == 3 ? 2.0 * r->flop : r->flop;
    double gflops = flop / median(r->times[p], o->rounds) / 1e3;
    printf("%s_%s_gflops %.1f\n", r->layer->name, passes[p], gflops);
    printf("%s_%s_share %.3f\n", r->layer->name, passes[p], gflops / best);
  }
}

/* 0 when the program should end. */
static int read_options(int argc, char **argv, options *o, int *status)
{
  *status = 2;
  *o = (options){.rounds = ROUNDS};
  for (int i = 1; i < argc; i += 2) {
    const char *value = i + 1 < argc ? argv[i + 1] : NULL;
    if (strcmp(argv[i], "--help") == 0) {
      fputs(help, stdout);
      *status = 0;
      return 0;
    }
    if (value && strcmp(argv[i], "--isa") == 0 && flk_nn_choose(value)) {
      continue;
    }
    if (value && strcmp(argv[i], "--algorithm") == 0) {
      o->algorithm = value;
    } else if (value && strcmp(argv[i], "--layer") == 0) {
      o->layer = value;
    } else if (value && strcmp(argv[i], "--pass") == 0) {
      o->pass = value;
    } else if (value && strcmp(argv[i], "--rounds") == 0) {
      o->rounds = (size_t)strtoul(value, NULL, 10);
    } else {
      fputs(help, stderr);
      return 0;
    }
  }
  if (o->rounds >= 1 && o->rounds <= ROUNDS_MAX) return 1;
  fputs(help, stderr);
  return 0;
}

static void release(run *r)
{
  free(r->packed);
  free(r->packed_back);
  free((void *)(uintptr_t)r->forward.x);
  free(r->forward.scratch);
  free(r->forward.y);
  free((void *)(uintptr_t)r->backward.dy);
  free((void *)(uintptr_t)r->backward.mask);
  free(r->backward.dx);
  free(r->backward.sums);
}

int main(int argc, char **argv)
{
  static run runs[FLI_COUNT_OF(layers)];
  static double peaks[ROUNDS_MAX];
  size_t n = 0;
  int status;
  options o;
  if (!read_options(argc, argv, &o, &status)) return status;
  for (size_t i = 0; i < FLI_COUNT_OF(layers); i++) {
    if (!is_wanted(o.layer, layers[i].name)) continue;
    n += (size_t)prepare(&runs[n], &layers[i], o.algorithm);
  }
  for (size_t k = 0; k < o.rounds; k++) {
    peaks[k] = peak();
    for (size_t i = 0; i < n; i++) {
      for (size_t p = 0; p < N_PASSES; p++) {
        if (!is_wanted(o.pass, passes[p])) continue;
        runs[i].times[p][k] = time_pass(&runs[i], p);
      }
    }
  }
  double best = median(peaks, o.rounds);
  printf("isa %s\npeak_gflops %.1f\n", flk_nn()->name, best);
  for (size_t i = 0; i < n; i++) {
    printf("%s_scratch_bytes %zu\n", runs[i].layer->name,
           runs[i].conv.n_scratch * sizeof(float));
    report(&runs[i], &o, best);
    release(&runs[i]);
  }
  return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Winograd's convolution on one core, as the direct algorithm's GFLOP/s: its
 * multiplications and additions by CPU time, medians of REPEATS, beside the
 * machine's peak of multiply-adds in the same run.
 *
 *   bench_winograd [--isa NAME] [--range IMAGES] */
#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "kernels/nn/nn.h"
#include "linalg/conv.h"

enum { BATCH = 64, REPEATS = 15, PEAK_DEPTH = 4096 };

typedef struct layer {
  size_t map, in, out;
} layer;

typedef enum task { FORWARD, BACK_X, BACK_WEIGHTS, BACK, PACK, N_TASKS } task;

static const char *const task_names[N_TASKS] = {"forward", "dx", "dw", "dx+dw",
                                                "pack+unpack"};

typedef struct arrays {
  fli_conv conv;
  float *x, *y, *dy, *dx, *weights, *packed, *packed_back, *sums, *scratch;
} arrays;

static double cpu_seconds(void)
{
  struct timespec t;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static float *make(size_t n)
{
  static uint32_t state = 1;
  float *data = aligned_alloc(64, (n * sizeof *data + 127) / 64 * 64);
  if (!data) exit(1);
  for (size_t i = 0; i < n; i++) {
    state = state * 1664525u + 1013904223u;
    data[i] = (float)(state >> 8) / 16777216.0f - 0.5f;
  }
  return data;
}

static void run(const arrays *a, task what, size_t range_n)
{
  const fli_conv *conv = &a->conv;
  const fli_conv_algorithm *algorithm = conv->algorithm;
  const fli_conv_shape *s = &conv->shape;
  if (what == PACK) {
    algorithm->pack(conv, a->weights, a->packed);
    algorithm->pack_back(conv, a->weights, a->packed_back);
    algorithm->unpack(conv, a->sums, a->weights, a->scratch);
    return;
  }
  for (size_t i = 0; i < BATCH; i += range_n) {
    size_t in = i * s->height * s->width * s->pixel;
    size_t out = i * s->height * s->width * s->out_pixel;
    fli_conv_range range = {.n = range_n,
                            .x = a->x + in,
                            .y = a->y + out,
                            .dy = a->dy + out,
                            .mask = a->y + out,
                            .dx = what == BACK_WEIGHTS ? NULL : a->dx + in,
                            .sums = what == BACK_X ? NULL : a->sums,
                            .scratch = a->scratch};
    if (what == FORWARD) {
      algorithm->forward(conv, a->packed, a->weights, 1, &range);
    } else {
      algorithm->backward(conv, a->packed_back, &range);
    }
  }
}

/* GFLOP/s of the tallest tile on data in the first cache. */
static double peak(void)
{
  const flk_nn_table *nn = flk_nn();
  size_t rows = nn->pair_max ? 2 * nn->pair_max : nn->rows_max;
  size_t width = nn->width[FLK_PANEL_TWO];
  float *a = make(rows * 64), *b = make(64 * width), *c = make(rows * width);
  flk_tile tile = {.a = {a, a + rows / 2 * 64},
                   .a_row = 0,
                   .a_step = 0,
                   .b = b,
                   .b_step = 0,
                   .n_segments = 1,
                   .depth = PEAK_DEPTH,
                   .c = {c, c + rows / 2 * width},
                   .c_row = (ptrdiff_t)width,
                   .columns = width,
                   .alpha = 1.0f};
  double best = 0.0;
  for (size_t repeat = 0; repeat < 50; repeat++) {
    double begin = cpu_seconds();
    for (size_t i = 0; i < 10; i++) {
      if (nn->pair_max) {
        nn->tile_pair(&tile, rows / 2, FLK_PANEL_TWO);
      } else {
        nn->tile(&tile, rows, FLK_PANEL_TWO);
      }
    }
    double flops = 20.0 * PEAK_DEPTH * (double)(rows * width);
    double rate = flops / (cpu_seconds() - begin) * 1e-9;
    if (rate > best) best = rate;
  }
  free(a);
  free(b);
  free(c);
  return best;
}

static void bench(const layer *of, size_t range_n)
{
  arrays a = {.conv.shape = {.height = of->map,
                             .width = of->map,
                             .channels = of->in,
                             .pixel = of->in,
                             .out_height = of->map,
                             .out_width = of->map,
                             .out_channels = of->out,
                             .out_pixel = of->out,
                             .kernel_height = 3,
                             .kernel_width = 3,
                             .stride = 1,
                             .padding = 1,
                             .groups = 1},
              .conv.algorithm = &fli_conv_winograd};
  size_t pixels = BATCH * of->map * of->map;
  fli_conv_winograd.sizes(&a.conv);
  a.x = make(pixels * of->in);
  a.dx = make(pixels * of->in);
  a.y = make(pixels * of->out);
  a.dy = make(pixels * of->out);
  a.weights = make(9 * of->in * of->out);
  a.packed = make(a.conv.n_packed);
  a.packed_back = make(a.conv.n_packed_back);
  a.sums = make(a.conv.n_sums);
  a.scratch = make(a.conv.n_scratch);
  run(&a, PACK, BATCH);
  double flops = 18.0 * (double)(pixels * of->in * of->out);
  printf("%zux%zu_%zu_%zu:", of->map, of->map, of->in, of->out);
  double times[N_TASKS][REPEATS];
  for (size_t r = 0; r < REPEATS; r++) {
    for (int t = 0; t < N_TASKS; t++) {
      double begin = cpu_seconds();
      run(&a, (task)t, range_n);
      times[t][r] = cpu_seconds() - begin;
    }
  }
  for (int t = 0; t < N_TASKS; t++) {
    qsort(times[t], REPEATS, sizeof(double), by_value);
    double median = times[t][REPEATS / 2];
    printf("  %s %.0f us", task_names[t], median * 1e6);
    if (t == PACK) continue;
    printf(" %.1f GFLOP/s", (t == BACK ? 2 : 1) * flops / median * 1e-9);
  }
  printf("  scratch %zu KB\n", a.conv.n_scratch * sizeof(float) / 1024);
  free(a.x);
  free(a.dx);
  free(a.y);
  free(a.dy);
  free(a.weights);
  free(a.packed);
  free(a.packed_back);
  free(a.sums);
  free(a.scratch);
}

int main(int argc, char **argv)
{
  static const layer layers[] = {
      {28, 16, 16}, {14, 16, 32}, {14, 32, 32}, {7, 32, 64}, {7, 64, 64}};
  size_t range_n = BATCH;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (strcmp(argv[i], "--range") == 0) {
      range_n = (size_t)strtoul(argv[i + 1], NULL, 10);
    } else if (strcmp(argv[i], "--isa") == 0 && !flk_nn_choose(argv[i + 1])) {
      fprintf(stderr, "no such instruction set: %s\n", argv[i + 1]);
      return 2;
    }
  }
  if (range_n == 0 || BATCH % range_n) return 2;
  printf("%s: peak %.1f GFLOP/s\n", flk_nn()->name, peak());
  for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
    bench(&layers[i], range_n);
  }
  return 0;
}

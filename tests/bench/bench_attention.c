/* SPDX-License-Identifier: Apache-2.0 */
/* Time of attention, forward and backward: CPU time of the thread, medians. The
 * peak is that of the instruction set's largest tile on data in the first
 * cache. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "kernels/nn/nn.h"
#include "linalg/attention.h"

enum { ROUNDS = 41 };

typedef struct shape {
  size_t tokens, heads, head_width, batch;
  int is_causal;
} shape;

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

static float *new_values(size_t n)
{
  float *values = malloc(n * sizeof *values);
  fli_rng rng;
  if (!values) exit(1);
  fli_rng_init(&rng, 1, FLI_RNG_TEST, n, 0);
  for (size_t i = 0; i < n; i++) {
    values[i] = 2.0f * fli_rng_f32(&rng) - 1.0f;
  }
  return values;
}

/* GFLOP/s of the tallest tile of two vectors. */
static double measure_peak(void)
{
  enum { DEPTH = 64, TIMES = 2000 };
  const flk_nn_table *nn = flk_nn();
  double best = 0.0;
  size_t n_rows = nn->pair_max > 0 ? nn->pair_max : nn->rows_max;
  size_t width = nn->width[FLK_PANEL_TWO];
  float *a = new_values(FLK_ROWS_MAX * DEPTH);
  float *b = new_values(DEPTH * FLK_PANEL_MAX);
  float *c = new_values(FLK_ROWS_MAX * FLK_PANEL_MAX);
  flk_tile tile = {.a = {a, a + n_rows * DEPTH},
                   .a_row = DEPTH,
                   .a_step = 1,
                   .b = b,
                   .b_step = (ptrdiff_t)width,
                   .n_segments = 1,
                   .depth = DEPTH,
                   .c = {c, c + n_rows * width},
                   .c_row = (ptrdiff_t)width,
                   .columns = width,
                   .alpha = 1.0f};
  for (size_t round = 0; round < ROUNDS; round++) {
    double begin = cpu_us();
    for (size_t i = 0; i < TIMES; i++) {
      if (nn->pair_max > 0) {
        nn->tile_pair(&tile, n_rows, FLK_PANEL_TWO);
      } else {
        nn->tile(&tile, n_rows, FLK_PANEL_TWO);
      }
    }
    double us = cpu_us() - begin;
    if (nn->pair_max > 0) us /= 2.0;
    double rate = 2e-3 * DEPTH * TIMES * (double)(n_rows * width) / us;
    if (rate > best) best = rate;
  }
  free(a);
  free(b);
  free(c);
  return best;
}

typedef struct layer {
  fli_attention attention;
  fli_attention_range range;
  double forward[ROUNDS];
  double backward[ROUNDS];
} layer;

static void new_layer(layer *l, const shape *s)
{
  size_t n_out = s->batch * s->tokens * s->heads * s->head_width;
  l->attention = (fli_attention){.tokens = s->tokens,
                                 .heads = s->heads,
                                 .head_width = s->head_width,
                                 .is_causal = s->is_causal};
  fli_attention_init(&l->attention);
  l->range =
      (fli_attention_range){.n = s->batch,
                            .qkv = new_values(3 * n_out),
                            .y = new_values(n_out),
                            .kept = new_values(s->batch * l->attention.n_kept),
                            .dy = new_values(n_out),
                            .dqkv = new_values(3 * n_out),
                            .scratch = new_values(l->attention.n_scratch)};
}

static void free_layer(layer *l)
{
  free((void *)l->range.qkv);
  free((void *)l->range.dy);
  free(l->range.y);
  free(l->range.kept);
  free(l->range.dqkv);
  free(l->range.scratch);
}

static void report(layer *l, const shape *s, const char *name, double peak)
{
  double samples = (double)s->batch;
  double product = 2e-3 * (double)(s->tokens * s->tokens * s->head_width *
                                   s->heads * s->batch);
  double forward = median(l->forward, ROUNDS);
  double backward = median(l->backward, ROUNDS);
  printf("%s_forward_us %.2f\n", name, forward / samples);
  printf("%s_backward_us %.2f\n", name, backward / samples);
  printf("%s_layer_us %.1f\n", name, forward + backward);
  /* Six products of all tokens with all: neither what making weights anew adds
   * nor what a causal layer leaves out. */
  printf("%s_forward_gflops %.1f\n", name, 2.0 * product / forward);
  printf("%s_backward_gflops %.1f\n", name, 4.0 * product / backward);
  printf("%s_share_of_peak %.3f\n", name,
         6.0 * product / (forward + backward) / peak);
  printf("%s_kept_bytes %zu\n", name,
         s->batch * l->attention.n_kept * sizeof(float));
  printf("%s_scratch_bytes %zu\n", name,
         l->attention.n_scratch * sizeof(float));
}

static void measure(const shape *s, double peak)
{
  static layer l;
  char name[80];
  new_layer(&l, s);
  /* What other layers do in between: the arrays leave the nearest caches. */
  size_t n_other = (size_t)1 << 20;
  float *other = new_values(n_other);
  for (size_t round = 0; round < ROUNDS; round++) {
    memset(other, (int)round, n_other * sizeof *other);
    double begin = cpu_us();
    fli_attention_forward(&l.attention, &l.range);
    l.forward[round] = cpu_us() - begin;
    memset(other, (int)round, n_other * sizeof *other);
    begin = cpu_us();
    fli_attention_backward(&l.attention, &l.range);
    l.backward[round] = cpu_us() - begin;
  }
  (void)snprintf(name, sizeof name, "t%zu_d%zu_h%zu_b%zu%s", s->tokens,
                 s->head_width, s->heads, s->batch,
                 s->is_causal ? "_causal" : "");
  report(&l, s, name, peak);
  free_layer(&l);
  free(other);
}

int main(int argc, char **argv)
{
  static const shape shapes[] = {{28, 4, 16, 64, 0},
                                 {28, 4, 16, 64, 1},
                                 {128, 8, 64, 4, 0},
                                 {128, 8, 64, 4, 1}};
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--isa") == 0 && i + 1 < argc) {
      if (flk_nn_choose(argv[++i])) continue;
      fprintf(stderr, "no kernels '%s' here\n", argv[i]);
      return 1;
    }
    int is_help = strcmp(argv[i], "--help") == 0;
    fprintf(is_help ? stdout : stderr, "usage: bench_attention [--isa NAME]\n"
                                       "NAME: c, avx2, avx512 or neon; else "
                                       "this machine's best\n");
    return !is_help;
  }
  double peak = measure_peak();
  printf("isa %s\n", flk_nn()->name);
  printf("peak_gflops %.1f\n", peak);
  for (size_t i = 0; i < FLI_COUNT_OF(shapes); i++) {
    measure(&shapes[i], peak);
  }
  return 0;
}

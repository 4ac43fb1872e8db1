/* SPDX-License-Identifier: Apache-2.0 */
/* Error of THC on one Gaussian vector that n workers hold alike:
 * |decoded - x|^2 / |x|^2, for uniform rounding at p = 1/32 and for dither at
 * p = 1/91 and p = 1/1024 (p: share of a normal distribution outside the
 * clip). Prints `key value` lines.
 *
 *   nmse_thc [--size FLOATS] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/compress.h>
#include "base/dmath.h"
#include "base/rng.h"

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

typedef struct lab {
  uint64_t n;
  float *x;
  float *out;
  float *norms;
  uint8_t *update;
} lab;

static void add_workers(const lab *l, const fl_compressor *compressor,
                        const fl_scale *scale, fl_partial *partial)
{
  size_t size = (size_t)fl_compressor_max_update_size(compressor);
  fl_encode_options options;
  require(fl_encode_options_init(&options, sizeof options));
  for (uint32_t slot = 0; slot < scale->slots; slot++) {
    options.slot = slot;
    require(fl_compressor_encode(compressor, scale, &options, l->x, l->n,
                                 l->update, size, &size, NULL));
    require(fl_partial_add(partial, l->update, size));
  }
}

static double nmse(const lab *l, const fl_compressor *compressor,
                   uint32_t workers)
{
  fl_scale scale;
  fl_partial *partial = NULL;
  uint64_t n_norms = fl_compressor_norm_count(compressor);
  require(fl_scale_init(&scale, sizeof scale));
  scale.slots = workers;
  require(fl_compressor_measure(compressor, &scale, 1, l->x, l->n, l->norms,
                                n_norms));
  scale.norms = l->norms;
  scale.n_norms = n_norms;
  require(fl_partial_new(&partial, compressor, &scale));
  add_workers(l, compressor, &scale, partial);
  require(fl_partial_decode(partial, l->out, l->n));
  fl_partial_free(partial);
  double error = 0.0, total = 0.0;
  for (uint64_t i = 0; i < l->n; i++) {
    double e = (double)l->out[i] - (double)l->x[i];
    error += e * e;
    total += (double)l->x[i] * (double)l->x[i];
  }
  return error / total;
}

static void report(const lab *l, const char *name, uint32_t mode, double p)
{
  static const uint32_t workers[] = {1, 4, 10, 64};
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  require(fl_compressor_options_init(&options, sizeof options));
  options.thc_mode = mode;
  options.clip = (float)-fli_probit(p / 2);
  require(fl_compressor_new(&compressor, NULL, &options, &l->n, 1));
  for (size_t i = 0; i < sizeof workers / sizeof workers[0]; i++) {
    printf("nmse_%s_n%u %.6f\n", name, workers[i],
           nmse(l, compressor, workers[i]));
  }
  fl_compressor_free(compressor);
}

int main(int argc, char **argv)
{
  lab l = {.n = UINT64_C(1) << 20};
  if (argc == 3 && strcmp(argv[1], "--size") == 0) {
    l.n = strtoull(argv[2], NULL, 10);
  }
  if (l.n == 0) {
    fprintf(stderr, "usage: nmse_thc [--size FLOATS]\n");
    return 1;
  }
  l.x = get(l.n * sizeof(float));
  l.out = get(l.n * sizeof(float));
  l.norms = get((l.n / FL_THC_BLOCK + 1) * sizeof(float));
  l.update = get(l.n + 4096);
  fli_rng rng;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  for (uint64_t i = 0; i < l.n; i++) {
    double u = fli_rng_f64(&rng) * (1.0 - 0x1p-53) + 0x1p-54;
    l.x[i] = (float)fli_probit(u);
  }
  report(&l, "uniform_p32", FL_THC_UNIFORM, 1.0 / 32);
  report(&l, "dither_p91", FL_THC_DITHER, 1.0 / 91);
  report(&l, "dither_p1024", FL_THC_DITHER, 1.0 / 1024);
  free(l.x);
  free(l.out);
  free(l.norms);
  free(l.update);
  return 0;
}

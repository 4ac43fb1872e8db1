/* SPDX-License-Identifier: Apache-2.0 */
/* Rounds for tests of compression: a compressor, vectors drawn from a seed,
 * agreed norms, encoded updates. Works under Criterion and in plain programs:
 * what has to succeed stops the program when it does not. */
#ifndef COMPRESS_FIXTURE_H
#define COMPRESS_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <fl/compress.h>
#include "base/dmath.h"
#include "base/rng.h"

typedef struct cf_round {
  fl_compressor *compressor;
  fl_scale scale;
  float *norms;
  uint64_t n;
} cf_round;

typedef struct cf_bytes {
  uint8_t *data;
  size_t size;
} cf_bytes;

static inline void cf_must(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "fixture: %s: %s\n", fl_status_name(st), fl_last_error());
  abort();
}

static inline void *cf_get(size_t bytes)
{
  void *p = calloc(bytes > 0 ? bytes : 1, 1);
  if (!p) abort();
  return p;
}

static inline void cf_options(fl_compressor_options *options, uint32_t codec,
                              uint32_t mode, uint32_t bits)
{
  cf_must(fl_compressor_options_init(options, sizeof *options));
  options->codec = codec;
  options->thc_mode = mode;
  options->bits = bits;
  memset(options->rotation_seed, 7, sizeof options->rotation_seed);
}

/* n standard normal values. */
static inline float *cf_normal(uint64_t n, uint64_t seed)
{
  float *x = cf_get((size_t)n * sizeof(float));
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (uint64_t i = 0; i < n; i++) {
    double u = fli_rng_f64(&rng) * (1.0 - 0x1p-53) + 0x1p-54;
    x[i] = (float)fli_probit(u);
  }
  return x;
}

/* The rest of a round that has its compressor. */
static inline void cf_open_scale(cf_round *r, uint32_t slots)
{
  cf_must(fl_scale_init(&r->scale, sizeof r->scale));
  r->n = fl_compressor_dim(r->compressor);
  r->scale.n_norms = fl_compressor_norm_count(r->compressor);
  r->norms = cf_get((size_t)r->scale.n_norms * sizeof(float));
  r->scale.norms = r->norms;
  r->scale.slots = slots;
  r->scale.round = 3;
  memset(r->scale.noise_seed, 9, sizeof r->scale.noise_seed);
}

static inline void cf_open(cf_round *r, fl_context *context,
                           const fl_compressor_options *options,
                           const uint64_t *sizes, uint32_t n_segments,
                           uint32_t slots)
{
  cf_must(
      fl_compressor_new(&r->compressor, context, options, sizes, n_segments));
  cf_open_scale(r, slots);
}

static inline void cf_open_simple(cf_round *r, uint32_t codec, uint32_t mode,
                                  uint64_t n, uint32_t slots)
{
  fl_compressor_options options;
  cf_options(&options, codec, mode, 4);
  cf_open(r, NULL, &options, &n, 1, slots);
}

static inline void cf_close(cf_round *r)
{
  fl_compressor_free(r->compressor);
  free(r->norms);
}

/* Let one more update take part in the agreement. */
static inline void cf_agree(cf_round *r, const float *x, uint64_t samples)
{
  size_t bytes = (size_t)r->scale.n_norms * sizeof(float);
  float *own = cf_get(bytes);
  cf_must(fl_compressor_measure(r->compressor, &r->scale, samples, x, r->n, own,
                                r->scale.n_norms));
  cf_must(fl_norms_merge(r->norms, own, r->scale.n_norms));
  free(own);
}

static inline cf_bytes cf_encode_some(const cf_round *r, uint32_t slot,
                                      uint64_t samples, const uint8_t *mask,
                                      uint32_t n_segments, const float *x)
{
  cf_bytes bytes = {NULL, 0};
  fl_encode_options options;
  cf_must(fl_encode_options_init(&options, sizeof options));
  options.slot = slot;
  options.samples = samples;
  options.segments = mask;
  options.n_segments = n_segments;
  cf_must(fl_compressor_encode(r->compressor, &r->scale, &options, x, r->n,
                               NULL, 0, &bytes.size, NULL));
  bytes.data = cf_get(bytes.size);
  cf_must(fl_compressor_encode(r->compressor, &r->scale, &options, x, r->n,
                               bytes.data, bytes.size, &bytes.size, NULL));
  return bytes;
}

static inline cf_bytes cf_encode(const cf_round *r, uint32_t slot,
                                 const float *x)
{
  return cf_encode_some(r, slot, 1, NULL, 0, x);
}

static inline cf_bytes cf_sum(const fl_partial *partial)
{
  cf_bytes bytes = {NULL, 0};
  cf_must(fl_partial_copy_sum(partial, NULL, 0, &bytes.size));
  bytes.data = cf_get(bytes.size);
  cf_must(fl_partial_copy_sum(partial, bytes.data, bytes.size, &bytes.size));
  return bytes;
}

static inline fl_partial *cf_partial(const cf_round *r)
{
  fl_partial *partial = NULL;
  cf_must(fl_partial_new(&partial, r->compressor, &r->scale));
  return partial;
}

static inline int cf_equal(cf_bytes a, cf_bytes b)
{
  return a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
}

/* |a - b|^2 / |b|^2 */
static inline double cf_nmse(const float *a, const float *b, uint64_t n)
{
  double error = 0.0, total = 0.0;
  for (uint64_t i = 0; i < n; i++) {
    double e = (double)a[i] - (double)b[i];
    error += e * e;
    total += (double)b[i] * (double)b[i];
  }
  return error / total;
}

#endif

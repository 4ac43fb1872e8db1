/* SPDX-License-Identifier: Apache-2.0 */
/* The schemes that nmse_thc compares, and the error of one round. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/dmath.h"
#include "nmse.h"

const nmse_scheme nmse_schemes[] = {
    {FL_THC_UNIFORM, 32},
    {FL_THC_DITHER, 91},
    {FL_THC_DITHER, 1024},
    {FL_THC_DITHER, 0},
};
const size_t nmse_n_schemes = sizeof nmse_schemes / sizeof nmse_schemes[0];

void nmse_require(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  exit(1);
}

void *nmse_get(uint64_t count, size_t size)
{
  void *p = count <= SIZE_MAX / size ? malloc((size_t)count * size) : NULL;
  if (!p) nmse_require(FL_E_NOMEM);
  return p;
}

void nmse_scheme_name(const nmse_scheme *scheme, uint32_t bits,
                      char name[NMSE_NAME])
{
  const char *mode = scheme->mode == FL_THC_DITHER ? "dither" : "uniform";
  if (scheme->one_in == 0) {
    (void)snprintf(name, NMSE_NAME, "%s_b%u_auto", mode, bits);
    return;
  }
  (void)snprintf(name, NMSE_NAME, "%s_b%u_p%u", mode, bits, scheme->one_in);
}

fl_compressor *nmse_scheme_open(const nmse_scheme *scheme, uint32_t bits,
                                uint64_t n, uint64_t seed)
{
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  nmse_require(fl_compressor_options_init(&options, sizeof options));
  options.thc_mode = scheme->mode;
  options.bits = bits;
  if (scheme->one_in > 0)
    options.clip = (float)-fli_probit(0.5 / (double)scheme->one_in);
  fli_store_u64(options.rotation_seed, seed);
  nmse_require(fl_compressor_new(&compressor, NULL, &options, &n, 1));
  return compressor;
}

/* The elementwise maximum of what all workers measure. */
static float *agree(const nmse_data *data, const fl_compressor *compressor,
                    const fl_scale *scale)
{
  uint64_t n_norms = fl_compressor_norm_count(compressor);
  float *agreed = nmse_get(n_norms, sizeof(float));
  float *own = nmse_get(n_norms, sizeof(float));
  for (uint32_t i = 0; i < (data->rows == 1 ? 1 : scale->slots); i++) {
    nmse_require(fl_compressor_measure(compressor, scale, 1, nmse_row(data, i),
                                       data->n, i == 0 ? agreed : own,
                                       n_norms));
    if (i > 0) nmse_require(fl_norms_merge(agreed, own, n_norms));
  }
  free(own);
  return agreed;
}

static void sum_updates(const nmse_data *data, const fl_compressor *compressor,
                        const fl_scale *scale, float *out)
{
  size_t capacity = (size_t)fl_compressor_max_update_size(compressor);
  uint8_t *update = nmse_get(capacity, 1);
  fl_partial *partial = NULL;
  fl_encode_options options;
  nmse_require(fl_encode_options_init(&options, sizeof options));
  nmse_require(fl_partial_new(&partial, compressor, scale));
  for (uint32_t slot = 0; slot < scale->slots; slot++) {
    size_t size = 0;
    options.slot = slot;
    nmse_require(fl_compressor_encode(compressor, scale, &options,
                                      nmse_row(data, slot), data->n, update,
                                      capacity, &size, NULL));
    nmse_require(fl_partial_add(partial, update, size));
  }
  nmse_require(fl_partial_decode(partial, out, data->n));
  fl_partial_free(partial);
  free(update);
}

static double compare(const nmse_data *data, uint32_t workers, const float *out)
{
  uint32_t rows = data->rows == 1 ? 1 : workers;
  double error = 0.0, total = 0.0;
  double *sum = nmse_get(data->n, sizeof(double));
  memset(sum, 0, (size_t)data->n * sizeof(double));
  for (uint32_t row = 0; row < rows; row++) {
    const float *x = nmse_row(data, row);
    for (uint64_t i = 0; i < data->n; i++) {
      sum[i] += (double)x[i];
      total += (double)x[i] * (double)x[i];
    }
  }
  for (uint64_t i = 0; i < data->n; i++) {
    double e = (double)out[i] - sum[i] / (double)rows;
    error += e * e;
  }
  free(sum);
  return error / (total / (double)rows);
}

double nmse_round(const nmse_data *data, const fl_compressor *compressor,
                  uint32_t workers, uint64_t seed)
{
  fl_scale scale;
  nmse_require(fl_scale_init(&scale, sizeof scale));
  scale.slots = workers;
  fli_store_u64(scale.noise_seed, seed);
  float *norms = agree(data, compressor, &scale);
  scale.norms = norms;
  scale.n_norms = fl_compressor_norm_count(compressor);
  float *out = nmse_get(data->n, sizeof(float));
  sum_updates(data, compressor, &scale, out);
  double error = compare(data, workers, out);
  free(out);
  free(norms);
  return error;
}

void nmse_figure_add(nmse_figure *figure, double value)
{
  double off = value - figure->mean;
  figure->n++;
  figure->mean += off / (double)figure->n;
  figure->squares += off * (value - figure->mean);
}

double nmse_figure_error(const nmse_figure *figure)
{
  if (figure->n < 2) return 0.0;
  double n = (double)figure->n;
  return sqrt(figure->squares / (n - 1.0) / n);
}

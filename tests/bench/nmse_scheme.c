/* SPDX-License-Identifier: Apache-2.0 */
/* The schemes that nmse_thc compares, and the error of one round. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/dmath.h"
#include "nmse.h"

/* The table printed in the THC paper, for p = 1/32; not quite the best. */
static const uint8_t paper_table[16] = {0,  3,  5,  7,  9,  11, 13, 14,
                                        16, 17, 19, 21, 23, 25, 27, 30};

const nmse_scheme nmse_schemes[] = {
    {FL_THC_UNIFORM, 32, 0, NULL}, {FL_THC_UNIFORM, 0, 0, NULL},
    {FL_THC_DITHER, 91, 0, NULL},  {FL_THC_DITHER, 1024, 0, NULL},
    {FL_THC_DITHER, 0, 0, NULL},   {FL_THC_TABLE, 32, 30, paper_table},
    {FL_THC_TABLE, 32, 30, NULL},  {FL_THC_TABLE, 1024, 30, NULL},
    {FL_THC_TABLE, 0, 0, NULL},
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

int nmse_scheme_fits(const nmse_scheme *scheme, uint32_t bits)
{
  if (scheme->table) return bits == 4;
  return scheme->granularity == 0 || scheme->granularity >= (1u << bits) - 1;
}

void nmse_scheme_name(const nmse_scheme *scheme, uint32_t bits,
                      char name[NMSE_NAME])
{
  static const char *const modes[] = {"", "uniform", "dither", "table"};
  char grid[16] = "", clip[16] = "_best";
  if (scheme->granularity > 0)
    (void)snprintf(grid, sizeof grid, "_g%u", scheme->granularity);
  if (scheme->one_in > 0)
    (void)snprintf(clip, sizeof clip, "_p%u", scheme->one_in);
  (void)snprintf(name, NMSE_NAME, "%s_b%u%s%s", modes[scheme->mode], bits,
                 scheme->table ? "_paper" : grid, clip);
}

fl_compressor *nmse_scheme_open(const nmse_scheme *scheme, uint32_t bits,
                                uint64_t n, uint64_t seed)
{
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  nmse_require(fl_compressor_options_init(&options, sizeof options));
  options.thc_mode = scheme->mode;
  options.bits = bits;
  options.granularity = scheme->granularity;
  if (scheme->one_in > 0)
    options.clip = (float)-fli_probit(0.5 / (double)scheme->one_in);
  if (scheme->table) {
    options.table = scheme->table;
    options.n_table = 1u << bits;
  }
  fli_store_u64(options.rotation_seed, seed);
  nmse_require(fl_compressor_new(&compressor, NULL, &options, &n, 1));
  return compressor;
}

/* Sum of agreed^2 (own / agreed)^10: what `spread` of fl_compressor_best_clip
 * is made of. */
static double spread_sum(const float *own, const float *agreed, uint64_t n)
{
  double sum = 0.0;
  for (uint64_t i = 0; i < n; i++) {
    double unit = (double)agreed[i];
    if (unit > 0.0) sum += unit * unit * pow((double)own[i] / unit, 10.0);
  }
  return sum;
}

static uint32_t different_rows(const nmse_data *data, uint32_t workers)
{
  return data->rows == 1 ? 1 : workers;
}

/* The elementwise maximum of what all workers measure, and how far it is
 * above theirs. */
static float *agree(const nmse_data *data, const fl_compressor *compressor,
                    const fl_scale *scale, double *spread)
{
  uint32_t rows = different_rows(data, scale->slots);
  uint64_t n_norms = fl_compressor_norm_count(compressor);
  float *agreed = nmse_get(n_norms, sizeof(float));
  float *own = nmse_get(rows * n_norms, sizeof(float));
  double sum = 0.0;
  memset(agreed, 0, (size_t)n_norms * sizeof(float));
  for (uint32_t i = 0; i < rows; i++) {
    float *mine = own + i * n_norms;
    nmse_require(fl_compressor_measure(compressor, scale, 1, nmse_row(data, i),
                                       data->n, mine, n_norms));
    nmse_require(fl_norms_merge(agreed, mine, n_norms));
  }
  for (uint32_t i = 0; i < rows; i++)
    sum += spread_sum(own + i * n_norms, agreed, n_norms);
  *spread = pow(spread_sum(agreed, agreed, n_norms) * (double)rows / sum, 0.1);
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

/* The workers' mean; returns the mean of |x|^2. */
static double average(const nmse_data *data, uint32_t workers, double *mean)
{
  uint32_t rows = different_rows(data, workers);
  double total = 0.0;
  memset(mean, 0, (size_t)data->n * sizeof(double));
  for (uint32_t row = 0; row < rows; row++) {
    const float *x = nmse_row(data, row);
    for (uint64_t i = 0; i < data->n; i++) {
      mean[i] += (double)x[i];
      total += (double)x[i] * (double)x[i];
    }
  }
  for (uint64_t i = 0; i < data->n; i++)
    mean[i] /= (double)rows;
  return total / (double)rows;
}

/* |out - mean|^2; |mean|^2 for out = NULL. */
static double distance(const double *mean, const float *out, uint64_t n)
{
  double sum = 0.0;
  for (uint64_t i = 0; i < n; i++) {
    double e = (out ? (double)out[i] : 0.0) - mean[i];
    sum += e * e;
  }
  return sum;
}

double nmse_round(const nmse_data *data, const fl_compressor *compressor,
                  uint32_t workers, int is_best, uint64_t seed)
{
  fl_scale scale;
  double *mean = nmse_get(data->n, sizeof(double));
  float *out = nmse_get(data->n, sizeof(float));
  double total = average(data, workers, mean);
  nmse_require(fl_scale_init(&scale, sizeof scale));
  scale.slots = workers;
  fli_store_u64(scale.noise_seed, seed);
  double spread = 1.0;
  float *norms = agree(data, compressor, &scale, &spread);
  if (is_best) {
    double coherence = distance(mean, NULL, data->n) / total;
    scale.clip =
        fl_compressor_best_clip(compressor, workers, coherence, spread);
  }
  scale.norms = norms;
  scale.n_norms = fl_compressor_norm_count(compressor);
  sum_updates(data, compressor, &scale, out);
  double error = distance(mean, out, data->n) / total;
  free(norms);
  free(out);
  free(mean);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The schemes that nmse_thc compares. */
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
    {FL_CODEC_THC, FL_THC_UNIFORM, NMSE_FIXED, 32, 0, NULL},
    {FL_CODEC_THC, FL_THC_UNIFORM, NMSE_BEST, 0, 0, NULL},
    {FL_CODEC_THC, FL_THC_DITHER, NMSE_FIXED, 91, 0, NULL},
    {FL_CODEC_THC, FL_THC_DITHER, NMSE_FIXED, 1024, 0, NULL},
    {FL_CODEC_THC, FL_THC_DITHER, NMSE_BEST, 0, 0, NULL},
    {FL_CODEC_THC, FL_THC_DITHER, NMSE_AUTO, 0, 0, NULL},
    {FL_CODEC_THC, FL_THC_TABLE, NMSE_FIXED, 32, 30, paper_table},
    {FL_CODEC_THC, FL_THC_TABLE, NMSE_FIXED, 32, 30, NULL},
    {FL_CODEC_THC, FL_THC_TABLE, NMSE_FIXED, 1024, 30, NULL},
    {FL_CODEC_THC, FL_THC_TABLE, NMSE_BEST, 0, 0, NULL},
    {FL_CODEC_THC, FL_THC_TABLE, NMSE_AUTO, 0, 0, NULL},
    {FL_CODEC_F32, FL_THC_DITHER, NMSE_FIXED, 0, 0, NULL},
    {FL_CODEC_BF16, FL_THC_DITHER, NMSE_FIXED, 0, 0, NULL},
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
  if (scheme->codec == FL_CODEC_F32) return bits == 32;
  if (scheme->codec == FL_CODEC_BF16) return bits == 16;
  if (bits > 8) return 0;
  if (scheme->table) return bits == 4;
  return scheme->granularity == 0 || scheme->granularity >= (1u << bits) - 1;
}

void nmse_scheme_name(const nmse_scheme *scheme, uint32_t bits,
                      char name[NMSE_NAME])
{
  static const char *const modes[] = {"", "uniform", "dither", "table"};
  static const char *const clips[] = {"", "_best", "_auto"};
  char grid[16] = "", clip[16];
  if (scheme->codec != FL_CODEC_THC) {
    (void)snprintf(name, NMSE_NAME, "%s", bits == 32 ? "f32" : "bf16");
    return;
  }
  (void)snprintf(clip, sizeof clip, "%s", clips[scheme->choice]);
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
  options.codec = scheme->codec;
  options.thc_mode = scheme->mode;
  if (scheme->codec == FL_CODEC_THC) options.bits = bits;
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

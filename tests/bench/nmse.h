/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of nmse_thc: data sets, schemes, and the error of one round. All end
 * the program on failure. */
#ifndef BENCH_NMSE_H
#define BENCH_NMSE_H

#include <stddef.h>
#include <stdint.h>

#include <fl/compress.h>

enum { NMSE_MAX_LIST = 16 };

void nmse_require(fl_status st);
void *nmse_get(uint64_t count, size_t size);

/* ---- data (nmse_data.c) ---- */

typedef enum nmse_kind {
  NMSE_GAUSS,       /* one vector held by all */
  NMSE_GAUSS_INDEP, /* every worker its own */
  NMSE_LOGNORMAL,   /* exp of a normal number, with a random sign */
  NMSE_STUDENT3,    /* Student's t with 3 degrees of freedom */
  NMSE_SPARSE,      /* 1 % normal numbers, zeros otherwise */
  NMSE_KINDS,
  NMSE_VECTORS = NMSE_KINDS /* of a file */
} nmse_kind;

typedef struct nmse_data {
  uint32_t rows; /* 1 when all workers hold the same vector */
  uint64_t n;
  float *values;
} nmse_data;

/* "gauss", ...; "vectors" for NMSE_VECTORS. */
const char *nmse_kind_name(nmse_kind kind);
/* Rows that `workers` workers need. */
uint32_t nmse_kind_rows(nmse_kind kind, uint32_t workers);
/* Draw rows * n numbers of the stream `seed`. */
void nmse_draw(nmse_data *data, nmse_kind kind, uint64_t seed);
const float *nmse_row(const nmse_data *data, uint32_t worker);

/* ---- schemes (nmse_scheme.c) ---- */

/* One way to compress: a row of the table in nmse_scheme.c. */
typedef struct nmse_scheme {
  uint32_t mode;        /* FL_THC_* */
  uint32_t one_in;      /* 1 / p: share outside the clip; 0 = best_clip's */
  uint32_t granularity; /* 0 = the library's choice */
  const uint8_t *table; /* 16 values, for 4 bits alone; NULL = solved */
} nmse_scheme;

extern const nmse_scheme nmse_schemes[];
extern const size_t nmse_n_schemes;

enum { NMSE_NAME = 48 };
/* 1 when the scheme exists for that many bits. */
int nmse_scheme_fits(const nmse_scheme *scheme, uint32_t bits);
/* "dither_b4_p91", "table_b4_g30_p1024", "table_b4_paper_p32". */
void nmse_scheme_name(const nmse_scheme *scheme, uint32_t bits,
                      char name[NMSE_NAME]);
/* A compressor for one segment of n floats, its rotation drawn from `seed`. */
fl_compressor *nmse_scheme_open(const nmse_scheme *scheme, uint32_t bits,
                                uint64_t n, uint64_t seed);
/* |decoded - mean|^2 / mean_i |x_i|^2 of one round of `workers` workers.
 * `is_best`: with the clip that fl_compressor_best_clip finds for the data's
 * own coherence and spread. */
double nmse_round(const nmse_data *data, const fl_compressor *compressor,
                  uint32_t workers, int is_best, uint64_t seed);

/* Mean and its standard error, number by number (Welford). */
typedef struct nmse_figure {
  uint32_t n;
  double mean;
  double squares;
} nmse_figure;
void nmse_figure_add(nmse_figure *figure, double value);
/* 0 for fewer than two numbers. */
double nmse_figure_error(const nmse_figure *figure);

/* ---- theory (nmse_theory.c) ---- */

/* Print measured and predicted error of every scheme with `bits` bits, one
 * worker, Gaussian data; at most `seeds` rounds each. */
void nmse_theory(uint64_t n, uint32_t bits, uint32_t seeds);

/* A line on stderr that the next one replaces; nothing when that is no
 * terminal. NULL wipes it. */
void nmse_progress(const char *text);

#endif

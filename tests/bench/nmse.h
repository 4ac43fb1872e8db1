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
  uint32_t rows;  /* 1 when all workers hold the same vector */
  uint32_t first; /* row of worker 0; they go around */
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

/* Where the clip comes from. */
typedef enum nmse_choice {
  NMSE_FIXED, /* `one_in` */
  NMSE_BEST,  /* fl_compressor_best_clip for the data's own coherence */
  NMSE_AUTO   /* the same for what a round on other data let a server see */
} nmse_choice;

/* One way to compress: a row of the table in nmse_scheme.c. */
typedef struct nmse_scheme {
  uint32_t codec;       /* FL_CODEC_* */
  uint32_t mode;        /* FL_THC_* */
  nmse_choice choice;   /* of the clip */
  uint32_t one_in;      /* 1 / p: share outside the clip */
  uint32_t granularity; /* 0 = the library's choice */
  const uint8_t *table; /* 2^bits values; NULL = solved */
} nmse_scheme;

extern const nmse_scheme nmse_schemes[];
extern const size_t nmse_n_schemes;

enum { NMSE_NAME = 48 };
/* 1 when the scheme exists for that many bits; 32 and 16 are f32's and
 * bf16's. */
int nmse_scheme_fits(const nmse_scheme *scheme, uint32_t bits);
/* "dither_b4_p91", "table_b4_g30_p1024", "table_b4_paper_p32", "bf16". */
void nmse_scheme_name(const nmse_scheme *scheme, uint32_t bits,
                      char name[NMSE_NAME]);
/* A compressor for one segment of n floats, its rotation drawn from `seed`. */
fl_compressor *nmse_scheme_open(const nmse_scheme *scheme, uint32_t bits,
                                uint64_t n, uint64_t seed);

/* ---- rounds (nmse_round.c) ---- */

/* Some workers with their vectors, and what they agree on. */
typedef struct nmse_task {
  const nmse_data *data;
  const fl_compressor *compressor;
  uint32_t workers;
  double *mean;
  double square;    /* mean of |x|^2 */
  double coherence; /* |mean|^2 / square */
  float *norms;
  double spread; /* of fl_compressor_best_clip */
  double energy; /* mean over workers of the sum of squared norms */
} nmse_task;
void nmse_task_open(nmse_task *task, const nmse_data *data,
                    const fl_compressor *compressor, uint32_t workers);
void nmse_task_close(nmse_task *task);
/* |decoded - mean|^2 / mean_i |x_i|^2 of a round; clip 0: the compressor's. */
double nmse_task_error(const nmse_task *task, float clip, uint64_t seed);
/* The coherence that a server sees, which knows norms and what a round with
 * the clip for independent updates decodes to (lib/server/clip.c). */
double nmse_task_seen_coherence(const nmse_task *task, uint64_t seed);

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

/* Print measured and predicted error of every mode and clip with `bits` bits,
 * one worker, Gaussian data; at most `seeds` rounds each. Returns how many are
 * off by more than 1 % and three standard errors. */
uint32_t nmse_theory(uint64_t n, uint32_t bits, uint32_t seeds);

/* ---- clips (nmse_sweep.c) ---- */

enum { NMSE_CLIPS = 56 }; /* .5, .6, ... 6 */
typedef struct nmse_sweep {
  nmse_figure at[NMSE_CLIPS];
  nmse_figure best; /* with fl_compressor_best_clip's */
  nmse_figure best_clip;
} nmse_sweep;
void nmse_sweep_add(nmse_sweep *sweep, const nmse_task *task, uint64_t seed);
/* The least error of all clips, where it is, and the best clip's, as
 * `sweep_<name>_<what>` lines. */
void nmse_sweep_print(const nmse_sweep *sweep, const char *name);

/* A line on stderr that the next one replaces; nothing when that is no
 * terminal. NULL wipes it. */
void nmse_progress(const char *text);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What bench_thc times: one vector, what was made of it, and the paths that it
 * takes through the library. */
#ifndef BENCH_THC_PATHS_H
#define BENCH_THC_PATHS_H

#include <fl/compress.h>
#include <fl/feedback.h>
#include "adapters/host/pool.h"
#include "kernels/kernels.h"

enum { BENCH_UPDATES = 8 };

enum {
  PATH_MEMCPY,
  PATH_READ,
  PATH_MEASURE, /* from here on with threads */
  PATH_MEASURE_EF,
  PATH_UNIFORM,
  PATH_TABLE,
  PATH_DITHER,
  PATH_ENCODE_EF,
  PATH_DECODE,
  PATH_ADD_U8,
  PATH_ADD_U16,
  PATH_ADD8_U16,
  PATH_ADD8_U8,
  PATHS
};
extern const char *const bench_path_names[PATHS];

/* How many threads the library's hook uses now. */
typedef struct bench_threads {
  fl_context *context;
  fli_host_pool *pool; /* or NULL */
  int is_parallel;
} bench_threads;

typedef struct bench_paths {
  bench_threads *threads;
  const flk_table *kernels;
  uint64_t n;
  char *memory; /* x and out lie in here */
  float *x;
  float *out;
  float *norms;
  float *corrected_norms;
  char *update_memory;
  uint8_t *update[BENCH_UPDATES]; /* of `many`, encoded each for itself */
  size_t sizes[BENCH_UPDATES];
  uint8_t *encoded; /* what the encoders write */
  size_t size;
  fl_compressor *uniform;
  fl_compressor *table;
  fl_compressor *dither;
  fl_scale few;       /* slots: those of `sum` */
  fl_scale corrected; /* as `few`, with the norms of corrected updates */
  fl_scale many;      /* enough for all that is ever added to `wide` */
  /* Both remember what a first encoding of x lost, and the second has measured
   * x for the next one. */
  fl_feedback *idle;
  fl_feedback *measured;
  fl_partial *sum;  /* BENCH_UPDATES updates with dither, u8 lanes */
  fl_partial *wide; /* u16 lanes */
  uint32_t next_slot;
} bench_paths;

/* Ends the program, as everything here does when the library fails. */
void bench_require(fl_status st);

void bench_threads_init(bench_threads *threads, uint32_t count);
void bench_threads_free(bench_threads *threads);

/* n floats that begin `offset` bytes behind a page. */
void bench_paths_init(bench_paths *b, uint64_t n, size_t offset);
void bench_paths_free(bench_paths *b);
/* Seconds that one path takes: of the processor, or, where there is a pool, of
 * the clock. */
double bench_paths_run(bench_paths *b, int path);
/* float32 that went through a path, in bytes. */
double bench_paths_bytes(const bench_paths *b, int path);
/* 1 when every path gives what the plain C functions give. */
int bench_paths_check(bench_paths *b);

#endif

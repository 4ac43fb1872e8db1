/* SPDX-License-Identifier: Apache-2.0 */
/* Error of the mean that THC delivers, |decoded - mean|^2 / mean_i |x_i|^2,
 * for several ways to round, kinds of data and numbers of workers. Every seed
 * draws its own data, rotation and noise. Prints `key value` lines:
 *   bits_<scheme>                bits per coordinate sent
 *   nmse_<data>_<scheme>_n<k>    mean over the seeds, k workers
 *   nmse_<data>_<scheme>_n<k>_se its standard error
 * rivals.py prints the same of methods whose updates cannot be added. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <unistd.h>

#include "nmse.h"
#include "npy.h"

static const char help[] =
    "usage: nmse_thc [options]\n"
    "Error of the mean that THC delivers, as `key value` lines.\n"
    "  --size N        floats per vector (1048576)\n"
    "  --bits LIST     bits per coordinate, 1..8 (4; with --theory all)\n"
    "  --workers LIST  numbers of workers (1,4,10,64)\n"
    "  --seeds N       rounds per figure (3; with --theory at most 2000)\n"
    "  --data LIST     of gauss, gauss_indep, lognormal, student3, sparse "
    "(all)\n"
    "  --vectors FILE  instead: float32 matrix (.npy), one row per worker\n"
    "  --theory        one worker, Gaussian data: measured and predicted\n"
    "  --help          this text\n";

typedef struct arguments {
  uint64_t size;
  uint32_t bits[NMSE_MAX_LIST];
  uint32_t n_bits;
  uint32_t workers[NMSE_MAX_LIST];
  uint32_t n_workers;
  uint32_t seeds;                /* 0 = the default */
  uint32_t kinds[NMSE_MAX_LIST]; /* nmse_kind */
  uint32_t n_kinds;
  const char *vectors;
  int is_theory;
} arguments;

static void refuse(const char *name, const char *got, const char *want)
{
  fprintf(stderr, "nmse_thc: %s: got %s, want %s (see --help)\n", name,
          got ? got : "nothing", want);
  exit(2);
}

/* Number at the begin of `text`; *end is behind it. */
static uint64_t number(const char *name, const char *text, uint64_t most,
                       char **end)
{
  errno = 0;
  unsigned long long n = strtoull(text, end, 10);
  if (text[0] < '0' || text[0] > '9' || errno || n < 1 || n > most) {
    char want[40];
    (void)snprintf(want, sizeof want, "1..%llu", (unsigned long long)most);
    refuse(name, text, want);
  }
  return n;
}

static uint64_t one_number(const char *name, const char *text, uint64_t most)
{
  char *end = NULL;
  uint64_t n = number(name, text, most, &end);
  if (*end) refuse(name, text, "a number");
  return n;
}

static uint32_t number_list(const char *name, const char *text, uint32_t most,
                            uint32_t list[NMSE_MAX_LIST])
{
  uint32_t n = 0;
  for (const char *at = text;; at++) {
    char *end = NULL;
    if (n == NMSE_MAX_LIST) refuse(name, text, "at most 16 numbers");
    list[n++] = (uint32_t)number(name, at, most, &end);
    at = end;
    if (*at == 0) return n;
    if (*at != ',') refuse(name, text, "numbers with commas between");
  }
}

static uint32_t kind_list(const char *text, uint32_t list[NMSE_MAX_LIST])
{
  uint32_t n = 0;
  while (n < NMSE_MAX_LIST) {
    size_t length = strcspn(text, ",");
    uint32_t kind = 0;
    while (kind < NMSE_KINDS &&
           (strlen(nmse_kind_name((nmse_kind)kind)) != length ||
            strncmp(nmse_kind_name((nmse_kind)kind), text, length) != 0)) {
      kind++;
    }
    if (kind == NMSE_KINDS) refuse("--data", text, "names of data sets");
    list[n++] = kind;
    if (text[length] == 0) return n;
    text += length + 1;
  }
  refuse("--data", text, "at most 16 names");
  return 0;
}

static void set_option(arguments *a, const char *name, const char *value)
{
  if (strcmp(name, "--size") == 0) {
    a->size = one_number(name, value, UINT64_C(1) << 32);
  } else if (strcmp(name, "--bits") == 0) {
    a->n_bits = number_list(name, value, 8, a->bits);
  } else if (strcmp(name, "--workers") == 0) {
    a->n_workers = number_list(name, value, FL_MAX_SLOTS, a->workers);
  } else if (strcmp(name, "--seeds") == 0) {
    a->seeds = (uint32_t)one_number(name, value, 1000000);
  } else if (strcmp(name, "--data") == 0) {
    a->n_kinds = kind_list(value, a->kinds);
  } else if (strcmp(name, "--vectors") == 0) {
    a->vectors = value;
  } else {
    refuse("option", name, "one of --help's");
  }
}

static arguments parse(int argc, char **argv)
{
  static const uint32_t workers[] = {1, 4, 10, 64};
  arguments a = {.size = UINT64_C(1) << 20, .n_workers = 4};
  memcpy(a.workers, workers, sizeof workers);
  for (uint32_t kind = 0; kind < NMSE_KINDS; kind++)
    a.kinds[a.n_kinds++] = kind;
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      fputs(help, stdout);
      exit(0);
    }
    if (strcmp(argv[i], "--theory") == 0) {
      a.is_theory = 1;
      continue;
    }
    if (i + 1 == argc) refuse(argv[i], NULL, "a value");
    set_option(&a, argv[i], argv[i + 1]);
    i++;
  }
  if (a.n_bits == 0 && a.is_theory) {
    for (uint32_t bits = 1; bits <= 8; bits++)
      a.bits[a.n_bits++] = bits;
  }
  if (a.n_bits == 0) a.bits[a.n_bits++] = 4;
  if (a.seeds == 0) a.seeds = a.is_theory ? 2000 : 3;
  return a;
}

void nmse_progress(const char *text)
{
  if (!isatty(2)) return;
  fprintf(stderr, "\r\033[K%s", text ? text : "");
}

/* All bits, schemes and numbers of workers on one kind of data. */
typedef struct table {
  const arguments *arguments;
  nmse_kind kind;
  nmse_data data;
  nmse_figure *figures;
} table;

static nmse_figure *figure_of(const table *t, uint32_t bits, size_t scheme,
                              uint32_t workers)
{
  size_t row = bits * nmse_n_schemes + scheme;
  return &t->figures[row * t->arguments->n_workers + workers];
}

static int has_workers(const table *t, uint32_t workers)
{
  return t->kind != NMSE_VECTORS || workers <= t->data.rows;
}

static void measure(const table *t, uint32_t bits, size_t scheme, uint64_t seed)
{
  const arguments *a = t->arguments;
  char name[NMSE_NAME], line[3 * NMSE_NAME];
  fl_compressor *compressor =
      nmse_scheme_open(&nmse_schemes[scheme], a->bits[bits], t->data.n, seed);
  nmse_scheme_name(&nmse_schemes[scheme], a->bits[bits], name);
  for (uint32_t k = 0; k < a->n_workers; k++) {
    if (!has_workers(t, a->workers[k])) continue;
    (void)snprintf(line, sizeof line, "%s, seed %u of %u: %s, %u workers",
                   nmse_kind_name(t->kind), (unsigned)seed, a->seeds, name,
                   a->workers[k]);
    nmse_progress(line);
    nmse_figure_add(figure_of(t, bits, scheme, k),
                    nmse_round(&t->data, compressor, a->workers[k],
                               nmse_schemes[scheme].one_in == 0, seed));
  }
  fl_compressor_free(compressor);
}

static void print_table(const table *t)
{
  const arguments *a = t->arguments;
  nmse_progress(NULL);
  for (uint32_t bits = 0; bits < a->n_bits; bits++) {
    for (size_t scheme = 0; scheme < nmse_n_schemes; scheme++) {
      char name[NMSE_NAME];
      if (!nmse_scheme_fits(&nmse_schemes[scheme], a->bits[bits])) continue;
      nmse_scheme_name(&nmse_schemes[scheme], a->bits[bits], name);
      printf("bits_%s %u\n", name, a->bits[bits]);
      for (uint32_t k = 0; k < a->n_workers; k++) {
        const nmse_figure *figure = figure_of(t, bits, scheme, k);
        const char *data = nmse_kind_name(t->kind);
        if (figure->n == 0) continue;
        printf("nmse_%s_%s_n%u %.6g\n", data, name, a->workers[k],
               figure->mean);
        printf("nmse_%s_%s_n%u_se %.2g\n", data, name, a->workers[k],
               nmse_figure_error(figure));
      }
    }
  }
  (void)fflush(stdout);
}

static void run_table(table *t)
{
  const arguments *a = t->arguments;
  size_t n = (size_t)a->n_bits * nmse_n_schemes * a->n_workers;
  t->figures = nmse_get(n, sizeof *t->figures);
  memset(t->figures, 0, n * sizeof *t->figures);
  for (uint32_t seed = 1; seed <= a->seeds; seed++) {
    nmse_progress(nmse_kind_name(t->kind));
    if (t->kind != NMSE_VECTORS) nmse_draw(&t->data, t->kind, seed);
    for (uint32_t bits = 0; bits < a->n_bits; bits++) {
      for (size_t scheme = 0; scheme < nmse_n_schemes; scheme++) {
        if (nmse_scheme_fits(&nmse_schemes[scheme], a->bits[bits]))
          measure(t, bits, scheme, seed);
      }
    }
  }
  print_table(t);
  free(t->figures);
}

static void run_file(const arguments *a)
{
  npy_matrix matrix;
  char error[200];
  FILE *file = fopen(a->vectors, "rb");
  if (!file) refuse("--vectors", a->vectors, "a file that can be read");
  if (npy_read(&matrix, file, error, sizeof error) != 0) {
    fprintf(stderr, "nmse_thc: %s: %s\n", a->vectors, error);
    exit(2);
  }
  (void)fclose(file);
  table t = {.arguments = a,
             .kind = NMSE_VECTORS,
             .data = {matrix.rows, matrix.columns, matrix.values}};
  run_table(&t);
  npy_free(&matrix);
}

static void run_drawn(const arguments *a)
{
  uint32_t most = 0;
  for (uint32_t k = 0; k < a->n_workers; k++)
    most = a->workers[k] > most ? a->workers[k] : most;
  for (uint32_t i = 0; i < a->n_kinds; i++) {
    table t = {.arguments = a, .kind = (nmse_kind)a->kinds[i]};
    t.data.rows = nmse_kind_rows(t.kind, most);
    t.data.n = a->size;
    t.data.values = nmse_get(t.data.rows * a->size, sizeof(float));
    run_table(&t);
    free(t.data.values);
  }
}

int main(int argc, char **argv)
{
  arguments a = parse(argc, argv);
  if (a.is_theory) {
    for (uint32_t i = 0; i < a.n_bits; i++)
      nmse_theory(a.size, a.bits[i], a.seeds);
  } else if (a.vectors) {
    run_file(&a);
  } else {
    run_drawn(&a);
  }
  return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Error of the mean that THC delivers, |decoded - mean|^2 / mean_i |x_i|^2,
 * for several ways to round, kinds of data and numbers of workers. Every seed
 * draws its own data, rotation and noise. Prints `key value` lines:
 *   bits_<scheme>                bits per coordinate sent
 *   nmse_<data>_<scheme>_n<k>    mean over the seeds, k workers
 *   nmse_<data>_<scheme>_n<k>_se its standard error
 * (of --size's second and later numbers with _d<size> behind n<k>), or with
 * --sweep what nmse_sweep_print says.
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
    "  --size LIST     floats per vector (1048576,1000003; with --theory "
    "131072)\n"
    "  --bits LIST     bits per coordinate, 1..8 (4; with --theory all)\n"
    "  --workers LIST  numbers of workers (1,4,10,64)\n"
    "  --seeds N       rounds per figure (3; with --theory at most 5000)\n"
    "  --data LIST     of gauss, gauss_indep, lognormal, student3, sparse "
    "(all)\n"
    "  --vectors FILE  instead: float32 matrix (.npy), one row per worker\n"
    "  --name NAME     of what is in FILE, in keys (vectors)\n"
    "  --sweep         the least error of all clips, and the best clip's\n"
    "  --theory        one worker, Gaussian data: measured and predicted; "
    "status 1\n"
    "                  where they differ by more than 1 % and 3 standard "
    "errors\n"
    "  --help          this text\n";

/* Seeds of what went before, which no figure uses. */
enum { BEFORE = 1 << 24 };

typedef struct arguments {
  uint32_t sizes[NMSE_MAX_LIST];
  uint32_t n_sizes;
  uint32_t bits[NMSE_MAX_LIST + 2]; /* and those of f32 and bf16 */
  uint32_t n_bits;
  uint32_t workers[NMSE_MAX_LIST];
  uint32_t n_workers;
  uint32_t seeds;                /* 0 = the default */
  uint32_t kinds[NMSE_MAX_LIST]; /* nmse_kind */
  uint32_t n_kinds;
  const char *vectors;
  const char *name;
  int is_theory;
  int is_sweep;
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

static uint32_t one_number(const char *name, const char *text, uint32_t most)
{
  char *end = NULL;
  uint64_t n = number(name, text, most, &end);
  if (*end) refuse(name, text, "a number");
  return (uint32_t)n;
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

static const char *key_part(const char *name, const char *text)
{
  size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789_");
  if (length == 0 || text[length] || length >= NMSE_NAME)
    refuse(name, text, "1..47 of a..z, 0..9, _");
  return text;
}

static void set_option(arguments *a, const char *name, const char *value)
{
  if (strcmp(name, "--size") == 0) {
    a->n_sizes = number_list(name, value, UINT32_MAX, a->sizes);
  } else if (strcmp(name, "--bits") == 0) {
    a->n_bits = number_list(name, value, 8, a->bits);
  } else if (strcmp(name, "--workers") == 0) {
    a->n_workers = number_list(name, value, FL_MAX_SLOTS, a->workers);
  } else if (strcmp(name, "--seeds") == 0) {
    a->seeds = one_number(name, value, 1000000);
  } else if (strcmp(name, "--data") == 0) {
    a->n_kinds = kind_list(value, a->kinds);
  } else if (strcmp(name, "--vectors") == 0) {
    a->vectors = value;
  } else if (strcmp(name, "--name") == 0) {
    a->name = key_part(name, value);
  } else {
    refuse("option", name, "one of --help's");
  }
}

/* What is still open. */
static void set_defaults(arguments *a)
{
  static const uint32_t sizes[] = {1u << 20, 1000003};
  if (a->n_sizes == 0) {
    memcpy(a->sizes, sizes, sizeof sizes);
    a->n_sizes = 2;
    if (a->is_theory) a->sizes[0] = 1u << 17;
  }
  if (a->n_bits == 0 && a->is_theory) {
    for (uint32_t bits = 1; bits <= 8; bits++)
      a->bits[a->n_bits++] = bits;
  }
  if (a->n_bits == 0) a->bits[a->n_bits++] = 4;
  if (!a->is_theory) {
    a->bits[a->n_bits++] = 32;
    a->bits[a->n_bits++] = 16;
  }
  if (a->seeds == 0) a->seeds = a->is_theory ? 5000 : 3;
}

static arguments parse(int argc, char **argv)
{
  static const uint32_t workers[] = {1, 4, 10, 64};
  arguments a = {.n_workers = 4, .name = "vectors"};
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
    } else if (strcmp(argv[i], "--sweep") == 0) {
      a.is_sweep = 1;
    } else {
      if (i + 1 == argc) refuse(argv[i], NULL, "a value");
      set_option(&a, argv[i], argv[i + 1]);
      i++;
    }
  }
  set_defaults(&a);
  return a;
}

void nmse_progress(const char *text)
{
  if (!isatty(2)) return;
  fprintf(stderr, "\r\033[K%s", text ? text : "");
}

/* What is known of one scheme with some number of workers. */
typedef struct cell {
  nmse_figure figure;
  nmse_sweep sweep;
  double coherence; /* NMSE_AUTO: what the round before has shown */
} cell;

/* All bits, schemes and numbers of workers on one kind of data. */
typedef struct table {
  const arguments *arguments;
  const char *name;
  char suffix[NMSE_NAME];
  nmse_kind kind;
  nmse_data data;
  cell *cells;
} table;

static cell *cell_of(const table *t, uint32_t bits, size_t scheme,
                     uint32_t workers)
{
  size_t row = bits * nmse_n_schemes + scheme;
  return &t->cells[row * t->arguments->n_workers + workers];
}

static int has_workers(const table *t, uint32_t workers)
{
  return t->kind != NMSE_VECTORS || workers <= t->data.rows;
}

static int is_wanted(const table *t, uint32_t bits, size_t scheme)
{
  const nmse_scheme *s = &nmse_schemes[scheme];
  if (t->arguments->is_sweep && s->choice != NMSE_BEST) return 0;
  return nmse_scheme_fits(s, t->arguments->bits[bits]);
}

typedef void (*task_fn)(const nmse_task *task, const nmse_scheme *scheme,
                        cell *at, uint64_t seed);

/* A round on other data, before the ones that count. */
static void look(const nmse_task *task, const nmse_scheme *scheme, cell *at,
                 uint64_t seed)
{
  if (scheme->choice == NMSE_AUTO)
    at->coherence = nmse_task_seen_coherence(task, seed);
}

static void measure(const nmse_task *task, const nmse_scheme *scheme, cell *at,
                    uint64_t seed)
{
  double coherence =
      scheme->choice == NMSE_AUTO ? at->coherence : task->coherence;
  float clip = 0.0f;
  if (scheme->choice != NMSE_FIXED) {
    clip = fl_compressor_best_clip(task->compressor, task->workers, coherence,
                                   task->spread);
  }
  nmse_figure_add(&at->figure, nmse_task_error(task, clip, seed));
}

static void sweep(const nmse_task *task, const nmse_scheme *scheme, cell *at,
                  uint64_t seed)
{
  (void)scheme;
  nmse_sweep_add(&at->sweep, task, seed);
}

/* What is looked at are the rows behind those of the workers, around the
 * file. */
static void do_scheme(table *t, uint32_t bits, size_t scheme, uint64_t seed,
                      task_fn act)
{
  const arguments *a = t->arguments;
  char name[NMSE_NAME], line[3 * NMSE_NAME];
  fl_compressor *compressor =
      nmse_scheme_open(&nmse_schemes[scheme], a->bits[bits], t->data.n, seed);
  nmse_scheme_name(&nmse_schemes[scheme], a->bits[bits], name);
  for (uint32_t k = 0; k < a->n_workers; k++) {
    nmse_task task;
    if (!has_workers(t, a->workers[k])) continue;
    (void)snprintf(line, sizeof line, "%s%s, seed %u: %s, %u workers", t->name,
                   t->suffix, (unsigned)seed, name, a->workers[k]);
    nmse_progress(line);
    t->data.first = act == look ? a->workers[k] : 0;
    nmse_task_open(&task, &t->data, compressor, a->workers[k]);
    act(&task, &nmse_schemes[scheme], cell_of(t, bits, scheme, k), seed);
    nmse_task_close(&task);
  }
  fl_compressor_free(compressor);
}

static void do_all(table *t, uint64_t seed, task_fn act)
{
  nmse_progress(t->name);
  if (t->kind != NMSE_VECTORS) nmse_draw(&t->data, t->kind, seed);
  for (uint32_t bits = 0; bits < t->arguments->n_bits; bits++) {
    for (size_t scheme = 0; scheme < nmse_n_schemes; scheme++) {
      if (!is_wanted(t, bits, scheme)) continue;
      if (act == look && nmse_schemes[scheme].choice != NMSE_AUTO) continue;
      do_scheme(t, bits, scheme, seed, act);
    }
  }
}

static void print_scheme(const table *t, uint32_t bits, size_t scheme)
{
  const arguments *a = t->arguments;
  char name[NMSE_NAME], key[4 * NMSE_NAME];
  nmse_scheme named = nmse_schemes[scheme];
  if (a->is_sweep) named.choice = NMSE_FIXED;
  nmse_scheme_name(&named, a->bits[bits], name);
  if (!a->is_sweep) printf("bits_%s %u\n", name, a->bits[bits]);
  for (uint32_t k = 0; k < a->n_workers; k++) {
    const cell *at = cell_of(t, bits, scheme, k);
    if (!has_workers(t, a->workers[k])) continue;
    (void)snprintf(key, sizeof key, "%s_%s_n%u%s", t->name, name, a->workers[k],
                   t->suffix);
    if (a->is_sweep) {
      nmse_sweep_print(&at->sweep, key);
      continue;
    }
    printf("nmse_%s %.6g\n", key, at->figure.mean);
    printf("nmse_%s_se %.2g\n", key, nmse_figure_error(&at->figure));
  }
}

static void print_table(const table *t)
{
  nmse_progress(NULL);
  for (uint32_t bits = 0; bits < t->arguments->n_bits; bits++) {
    for (size_t scheme = 0; scheme < nmse_n_schemes; scheme++) {
      if (is_wanted(t, bits, scheme)) print_scheme(t, bits, scheme);
    }
  }
  (void)fflush(stdout);
}

static void run_table(table *t)
{
  const arguments *a = t->arguments;
  size_t n = (size_t)a->n_bits * nmse_n_schemes * a->n_workers;
  t->cells = nmse_get(n, sizeof *t->cells);
  memset(t->cells, 0, n * sizeof *t->cells);
  for (uint32_t seed = 1; seed <= a->seeds; seed++) {
    if (a->is_sweep) {
      do_all(t, seed, sweep);
    } else {
      do_all(t, BEFORE + seed, look);
      do_all(t, seed, measure);
    }
  }
  print_table(t);
  free(t->cells);
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
             .name = a->name,
             .kind = NMSE_VECTORS,
             .data = {matrix.rows, 0, matrix.columns, matrix.values}};
  run_table(&t);
  npy_free(&matrix);
}

static void run_drawn(const arguments *a, uint32_t kind, uint32_t size)
{
  uint32_t most = 0;
  table t = {.arguments = a, .kind = (nmse_kind)kind};
  t.name = nmse_kind_name(t.kind);
  for (uint32_t k = 0; k < a->n_workers; k++)
    most = a->workers[k] > most ? a->workers[k] : most;
  if (size > 0)
    (void)snprintf(t.suffix, sizeof t.suffix, "_d%u", a->sizes[size]);
  t.data.rows = nmse_kind_rows(t.kind, most);
  t.data.n = a->sizes[size];
  t.data.values = nmse_get(t.data.rows * t.data.n, sizeof(float));
  run_table(&t);
  free(t.data.values);
}

int main(int argc, char **argv)
{
  arguments a = parse(argc, argv);
  uint32_t off = 0;
  if (a.is_theory) {
    for (uint32_t i = 0; i < a.n_bits; i++)
      off += nmse_theory(a.sizes[0], a.bits[i], a.seeds);
  } else if (a.vectors) {
    run_file(&a);
  } else {
    for (uint32_t i = 0; i < a.n_kinds; i++) {
      for (uint32_t size = 0; size < a.n_sizes; size++)
        run_drawn(&a, a.kinds[i], size);
    }
  }
  return off > 0;
}

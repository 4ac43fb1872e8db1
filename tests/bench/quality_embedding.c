/* SPDX-License-Identifier: Apache-2.0 */
/* What pruned tables lose, and what they take: a factorisation machine with a
 * net beside it, one pass over rows in the order of time, its AUC on the last
 * rows, and the bytes of its rows. This file takes the options and prints. */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/auc.h"
#include "quality.h"

#define SKETCH QUALITY_SKETCH

static const char help[] =
    "usage: quality_embedding [--data FILE] [OPTION VALUE]... [--tuning]\n"
    "  --data FILE     what examples/recommender/prepare.py wrote; without it\n"
    "                  200,000 made-up rows with Zipf's ids\n"
    "  --seeds N       the first N seeds of 11..20, or of the tuning seeds\n"
    "                  1..10; 3 (default)\n"
    "  --tuning        the tuning seeds\n"
    "  --methods LIST  of the names below; all but the last (default)\n"
    "  --rows N        use the first N rows of the data, the last tenth to\n"
    "                  test; all (default)\n"
    "  --every N       steps between adjusts; 50 (default), and 3, 6, 9, 30,\n"
    "                  60, 90\n"
    "  --sketch X      counters per value in each of the sketch's two rows;\n"
    "                  0.1 (default)\n"
    "  --decay X       of utilities, per adjust; 0.98 (default)\n"
    "  --hysteresis X  1.3 (default)\n"
    "  --budget N      bytes for the method budget\n"
    "One pass in batches of 2048, shuffled within 64 of them. FM + net\n"
    "(fields x D - 64 - 1), Adam at .001, rows by row-wise AdaGrad at .05.\n"
    "Prints `key value` lines; METHOD is\n"
    "  full_4, full_8, full_16, full_32   all rows of D values\n"
    "  hash_5, hash_1            D = 16, ids folded to 5 %, 1 % of each "
    "field's\n"
    "  fold_5, fold_1            the same, fields of 65,536 values or more "
    "only\n"
    "  row_5, row_1              D = 16, rows that are kept or pruned whole\n"
    "  exact_20, exact_5, exact_1     4 chunks of 4, budgets for 20, 5, 1 % "
    "of\n"
    "                            the values' rows, and a sketch of 4 counters\n"
    "                            per value beside it\n"
    "  sketch_20, sketch_5, sketch_1  the same with a small sketch, as row_*\n"
    "  same_4, same_8            4 chunks of 4 in the bytes of a plain array "
    "of\n"
    "                            rows of 4, 8\n"
    "  budget                    4 chunks of 4, --budget bytes in all\n"
    "  auc_METHOD, spread_METHOD    mean over the seeds, largest - smallest\n"
    "  loss_METHOD                  auc_full_16 - auc_METHOD\n"
    "  mb_METHOD                    of the store at the end, all that counts\n"
    "                               for a budget, MB of 10^6 bytes\n"
    "  scratch_mb_METHOD            of a batch, beside it\n"
    "  peak_mb_METHOD               of both, at most\n"
    "  budget_mb_METHOD, array_mb_METHOD   what it was given; a plain array "
    "of\n"
    "                               the same rows with accumulators\n"
    "  seconds_METHOD, adjust_pct_METHOD   processor time of a pass; share of\n"
    "                               it in adjusts\n"
    "  churn_METHOD                 chunks evicted in a pass\n";

enum { SEEDS = 10, FIRST_SEED = 11, FIRST_TUNING_SEED = 1 };

static const quality_method methods[] = {
    {.name = "full_16", .dim = 16, .chunks = 4},
    {.name = "full_4", .dim = 4, .chunks = 1},
    {.name = "full_8", .dim = 8, .chunks = 2},
    {.name = "full_32", .dim = 32, .chunks = 4},
    {.name = "hash_5", .dim = 16, .chunks = 4, .hash = .05},
    {.name = "hash_1", .dim = 16, .chunks = 4, .hash = .01},
    {.name = "fold_5", .dim = 16, .chunks = 4, .hash = .05, .fold_at = 65536},
    {.name = "fold_1", .dim = 16, .chunks = 4, .hash = .01, .fold_at = 65536},
    {.name = "row_5", .dim = 16, .chunks = 1, .keep = .05, .memory = SKETCH},
    {.name = "row_1", .dim = 16, .chunks = 1, .keep = .01, .memory = SKETCH},
    {.name = "exact_20", .dim = 16, .chunks = 4, .keep = .2},
    {.name = "exact_5", .dim = 16, .chunks = 4, .keep = .05},
    {.name = "exact_1", .dim = 16, .chunks = 4, .keep = .01},
    {.name = "sketch_20", .dim = 16, .chunks = 4, .keep = .2, .memory = SKETCH},
    {.name = "sketch_5", .dim = 16, .chunks = 4, .keep = .05, .memory = SKETCH},
    {.name = "sketch_1", .dim = 16, .chunks = 4, .keep = .01, .memory = SKETCH},
    {.name = "same_4", .dim = 16, .chunks = 4, .as_dim = 4, .memory = SKETCH},
    {.name = "same_8", .dim = 16, .chunks = 4, .as_dim = 8, .memory = SKETCH},
    {.name = "budget", .dim = 16, .chunks = 4, .budget = 1, .memory = SKETCH},
};
enum { METHODS = sizeof methods / sizeof *methods };

typedef struct arguments {
  const char *data;
  const char *methods; /* NULL: the default ones */
  uint64_t rows;       /* 0: all */
  uint64_t budget;
  uint32_t seeds;
  int is_tuning;
  quality_recipe recipe;
} arguments;

static double auc_full_16 = NAN;

void quality_must(fl_status st, const char *what)
{
  if (st == FL_OK) return;
  fprintf(stderr, "quality_embedding: %s: %s: %s\n", what, fl_status_name(st),
          fl_last_error());
  exit(1);
}

static void refuse(const char *name, const char *got, const char *want)
{
  fprintf(stderr, "quality_embedding: %s: got %s, want %s (--help)\n", name,
          got ? got : "nothing", want);
  exit(2);
}

static uint64_t whole(const char *name, const char *text, uint64_t most)
{
  char *end = NULL;
  char want[48];
  errno = 0;
  unsigned long long n = strtoull(text, &end, 10);
  if (text[0] >= '0' && text[0] <= '9' && !*end && !errno && n >= 1 &&
      n <= most)
    return n;
  (void)snprintf(want, sizeof want, "1..%llu", (unsigned long long)most);
  refuse(name, text, want);
  return 0;
}

/* Is a name one of a list with commas? */
static int is_listed(const char *list, const char *name)
{
  size_t n = strlen(name);
  for (const char *at = list; at; at = strchr(at, ',')) {
    at += *at == ',';
    if (strncmp(at, name, n) == 0 && (at[n] == 0 || at[n] == ',')) return 1;
  }
  return 0;
}

static void check_methods(const char *list)
{
  char name[32];
  for (const char *at = list; at; at = strchr(at, ',')) {
    at += *at == ',';
    size_t n = strcspn(at, ","), i = 0;
    if (n >= sizeof name) n = sizeof name - 1;
    memcpy(name, at, n);
    name[n] = 0;
    while (i < METHODS && strcmp(methods[i].name, name) != 0)
      i++;
    if (i == METHODS) refuse("--methods", name, "names of methods");
  }
}

static double number(const char *name, const char *text, double least,
                     double most)
{
  char *end = NULL;
  char want[48];
  double x = strtod(text, &end);
  if (end != text && !*end && x >= least && x <= most) return x;
  (void)snprintf(want, sizeof want, "%g..%g", least, most);
  refuse(name, text, want);
  return 0;
}

static void set_option(arguments *a, const char *name, const char *value)
{
  if (strcmp(name, "--data") == 0) {
    a->data = value;
  } else if (strcmp(name, "--seeds") == 0) {
    a->seeds = (uint32_t)whole(name, value, SEEDS);
  } else if (strcmp(name, "--methods") == 0) {
    check_methods(value);
    a->methods = value;
  } else if (strcmp(name, "--rows") == 0) {
    a->rows = whole(name, value, UINT32_MAX);
  } else if (strcmp(name, "--every") == 0) {
    a->recipe.adjust_every = (uint32_t)whole(name, value, 1000000);
  } else if (strcmp(name, "--sketch") == 0) {
    a->recipe.sketch = number(name, value, 1e-6, 10.0);
  } else if (strcmp(name, "--decay") == 0) {
    a->recipe.decay = (float)number(name, value, 0.0, 1.0);
  } else if (strcmp(name, "--hysteresis") == 0) {
    a->recipe.hysteresis = (float)number(name, value, 1.0, 100.0);
  } else if (strcmp(name, "--budget") == 0) {
    a->budget = whole(name, value, UINT64_C(1) << 40);
  } else {
    refuse(name, "no such option", "one of --help");
  }
}

static void parse(arguments *a, int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      (void)fputs(help, stdout);
      exit(0);
    }
    if (strcmp(argv[i], "--tuning") == 0) {
      a->is_tuning = 1;
      continue;
    }
    if (i + 1 == argc) refuse(argv[i], NULL, "a value");
    set_option(a, argv[i], argv[i + 1]);
    i++;
  }
}

/* ---- data ---------------------------------------------------------------- */

static void open_data(const arguments *a, struct clicks *clicks)
{
  char error[1024];
  static const struct clicks_recipe made = {.seed = 5,
                                            .n_rows = 200000,
                                            .n_train = 180000,
                                            .n_fields = 6,
                                            .customers = 2000,
                                            .n_values = 100000,
                                            .exponent = 1.05,
                                            .strength = 1.0};
  double ceiling = 0;
  if (a->data && clicks_load(clicks, a->data, error, sizeof error) != 0) {
    fprintf(stderr, "quality_embedding: --data: %s\n", error);
    exit(1);
  }
  if (!a->data && clicks_make(clicks, &made) != 0)
    quality_must(FL_E_NOMEM, "rows");
  if (a->rows > 0 && a->rows < clicks->n_rows) {
    clicks->n_rows = a->rows;
    clicks->n_train = a->rows - a->rows / 10;
  }
  printf("rows %llu\n", (unsigned long long)clicks->n_rows);
  printf("values %llu\n", (unsigned long long)clicks_count_values(clicks));
  if (clicks->truth &&
      auc_of(clicks->truth + clicks->n_train, clicks->labels + clicks->n_train,
             (size_t)(clicks->n_rows - clicks->n_train), &ceiling) == 0)
    printf("auc_ceiling %.4f\n", ceiling);
}

/* ---- results ------------------------------------------------------------- */

static void print_method(const struct clicks *clicks,
                         const quality_method *method,
                         const quality_result *results, uint32_t n)
{
  const char *name = method->name;
  const quality_result *last = &results[n - 1];
  double sum = 0, seconds = 0, adjusting = 0, low = 1, high = 0;
  uint64_t peak = 0, evicted = 0;
  for (uint32_t i = 0; i < n; i++) {
    sum += results[i].auc;
    low = fmin(low, results[i].auc);
    high = fmax(high, results[i].auc);
    seconds += results[i].seconds;
    adjusting += results[i].adjusting;
    evicted += results[i].evicted;
    if (results[i].peak > peak) peak = results[i].peak;
  }
  if (strcmp(name, "full_16") == 0) auc_full_16 = sum / n;
  printf("auc_%s %.4f\nspread_%s %.4f\n", name, sum / n, name, high - low);
  if (!isnan(auc_full_16))
    printf("loss_%s %.4f\n", name, auc_full_16 - sum / n);
  printf("mb_%s %.2f\nscratch_mb_%s %.2f\n", name, 1e-6 * (double)last->bytes,
         name, 1e-6 * (double)last->scratch);
  printf("peak_mb_%s %.2f\n", name, 1e-6 * (double)peak);
  if (last->budget > 0) {
    printf("budget_mb_%s %.2f\n", name, 1e-6 * (double)last->budget);
    printf("churn_%s %.0f\n", name, (double)evicted / n);
    printf("adjust_pct_%s %.2f\n", name, 100.0 * adjusting / seconds);
  } else {
    printf("array_mb_%s %.2f\n", name,
           1e-6 * (double)quality_array_bytes(clicks, method, method->dim));
  }
  printf("seconds_%s %.1f\n", name, seconds / n);
  (void)fflush(stdout);
}

static void run_method(const arguments *a, const struct clicks *clicks,
                       const quality_method *listed)
{
  quality_result results[SEEDS];
  quality_method method = *listed;
  uint32_t first = a->is_tuning ? FIRST_TUNING_SEED : FIRST_SEED;
  if (strcmp(method.name, "budget") == 0) method.budget = a->budget;
  for (uint32_t i = 0; i < a->seeds; i++) {
    quality_train(clicks, &a->recipe, &method, first + i, &results[i]);
    printf("auc_%s_s%u %.4f\n", method.name, first + i, results[i].auc);
    (void)fflush(stdout);
  }
  print_method(clicks, &method, results, a->seeds);
}

int main(int argc, char **argv)
{
  struct clicks clicks;
  arguments a = {.seeds = 3,
                 .budget = 7000000,
                 .recipe = {.batch = 2048,
                            .window = 64,
                            .adjust_every = 50,
                            .rate = 1e-3f,
                            .rows_rate = .05f,
                            .decay = .98f,
                            .hysteresis = 1.3f,
                            .sketch = .1}};
  parse(&a, argc, argv);
  open_data(&a, &clicks);
  for (size_t i = 0; i < METHODS; i++) {
    int is_wanted = a.methods ? is_listed(a.methods, methods[i].name)
                              : strcmp(methods[i].name, "budget") != 0;
    if (is_wanted) run_method(&a, &clicks, &methods[i]);
  }
  clicks_free(&clicks);
  return 0;
}

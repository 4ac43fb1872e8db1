/* SPDX-License-Identifier: Apache-2.0 */
/* Throughput of the THC paths, in GB/s of the float32 vector that goes in or
 * comes out, next to memcpy on the same pages in the same run. Every figure is
 * the median of `--runs` rounds, which take the paths in turn. Prints
 * `key value` lines; afterwards every path's output is compared with what the
 * plain C functions make. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "thc_paths.h"

enum { RUNS_MAX = 101, TEXT_MAX = 64 };

static const char help[] =
    "usage: bench_thc [OPTION VALUE]...\n"
    "  --isa NAME[,NAME]  c, avx2, avx512, ..., best (default); all: each but "
    "best\n"
    "  --size N[,N]       bytes, or with KiB or MiB; 64MiB (default); all: "
    "4MiB,64MiB\n"
    "  --offset N[,N]     of the buffers in their pages: 0 .. 2048, times 4; "
    "0,4 (default)\n"
    "  --runs N           rounds, 1..101; 21 (default)\n"
    "  --threads N        1 (default) or 2: two-thread figures as well\n"
    "Keys end in the size and the ISA where these are not the defaults, and in "
    "the\n"
    "offset where it is not 0.\n"
    "  memcpy, read       libc's, and one load a cache line\n"
    "  measure            norms; measure_ef: of what is corrected by an error\n"
    "                     memory (fl_feedback_measure)\n"
    "  encode_*           4 bits; table: g = 30, 1/32 of N(0, 1) outside;\n"
    "                     ef: uniform, and what is lost (fl_feedback_encode)\n"
    "  decode             the sum of 8 updates with dither\n"
    "  aggregate_u8, _u16 one update into lanes that exist\n"
    "  aggregate8, _u8    eight distinct updates at once, into u16 or u8 "
    "lanes\n"
    "  *_vs_memcpy, aggregate8_vs_read8 (8 times read), *_two_threads_ratio\n"
    "With one thread times are the processor's, with two the clock's.\n";

typedef struct settings {
  const char *isa;
  const char *size;
  const char *offset;
  int runs;
  uint32_t threads;
} settings;

/* [path][1 with all threads] */
static double figures[PATHS][2][RUNS_MAX];

static int compare(const void *a, const void *b)
{
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, int n)
{
  qsort(values, (size_t)n, sizeof *values, compare);
  return values[n / 2];
}

static void report(int runs, int is_threaded, const char *suffix)
{
  double one[PATHS];
  for (int path = 0; path < PATHS; path++) {
    one[path] = median(figures[path][0], runs);
    printf("%s_gbs%s %.2f\n", bench_path_names[path], suffix, one[path]);
  }
  for (int path = PATH_UNIFORM; path <= PATH_DECODE; path++) {
    printf("%s_vs_memcpy%s %.3f\n", bench_path_names[path], suffix,
           one[path] / one[PATH_MEMCPY]);
  }
  printf("measure_vs_read%s %.3f\n", suffix,
         one[PATH_MEASURE] / one[PATH_READ]);
  for (int path = PATH_ADD8_U16; path <= PATH_ADD8_U8; path++) {
    printf("%s_vs_read8%s %.3f\n", bench_path_names[path], suffix,
           one[path] / (BENCH_UPDATES * one[PATH_READ]));
  }
  for (int path = PATH_MEASURE; is_threaded && path < PATHS; path++) {
    double two = median(figures[path][1], runs);
    printf("%s_two_threads_gbs%s %.2f\n", bench_path_names[path], suffix, two);
    printf("%s_two_threads_ratio%s %.3f\n", bench_path_names[path], suffix,
           two / one[path]);
  }
}

static void run_all(bench_paths *b, int runs)
{
  bench_threads *threads = b->threads;
  for (int r = 0; r < runs; r++) {
    for (int path = 0; path < PATHS; path++) {
      for (int k = 0; k < (threads->pool ? 2 : 1); k++) {
        threads->is_parallel = k;
        figures[path][k][r] =
            bench_paths_bytes(b, path) * 1e-9 / bench_paths_run(b, path);
      }
    }
  }
  threads->is_parallel = 0;
}

/* Bytes; 0 for what is not a size. */
static uint64_t parse_size(const char *text)
{
  char *end;
  uint64_t size = strtoull(text, &end, 10);
  if (end == text) return 0;
  if (strcmp(end, "MiB") == 0) return size << 20;
  if (strcmp(end, "KiB") == 0) return size << 10;
  return *end == 0 ? size : 0;
}

static const flk_table *find_isa(const char *name)
{
  if (strcmp(name, "best") == 0) return flk_kernels();
  for (size_t i = 0; flk_kernels_at(i); i++) {
    if (strcmp(flk_kernels_at(i)->name, name) == 0) return flk_kernels_at(i);
  }
  return NULL;
}

/* One ISA, size and offset. 0 when an output is wrong. */
static int run_one(const settings *s, bench_threads *threads, const char *isa,
                   const char *size, const char *offset)
{
  const int is_best = strcmp(isa, "best") == 0;
  const uint64_t bytes = parse_size(size);
  const size_t off = (size_t)parse_size(offset);
  char suffix[3 * TEXT_MAX + 16];
  snprintf(suffix, sizeof suffix, "%s%s%s%s%s%s",
           bytes == UINT64_C(64) << 20 ? "" : "_",
           bytes == UINT64_C(64) << 20 ? "" : size, is_best ? "" : "_",
           is_best ? "" : isa, off == 0 ? "" : "_offset",
           off == 0 ? "" : offset);
  bench_paths b = {.threads = threads, .kernels = find_isa(isa)};
  bench_paths_init(&b, bytes / sizeof(float), off);
  run_all(&b, s->runs);
  printf("isa%s %s\nbytes%s %llu\noffset%s %zu\n", suffix, b.kernels->name,
         suffix, (unsigned long long)bytes, suffix, off);
  report(s->runs, s->threads > 1, suffix);
  int is_good = bench_paths_check(&b);
  printf("is_equal_to_plain%s %d\n", suffix, is_good);
  bench_paths_free(&b);
  return is_good;
}

/* Entry k of a list with commas to `to`; 0 behind the last. */
static int entry(const char *list, size_t k, char to[TEXT_MAX])
{
  for (; k > 0; k--) {
    list = strchr(list, ',');
    if (!list) return 0;
    list++;
  }
  snprintf(to, TEXT_MAX, "%.*s", (int)strcspn(list, ","), list);
  return 1;
}

/* As `entry`, of ISAs; "all" are the tables but the plain one. */
static int isa_entry(const char *list, size_t k, char to[TEXT_MAX])
{
  if (strcmp(list, "all") != 0) return entry(list, k, to);
  if (!flk_kernels_at(k + 1)) return 0;
  snprintf(to, TEXT_MAX, "%s", flk_kernels_at(k + 1)->name);
  return 1;
}

static int is_valid(const settings *s)
{
  char text[TEXT_MAX];
  for (size_t k = 0; isa_entry(s->isa, k, text); k++) {
    if (!find_isa(text)) return 0;
  }
  for (size_t k = 0; entry(s->size, k, text); k++) {
    if (parse_size(text) < sizeof(float)) return 0;
  }
  for (size_t k = 0; entry(s->offset, k, text); k++) {
    if (text[0] < '0' || text[0] > '9') return 0;
    if (parse_size(text) % 4 != 0 || parse_size(text) > 2048) return 0;
  }
  return s->runs >= 1 && s->runs <= RUNS_MAX &&
         (s->threads == 1 || s->threads == 2);
}

static int parse(int argc, char **argv, settings *s)
{
  for (int i = 1; i + 1 < argc; i += 2) {
    const char *name = argv[i], *value = argv[i + 1];
    if (strcmp(name, "--isa") == 0) {
      s->isa = value;
    } else if (strcmp(name, "--size") == 0) {
      s->size = strcmp(value, "all") == 0 ? "4MiB,64MiB" : value;
    } else if (strcmp(name, "--offset") == 0) {
      s->offset = value;
    } else if (strcmp(name, "--runs") == 0) {
      s->runs = atoi(value);
    } else if (strcmp(name, "--threads") == 0) {
      s->threads = (uint32_t)atoi(value);
    } else {
      return 0;
    }
  }
  return argc % 2 == 1 && is_valid(s);
}

/* The value of a line of /proc/cpuinfo, "unknown" without one. */
static void print_cpu(const char *key, const char *field)
{
  char line[256];
  FILE *file = fopen("/proc/cpuinfo", "r");
  const size_t n = strlen(field);
  while (file && fgets(line, sizeof line, file)) {
    if (strncmp(line, field, n) != 0) continue;
    const char *rest = line + n + strspn(line + n, " \t");
    if (*rest != ':') continue;
    printf("%s %s", key, rest + 1 + strspn(rest + 1, " "));
    fclose(file);
    return;
  }
  if (file) fclose(file);
  printf("%s unknown\n", key);
}

int main(int argc, char **argv)
{
  settings s = {.isa = "best",
                .size = "64MiB",
                .offset = "0,4",
                .runs = 21,
                .threads = 1};
  if (argc == 2 && strcmp(argv[1], "--help") == 0) {
    fputs(help, stdout);
    return 0;
  }
  if (!parse(argc, argv, &s)) {
    fputs(help, stderr);
    return 1;
  }
  print_cpu("cpu", "model name");
  print_cpu("cpu_family", "cpu family");
  print_cpu("cpu_model", "model");
  printf("runs %d\nthreads %u\n", s.runs, s.threads);
  bench_threads threads;
  bench_threads_init(&threads, s.threads);
  int is_good = 1;
  char isa[TEXT_MAX], size[TEXT_MAX], offset[TEXT_MAX];
  for (size_t i = 0; isa_entry(s.isa, i, isa); i++) {
    for (size_t k = 0; entry(s.size, k, size); k++) {
      for (size_t j = 0; entry(s.offset, j, offset); j++)
        is_good &= run_one(&s, &threads, isa, size, offset);
    }
  }
  bench_threads_free(&threads);
  return !is_good;
}

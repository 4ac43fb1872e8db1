/* SPDX-License-Identifier: Apache-2.0 */
/* What freezing layers saves, and what it loses: a VGG8 that was trained on
 * five classes of Fashion-MNIST is tuned on all ten. This file takes the
 * options; the parts are in kgt_*.c. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kgt.h"

static const char help[] =
    "usage: bench_kgt --part NAME [OPTION VALUE]... [--tuning] [--verbose]\n"
    "                 [--adapters] [--tiny]\n"
    "  --part steps     what steps cost, with and without frozen modules\n"
    "         beside    steps by the wall clock while plasticity is measured\n"
    "         finetune  the job with and without freezing\n"
    "         grid      fixed schedules on the tuning seeds\n"
    "         rates     the base at several rates, on the tuning seeds\n"
    "         federated a job of 20 clients, from scratch and pre-trained\n"
    "         lora      a transformer with low-rank updates, by SAFE\n"
    "  --seeds N        the first N seeds: of 3, 4, 5, 6, 7, or of the tuning\n"
    "                   seeds 0, 1, 2; all of them (default)\n"
    "  --tuning         the tuning seeds\n"
    "  --rate X         of the job; 0.03 (default), federated 0.05, lora "
    "0.001\n"
    "  --oracle E:F,..  fixed schedule: F modules frozen from epoch E on, "
    "rising;\n"
    "                   0:1,4:2,6:3 (default)\n"
    "  --criterion NAME gradnorm (default), plasticity, relative (beside's)\n"
    "  --runs N         rounds of the times, 1..101; 25 (default)\n"
    "  --data DIR       /usr/share/datasets/fashion-mnist (default)\n"
    "  --epochs-before N  of pre-training, 1..100; 8 (default)\n"
    "  --gap N          federated: rounds between two freezes; the library's\n"
    "                   (default)\n"
    "  --start NAME     federated: drawn or trained weights alone; both "
    "(default)\n"
    "  --adapters       lora: bottlenecks instead of low-rank updates\n"
    "  --verbose        federated: what clients report; lora: importance\n"
    "  --tiny           few images and epochs, to see whether it works\n"
    "Times are the processor's, in us. _pct of finetune: CPU time of the "
    "steps\n"
    "that is saved; cpu_ by the clock, else counted steps of each kind at the\n"
    "median price of one. ideal: the same if freezing cost nothing but what "
    "the\n"
    "layers take that are left. acc: % of the test images, delta: points to "
    "the\n"
    "base, with 95 % interval over the seeds. frozen: modules@epoch, or "
    "@round.\n";

static const kgt_sizes job_sizes = {.tune = 12000,
                                    .others = 48000,
                                    .test = 10000,
                                    .batch = 64,
                                    .epochs = 10,
                                    .epochs_before = 8,
                                    .clients = 20,
                                    .per_round = 8,
                                    .rounds = 40,
                                    .local_batch = 32,
                                    .adapted_epochs = 5,
                                    .adapted_epochs_before = 2};
static const kgt_sizes tiny_sizes = {.tune = 160,
                                     .others = 1000,
                                     .test = 200,
                                     .batch = 8,
                                     .epochs = 8,
                                     .epochs_before = 1,
                                     .clients = 5,
                                     .per_round = 3,
                                     .rounds = 20,
                                     .local_batch = 8,
                                     .adapted_epochs = 5,
                                     .adapted_epochs_before = 1};

typedef void (*part_fn)(const kgt_bench *bench, const kgt_settings *settings);

typedef struct part {
  const char *name;
  part_fn run;
  float rate; /* default */
  int is_tuning;
} part;

static const part parts[] = {
    {"steps", kgt_part_steps, .03f, 0},
    {"beside", kgt_part_beside, .03f, 0},
    {"finetune", kgt_part_finetune, .03f, 0},
    {"grid", kgt_part_grid, .03f, 1},
    {"rates", kgt_part_rates, .03f, 1},
    {"federated", kgt_part_federated, .05f, 0},
    {"lora", kgt_part_lora, 1e-3f, 0},
};

typedef struct named {
  const char *name;
  uint32_t criterion;
} named;

static const named criteria[] = {
    {"gradnorm", FL_FREEZE_GRADNORM},
    {"plasticity", FL_FREEZE_PLASTICITY},
    {"relative", FL_FREEZE_RELATIVE_PLASTICITY},
};

#define PART_NAMES "steps, beside, finetune, grid, rates, federated or lora"

enum {
  PARTS = sizeof parts / sizeof *parts,
  CRITERIA = sizeof criteria / sizeof *criteria,
  RUNS_MAX = 101,
  GAP_MAX = 1000,
  EPOCHS_MAX = 100
};

typedef struct arguments {
  const part *part; /* NULL: none yet */
  const char *data;
  uint32_t seeds; /* 0: all */
  int is_tuning;
  int is_tiny;
  uint32_t epochs_before; /* 0: as the sizes have it */
  kgt_settings settings;
} arguments;

static void refuse(const char *name, const char *got, const char *want)
{
  fprintf(stderr, "bench_kgt: %s: got %s, want %s (--help)\n", name,
          got ? got : "nothing", want);
  exit(2);
}

static uint32_t whole(const char *name, const char *text, uint32_t most)
{
  char *end = NULL;
  char want[32];
  unsigned long n = strtoul(text, &end, 10);
  if (text[0] >= '0' && text[0] <= '9' && !*end && n >= 1 && n <= most) {
    return (uint32_t)n;
  }
  (void)snprintf(want, sizeof want, "1..%u", most);
  refuse(name, text, want);
  return 0;
}

static float rate_of(const char *text)
{
  char *end = NULL;
  float rate = strtof(text, &end);
  if (end == text || *end || !isfinite(rate) || rate <= 0.0f)
    refuse("--rate", text, "a number > 0");
  return rate;
}

static const part *part_of(const char *text)
{
  for (size_t i = 0; i < PARTS; i++) {
    if (strcmp(parts[i].name, text) == 0) return &parts[i];
  }
  refuse("--part", text, PART_NAMES);
  return NULL;
}

static uint32_t criterion_of(const char *text)
{
  for (size_t i = 0; i < CRITERIA; i++) {
    if (strcmp(criteria[i].name, text) == 0) return criteria[i].criterion;
  }
  refuse("--criterion", text, "gradnorm, plasticity or relative");
  return 0;
}

static uint32_t starts_of(const char *text)
{
  if (strcmp(text, "drawn") == 0) return KGT_DRAWN;
  if (strcmp(text, "trained") == 0) return KGT_TRAINED;
  refuse("--start", text, "drawn or trained");
  return 0;
}

static void set_option(arguments *a, const char *name, const char *value)
{
  if (strcmp(name, "--part") == 0) {
    a->part = part_of(value);
  } else if (strcmp(name, "--seeds") == 0) {
    a->seeds = whole(name, value, KGT_SEEDS);
  } else if (strcmp(name, "--rate") == 0) {
    a->settings.rate = rate_of(value);
  } else if (strcmp(name, "--runs") == 0) {
    a->settings.runs = (int)whole(name, value, RUNS_MAX);
  } else if (strcmp(name, "--start") == 0) {
    a->settings.starts = starts_of(value);
  } else if (strcmp(name, "--epochs-before") == 0) {
    a->epochs_before = whole(name, value, EPOCHS_MAX);
  } else if (strcmp(name, "--gap") == 0) {
    a->settings.gap = whole(name, value, GAP_MAX);
  } else if (strcmp(name, "--criterion") == 0) {
    a->settings.criterion = criterion_of(value);
  } else if (strcmp(name, "--data") == 0) {
    a->data = value;
  } else if (strcmp(name, "--oracle") == 0) {
    if (!kgt_schedule_parse(value, &a->settings.oracle))
      refuse(name, value, "like 0:1,4:2");
  } else {
    refuse("option", name, "one of --help's");
  }
}

/* Constants are chosen on the tuning seeds, and reported on others. */
static void choose_seeds(arguments *a)
{
  static const uint64_t reported[KGT_SEEDS] = {3, 4, 5, 6, 7};
  static const uint64_t tuning[] = {0, 1, 2};
  int is_tuning = a->is_tuning || a->part->is_tuning;
  uint32_t most = is_tuning ? sizeof tuning / sizeof *tuning : KGT_SEEDS;
  uint32_t n = a->seeds > 0 && a->seeds < most ? a->seeds : most;
  memcpy(a->settings.seeds, is_tuning ? tuning : reported,
         n * sizeof *reported);
  a->settings.n_seeds = n;
}

static arguments parse(int argc, char **argv)
{
  arguments a = {.data = "/usr/share/datasets/fashion-mnist",
                 .settings = {.runs = 25,
                              .starts = KGT_DRAWN | KGT_TRAINED,
                              .criterion = FL_FREEZE_GRADNORM}};
  (void)kgt_schedule_parse("0:1,4:2,6:3", &a.settings.oracle);
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--help") == 0) {
      fputs(help, stdout);
      exit(0);
    }
    if (strcmp(argv[i], "--tuning") == 0) {
      a.is_tuning = 1;
    } else if (strcmp(argv[i], "--tiny") == 0) {
      a.is_tiny = 1;
    } else if (strcmp(argv[i], "--adapters") == 0) {
      a.settings.has_adapters = 1;
    } else if (strcmp(argv[i], "--verbose") == 0) {
      a.settings.is_verbose = 1;
    } else {
      if (i + 1 == argc) refuse(argv[i], NULL, "a value");
      set_option(&a, argv[i], argv[i + 1]);
      i++;
    }
  }
  if (!a.part) refuse("--part", NULL, PART_NAMES);
  if (a.settings.rate == 0.0f) a.settings.rate = a.part->rate;
  choose_seeds(&a);
  return a;
}

int main(int argc, char **argv)
{
  arguments a = parse(argc, argv);
  kgt_sizes sizes = a.is_tiny ? tiny_sizes : job_sizes;
  kgt_bench bench;
  if (a.epochs_before > 0) sizes.epochs_before = a.epochs_before;
  kgt_open(&bench, &sizes, a.data);
  a.part->run(&bench, &a.settings);
  kgt_close(&bench);
  return 0;
}

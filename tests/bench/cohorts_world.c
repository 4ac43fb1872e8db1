/* SPDX-License-Identifier: Apache-2.0 */
/* Populations of bench_cohorts: Fashion-MNIST dealt to clients in four groups
 * whose labels are permuted or images turned. */
#include "cohorts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 1000, SAMPLES = 60, SIDE = 28, ALL = 60000, ALL_TEST = 10000 };
enum { GROUPS_OF = 1000, TESTS = 2000, DRIFT = 6000, CORRUPT = 9000 };

static const uint32_t shifts[COHORTS_GROUPS] = {0, 2, 5, 7};
static const uint32_t group_of_class[COHORTS_CLASSES] = {0, 0, 0, 1, 1,
                                                         2, 2, 2, 3, 3};

void cohorts_must(fl_status st, const char *what)
{
  if (st == FL_OK) return;
  fprintf(stderr, "bench_cohorts: %s: %s (%s)\n", what, fl_status_name(st),
          fl_last_error());
  exit(1);
}

void *cohorts_get(size_t count, size_t size)
{
  void *memory = calloc(count ? count : 1, size);
  if (!memory) cohorts_must(FL_E_NOMEM, "memory");
  return memory;
}

/* ---- streams ------------------------------------------------------------- */

stream stream_of(uint64_t name, uint64_t seed)
{
  return (stream){name + seed};
}

uint64_t stream_next(stream *s)
{
  uint64_t z = s->state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
  return z ^ z >> 31;
}

uint32_t stream_below(stream *s, uint32_t n)
{
  return (uint32_t)((stream_next(s) >> 32) * n >> 32);
}

double stream_unit(stream *s)
{
  return (double)(stream_next(s) >> 40) * 0x1p-24;
}

static void swap(uint32_t *items, uint32_t i, uint32_t j)
{
  uint32_t kept = items[i];
  items[i] = items[j];
  items[j] = kept;
}

void stream_pick(stream *s, uint32_t *items, uint32_t n, uint32_t k)
{
  for (uint32_t i = 0; i < n && i < k; i++)
    swap(items, i, i + stream_below(s, n - i));
}

static void shuffle(stream *s, uint32_t *items, uint32_t n)
{
  for (uint32_t i = n - 1; i > 0; i--)
    swap(items, i, stream_below(s, i + 1));
}

static void count_up(uint32_t *items, uint32_t n)
{
  for (uint32_t i = 0; i < n; i++)
    items[i] = i;
}

/* ---- who gets which images ----------------------------------------------- */

static void deal_all(world *w, stream *r, stream *tests)
{
  uint32_t *pool = cohorts_get(ALL, sizeof *pool);
  count_up(pool, ALL);
  shuffle(r, pool, ALL);
  memcpy(w->places, pool, (size_t)w->n * w->samples * sizeof *pool);
  for (uint32_t i = 0; i < w->n; i++) {
    count_up(pool, ALL_TEST);
    stream_pick(tests, pool, ALL_TEST, COHORTS_TEST);
    memcpy(w->tests + i * COHORTS_TEST, pool, COHORTS_TEST * sizeof *pool);
  }
  free(pool);
}

/* Places of images whose class is wanted. */
static uint32_t gather(uint32_t *pool, const struct idx_set *set,
                       const uint8_t *wanted)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < set->n; i++) {
    if (wanted[set->labels[i]]) pool[n++] = i;
  }
  return n;
}

static void deal_classes(world *w, stream *r, stream *tests)
{
  uint32_t *pool = cohorts_get(ALL, sizeof *pool);
  uint32_t *test_pool = cohorts_get(ALL_TEST, sizeof *pool);
  uint32_t *draw = cohorts_get(ALL_TEST, sizeof *pool);
  for (uint32_t g = 0; g < COHORTS_GROUPS; g++) {
    uint8_t wanted[COHORTS_CLASSES];
    uint32_t used = 0;
    for (uint32_t c = 0; c < COHORTS_CLASSES; c++)
      wanted[c] = group_of_class[c] == g;
    uint32_t n = gather(pool, &w->train, wanted);
    uint32_t n_tests = gather(test_pool, &w->test, wanted);
    shuffle(r, pool, n);
    for (uint32_t i = 0; i < w->n; i++) {
      if (w->group[i] != g) continue;
      memcpy(w->places + i * w->samples, pool + used,
             w->samples * sizeof *pool);
      used += w->samples;
      memcpy(draw, test_pool, n_tests * sizeof *draw);
      stream_pick(tests, draw, n_tests, COHORTS_TEST);
      memcpy(w->tests + i * COHORTS_TEST, draw, COHORTS_TEST * sizeof *draw);
    }
  }
  free(pool);
  free(test_pool);
  free(draw);
}

/* Five classes for each client. */
static void deal_skewed(world *w, stream *r, stream *tests)
{
  enum { HELD = 5 };
  uint32_t *pools = cohorts_get(ALL, sizeof *pools);
  uint32_t *test_pools = cohorts_get(ALL_TEST, sizeof *pools);
  const uint32_t per_class = ALL / COHORTS_CLASSES;
  const uint32_t tests_per_class = ALL_TEST / COHORTS_CLASSES;
  for (uint32_t c = 0; c < COHORTS_CLASSES; c++) {
    uint8_t wanted[COHORTS_CLASSES] = {0};
    wanted[c] = 1;
    (void)gather(pools + c * per_class, &w->train, wanted);
    (void)gather(test_pools + c * tests_per_class, &w->test, wanted);
  }
  for (uint32_t i = 0; i < w->n; i++) {
    uint32_t classes[COHORTS_CLASSES], k = 0;
    uint32_t *places = w->places + i * w->samples;
    count_up(classes, COHORTS_CLASSES);
    stream_pick(r, classes, COHORTS_CLASSES, HELD);
    for (uint32_t c = 0; c < HELD; c++) {
      for (uint32_t j = 0; j < w->samples / HELD; j++)
        places[k++] =
            pools[classes[c] * per_class + stream_below(r, per_class)];
    }
    shuffle(r, places, w->samples);
    for (uint32_t j = 0; j < COHORTS_TEST; j++) {
      w->tests[i * COHORTS_TEST + j] =
          test_pools[classes[j % HELD] * tests_per_class +
                     stream_below(tests, tests_per_class)];
    }
  }
  free(pools);
  free(test_pools);
}

/* ---- images and labels --------------------------------------------------- */

/* A quarter turn against the clock, `times`. */
static void turn(uint8_t *out, const uint8_t *in, uint32_t times)
{
  for (uint32_t i = 0; i < SIDE; i++) {
    for (uint32_t j = 0; j < SIDE; j++) {
      uint32_t y = i, x = j;
      for (uint32_t k = 0; k < times; k++) {
        uint32_t kept = y;
        y = x;
        x = SIDE - 1 - kept;
      }
      out[i * SIDE + j] = in[y * SIDE + x];
    }
  }
}

static void label(world *w)
{
  for (uint32_t i = 0; i < w->n; i++) {
    uint32_t by = w->is_shifted ? shifts[w->group[i]] : 0;
    for (uint32_t j = 0; j < w->samples; j++) {
      size_t at = (size_t)i * w->samples + j;
      w->y[at] =
          (int32_t)((w->train.labels[w->places[at]] + by) % COHORTS_CLASSES);
    }
  }
}

static void fill_images(world *w)
{
  const uint8_t *images = w->train.data.x, *tests = w->test.data.x;
  for (size_t i = 0; i < (size_t)w->n * w->samples; i++) {
    uint32_t times = w->is_turned ? w->group[i / w->samples] : 0;
    turn(w->x + i * COHORTS_PIXELS,
         images + (size_t)w->places[i] * COHORTS_PIXELS, times);
  }
  for (uint32_t g = 1; w->is_turned && g < COHORTS_GROUPS; g++) {
    w->turned[g] = cohorts_get(ALL_TEST, COHORTS_PIXELS);
    for (size_t i = 0; i < ALL_TEST; i++)
      turn(w->turned[g] + i * COHORTS_PIXELS, tests + i * COHORTS_PIXELS, g);
  }
}

static void load(struct idx_set *set, const char *folder, const char *prefix,
                 uint32_t want)
{
  char error[2048];
  if (idx_load(set, folder, prefix, error, sizeof error) != 0) {
    fprintf(stderr, "bench_cohorts: data: %s\n", error);
    exit(1);
  }
  if (set->n == want && set->sample_size == COHORTS_PIXELS) return;
  fprintf(stderr, "bench_cohorts: data: %s/%s-*: want %u images of 28 x 28\n",
          folder, prefix, want);
  exit(1);
}

static void draw_groups(world *w, stream *r, int is_imbalanced)
{
  static const uint32_t sizes[2][COHORTS_GROUPS] = {{250, 250, 250, 250},
                                                    {550, 250, 150, 50}};
  uint32_t i = 0;
  for (uint32_t g = 0; g < COHORTS_GROUPS; g++) {
    for (uint32_t k = 0; k < sizes[is_imbalanced][g]; k++)
      w->group[i++] = g;
  }
  shuffle(r, w->group, w->n);
}

int world_open(world *w, const char *scenario, uint64_t seed,
               const char *folder)
{
  static const char *const names[] = {"perm",     "permskew",   "rot",
                                      "drift",    "imbalanced", "iid",
                                      "disjoint", "corrupt"};
  size_t kind = 0, n_kinds = sizeof names / sizeof *names;
  while (kind < n_kinds && strcmp(scenario, names[kind]) != 0)
    kind++;
  if (kind == n_kinds) return 0;
  *w = (world){.seed = seed, .n = N, .samples = kind == 6 ? 40 : SAMPLES};
  w->is_turned = kind == 2;
  w->is_shifted = kind < 2 || kind == 3 || kind == 4 || kind == 7;
  load(&w->train, folder, "train", ALL);
  load(&w->test, folder, "t10k", ALL_TEST);
  const size_t n_images = (size_t)w->n * w->samples;
  w->group = cohorts_get(w->n, sizeof *w->group);
  w->is_corrupt = cohorts_get(w->n, 1);
  w->x = cohorts_get(n_images, COHORTS_PIXELS);
  w->y = cohorts_get(n_images, sizeof *w->y);
  w->places = cohorts_get(n_images, sizeof *w->places);
  w->tests = cohorts_get((size_t)w->n * COHORTS_TEST, sizeof *w->tests);
  stream r = stream_of(GROUPS_OF, seed), tests = stream_of(TESTS, seed);
  draw_groups(w, &r, kind == 4);
  if (kind == 6) {
    deal_classes(w, &r, &tests);
  } else if (kind == 1) {
    deal_skewed(w, &r, &tests);
  } else {
    deal_all(w, &r, &tests);
  }
  fill_images(w);
  label(w);
  stream corrupt = stream_of(CORRUPT, seed);
  uint32_t *who = cohorts_get(w->n, sizeof *who);
  count_up(who, w->n);
  stream_pick(&corrupt, who, w->n, w->n / 10);
  for (uint32_t i = 0; i < w->n / 10; i++)
    w->is_corrupt[who[i]] = (uint8_t)(1 + i % 2);
  free(who);
  return 1;
}

void world_close(world *w)
{
  for (uint32_t g = 0; g < COHORTS_GROUPS; g++)
    free(w->turned[g]);
  idx_free(&w->train);
  idx_free(&w->test);
  free(w->group);
  free(w->is_corrupt);
  free(w->x);
  free(w->y);
  free(w->places);
  free(w->tests);
}

void world_drift(world *w)
{
  uint32_t *who = cohorts_get(w->n, sizeof *who);
  stream r = stream_of(DRIFT, w->seed);
  const uint32_t moving = w->n * 3 / 10;
  count_up(who, w->n);
  stream_pick(&r, who, w->n, moving);
  for (uint32_t i = 0; i < moving; i++)
    w->group[who[i]] = (w->group[who[i]] + 1) % COHORTS_GROUPS;
  free(who);
  label(w);
}

fl_dataset world_client(const world *w, uint32_t client)
{
  fl_dataset data;
  const size_t first = (size_t)client * w->samples;
  cohorts_must(fl_dataset_init(&data, sizeof data), "data set");
  data.x_dtype = FL_DTYPE_U8;
  data.x = w->x + first * COHORTS_PIXELS;
  data.y = w->y + first;
  data.n = w->samples;
  return data;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Populations: Fashion-MNIST dealt to clients in four groups
 * whose labels are permuted or images turned. */
#include "cohorts.h"

#include <err.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES = 60, SAMPLES_DISJOINT = 40, SIDE = 28 };
enum { GROUPS_OF = 1000, TESTS = 2000, DRIFT = 6000, CORRUPT = 9000 };

static const uint32_t shifts[COHORTS_GROUPS] = {0, 2, 5, 7};
static const uint32_t group_of_class[COHORTS_CLASSES] = {0, 0, 0, 1, 1,
                                                         2, 2, 2, 3, 3};

void cohorts_must(fl_status st, const char *what)
{
  if (st == FL_OK) return;
  errx(1, "%s: %s (%s)", what, fl_status_name(st), fl_last_error());
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

static void want_images(uint64_t got, uint64_t want, const char *of)
{
  if (got >= want) return;
  errx(1, "images %s: got %llu, want %llu", of, (unsigned long long)got,
       (unsigned long long)want);
}

static void deal_all(world *w, stream *r, stream *tests)
{
  const uint32_t all = w->images->train.n, all_tests = w->images->test.n;
  uint32_t *pool = cohorts_get(all > all_tests ? all : all_tests, sizeof *pool);
  want_images(all, (uint64_t)w->n * w->samples, "to train on");
  want_images(all_tests, COHORTS_TEST, "to test on");
  count_up(pool, all);
  shuffle(r, pool, all);
  memcpy(w->places, pool, (size_t)w->n * w->samples * sizeof *pool);
  for (uint32_t i = 0; i < w->n; i++) {
    count_up(pool, all_tests);
    stream_pick(tests, pool, all_tests, COHORTS_TEST);
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

static uint32_t members_of(const world *w, uint32_t group)
{
  uint32_t n = 0;
  for (uint32_t i = 0; i < w->n; i++)
    n += w->group[i] == group;
  return n;
}

static void deal_classes(world *w, stream *r, stream *tests)
{
  const struct images *all = w->images;
  uint32_t *pool = cohorts_get(all->train.n, sizeof *pool);
  uint32_t *test_pool = cohorts_get(all->test.n, sizeof *pool);
  uint32_t *draw = cohorts_get(all->test.n, sizeof *pool);
  for (uint32_t g = 0; g < COHORTS_GROUPS; g++) {
    uint8_t wanted[COHORTS_CLASSES];
    uint32_t used = 0;
    for (uint32_t c = 0; c < COHORTS_CLASSES; c++)
      wanted[c] = group_of_class[c] == g;
    uint32_t n = gather(pool, &all->train, wanted);
    uint32_t n_tests = gather(test_pool, &all->test, wanted);
    want_images(n, (uint64_t)members_of(w, g) * w->samples,
                "of a group's classes to train on");
    want_images(n_tests, COHORTS_TEST, "of a group's classes to test on");
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

/* Images by class. */
typedef struct by_class {
  uint32_t *places[COHORTS_CLASSES];
  uint32_t n[COHORTS_CLASSES];
} by_class;

static by_class sort_by_class(const struct idx_set *set)
{
  by_class sorted;
  for (uint32_t c = 0; c < COHORTS_CLASSES; c++) {
    uint8_t wanted[COHORTS_CLASSES] = {0};
    wanted[c] = 1;
    sorted.places[c] = cohorts_get(set->n, sizeof(uint32_t));
    sorted.n[c] = gather(sorted.places[c], set, wanted);
    want_images(sorted.n[c], 1, "of a class");
  }
  return sorted;
}

static uint32_t draw_of(const by_class *sorted, uint32_t c, stream *s)
{
  return sorted->places[c][stream_below(s, sorted->n[c])];
}

/* Five classes for each client. */
static void deal_skewed(world *w, stream *r, stream *tests)
{
  enum { HELD = 5 };
  by_class train = sort_by_class(&w->images->train);
  by_class test = sort_by_class(&w->images->test);
  for (uint32_t i = 0; i < w->n; i++) {
    uint32_t classes[COHORTS_CLASSES], k = 0;
    uint32_t *places = w->places + i * w->samples;
    count_up(classes, COHORTS_CLASSES);
    stream_pick(r, classes, COHORTS_CLASSES, HELD);
    for (uint32_t c = 0; c < HELD; c++) {
      uint32_t n = w->samples / HELD + (c < w->samples % HELD);
      for (uint32_t j = 0; j < n; j++)
        places[k++] = draw_of(&train, classes[c], r);
    }
    shuffle(r, places, w->samples);
    for (uint32_t j = 0; j < COHORTS_TEST; j++)
      w->tests[i * COHORTS_TEST + j] = draw_of(&test, classes[j % HELD], tests);
  }
  for (uint32_t c = 0; c < COHORTS_CLASSES; c++) {
    free(train.places[c]);
    free(test.places[c]);
  }
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
      w->y[at] = (int32_t)((w->images->train.labels[w->places[at]] + by) %
                           COHORTS_CLASSES);
    }
  }
}

static void fill_images(world *w)
{
  const uint8_t *images = w->images->train.data.x;
  const uint8_t *tests = w->images->test.data.x;
  const size_t n_tests = w->images->test.n;
  for (size_t i = 0; i < (size_t)w->n * w->samples; i++) {
    uint32_t times = w->is_turned ? w->group[i / w->samples] : 0;
    turn(w->x + i * COHORTS_PIXELS,
         images + (size_t)w->places[i] * COHORTS_PIXELS, times);
  }
  for (uint32_t g = 1; w->is_turned && g < COHORTS_GROUPS; g++) {
    w->turned[g] = cohorts_get(n_tests, COHORTS_PIXELS);
    for (size_t i = 0; i < n_tests; i++)
      turn(w->turned[g] + i * COHORTS_PIXELS, tests + i * COHORTS_PIXELS, g);
  }
}

static void draw_groups(world *w, stream *r, int is_imbalanced)
{
  static const uint32_t shares[2][COHORTS_GROUPS] = {{25, 25, 25, 25},
                                                     {55, 25, 15, 5}};
  uint32_t i = 0;
  for (uint32_t g = 0; g < COHORTS_GROUPS; g++) {
    for (uint32_t k = 0; k < w->n * shares[is_imbalanced][g] / 100; k++)
      w->group[i++] = g;
  }
  for (; i < w->n; i++)
    w->group[i] = COHORTS_GROUPS - 1;
  shuffle(r, w->group, w->n);
}

static void draw_corrupt(world *w)
{
  stream s = stream_of(CORRUPT, w->seed);
  uint32_t *who = cohorts_get(w->n, sizeof *who);
  count_up(who, w->n);
  stream_pick(&s, who, w->n, w->n / 10);
  for (uint32_t i = 0; i < w->n / 10; i++)
    w->is_corrupt[who[i]] = (uint8_t)(1 + i % 2);
  free(who);
}

int world_open(world *w, const struct images *images,
               const world_options *options)
{
  enum { PERM, PERMSKEW, ROT, DRIFTS, IMBALANCED, IID, DISJOINT, CORRUPTED };
  static const char *const names[] = {"perm",     "permskew",   "rot",
                                      "drift",    "imbalanced", "iid",
                                      "disjoint", "corrupt"};
  size_t kind = 0, n_kinds = sizeof names / sizeof *names;
  while (kind < n_kinds && strcmp(options->scenario, names[kind]) != 0)
    kind++;
  if (kind == n_kinds) return 0;
  *w = (world){.images = images,
               .seed = options->seed,
               .n = options->clients,
               .samples = options->samples};
  if (w->samples == 0)
    w->samples = kind == DISJOINT ? SAMPLES_DISJOINT : SAMPLES;
  w->is_turned = kind == ROT;
  w->is_shifted = kind == PERM || kind == PERMSKEW || kind == DRIFTS ||
                  kind == IMBALANCED || kind == CORRUPTED;
  const size_t n_images = (size_t)w->n * w->samples;
  w->group = cohorts_get(w->n, sizeof *w->group);
  w->is_corrupt = cohorts_get(w->n, 1);
  w->x = cohorts_get(n_images, COHORTS_PIXELS);
  w->y = cohorts_get(n_images, sizeof *w->y);
  w->places = cohorts_get(n_images, sizeof *w->places);
  w->tests = cohorts_get((size_t)w->n * COHORTS_TEST, sizeof *w->tests);
  stream r = stream_of(GROUPS_OF, w->seed), tests = stream_of(TESTS, w->seed);
  draw_groups(w, &r, kind == IMBALANCED);
  if (kind == DISJOINT) {
    deal_classes(w, &r, &tests);
  } else if (kind == PERMSKEW) {
    deal_skewed(w, &r, &tests);
  } else {
    deal_all(w, &r, &tests);
  }
  fill_images(w);
  label(w);
  draw_corrupt(w);
  return 1;
}

void world_close(world *w)
{
  for (uint32_t g = 0; g < COHORTS_GROUPS; g++)
    free(w->turned[g]);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* Seconds of CPU time (median of 5) that a choice of 1,300 clients takes, by
 * rule and by how many clients there are: `choice_100000`, ..., and what is
 * kept of a client, in bytes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/rng.h"
#include "server/selector.h"

enum { RUNS = 5, WANTED = 1300, MOST = 1000000 };

static int compare(const void *a, const void *b)
{
  const double left = *(const double *)a, right = *(const double *)b;
  return (left > right) - (left < right);
}

typedef struct people {
  uint64_t samples[MOST];
  float losses[MOST], seconds[MOST];
  uint32_t rounds[MOST];
  uint32_t order[MOST];
} people;

static void fill(people *p)
{
  fli_rng rng;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  for (uint32_t i = 0; i < MOST; i++) {
    const int is_seen = fli_rng_below(&rng, 2) == 0;
    p->samples[i] = 1 + fli_rng_below(&rng, 500);
    p->losses[i] = is_seen ? fli_rng_f32(&rng) * 3.0f : NAN;
    p->seconds[i] = is_seen ? 1.0f + fli_rng_f32(&rng) * 60.0f : NAN;
    p->rounds[i] = is_seen ? 1 + fli_rng_below(&rng, 99) : 0;
  }
}

static void measure(people *p, const char *name, uint32_t n,
                    fl_status (*choose)(fli_choice *, uint32_t *))
{
  double seconds[RUNS];
  fl_selection_options options;
  fl_selection_round round = {.count = n,
                              .wanted = WANTED,
                              .round = 100,
                              .samples = p->samples,
                              .losses = p->losses,
                              .seconds = p->seconds,
                              .rounds = p->rounds};
  if (fl_selection_options_init(&options, sizeof options) != FL_OK) exit(1);
  fli_choice choice = {
      .options = &options, .round = &round, .seed = 1, .pace = options.pace};
  for (int i = 0; i < RUNS; i++) {
    const clock_t start = clock();
    if (choose(&choice, p->order) != FL_OK) exit(1);
    seconds[i] = (double)(clock() - start) / CLOCKS_PER_SEC;
  }
  qsort(seconds, RUNS, sizeof *seconds, compare);
  printf("%s_%u %.4f\n", name, n, seconds[RUNS / 2]);
}

int main(void)
{
  people *p = malloc(sizeof *p);
  if (!p) return 1;
  fill(p);
  for (uint32_t n = 10000; n <= MOST; n *= 10) {
    measure(p, "choice", n, fli_choose_by_power);
    measure(p, "oort", n, fli_choose_by_oort);
  }
  printf("bytes_per_client %zu\n", sizeof(fli_known));
  free(p);
  return 0;
}

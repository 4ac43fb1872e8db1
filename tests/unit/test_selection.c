/* SPDX-License-Identifier: Apache-2.0 */
/* The rules of selection by themselves, against their formulas written down
 * plainly, and against clients that claim what is not so. */
#include <criterion/criterion.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "server/selector.h"

enum { N = 100 };

typedef struct people {
  fl_selection_round round;
  fl_selection_options options;
  uint64_t samples[N];
  float losses[N], seconds[N];
  uint32_t rounds[N];
  uint32_t order[N];
  double clip;
} people;

static void people_init(people *p, uint32_t rule, uint32_t n, uint32_t wanted)
{
  memset(p, 0, sizeof *p);
  cr_assert_eq(fl_selection_options_init(&p->options, sizeof p->options),
               FL_OK);
  p->options.rule = rule;
  p->round.count = n;
  p->round.wanted = wanted;
  p->round.round = 1;
  p->round.samples = p->samples;
  p->round.losses = p->losses;
  p->round.seconds = p->seconds;
  p->round.rounds = p->rounds;
  for (uint32_t i = 0; i < n; i++) {
    p->samples[i] = 10;
    p->losses[i] = NAN;
    p->seconds[i] = NAN;
  }
}

/* Everybody was seen in round 1, with losses that rise. */
static void all_seen(people *p)
{
  for (uint32_t i = 0; i < p->round.count; i++) {
    p->losses[i] = (float)(i + 1);
    p->seconds[i] = 1.0f;
    p->rounds[i] = 1;
  }
}

static void choose(people *p, uint64_t seed)
{
  uint8_t seen[N] = {0};
  fli_choice choice = {.options = &p->options,
                       .round = &p->round,
                       .seed = seed,
                       .pace = p->options.pace};
  cr_assert_eq(p->options.rule == FL_SELECT_OORT
                   ? fli_choose_by_oort(&choice, p->order)
                   : fli_choose_by_power(&choice, p->order),
               FL_OK);
  p->clip = choice.clip;
  /* An order of all, whatever the rule. */
  for (uint32_t i = 0; i < p->round.count; i++) {
    cr_assert_lt(p->order[i], p->round.count);
    cr_assert_eq(seen[p->order[i]]++, 0);
  }
}

static int is_chosen(const people *p, uint32_t who)
{
  for (uint32_t i = 0; i < p->round.wanted; i++) {
    if (p->order[i] == who) return 1;
  }
  return 0;
}

/* Of `rounds` choices, those that chose `who`. */
static uint32_t times_chosen(people *p, uint32_t who, uint32_t rounds)
{
  uint32_t n = 0;
  for (uint32_t r = 0; r < rounds; r++) {
    choose(p, r);
    n += (uint32_t)is_chosen(p, who);
  }
  return n;
}

/* ---- power of choice ---- */

Test(selection, choice_takes_the_largest_losses_of_its_candidates)
{
  people p;
  people_init(&p, FL_SELECT_CHOICE, 40, 5);
  all_seen(&p);
  p.options.candidates = 40;
  choose(&p, 7);
  for (uint32_t i = 0; i < 5; i++)
    cr_expect_eq(p.order[i], 39 - i);
}

Test(selection, choice_asks_first_whose_loss_nobody_knows)
{
  people p;
  people_init(&p, FL_SELECT_CHOICE, 40, 3);
  all_seen(&p);
  p.options.candidates = 40;
  p.losses[4] = p.losses[11] = NAN;
  p.losses[0] = 1e30f;
  choose(&p, 7);
  cr_expect(is_chosen(&p, 4));
  cr_expect(is_chosen(&p, 11));
  cr_expect_eq(p.order[2], 0u);
}

/* The oracle: candidates are a draw by samples, so one candidate of one is
 * chosen as often as it has samples. */
Test(selection, choice_draws_its_candidates_by_samples)
{
  enum { ROUNDS = 6000 };
  people p;
  uint32_t chosen[4] = {0};
  people_init(&p, FL_SELECT_CHOICE, 4, 1);
  p.options.candidates = 1;
  for (uint32_t i = 0; i < 4; i++)
    p.samples[i] = 10 * (i + 1);
  for (uint32_t r = 0; r < ROUNDS; r++) {
    choose(&p, r);
    chosen[p.order[0]]++;
  }
  for (uint32_t i = 0; i < 4; i++) {
    const double want = (i + 1) / 10.0;
    const double sigma = sqrt(want * (1.0 - want) * ROUNDS);
    cr_expect_lt(fabs(chosen[i] - want * ROUNDS), 4.0 * sigma, "%u: %u", i,
                 chosen[i]);
  }
}

/* 20 candidates of 100: whatever it claims, a fifth of the rounds. */
Test(selection, choice_gives_a_liar_no_more_than_its_draw)
{
  enum { ROUNDS = 2000 };
  people p;
  people_init(&p, FL_SELECT_CHOICE, N, 5);
  all_seen(&p);
  p.losses[3] = 3e38f;
  const uint32_t n = times_chosen(&p, 3, ROUNDS);
  cr_expect_lt(fabs(n - 0.2 * ROUNDS), 4.0 * sqrt(0.16 * ROUNDS), "%u", n);
}

/* ---- Oort ---- */

static int descending(const void *a, const void *b)
{
  const double left = *(const double *)a, right = *(const double *)b;
  return (left < right) - (left > right);
}

static int ascending(const void *a, const void *b)
{
  return -descending(a, b);
}

/* Scores as the paper has them; everybody has been seen. */
static void oracle(const people *p, double scores[N])
{
  const uint32_t n = p->round.count;
  double utility[N], sorted[N], seconds[N];
  for (uint32_t i = 0; i < n; i++) {
    utility[i] = sorted[i] = (double)p->samples[i] * (double)p->losses[i];
    seconds[i] = (double)p->seconds[i];
  }
  qsort(sorted, n, sizeof *sorted, ascending);
  qsort(seconds, n, sizeof *seconds, ascending);
  const double clip =
      sorted[(size_t)((double)p->options.clip_quantile * (n - 1))];
  const double pace = seconds[(size_t)((double)p->options.pace * (n - 1))];
  for (uint32_t i = 0; i < n; i++) {
    const double own = fmin(utility[i], clip);
    scores[i] = (own - sorted[0]) / (clip - sorted[0]) +
                sqrt(0.1 * log((double)p->round.round) / p->rounds[i]);
    if ((double)p->seconds[i] > pace)
      scores[i] *= pow(pace / (double)p->seconds[i], 2.0);
  }
}

Test(selection, oort_chooses_by_the_scores_of_its_paper)
{
  people p;
  double scores[N], sorted[N];
  fli_rng rng;
  fli_rng_init(&rng, 3, FLI_RNG_TEST, 0, 0);
  for (uint32_t trial = 0; trial < 50; trial++) {
    people_init(&p, FL_SELECT_OORT, N, 10);
    p.options.explore = p.options.explore_least = 0.0f;
    p.round.round = 40;
    for (uint32_t i = 0; i < N; i++) {
      p.samples[i] = 1 + fli_rng_below(&rng, 50);
      p.losses[i] = fli_rng_f32(&rng) * 3.0f;
      p.seconds[i] = 1.0f + fli_rng_f32(&rng) * 9.0f;
      p.rounds[i] = 1 + fli_rng_below(&rng, 39);
    }
    choose(&p, trial);
    oracle(&p, scores);
    memcpy(sorted, scores, sizeof sorted);
    qsort(sorted, N, sizeof *sorted, descending);
    for (uint32_t i = 0; i < N; i++) {
      if (!is_chosen(&p, i)) continue;
      cr_expect_geq(scores[i], 0.95 * sorted[9] - 1e-9, "trial %u, %u", trial,
                    i);
    }
  }
}

/* Losses far apart: who is within .95 of the last is one of the best. */
Test(selection, oort_takes_the_most_useful)
{
  people p;
  people_init(&p, FL_SELECT_OORT, 8, 2);
  all_seen(&p);
  p.options.explore = p.options.explore_least = 0.0f;
  p.options.clip_quantile = 1.0f;
  choose(&p, 1);
  cr_expect(is_chosen(&p, 7));
  cr_expect(is_chosen(&p, 6));
}

Test(selection, oort_counts_a_liar_as_the_quantile)
{
  enum { ROUNDS = 2000, HONEST = 95 };
  people p;
  people_init(&p, FL_SELECT_OORT, N, 5);
  all_seen(&p);
  p.options.explore = p.options.explore_least = 0.0f;
  p.losses[3] = 3e38f;
  const uint32_t liar = times_chosen(&p, 3, ROUNDS);
  const uint32_t honest = times_chosen(&p, HONEST, ROUNDS);
  /* It is one of the tenth that counts the same. */
  cr_expect_lt(liar, honest + 4 * (uint32_t)sqrt(ROUNDS), "%u, %u", liar,
               honest);
  cr_expect_lt(liar, ROUNDS * 6 / 10);
  cr_expect_lt(p.clip, 1000.0);
}

Test(selection, oort_asks_a_share_of_new_clients_that_shrinks)
{
  people p;
  people_init(&p, FL_SELECT_OORT, N, 20);
  all_seen(&p);
  for (uint32_t i = 50; i < N; i++)
    p.rounds[i] = 0;
  for (uint32_t i = 50; i < N; i++)
    p.losses[i] = NAN;
  const uint64_t rounds[] = {1, 2, 21, 1000};
  const uint32_t want[] = {18, 18, 12, 6}; /* .9 x .98^20 = .6; .3 at last */
  for (size_t k = 0; k < 4; k++) {
    uint32_t n = 0;
    p.round.round = rounds[k];
    choose(&p, k);
    for (uint32_t i = 50; i < N; i++)
      n += (uint32_t)is_chosen(&p, i);
    cr_expect_eq(n, want[k], "round %u: %u", (unsigned)rounds[k], n);
  }
}

Test(selection, oort_fills_up_with_whom_there_is)
{
  people p;
  people_init(&p, FL_SELECT_OORT, 10, 6);
  choose(&p, 1); /* nobody was seen */
  all_seen(&p);
  choose(&p, 1); /* nobody is new */
  p.rounds[2] = 0;
  p.losses[2] = NAN;
  choose(&p, 1);
  cr_expect(is_chosen(&p, 2));
}

/* One that was asked and has not answered comes behind those never asked. */
Test(selection, oort_tries_new_clients_before_silent_ones)
{
  people p;
  people_init(&p, FL_SELECT_OORT, 10, 4);
  p.rounds[0] = p.rounds[5] = 3;
  p.round.round = 4;
  for (uint64_t seed = 0; seed < 20; seed++) {
    choose(&p, seed);
    cr_expect(!is_chosen(&p, 0));
    cr_expect(!is_chosen(&p, 5));
  }
}

Test(selection, oort_leaves_slow_clients_behind)
{
  enum { ROUNDS = 500 };
  people p;
  people_init(&p, FL_SELECT_OORT, 40, 4);
  all_seen(&p);
  p.options.explore = p.options.explore_least = 0.0f;
  for (uint32_t i = 0; i < 40; i++)
    p.losses[i] = 1.0f + 0.001f * (float)(i % 3);
  p.round.round = 5;
  const uint32_t before = times_chosen(&p, 17, ROUNDS);
  p.seconds[17] = 10.0f;
  cr_expect_gt(before, 0u);
  cr_expect_eq(times_chosen(&p, 17, ROUNDS), 0u);
}

Test(selection, same_seed_and_round_choose_the_same)
{
  const uint32_t rules[] = {FL_SELECT_CHOICE, FL_SELECT_OORT};
  for (size_t k = 0; k < 2; k++) {
    people p, other;
    people_init(&p, rules[k], N, 10);
    all_seen(&p);
    for (uint32_t i = 0; i < N; i += 3)
      p.losses[i] = NAN;
    other = p;
    other.round.samples = other.samples;
    choose(&p, 5);
    choose(&other, 5);
    cr_expect_arr_eq(p.order, other.order, sizeof p.order);
    other.round.attempt = 1;
    choose(&other, 5);
    cr_expect(memcmp(p.order, other.order, sizeof p.order) != 0);
  }
}

/* ---- options ---- */

Test(selection, options_have_their_defaults_and_a_size)
{
  fl_selection_options o;
  cr_assert_eq(fl_selection_options_init(&o, sizeof o), FL_OK);
  cr_expect_eq(o.rule, (uint32_t)FL_SELECT_RANDOM);
  cr_expect_eq(o.pacer, 20u);
  cr_expect_float_eq(o.explore, 0.9f, 1e-7f);
  cr_expect_eq(fl_selection_options_init(NULL, sizeof o), FL_E_OPTIONS);
  cr_expect_eq(fl_selection_options_init(&o, 2), FL_E_OPTIONS);
}

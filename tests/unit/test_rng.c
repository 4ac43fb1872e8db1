/* SPDX-License-Identifier: Apache-2.0 */
/* Philox against the known answers of Random123 1.x (kat_vectors,
 * philox4x32 10), and what is built on it. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/rng.h"

enum { SEED = 20240607 };

static fli_rng test_rng(uint64_t a)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, a, 0);
  return rng;
}

static void check_block(const uint32_t counter[4], const uint32_t key[2],
                        const uint32_t want[4])
{
  fli_rng rng = {.used = 4};
  memcpy(rng.counter, counter, sizeof rng.counter);
  memcpy(rng.key, key, sizeof rng.key);
  for (int i = 0; i < 4; i++) {
    cr_assert_eq(fli_rng_u32(&rng), want[i], "word %d", i);
  }
}

Test(rng, philox_known_answers)
{
  check_block((uint32_t[]){0, 0, 0, 0}, (uint32_t[]){0, 0},
              (uint32_t[]){0x6627e8d5u, 0xe169c58du, 0xbc57ac4cu, 0x9b00dbd8u});
  check_block((uint32_t[]){0xffffffffu, 0xffffffffu, 0xffffffffu, 0xffffffffu},
              (uint32_t[]){0xffffffffu, 0xffffffffu},
              (uint32_t[]){0x408f276du, 0x41c83b0eu, 0xa20bc7c6u, 0x6d5451fdu});
  check_block((uint32_t[]){0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u},
              (uint32_t[]){0xa4093822u, 0x299f31d0u},
              (uint32_t[]){0xd16cfe09u, 0x94fdccebu, 0x5001e420u, 0x24126ea1u});
}

Test(rng, same_name_same_numbers)
{
  fli_rng a;
  fli_rng b;
  fli_rng_init(&a, 1, 2, 3, 4);
  fli_rng_init(&b, 1, 2, 3, 4);
  for (int i = 0; i < 100; i++) {
    cr_assert_eq(fli_rng_u64(&a), fli_rng_u64(&b));
  }
}

Test(rng, every_part_of_the_name_counts)
{
  const uint64_t high = UINT64_C(1) << 47;
  fli_rng streams[7];
  uint64_t first[7];
  fli_rng_init(&streams[0], 1, 2, 3, 4);
  fli_rng_init(&streams[1], 1 + (UINT64_C(1) << 63), 2, 3, 4);
  fli_rng_init(&streams[2], 2, 2, 3, 4);
  fli_rng_init(&streams[3], 1, 3, 3, 4);
  fli_rng_init(&streams[4], 1, 2, 4, 4);
  fli_rng_init(&streams[5], 1, 2, 3 + high, 4);
  fli_rng_init(&streams[6], 1, 2, 3, 5);
  for (int i = 0; i < 7; i++) {
    first[i] = fli_rng_u64(&streams[i]);
    for (int j = 0; j < i; j++) {
      cr_assert_neq(first[i], first[j], "streams %d and %d", i, j);
    }
  }
}

Test(rng, u64_is_two_words_low_first)
{
  fli_rng a = test_rng(1);
  fli_rng b = test_rng(1);
  uint64_t low = fli_rng_u32(&a);
  uint64_t high = fli_rng_u32(&a);
  cr_assert_eq(fli_rng_u64(&b), low | high << 32);
}

Test(rng, below_stays_below_and_reaches_every_value)
{
  for (uint32_t bound = 1; bound <= 20; bound++) {
    fli_rng rng = test_rng(bound);
    uint32_t seen[20] = {0};
    for (int i = 0; i < 2000; i++) {
      uint32_t value = fli_rng_below(&rng, bound);
      cr_assert_lt(value, bound);
      seen[value]++;
    }
    for (uint32_t v = 0; v < bound; v++) {
      /* 2000 / bound expected; six standard deviations. */
      double want = 2000.0 / bound;
      double off = seen[v] - want;
      cr_assert_leq(off * off, 36 * want, "bound %u value %u: %u", bound, v,
                    seen[v]);
    }
  }
}

/* With 3 * 2^30, a plain `word % bound` gives the lower third twice as often,
 * and rejection has work to do. */
Test(rng, below_is_unbiased_for_a_large_bound)
{
  const uint32_t bound = UINT32_C(3) << 30;
  fli_rng rng = test_rng(1);
  uint32_t thirds[3] = {0};
  for (int i = 0; i < 30000; i++) {
    thirds[fli_rng_below(&rng, bound) >> 30]++;
  }
  for (int i = 0; i < 3; i++) {
    cr_assert_gt(thirds[i], 9500);
    cr_assert_lt(thirds[i], 10500);
  }
}

Test(rng, floats_are_in_the_unit_interval_with_the_right_mean)
{
  fli_rng rng = test_rng(2);
  double sum_single = 0;
  double sum_double = 0;
  for (int i = 0; i < 20000; i++) {
    float f = fli_rng_f32(&rng);
    double d = fli_rng_f64(&rng);
    cr_assert(f >= 0 && f < 1);
    cr_assert(d >= 0 && d < 1);
    sum_single += f;
    sum_double += d;
  }
  /* Standard deviation of the mean: 1 / sqrt(12 * 20000) = .002. */
  cr_assert_float_eq(sum_single / 20000, 0.5, 0.012);
  cr_assert_float_eq(sum_double / 20000, 0.5, 0.012);
}

Test(rng, shuffle_is_a_permutation)
{
  uint32_t items[257];
  uint32_t seen[257] = {0};
  fli_rng rng = test_rng(3);
  uint32_t moved = 0;
  for (uint32_t i = 0; i < 257; i++) {
    items[i] = i;
  }
  fli_rng_shuffle(&rng, items, 257);
  for (uint32_t i = 0; i < 257; i++) {
    cr_assert_lt(items[i], 257);
    seen[items[i]]++;
    moved += items[i] != i;
  }
  for (uint32_t i = 0; i < 257; i++) {
    cr_assert_eq(seen[i], 1);
  }
  cr_assert_gt(moved, 200);
}

Test(rng, shuffle_of_three_reaches_all_orders_evenly)
{
  uint32_t orders[27] = {0};
  fli_rng rng = test_rng(4);
  for (int i = 0; i < 6000; i++) {
    uint32_t items[3] = {0, 1, 2};
    fli_rng_shuffle(&rng, items, 3);
    orders[items[0] * 9 + items[1] * 3 + items[2]]++;
  }
  uint32_t reached = 0;
  for (int i = 0; i < 27; i++) {
    if (orders[i] == 0) continue;
    reached++;
    cr_assert_gt(orders[i], 800);
    cr_assert_lt(orders[i], 1200);
  }
  cr_assert_eq(reached, 6);
}

Test(rng, shuffle_of_none_and_one_draws_nothing)
{
  fli_rng rng = test_rng(5);
  fli_rng before = rng;
  uint32_t item = 9;
  fli_rng_shuffle(&rng, NULL, 0);
  fli_rng_shuffle(&rng, &item, 1);
  cr_assert_eq(item, 9);
  cr_assert_eq(rng.used, before.used);
  cr_assert_eq(rng.counter[0], before.counter[0]);
}

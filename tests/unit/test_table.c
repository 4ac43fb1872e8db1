/* SPDX-License-Identifier: Apache-2.0 */
/* THC's tables against published costs, brute force and an oracle in long
 * double; options, and the functions that tell what was chosen. */
#include <criterion/criterion.h>

#include <math.h>
#include <stddef.h>

#include "compress/table.h"
#include "compress_fixture.h"

#define SQRT_2 1.41421356237309504880168872420969808L
#define SQRT_2PI 2.50662827463100050241576528481104525L

enum { DEFAULT_SIZE = offsetof(fl_compressor_options, workers) };

static double clip_of(double p)
{
  return -fli_probit(p / 2.0);
}

/* ---- oracle ---- */

static long double true_cost(const uint8_t *values, uint32_t n, long double t)
{
  long double g = values[n - 1], sum = 0.0L;
  for (uint32_t j = 0; j + 1 < n; j++) {
    long double l = t * (2.0L * values[j] / g - 1.0L);
    long double u = t * (2.0L * values[j + 1] / g - 1.0L);
    long double at_l = expl(-l * l / 2) / SQRT_2PI;
    long double at_u = expl(-u * u / 2) / SQRT_2PI;
    long double i0 = (erfl(u / SQRT_2) - erfl(l / SQRT_2)) / 2;
    long double i1 = at_l - at_u;
    long double i2 = i0 - (u * at_u - l * at_l);
    sum += -i2 + (l + u) * i1 - l * u * i0;
  }
  return sum;
}

/* Next strictly increasing table with the same ends; 0 after the last. */
static int next_table(uint8_t *values, uint32_t n)
{
  uint32_t g = values[n - 1];
  for (uint32_t j = n - 2; j > 0; j--) {
    if (values[j] + (n - 1 - j) >= g) continue;
    values[j]++;
    for (uint32_t i = j + 1; i < n - 1; i++)
      values[i] = (uint8_t)(values[i - 1] + 1);
    return 1;
  }
  return 0;
}

static long double least_cost(uint32_t bits, uint32_t g, double t)
{
  uint8_t values[FLI_TABLE_MAX];
  uint32_t n = 1u << bits;
  for (uint32_t j = 0; j < n; j++)
    values[j] = (uint8_t)j;
  values[n - 1] = (uint8_t)g;
  long double least = HUGE_VALL;
  do {
    long double cost = true_cost(values, n, (long double)t);
    if (cost < least) least = cost;
  } while (next_table(values, n));
  return least;
}

/* ---- tables ---- */

static const struct {
  uint32_t g;
  double p;
  double published; /* cost of the table printed with the method, or 0 */
  double cost;
  uint8_t values[16];
} known[] = {
    {30,
     1.0 / 32,
     0.013075,
     0.013063,
     {0, 3, 5, 7, 9, 11, 13, 14, 15, 17, 19, 21, 23, 25, 27, 30}},
    {16,
     1.0 / 32,
     0.014383,
     0.013045,
     {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16}},
    {30,
     1.0 / 512,
     0.023513,
     0.022906,
     {0, 4, 7, 9, 11, 12, 13, 14, 15, 16, 17, 19, 21, 23, 26, 30}},
    /* Mirror image of 0 5 8 10 12 14 16 17 18 19 20 22 24 26 29 34. */
    {34,
     1.0 / 1024,
     0.023775,
     0.023566,
     {0, 5, 8, 10, 12, 14, 15, 16, 17, 18, 20, 22, 24, 26, 29, 34}},
};

Test(table, four_bit_tables_and_costs_are_the_known_ones)
{
  for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
    uint8_t values[16];
    double cost = 0.0, clip = clip_of(known[i].p);
    cr_assert_eq(fli_table_solve(NULL, 4, known[i].g, clip, values, &cost),
                 FL_OK);
    cr_expect_arr_eq(values, known[i].values, 16, "row %zu", i);
    cr_expect_float_eq(cost, known[i].cost, 5.001e-7, "row %zu: %.7f", i, cost);
    cr_expect_lt(cost, known[i].published);
    cr_expect_float_eq(fli_table_cost(values, 4, clip), cost, 1e-12);
  }
}

Test(table, cost_is_not_monotone_in_the_granularity)
{
  static const struct {
    uint32_t g;
    double cost;
  } rows[] = {{15, .013319}, {16, .013045}, {20, .013527}, {24, .014239},
              {30, .013063}, {34, .012125}, {51, .012013}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    uint8_t values[16];
    double cost = 0.0;
    cr_assert_eq(
        fli_table_solve(NULL, 4, rows[i].g, clip_of(1.0 / 32), values, &cost),
        FL_OK);
    cr_expect_float_eq(cost, rows[i].cost, 5.001e-7, "g %u: %.7f", rows[i].g,
                       cost);
  }
}

Test(table, solved_with_30_steps_costs_this_for_every_tail)
{
  static const struct {
    double p, uniform, table;
  } rows[] = {{1.0 / 16, .009641, .009641},  {1.0 / 32, .013319, .013063},
              {1.0 / 64, .017050, .016200},  {1.0 / 128, .020805, .019110},
              {1.0 / 512, .028370, .022906}, {1.0 / 1024, .032181, .024272}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    uint8_t values[16], identity[16];
    double cost = 0.0, clip = clip_of(rows[i].p);
    for (uint8_t j = 0; j < 16; j++)
      identity[j] = j;
    cr_assert_eq(fli_table_solve(NULL, 4, 30, clip, values, &cost), FL_OK);
    cr_expect_float_eq(cost, rows[i].table, 5.001e-7, "%.7f", cost);
    cost = fli_table_cost(identity, 4, clip);
    cr_expect_float_eq(cost, rows[i].uniform, 5.001e-7, "%.7f", cost);
  }
}

static void expect_least(uint32_t bits, uint32_t g, double clip)
{
  uint8_t values[FLI_TABLE_MAX];
  double cost = 0.0;
  cr_assert_eq(fli_table_solve(NULL, bits, g, clip, values, &cost), FL_OK);
  long double least = least_cost(bits, g, clip);
  long double mine = true_cost(values, 1u << bits, (long double)clip);
  cr_expect(mine <= least + 1e-12L, "bits %u, g %u, clip %g: %Lg above %Lg",
            bits, g, clip, mine, least);
  cr_expect_float_eq(cost, (double)least, 1e-12, "bits %u, g %u, clip %g", bits,
                     g, clip);
}

Test(table, no_other_table_costs_less)
{
  static const double clips[] = {0.5, 1.25, 2.15387, 3.29719, 6.0, 16.0};
  for (size_t i = 0; i < sizeof clips / sizeof *clips; i++) {
    for (uint32_t g = 1; g <= 8; g++)
      expect_least(1, g, clips[i]);
    for (uint32_t g = 3; g <= 24; g++)
      expect_least(2, g, clips[i]);
    for (uint32_t g = 7; g <= 14; g++)
      expect_least(3, g, clips[i]);
    for (uint32_t g = 15; g <= 18; g++)
      expect_least(4, g, clips[i]);
  }
}

Test(table, of_mirror_images_the_one_with_the_lower_middle_wins)
{
  uint8_t values[16], mirror[16];
  double clip = clip_of(1.0 / 1024);
  cr_assert_eq(fli_table_solve(NULL, 4, 34, clip, values, NULL), FL_OK);
  for (int j = 0; j < 16; j++)
    mirror[j] = (uint8_t)(34 - values[15 - j]);
  cr_expect_float_eq(fli_table_cost(mirror, 4, clip),
                     fli_table_cost(values, 4, clip), 1e-15);
  cr_expect_lt(values[7], mirror[7]);
}

Test(table, every_table_increases_from_0_to_the_granularity)
{
  static const double clips[] = {0.5, 2.15387, 16.0};
  for (uint32_t bits = 1; bits <= 8; bits++) {
    uint32_t top = (1u << bits) - 1u;
    for (uint32_t g = top; g <= 255; g += g < top + 3 || g > 250 ? 1 : 41) {
      uint8_t values[FLI_TABLE_MAX];
      double clip = clips[g % 3];
      cr_assert_eq(fli_table_solve(NULL, bits, g, clip, values, NULL), FL_OK);
      cr_expect_eq(values[0], 0);
      cr_expect_eq(values[top], g);
      for (uint32_t j = 1; j <= top; j++)
        cr_expect_gt(values[j], values[j - 1], "bits %u, g %u", bits, g);
    }
  }
}

Test(table, cost_agrees_with_long_double)
{
  uint8_t values[64];
  cr_assert_eq(fli_table_solve(NULL, 6, 200, 2.5, values, NULL), FL_OK);
  for (double t = 0.5; t < 12.0; t *= 1.25) {
    long double want = true_cost(values, 64, (long double)t);
    cr_expect_float_eq(fli_table_cost(values, 6, t), (double)want, 1e-13);
  }
}

/* ---- granularity ---- */

Test(table, granularity_keeps_the_lanes_of_the_least_one)
{
  cr_expect_eq(fli_table_most(4, 1), 120u);
  cr_expect_eq(fli_table_most(4, 5), 51u);
  cr_expect_eq(fli_table_most(4, 8), 31u);
  cr_expect_eq(fli_table_most(4, 17), 15u);
  cr_expect_eq(fli_table_most(4, 18), 120u);
  cr_expect_eq(fli_table_most(4, 2184), 30u);
  cr_expect_eq(fli_table_most(4, 4369), 15u);
  cr_expect_eq(fli_table_most(4, 4370), 120u);
  cr_expect_eq(fli_table_most(1, 3), 8u);
  cr_expect_eq(fli_table_most(5, 2), 127u);
  cr_expect_eq(fli_table_most(8, 1), 255u);
  cr_expect_eq(fli_table_most(8, FL_MAX_SLOTS), 255u);
}

Test(table, granularity_is_the_smallest_that_costs_least)
{
  for (uint32_t bits = 1; bits <= 4; bits++) {
    uint32_t got = 0, want = 0, top = (1u << bits) - 1u;
    double least = HUGE_VAL;
    for (uint32_t g = top; g <= 60; g++) {
      uint8_t values[16];
      double cost = 0.0;
      cr_assert_eq(fli_table_solve(NULL, bits, g, 2.25, values, &cost), FL_OK);
      if (cost >= least) continue;
      least = cost;
      want = g;
    }
    uint8_t values[16], solved[16];
    cr_assert_eq(fli_table_granularity(NULL, bits, 60, 2.25, &got, values),
                 FL_OK);
    cr_expect_eq(got, want, "bits %u: got %u, want %u", bits, got, want);
    cr_assert_eq(fli_table_solve(NULL, bits, want, 2.25, solved, NULL), FL_OK);
    cr_expect_arr_eq(values, solved, (size_t)1 << bits, "bits %u", bits);
  }
}

/* ---- entries ---- */

Test(table, entries_name_the_value_below_its_index_and_the_gap)
{
  static const uint8_t values[4] = {0, 2, 3, 7};
  static const uint32_t want[8] = {
      0x02000000, 0x02000000, 0x01020001, 0x04030002,
      0x04030002, 0x04030002, 0x04030002, 0x01070003,
  };
  uint32_t entries[8];
  fli_table_entries(entries, values, 2);
  cr_expect_arr_eq(entries, want, sizeof want);
}

/* ---- compressors ---- */

static fl_compressor *open_clipped(uint32_t bits, uint32_t granularity,
                                   uint32_t workers, float clip)
{
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  uint64_t n = 10;
  cf_options(&options, FL_CODEC_THC, FL_THC_TABLE, bits);
  options.granularity = granularity;
  options.workers = workers;
  options.clip = clip;
  cf_must(fl_compressor_new(&compressor, NULL, &options, &n, 1));
  return compressor;
}

static fl_compressor *open_table(uint32_t bits, uint32_t granularity,
                                 uint32_t workers, const uint8_t *table)
{
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  uint64_t n = 10;
  cf_options(&options, FL_CODEC_THC, FL_THC_TABLE, bits);
  options.granularity = granularity;
  options.workers = workers;
  options.table = table;
  options.n_table = table ? 1u << bits : 0;
  cf_must(fl_compressor_new(&compressor, NULL, &options, &n, 1));
  return compressor;
}

static fl_compressor *open_mode(uint32_t codec, uint32_t mode, uint32_t bits)
{
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  uint64_t n = 10;
  cf_options(&options, codec, mode, bits);
  cf_must(fl_compressor_new(&compressor, NULL, &options, &n, 1));
  return compressor;
}

Test(table, compressor_solves_for_the_clip_of_the_options)
{
  uint8_t values[16];
  float clip = (float)clip_of(1.0 / 32);
  fl_compressor *compressor = open_clipped(4, 30, 0, clip);
  cr_expect_eq(fl_compressor_clip(compressor), clip);
  cr_expect_eq(fl_compressor_granularity(compressor), 30u);
  cr_assert_eq(fl_compressor_copy_table(compressor, values, 16), FL_OK);
  cr_expect_arr_eq(values, known[0].values, 16);
  cr_expect_eq(compressor->entries[4], 0x02030001u);
  fl_compressor_free(compressor);
}

Test(table, granularity_0_is_chosen_for_the_workers)
{
  static const uint32_t workers[] = {0, 8, 17, 5, 18};
  static const uint32_t most[] = {31, 31, 15, 51, 120};
  for (size_t i = 0; i < 5; i++) {
    uint32_t want = 0;
    uint8_t values[16];
    fl_compressor *compressor = open_clipped(4, 0, workers[i], 2.25f);
    cr_assert_eq(fli_table_granularity(NULL, 4, most[i], 2.25, &want, values),
                 FL_OK);
    cr_expect_eq(fl_compressor_granularity(compressor), want);
    cr_expect_arr_eq(compressor->values, values, 16);
    fl_compressor_free(compressor);
    compressor = open_table(4, 0, workers[i], NULL);
    cr_expect_leq(fl_compressor_granularity(compressor), most[i]);
    fl_compressor_free(compressor);
  }
}

/* ---- clip and table together ---- */

static double error_of(const uint8_t *values, uint32_t bits, double clip)
{
  return fli_table_cost(values, bits, clip) + fli_clamping_error(clip);
}

static double own_error(const fl_compressor *compressor)
{
  return error_of(compressor->values, compressor->bits,
                  (double)fl_compressor_clip(compressor));
}

Test(table, without_a_clip_has_no_more_error_than_uniform)
{
  static const uint32_t workers[] = {0, 1, 5, 17, 18, 1000};
  uint8_t identity[256];
  for (int j = 0; j < 256; j++)
    identity[j] = (uint8_t)j;
  for (uint32_t bits = 1; bits <= 8; bits++) {
    fl_compressor *uniform = open_mode(FL_CODEC_THC, FL_THC_UNIFORM, bits);
    double most = error_of(identity, bits, (double)fl_compressor_clip(uniform));
    fl_compressor_free(uniform);
    for (size_t i = 0; i < sizeof workers / sizeof *workers; i++) {
      fl_compressor *table = open_table(bits, 0, workers[i], NULL);
      cr_expect_leq(own_error(table), most, "bits %u, workers %u", bits,
                    workers[i]);
      fl_compressor_free(table);
    }
  }
}

/* Of all granularities and clips that are multiples of 1/16. */
static double least_error(uint32_t bits, uint32_t least, uint32_t most)
{
  double error = HUGE_VAL;
  for (uint32_t g = least; g <= most; g++) {
    for (double t = 0.5; t <= 6.0; t += 0.0625) {
      uint8_t values[FLI_TABLE_MAX];
      double cost = 0.0;
      cr_assert_eq(fli_table_solve(NULL, bits, g, t, values, &cost), FL_OK);
      if (cost + fli_clamping_error(t) < error)
        error = cost + fli_clamping_error(t);
    }
  }
  return error;
}

Test(table, without_a_clip_is_the_best_of_all_clips)
{
  static const uint32_t grids[][2] = {{1, 7},  {2, 3},   {2, 17}, {3, 23},
                                      {4, 15}, {4, 20},  {4, 30}, {5, 40},
                                      {5, 90}, {6, 100}, {7, 200}};
  for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
    uint32_t bits = grids[i][0], g = grids[i][1];
    fl_compressor *table = open_table(bits, g, 0, NULL);
    double least = least_error(bits, g, g), mine = own_error(table);
    cr_expect_leq(mine, least * (1.0 + 1e-9), "bits %u, g %u: %g above %g",
                  bits, g, mine, least);
    fl_compressor_free(table);
  }
}

Test(table, without_a_clip_is_close_to_the_best_of_all_granularities)
{
  for (uint32_t bits = 1; bits <= 4; bits++) {
    uint32_t most = fli_table_most(bits, 8);
    fl_compressor *table = open_table(bits, 0, 8, NULL);
    double least = least_error(bits, (1u << bits) - 1u, most);
    cr_expect_leq(own_error(table), 1.005 * least, "bits %u", bits);
    fl_compressor_free(table);
  }
}

Test(table, clip_that_is_solved_is_the_best_for_its_values)
{
  static const uint8_t given[4] = {0, 2, 3, 7};
  fl_compressor *c[] = {open_table(2, 0, 0, given), open_table(4, 0, 0, NULL),
                        open_table(6, 100, 0, NULL)};
  for (size_t i = 0; i < 3; i++) {
    cr_expect_eq(fl_compressor_clip(c[i]),
                 fl_compressor_best_clip(c[i], 1, 0.0, 1.0));
    fl_compressor_free(c[i]);
  }
}

Test(table, a_given_table_is_copied_and_sets_the_granularity)
{
  uint8_t mine[4] = {0, 2, 3, 7}, got[4];
  fl_compressor *compressor = open_table(2, 0, 0, mine);
  mine[1] = 1;
  cr_expect_eq(fl_compressor_granularity(compressor), 7u);
  cr_assert_eq(fl_compressor_copy_table(compressor, got, 4), FL_OK);
  cr_expect_eq(got[1], 2);
  cr_expect_eq(got[3], 7);
  fl_compressor_free(compressor);
}

Test(table, id_covers_mode_granularity_and_values)
{
  static const uint8_t a[4] = {0, 1, 3, 7}, b[4] = {0, 2, 3, 7},
                       same[4] = {0, 1, 2, 3}, wider[4] = {0, 1, 2, 4};
  fl_compressor *c[] = {open_table(2, 0, 0, a), open_table(2, 0, 0, b),
                        open_table(2, 0, 0, same), open_table(2, 0, 0, wider),
                        open_mode(FL_CODEC_THC, FL_THC_UNIFORM, 2)};
  fl_compressor *again = open_table(2, 7, 3, a);
  cr_expect_eq(again->id, c[0]->id);
  for (size_t i = 0; i < 5; i++) {
    for (size_t k = 0; k < i; k++)
      cr_expect_neq(c[i]->id, c[k]->id, "%zu, %zu", i, k);
  }
  for (size_t i = 0; i < 5; i++)
    fl_compressor_free(c[i]);
  fl_compressor_free(again);
}

Test(table, uniform_and_dither_stand_for_themselves)
{
  for (uint32_t mode = FL_THC_UNIFORM; mode <= FL_THC_DITHER; mode++) {
    uint8_t values[256];
    fl_compressor *compressor = open_mode(FL_CODEC_THC, mode, 8);
    cr_expect_eq(fl_compressor_granularity(compressor), 255u);
    cr_assert_eq(fl_compressor_copy_table(compressor, values, 256), FL_OK);
    for (int j = 0; j < 256; j++)
      cr_expect_eq(values[j], j);
    fl_compressor_free(compressor);
  }
}

Test(table, copy_table_checks_its_arguments)
{
  uint8_t values[16];
  fl_compressor *thc = open_table(4, 30, 0, NULL);
  fl_compressor *f32 = open_mode(FL_CODEC_F32, FL_THC_DITHER, 4);
  cr_expect_eq(fl_compressor_copy_table(thc, values, 15), FL_E_DIM);
  cr_expect_eq(fl_compressor_copy_table(thc, values, 17), FL_E_DIM);
  cr_expect_eq(fl_compressor_copy_table(thc, NULL, 16), FL_E_ARGUMENT);
  cr_expect_eq(fl_compressor_copy_table(NULL, values, 16), FL_E_ARGUMENT);
  cr_expect_eq(fl_compressor_copy_table(f32, values, 16), FL_E_STATE);
  cr_expect_eq(fl_compressor_granularity(f32), 0u);
  cr_expect_eq(fl_compressor_granularity(NULL), 0u);
  fl_compressor_free(thc);
  fl_compressor_free(f32);
}

static fl_compressor_options table_options(uint32_t bits)
{
  fl_compressor_options options;
  cf_options(&options, FL_CODEC_THC, FL_THC_TABLE, bits);
  return options;
}

static void expect_refused(const fl_compressor_options *options,
                           const char *text)
{
  fl_compressor *compressor = NULL;
  uint64_t n = 10;
  cr_expect_eq(fl_compressor_new(&compressor, NULL, options, &n, 1),
               FL_E_OPTIONS, "want: %s", text);
  cr_expect_str_eq(fl_last_error(), text);
}

Test(table, options_out_of_range_are_refused)
{
  fl_compressor_options o = table_options(0);
  expect_refused(&o, "bits: got 0, want 1..8");
  o = table_options(9);
  expect_refused(&o, "bits: got 9, want 1..8");
  o = table_options(4);
  o.thc_mode = 4;
  expect_refused(&o, "thc_mode: got 4, want FL_THC_*");
  o = table_options(4);
  o.granularity = 14;
  expect_refused(&o, "granularity: got 14, want 0 or 15..255");
  o.granularity = 256;
  expect_refused(&o, "granularity: got 256, want 0 or 15..255");
  o = table_options(4);
  o.clip = 0.49f;
  expect_refused(&o, "clip: got 0.49, want 0 or 0.5..16");
  o = table_options(4);
  o.workers = FL_MAX_SLOTS + 1;
  expect_refused(&o, "workers: got 65536, want 0..65535");
}

Test(table, tables_that_are_none_are_refused)
{
  uint8_t values[4] = {0, 1, 3, 7};
  fl_compressor_options o = table_options(2);
  o.n_table = 4;
  expect_refused(&o, "table: got NULL, want 4 values");
  o.table = values;
  o.n_table = 3;
  expect_refused(&o, "n_table: got 3, want 4");
  o.n_table = 4;
  o.granularity = 8;
  expect_refused(&o, "granularity: got 8, want 0 or the table's last, 7");
  o.granularity = 7;
  values[0] = 1;
  expect_refused(&o, "table[0]: got 1, want 0");
  values[0] = 0;
  values[2] = 1;
  expect_refused(&o, "table[2]: got 1, want > 1");
  values[2] = 3;
  o.thc_mode = FL_THC_DITHER;
  expect_refused(&o, "table: got one with thc_mode 2, want FL_THC_TABLE");
}

Test(table, options_of_an_older_host_end_before_the_workers)
{
  fl_compressor *compressor = NULL;
  uint64_t n = 10;
  fl_compressor_options o = table_options(4);
  o.struct_size = DEFAULT_SIZE;
  o.workers = FL_MAX_SLOTS + 1;
  o.n_table = 3;
  cr_expect_eq(fl_compressor_new(&compressor, NULL, &o, &n, 1), FL_OK);
  cr_expect_leq(fl_compressor_granularity(compressor), 31u);
  fl_compressor_free(compressor);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Tables and clips that every machine must find: they are not sent along by
 * whoever measures or replays a round, and a sum is worth nothing to who has
 * others. */
#include "base/bytes.h"
#include "check.h"
#include "compress/table.h"
#include "compress_fixture.h"
#include "crypto/crypto.h"

static const double clips[] = {
    0.5, 2.153874694061456, 3.297193345691963, 5.0 / 3.0, 7.1, 16.0};
enum { CLIPS = sizeof clips / sizeof *clips };

/* Bits, granularity and values of all tables, and their costs' bits. */
static uint64_t hash_tables(uint32_t bits)
{
  uint8_t hash[FLI_HASH_BYTES];
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  for (uint32_t g = (1u << bits) - 1u; g <= 255; g += g % 5 + 1) {
    for (size_t i = 0; i < CLIPS; i++) {
      uint8_t values[FLI_TABLE_MAX];
      double cost = 0.0;
      cf_must(fli_table_solve(NULL, bits, g, clips[i], values, &cost));
      fli_hasher_u64(&hasher, g);
      fli_hasher_update(&hasher, values, (size_t)1 << bits);
      fli_hasher_u64(&hasher, fli_f64_bits(cost));
      fli_hasher_u64(&hasher,
                     fli_f64_bits(fli_table_cost(values, bits, clips[i])));
    }
  }
  fli_hasher_final(&hasher, hash);
  return fli_hash_id(hash);
}

static void tables_have_these_bytes(void)
{
  static const uint64_t want[] = {0xb9bbb2590fb92306, 0x71edf0f451143fb6,
                                  0xeacd240a243d4563, 0x092e1f2ccfd0707f,
                                  0xa7a1caebda9e004e, 0x5256864a7c1846f7,
                                  0x8af93323de893fe5, 0xea1b8b8e5dd7b0c4};
  for (uint32_t bits = 1; bits <= 8; bits++) {
    uint64_t got = hash_tables(bits);
    if (got != want[bits - 1])
      fprintf(stderr, "bits %u: got 0x%016llx\n", bits,
              (unsigned long long)got);
    CHECK_EQ_U64(got, want[bits - 1]);
  }
}

static void granularities_are_these(void)
{
  static const struct {
    uint32_t bits, workers, g;
  } rows[] = {{1, 8, 1},  {2, 8, 11},  {3, 8, 27},  {4, 8, 17},  {4, 1, 114},
              {5, 8, 31}, {6, 8, 229}, {7, 8, 145}, {8, 8, 255}, {4, 64, 114}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    uint32_t g = 0;
    uint32_t most = fli_table_most(rows[i].bits, rows[i].workers);
    uint8_t values[FLI_TABLE_MAX];
    cf_must(
        fli_table_granularity(NULL, rows[i].bits, most, clips[1], &g, values));
    CHECK_EQ_U64(g, rows[i].g);
    CHECK_EQ_U64(values[(1u << rows[i].bits) - 1u], g);
  }
}

static void tables_that_come_with_a_clip_are_these(void)
{
  static const struct {
    uint32_t bits, workers, g;
    float clip;
  } rows[] = {{1, 8, 1, 0.6474609375f},  {2, 8, 23, 1.2783203125f},
              {3, 8, 23, 1.875f},        {4, 8, 17, 2.4150390625f},
              {4, 1, 120, 2.466796875f}, {5, 8, 31, 2.728515625f},
              {6, 8, 196, 3.484375f},    {7, 8, 237, 4.19921875f},
              {8, 8, 255, 3.76953125f}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    fl_compressor_options options;
    fl_compressor *compressor = NULL;
    uint64_t n = 1;
    cf_options(&options, FL_CODEC_THC, FL_THC_TABLE, rows[i].bits);
    options.workers = rows[i].workers;
    cf_must(fl_compressor_new(&compressor, NULL, &options, &n, 1));
    CHECK_EQ_U64(fl_compressor_granularity(compressor), rows[i].g);
    CHECK_EQ_F64(fl_compressor_clip(compressor), rows[i].clip);
    fl_compressor_free(compressor);
  }
}

static void clips_by_coherence_have_these_bits(void)
{
  static const struct {
    uint32_t mode, bits, workers;
    double coherence, spread;
    float clip;
  } rows[] = {{FL_THC_DITHER, 4, 10, 1.0, 1.0, 3.6875f},
              {FL_THC_DITHER, 4, 10, 0.1, 1.0, 2.5224609375f},
              {FL_THC_DITHER, 4, 64, 0.4, 1.5, 1.93424475f},
              {FL_THC_DITHER, 4, 64, 0.995, 1.0, 3.7421875f},
              {FL_THC_DITHER, 8, 64, 1.0, 1.0, 5.4912109375f},
              {FL_THC_UNIFORM, 4, 10, 1.0, 1.0, 2.9580078125f},
              {FL_THC_UNIFORM, 2, 3, 0.7, 4.0, 0.5f},
              {FL_THC_TABLE, 4, 10, 1.0, 1.0, 3.048828125f},
              {FL_THC_TABLE, 4, 64, 0.05, 1.25, 1.98593748f},
              {FL_THC_TABLE, 2, 1, 0.0, 1.0, 1.2783203125f}};
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    fl_compressor_options options;
    fl_compressor *compressor = NULL;
    uint64_t n = 1;
    cf_options(&options, FL_CODEC_THC, rows[i].mode, rows[i].bits);
    cf_must(fl_compressor_new(&compressor, NULL, &options, &n, 1));
    CHECK_EQ_F64(fl_compressor_best_clip(compressor, rows[i].workers,
                                         rows[i].coherence, rows[i].spread),
                 rows[i].clip);
    fl_compressor_free(compressor);
  }
}

int main(void)
{
  CHECK_CASE(tables_have_these_bytes);
  CHECK_CASE(granularities_are_these);
  CHECK_CASE(tables_that_come_with_a_clip_are_these);
  CHECK_CASE(clips_by_coherence_have_these_bits);
  return check_report();
}

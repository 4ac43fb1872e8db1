/* SPDX-License-Identifier: Apache-2.0 */
/* Sums as bytes that are no sums, or not ours: cut anywhere, with a wrong
 * field, of another round, table or model, with lanes that no updates make.
 * Every one is refused by name, and the sum it was to be added to stays as it
 * was. */
#include <criterion/criterion.h>

#include "base/bytes.h"
#include "wrong_bytes.h"

enum { SLOTS = 5, DIM = 320 };
/* In a sum of two segments and 5 slots: the tally of all, those of the
 * segments, if they differ, and lanes. */
enum { AT_ALL = 64, TALLY = 17 };
enum { AT_FIRST = AT_ALL + TALLY, AT_SECOND = AT_FIRST + TALLY };
enum { AT_LANES = AT_SECOND + TALLY };
/* In a tally. */
enum { WEIGHT = 4, SAMPLES = 8, BITMAP = 16 };

static const uint64_t sizes[] = {300, 20};

static void open_round(cf_round *r, uint32_t kind)
{
  fl_compressor_options options;
  cf_options(&options, kinds[kind].codec, kinds[kind].mode, 4);
  cf_open(r, NULL, &options, sizes, 2, SLOTS);
  r->scale.weight_cap = 12;
  for (uint64_t i = 0; i < r->scale.n_norms; i++)
    r->norms[i] = 32.0f;
}

/* Sum of slots first..last; slot 1 leaves out the second segment. */
static cf_bytes make_sum(const cf_round *r, uint32_t first, uint32_t last)
{
  fl_partial *partial = cf_partial(r);
  for (uint32_t slot = first; slot <= last; slot++) {
    uint8_t mask[2] = {1, slot != 1};
    float *x = cf_normal(DIM, slot);
    cf_bytes update = cf_encode_some(r, slot, 10, mask, 2, x);
    cf_must(fl_partial_add(partial, update.data, update.size));
    free(update.data);
    free(x);
  }
  cf_bytes sum = cf_sum(partial);
  fl_partial_free(partial);
  return sum;
}

/* Merging into a sum of slot 4 fails like this and changes nothing. */
static void expect_refused(const cf_round *r, cf_bytes sum, fl_status want,
                           const char *text)
{
  cf_bytes own = make_sum(r, 4, 4);
  fl_partial *partial = cf_partial(r);
  cf_must(fl_partial_merge_bytes(partial, own.data, own.size));
  uint8_t *exact = cf_get(sum.size);
  memcpy(exact, sum.data, sum.size);
  cr_expect_eq(fl_partial_merge_bytes(partial, exact, sum.size), want, "%s",
               text);
  expect_text(text);
  cf_bytes after = cf_sum(partial);
  cr_expect(cf_equal(own, after), "%s", text);
  free(exact);
  free(own.data);
  free(after.data);
  fl_partial_free(partial);
}

Test(partial_io, sums_cut_at_any_byte_are_truncated)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    open_round(&r, kind);
    for (uint32_t last = 0; last < 2; last++) {
      cf_bytes sum = make_sum(&r, 0, last);
      for (size_t n = 0; n < sum.size; n++) {
        expect_refused(&r, (cf_bytes){sum.data, n}, FL_E_TRUNCATED,
                       "bytes, want");
      }
      free(sum.data);
    }
    cf_close(&r);
  }
}

Test(partial_io, every_wrong_field_of_a_header_is_named)
{
  static const wrong_field own[] = {
      {AT_PAYLOAD_SIZE, 8, FL_E_FORMAT, "sum: payload, got "},
      {56, 4, FL_E_FORMAT, "sum: tallies, got "},
      {60, 4, FL_E_FORMAT, "sum: reserved bytes are set"},
  };
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    open_round(&r, kind);
    cf_bytes sum = make_sum(&r, 0, 1);
    for (size_t i = 0; i < HEADER_FIELDS + sizeof own / sizeof own[0]; i++) {
      const wrong_field field = wrong_field_at(own, i);
      for (size_t k = 0; k < field.n; k++) {
        sum.data[field.at + k] ^= 0x50;
        expect_refused(&r, sum, field.status, field.text);
        sum.data[field.at + k] ^= 0x50;
      }
    }
    free(sum.data);
    cf_close(&r);
  }
}

Test(partial_io, tallies_that_cannot_be_are_named)
{
  static const struct {
    size_t at;
    uint8_t to;
    fl_status status;
    const char *text;
  } lies[] = {
      {AT_ALL, 3, FL_E_FORMAT, "sum: count 3 and its slots do not agree"},
      {AT_ALL + BITMAP, 1, FL_E_FORMAT, "sum: count 2 and its slots"},
      {AT_ALL + BITMAP, 7, FL_E_FORMAT, "sum: count 2 and its slots"},
      {AT_ALL + BITMAP, 0x21, FL_E_FORMAT, "sum: count 2 and its slots"},
      {AT_ALL + WEIGHT, 1, FL_E_RANGE, "sum: 2 updates of weight 1, samples"},
      {AT_ALL + SAMPLES, 1, FL_E_RANGE, "updates of weight 2, samples 1"},
      {AT_ALL + SAMPLES, 25, FL_E_RANGE, "updates of weight 2, samples 25"},
      {AT_SECOND + BITMAP, 4, FL_E_FORMAT, "sum: a segment holds more"},
      {AT_FIRST + SAMPLES, 21, FL_E_FORMAT, "sum: a segment holds more"},
      {AT_FIRST, 1, FL_E_FORMAT, "sum: count 1 and its slots do not agree"},
  };
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    open_round(&r, kind);
    cf_bytes sum = make_sum(&r, 0, 1);
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
      uint8_t old = sum.data[lies[i].at];
      sum.data[lies[i].at] = lies[i].to;
      expect_refused(&r, sum, lies[i].status, lies[i].text);
      sum.data[lies[i].at] = old;
    }
    free(sum.data);
    cf_close(&r);
  }
}

Test(partial_io, equal_tallies_and_trailing_bytes_are_refused)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    open_round(&r, kind);
    cf_bytes sum = make_sum(&r, 2, 3);
    cf_bytes twice = {cf_get(sum.size + 2 * TALLY), sum.size + 2 * TALLY};
    memcpy(twice.data, sum.data, AT_FIRST);
    fli_store_u32(twice.data + 56, 3);
    memcpy(twice.data + AT_FIRST, sum.data + AT_ALL, TALLY);
    memcpy(twice.data + AT_SECOND, sum.data + AT_ALL, TALLY);
    memcpy(twice.data + AT_LANES, sum.data + AT_FIRST, sum.size - AT_FIRST);
    expect_refused(&r, twice, FL_E_FORMAT, "sum: equal tallies are stored");
    memcpy(twice.data, sum.data, sum.size);
    twice.size = sum.size + 1;
    expect_refused(&r, twice, FL_E_FORMAT, "sum: lanes: got ");
    free(sum.data);
    free(twice.data);
    cf_close(&r);
  }
}

/* Lanes of every width: what the weight can make is accepted, one more is
 * not. */
Test(partial_io, lane_above_what_the_weights_make_is_named)
{
  static const uint32_t weights[] = {16, 4000, 65535}; /* x 15 */
  for (uint32_t width = 0; width < 3; width++) {
    cf_round r;
    float *x = cf_normal(256, 1);
    uint32_t most = weights[width] * 15;
    cf_open_simple(&r, FL_CODEC_THC, FL_THC_UNIFORM, 256, SLOTS);
    r.norms[0] = 32.0f;
    cf_bytes update = cf_encode(&r, 0, x);
    const uint8_t *data = update.data;
    fl_partial *partial = cf_partial(&r);
    cf_must(fl_partial_add_batch(partial, &data, &update.size, &weights[width],
                                 1, NULL));
    cf_bytes sum = cf_sum(partial);
    cr_expect_eq(sum.size, AT_ALL + TALLY + (256u << width));
    for (uint32_t more = 0; more < 2; more++) {
      fl_partial *again = cf_partial(&r);
      for (uint32_t b = 0; b < 1u << width; b++) {
        size_t at = sum.size - (1u << width) + b;
        sum.data[at] = (uint8_t)((most + more) >> (8 * b));
      }
      cr_expect_eq(fl_partial_merge_bytes(again, sum.data, sum.size),
                   more ? FL_E_RANGE : FL_OK, "width %u", width);
      cr_expect(more == 0 ||
                strstr(fl_last_error(), "sum: segment 0, a lane is too great"));
      fl_partial_free(again);
    }
    free(x);
    free(update.data);
    free(sum.data);
    fl_partial_free(partial);
    cf_close(&r);
  }
}

Test(partial_io, sums_of_another_round_table_or_model_are_refused)
{
  static const uint8_t tables[2][4] = {{0, 2, 3, 5}, {0, 1, 4, 5}};
  static const uint64_t turned[] = {20, 300}, joined[] = {320};
  enum { ROUND = 1, TABLE, MODEL, SEGMENTS, COUNT };
  static const char *const text[COUNT] = {
      "", "header: round, got 4, want 3", "header: compressor, got ",
      "header: compressor, got ", "header: segments, got 1, want 2"};
  cf_round r[COUNT];
  for (int i = 0; i < COUNT; i++) {
    fl_compressor_options options;
    cf_options(&options, FL_CODEC_THC, FL_THC_TABLE, 2);
    options.table = tables[i == TABLE];
    options.n_table = 4;
    cf_open(&r[i], NULL, &options,
            i == MODEL      ? turned
            : i == SEGMENTS ? joined
                            : sizes,
            i == SEGMENTS ? 1 : 2, SLOTS);
    r[i].scale.round += i == ROUND;
    for (uint64_t k = 0; k < r[i].scale.n_norms; k++)
      r[i].norms[k] = 2.0f;
  }
  for (int i = 1; i < COUNT; i++) {
    fl_partial *other = cf_partial(&r[i]), *own = cf_partial(&r[0]);
    fl_status want = i == ROUND ? FL_E_STALE : FL_E_SCHEMA;
    cf_bytes sum = cf_sum(other);
    expect_refused(&r[0], sum, want, text[i]);
    cr_expect_eq(fl_partial_merge(own, other), want);
    cr_expect_not_null(strstr(fl_last_error(), "sum: made "));
    free(sum.data);
    fl_partial_free(own);
    fl_partial_free(other);
  }
  for (int i = 0; i < COUNT; i++)
    cf_close(&r[i]);
}

Test(partial_io, slots_in_both_sums_are_named)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    open_round(&r, kind);
    cf_bytes sum = make_sum(&r, 3, 4);
    expect_refused(&r, sum, FL_E_DUPLICATE, "sum: a slot of 0..7 is in both");
    free(sum.data);
    cf_close(&r);
  }
}

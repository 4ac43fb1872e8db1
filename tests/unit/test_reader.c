/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded reader: every form of every value, every limit at its edge, and
 * every way in which a peer can lie about a length. */
#include "wire/reader.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/compiler.h"

#define READ(reader, ...)                                \
  static const uint8_t reader##_bytes[] = {__VA_ARGS__}; \
  fli_msg_reader reader;                                 \
  fli_reader_init(&reader, reader##_bytes, sizeof reader##_bytes)

#define ASSERT_STATUS(reader, want)                                         \
  cr_assert_eq(fli_reader_status(&reader), want, "got %s (%s), want %s",    \
               fl_status_name(fli_reader_status(&reader)), fl_last_error(), \
               #want)

typedef struct integer_case {
  uint8_t bytes[9];
  size_t n;
  int64_t value;
} integer_case;

Test(reader, reads_every_integer_form)
{
  static const integer_case cases[] = {
      {{0x00}, 1, 0},
      {{0x7f}, 1, 127},
      {{0xff}, 1, -1},
      {{0xe0}, 1, -32},
      {{0xcc, 0x80}, 2, 128},
      {{0xcd, 0x12, 0x34}, 3, 0x1234},
      {{0xce, 0x80, 0, 0, 1}, 5, INT64_C(0x80000001)},
      {{0xcf, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, 9, INT64_MAX},
      {{0xd0, 0x80}, 2, -128},
      {{0xd0, 0x7f}, 2, 127},
      {{0xd1, 0x80, 0x00}, 3, -32768},
      {{0xd2, 0x80, 0, 0, 0}, 5, INT32_MIN},
      {{0xd3, 0x80, 0, 0, 0, 0, 0, 0, 0}, 9, INT64_MIN},
      {{0xd3, 0, 0, 0, 0, 0, 0, 0, 5}, 9, 5},
  };
  for (size_t i = 0; i < FLI_COUNT_OF(cases); i++) {
    fli_msg_reader reader;
    fli_reader_init(&reader, cases[i].bytes, cases[i].n);
    cr_assert_eq(fli_reader_peek(&reader), FLI_KIND_INT);
    cr_assert_eq(fli_reader_i64(&reader), cases[i].value, "case %zu", i);
    cr_assert_eq(fli_reader_finish(&reader), FL_OK);
    fli_reader_init(&reader, cases[i].bytes, cases[i].n);
    uint64_t value = fli_reader_u64(&reader);
    if (cases[i].value >= 0) {
      cr_assert_eq(value, (uint64_t)cases[i].value);
    } else {
      ASSERT_STATUS(reader, FL_E_RANGE);
    }
  }
}

Test(reader, u64_above_the_signed_range_is_no_i64)
{
  READ(whole, 0xcf, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff);
  READ(narrow, 0xcf, 0x80, 0, 0, 0, 0, 0, 0, 0);
  cr_assert_eq(fli_reader_u64(&whole), UINT64_MAX);
  cr_assert_eq(fli_reader_i64(&narrow), 0);
  ASSERT_STATUS(narrow, FL_E_RANGE);
}

Test(reader, u32_refuses_what_does_not_fit)
{
  READ(fits, 0xce, 0xff, 0xff, 0xff, 0xff);
  READ(above, 0xcf, 0, 0, 0, 1, 0, 0, 0, 0);
  cr_assert_eq(fli_reader_u32(&fits), UINT32_MAX);
  cr_assert_eq(fli_reader_u32(&above), 0);
  ASSERT_STATUS(above, FL_E_RANGE);
}

Test(reader, u64_in_takes_both_ends_and_names_the_field)
{
  READ(values, 2, 5, 6);
  READ(below, 1);
  cr_assert_eq(fli_reader_u64_in(&values, 2, 5, "seats"), 2);
  cr_assert_eq(fli_reader_u64_in(&values, 2, 5, "seats"), 5);
  cr_assert_eq(fli_reader_u64_in(&values, 2, 5, "seats"), 0);
  ASSERT_STATUS(values, FL_E_RANGE);
  cr_assert_str_eq(fl_last_error(), "seats: got 6, want 2..5");
  fli_reader_u64_in(&below, 2, 5, "seats");
  ASSERT_STATUS(below, FL_E_RANGE);
}

Test(reader, reads_floats_of_both_widths_and_integers)
{
  READ(values, 0xca, 0xbf, 0xc0, 0, 0, 0xcb, 0x40, 0x09, 0x21, 0xfb, 0x54, 0x44,
       0x2d, 0x18, 0x07, 0xfe);
  cr_assert_eq(fli_reader_peek(&values), FLI_KIND_FLOAT);
  cr_assert_eq(fli_reader_f64(&values), -1.5);
  cr_assert_eq(fli_reader_f64(&values), 0x1.921fb54442d18p+1);
  cr_assert_eq(fli_reader_f64(&values), 7.0);
  cr_assert_eq(fli_reader_f32(&values), -2.0f);
  cr_assert_eq(fli_reader_finish(&values), FL_OK);
}

Test(reader, f32_refuses_what_is_not_finite)
{
  READ(nan32, 0xca, 0x7f, 0xc0, 0, 0);
  READ(inf32, 0xca, 0xff, 0x80, 0, 0);
  READ(huge, 0xcb, 0x7f, 0xe0, 0, 0, 0, 0, 0, 0);
  fli_msg_reader *all[] = {&nan32, &inf32, &huge};
  for (size_t i = 0; i < FLI_COUNT_OF(all); i++) {
    cr_assert_eq(fli_reader_f32(all[i]), 0.0f);
    ASSERT_STATUS((*all[i]), FL_E_NOT_FINITE);
  }
}

Test(reader, f64_gives_nan_and_leaves_the_check_to_its_caller)
{
  READ(reader, 0xcb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0);
  cr_assert(isnan(fli_reader_f64(&reader)));
  ASSERT_STATUS(reader, FL_OK);
}

Test(reader, reads_bool)
{
  READ(reader, 0xc3, 0xc2, 0x01);
  cr_assert_eq(fli_reader_bool(&reader), 1);
  cr_assert_eq(fli_reader_bool(&reader), 0);
  fli_reader_bool(&reader);
  ASSERT_STATUS(reader, FL_E_FORMAT);
}

Test(reader, strings_and_bytes_are_views_into_the_input)
{
  READ(reader, 0xa2, 'h', 'i', 0xd9, 1, 'x', 0xda, 0, 1, 'y', 0xdb, 0, 0, 0, 1,
       'z', 0xc4, 2, 8, 9, 0xc5, 0, 1, 7, 0xc6, 0, 0, 0, 0);
  size_t n;
  cr_assert_eq((const void *)fli_reader_str(&reader, &n), reader_bytes + 1);
  cr_assert_eq(n, 2);
  cr_assert_eq(fli_reader_str(&reader, &n)[0], 'x');
  cr_assert_eq(fli_reader_str(&reader, &n)[0], 'y');
  cr_assert_eq(fli_reader_str(&reader, &n)[0], 'z');
  cr_assert_eq(fli_reader_bin(&reader, &n)[1], 9);
  cr_assert_eq(fli_reader_bin(&reader, &n)[0], 7);
  cr_assert_not_null(fli_reader_bin(&reader, &n));
  cr_assert_eq(n, 0);
  cr_assert_eq(fli_reader_finish(&reader), FL_OK);
}

Test(reader, bin_exact_wants_exactly_its_size)
{
  READ(right, 0xc4, 2, 8, 9);
  READ(wrong, 0xc4, 2, 8, 9);
  uint8_t out[3] = {1, 1, 1};
  fli_reader_bin_exact(&right, out, 2, "hash");
  cr_assert_eq(out[1], 9);
  cr_assert_eq(out[2], 1);
  fli_reader_bin_exact(&wrong, out, 3, "hash");
  ASSERT_STATUS(wrong, FL_E_DIM);
  cr_assert_str_eq(fl_last_error(), "hash: got 2 bytes, want 3");
}

Test(reader, str_copy_keeps_room_for_the_terminator)
{
  READ(fits, 0xa3, 'a', 'b', 'c');
  READ(above, 0xa4, 'a', 'b', 'c', 'd');
  char text[4];
  fli_reader_str_copy(&fits, text, sizeof text, "id");
  cr_assert_str_eq(text, "abc");
  fli_reader_str_copy(&above, text, sizeof text, "id");
  ASSERT_STATUS(above, FL_E_TOO_LARGE);
  cr_assert_str_eq(text, "");
}

Test(reader, str_copy_takes_printable_ascii_only)
{
  static const uint8_t bad[] = {0x00, 0x1f, 0x7f, 0x80, 0xff, '\n'};
  for (size_t i = 0; i < sizeof bad; i++) {
    const uint8_t bytes[] = {0xa2, 'a', bad[i]};
    char text[8];
    fli_msg_reader reader;
    fli_reader_init(&reader, bytes, sizeof bytes);
    fli_reader_str_copy(&reader, text, sizeof text, "id");
    ASSERT_STATUS(reader, FL_E_FORMAT);
    cr_assert_str_eq(text, "");
  }
}

Test(reader, empty_input_is_truncated)
{
  fli_msg_reader reader;
  fli_reader_init(&reader, NULL, 0);
  cr_assert_eq(fli_reader_peek(&reader), FLI_KIND_END);
  cr_assert_eq(fli_reader_u64(&reader), 0);
  ASSERT_STATUS(reader, FL_E_TRUNCATED);
  fli_reader_init(&reader, NULL, 0);
  cr_assert_eq(fli_reader_finish(&reader), FL_OK);
}

/* One of each: nil, bools, ints, floats, str, bin, ext, array, map. */
static const uint8_t all_kinds[] = {
    0xdc, 0,   14,  0xc0, 0xc2, 0xcd, 1, 2,    0xd2, 1,    2,    3,   4,  0xca,
    0,    0,   0,   0,    0xcb, 0,    0, 0,    0,    0,    0,    0,   0,  0xd9,
    2,    'h', 'i', 0xc5, 0,    1,    9, 0xd4, 1,    2,    0xd8, 5,   0,  1,
    2,    3,   4,   5,    6,    7,    8, 9,    10,   11,   12,   13,  14, 15,
    0xc7, 2,   5,   1,    2,    0xc8, 0, 1,    5,    1,    0xdd, 0,   0,  0,
    2,    1,   2,   0xde, 0,    1,    1, 0x91, 0x81, 0xa1, 'k',  0x80};

Test(reader, skip_ends_behind_a_value_of_any_shape)
{
  fli_msg_reader reader;
  fli_reader_init(&reader, all_kinds, sizeof all_kinds);
  fli_reader_skip(&reader);
  ASSERT_STATUS(reader, FL_OK);
  cr_assert_eq(fli_reader_finish(&reader), FL_OK);
}

Test(reader, every_cut_of_a_document_is_truncated)
{
  for (size_t n = 0; n < sizeof all_kinds; n++) {
    /* in a block of its own size, so that ASan sees a byte too many */
    uint8_t *cut = malloc(n ? n : 1);
    memcpy(cut, all_kinds, n);
    fli_msg_reader reader;
    fli_reader_init(&reader, cut, n);
    fli_reader_skip(&reader);
    ASSERT_STATUS(reader, FL_E_TRUNCATED);
    free(cut);
  }
}

Test(reader, length_of_4_gib_in_10_bytes_is_refused)
{
  static const struct {
    uint8_t tag;
    fl_status want;
  } cases[] = {{0xc6, FL_E_TRUNCATED},
               {0xc9, FL_E_TRUNCATED},
               {0xdb, FL_E_TOO_LARGE},
               {0xdd, FL_E_TOO_LARGE},
               {0xdf, FL_E_TOO_LARGE}};
  for (size_t i = 0; i < FLI_COUNT_OF(cases); i++) {
    uint8_t bytes[10] = {cases[i].tag, 0xff, 0xff, 0xff, 0xff};
    fli_msg_reader reader;
    fli_reader_init(&reader, bytes, sizeof bytes);
    fli_reader_skip(&reader);
    ASSERT_STATUS(reader, cases[i].want);
  }
}

Test(reader, more_entries_than_bytes_at_hand_are_refused_on_entry)
{
  READ(array, 0x93, 1, 2);
  READ(map, 0x82, 1, 2, 3);
  cr_assert_eq(fli_reader_array(&array), 0);
  ASSERT_STATUS(array, FL_E_TRUNCATED);
  cr_assert_eq(fli_reader_map(&map), 0);
  ASSERT_STATUS(map, FL_E_TRUNCATED);
}

/* tag and a big-endian 32-bit length, then zeros (small integers). */
static fl_status skip_of_length(uint8_t tag, uint32_t length, size_t payload)
{
  uint8_t *bytes = calloc(1, 5 + payload);
  fli_msg_reader reader;
  bytes[0] = tag;
  for (int i = 0; i < 4; i++)
    bytes[1 + i] = (uint8_t)(length >> (24 - 8 * i));
  fli_reader_init(&reader, bytes, 5 + payload);
  fli_reader_skip(&reader);
  free(bytes);
  return fli_reader_finish(&reader);
}

Test(reader, limits_hold_at_their_edges)
{
  cr_assert_eq(skip_of_length(0xdb, FLI_MAX_STRING, FLI_MAX_STRING), FL_OK);
  cr_assert_eq(skip_of_length(0xdb, FLI_MAX_STRING + 1, FLI_MAX_STRING + 1),
               FL_E_TOO_LARGE);
  cr_assert_eq(skip_of_length(0xdf, FLI_MAX_MAP, 2 * FLI_MAX_MAP), FL_OK);
  cr_assert_eq(skip_of_length(0xdf, FLI_MAX_MAP + 1, 2 * FLI_MAX_MAP + 2),
               FL_E_TOO_LARGE);
  cr_assert_eq(skip_of_length(0xdd, FLI_MAX_ARRAY, FLI_MAX_ARRAY), FL_OK);
  cr_assert_eq(skip_of_length(0xdd, FLI_MAX_ARRAY + 1, FLI_MAX_ARRAY + 1),
               FL_E_TOO_LARGE);
  cr_assert_eq(skip_of_length(0xc6, 1 << 21, 1 << 21), FL_OK);
  cr_assert_eq(skip_of_length(0xc6, 1 << 21, (1 << 21) - 1), FL_E_TRUNCATED);
}

/* `levels` arrays of one entry around nil. */
static fl_status skip_nested(uint32_t levels, uint32_t entered)
{
  uint8_t bytes[32];
  fli_msg_reader reader;
  memset(bytes, 0x91, levels);
  bytes[levels] = 0xc0;
  fli_reader_init(&reader, bytes, levels + 1);
  for (uint32_t i = 0; i < entered; i++)
    fli_reader_array(&reader);
  fli_reader_skip(&reader);
  for (uint32_t i = 0; i < entered; i++)
    fli_reader_leave(&reader);
  return fli_reader_finish(&reader);
}

Test(reader, depth_is_bounded_however_it_is_reached)
{
  for (uint32_t entered = 0; entered <= FLI_MAX_DEPTH; entered++) {
    cr_assert_eq(skip_nested(FLI_MAX_DEPTH, entered), FL_OK);
    cr_assert_eq(skip_nested(FLI_MAX_DEPTH + 1, entered), FL_E_TOO_LARGE);
  }
  cr_assert_eq(skip_nested(FLI_MAX_DEPTH + 1, FLI_MAX_DEPTH + 1),
               FL_E_TOO_LARGE);
}

Test(reader, leaving_gives_depth_back)
{
  uint8_t bytes[20];
  fli_msg_reader reader;
  memset(bytes, 0x90, sizeof bytes);
  fli_reader_init(&reader, bytes, sizeof bytes);
  for (size_t i = 0; i < sizeof bytes; i++) {
    cr_assert_eq(fli_reader_array(&reader), 0);
    fli_reader_leave(&reader);
  }
  cr_assert_eq(fli_reader_finish(&reader), FL_OK);
}

Test(reader, tag_c1_is_malformed)
{
  READ(reader, 0xc1);
  cr_assert_eq(fli_reader_peek(&reader), FLI_KIND_END);
  fli_reader_skip(&reader);
  ASSERT_STATUS(reader, FL_E_FORMAT);
}

Test(reader, peek_names_every_kind_and_reads_nothing)
{
  static const struct {
    uint8_t byte;
    fli_kind kind;
  } cases[] = {{0xc0, FLI_KIND_NIL}, {0xc3, FLI_KIND_BOOL},
               {0x05, FLI_KIND_INT}, {0xff, FLI_KIND_INT},
               {0xa0, FLI_KIND_STR}, {0x90, FLI_KIND_ARRAY},
               {0x80, FLI_KIND_MAP}, {0xd4, FLI_KIND_EXT}};
  for (size_t i = 0; i < FLI_COUNT_OF(cases); i++) {
    fli_msg_reader reader;
    fli_reader_init(&reader, &cases[i].byte, 1);
    cr_assert_eq(fli_reader_peek(&reader), cases[i].kind);
    cr_assert_eq(fli_reader_peek(&reader), cases[i].kind);
  }
}

Test(reader, another_kind_is_malformed)
{
  size_t n;
  READ(a, 0xc0);
  fli_reader_u64(&a);
  ASSERT_STATUS(a, FL_E_FORMAT);
  cr_assert_str_eq(fl_last_error(), "msgpack value: got nil, want integer");
  READ(b, 0xa0);
  cr_assert_eq(fli_reader_f64(&b), 0.0);
  ASSERT_STATUS(b, FL_E_FORMAT);
  READ(c, 0xa1, 'x');
  cr_assert_null(fli_reader_bin(&c, &n));
  ASSERT_STATUS(c, FL_E_FORMAT);
  READ(d, 0xc4, 1, 'x');
  cr_assert_not_null(fli_reader_str(&d, &n));
  cr_assert_eq(n, 0);
  ASSERT_STATUS(d, FL_E_FORMAT);
  READ(e, 0x90);
  cr_assert_eq(fli_reader_map(&e), 0);
  ASSERT_STATUS(e, FL_E_FORMAT);
  READ(f, 0x80);
  cr_assert_eq(fli_reader_array(&f), 0);
  ASSERT_STATUS(f, FL_E_FORMAT);
}

Test(reader, first_error_sticks)
{
  READ(reader, 0xc0, 1, 2);
  size_t n;
  fli_reader_u64(&reader);
  fli_reader_fail(&reader, FL_E_RANGE, "later");
  cr_assert_eq(fli_reader_u64(&reader), 0);
  cr_assert_eq(fli_reader_i64(&reader), 0);
  cr_assert_eq(fli_reader_f64(&reader), 0.0);
  cr_assert_eq(fli_reader_bool(&reader), 0);
  cr_assert_null(fli_reader_bin(&reader, &n));
  cr_assert_eq(fli_reader_array(&reader), 0);
  cr_assert_eq(fli_reader_peek(&reader), FLI_KIND_END);
  cr_assert_eq(fli_reader_finish(&reader), FL_E_FORMAT);
  cr_assert_str_eq(fl_last_error(), "msgpack value: got nil, want integer");
}

Test(reader, finish_refuses_bytes_behind_the_end)
{
  READ(reader, 1, 2);
  fli_reader_u64(&reader);
  cr_assert_eq(fli_reader_finish(&reader), FL_E_FORMAT);
}

/* Sum of the values of keys 1 and 2; other keys are unknown. */
static uint64_t sum_fields(fli_msg_reader *reader)
{
  uint64_t sum = 0;
  uint32_t key;
  fli_fields fields = fli_fields_begin(reader);
  while (fli_fields_next(&fields, &key)) {
    switch (key) {
    case 1:
    case 2: sum += fli_reader_u64(reader); break;
    default: fli_fields_unknown(&fields);
    }
  }
  return sum;
}

Test(reader, fields_come_in_order_and_unknown_ones_are_skipped)
{
  READ(reader, 0x84, 1, 10, 2, 20, 3, 0x91, 0x81, 1, 2, 0x7f, 0xa1, 'x');
  cr_assert_eq(sum_fields(&reader), 30);
  cr_assert_eq(fli_reader_finish(&reader), FL_OK);
}

Test(reader, fields_refuse_keys_that_do_not_ascend)
{
  READ(twice, 0x82, 1, 10, 1, 10);
  READ(falling, 0x82, 2, 10, 1, 10);
  sum_fields(&twice);
  ASSERT_STATUS(twice, FL_E_FORMAT);
  sum_fields(&falling);
  ASSERT_STATUS(falling, FL_E_FORMAT);
}

Test(reader, fields_refuse_unknown_keys_from_128_on)
{
  READ(last, 0x81, 0x7f, 0);
  READ(critical, 0x81, 0xcc, 0x80, 0);
  sum_fields(&last);
  ASSERT_STATUS(last, FL_OK);
  sum_fields(&critical);
  ASSERT_STATUS(critical, FL_E_VERSION);
}

Test(reader, fields_refuse_keys_that_are_no_small_integers)
{
  READ(text, 0x81, 0xa1, 'k', 0);
  READ(negative, 0x81, 0xff, 0);
  READ(huge, 0x81, 0xcf, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  sum_fields(&text);
  ASSERT_STATUS(text, FL_E_FORMAT);
  sum_fields(&negative);
  ASSERT_STATUS(negative, FL_E_RANGE);
  sum_fields(&huge);
  ASSERT_STATUS(huge, FL_E_RANGE);
}

Test(reader, fields_of_no_map_are_none)
{
  READ(reader, 0x90);
  cr_assert_eq(sum_fields(&reader), 0);
  ASSERT_STATUS(reader, FL_E_FORMAT);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded JSON reader: what jsmn lets through must be refused here. */
#include "wire/json.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TEXT = 1 << 16 };

/* Read {"key": [whole numbers], ...} from `n` bytes of a block of that size.
 * *sum of all numbers; the keys one after the other, each with a '.' behind
 * it. */
static fl_status read_text(const char *text, size_t n, uint64_t *sum,
                           char keys[MAX_TEXT])
{
  fli_json json;
  size_t length = 0;
  char *copy = malloc(n > 0 ? n : 1);
  cr_assert_not_null(copy);
  memcpy(copy, text, n);
  *sum = 0;
  fl_status st = fli_json_open(&json, NULL, copy, n, "text");
  if (st == FL_OK) {
    fli_json_object(&json);
    while (fli_json_next(&json)) {
      size_t key_length = 0;
      const char *key = fli_json_string(&json, &key_length);
      if (key) memcpy(keys + length, key, key_length);
      length += key_length;
      keys[length++] = '.';
      fli_json_array(&json);
      while (fli_json_next(&json))
        *sum += fli_json_u64(&json);
    }
    st = fli_json_finish(&json);
    cr_assert_eq(st, fli_json_status(&json));
  }
  keys[length] = '\0';
  fli_json_close(&json);
  free(copy);
  return st;
}

static void expect(const char *text, fl_status status)
{
  static char keys[MAX_TEXT];
  uint64_t sum;
  fl_status st = read_text(text, strlen(text), &sum, keys);
  cr_expect_eq(st, status, "%s: got %s (%s), want %s", text, fl_status_name(st),
               fl_last_error(), fl_status_name(status));
}

static void expect_read(const char *text, uint64_t want_sum,
                        const char *want_keys)
{
  static char keys[MAX_TEXT];
  uint64_t sum;
  fl_status st = read_text(text, strlen(text), &sum, keys);
  cr_expect_eq(st, FL_OK, "%s: %s", text, fl_last_error());
  cr_expect_eq(sum, want_sum, "%s", text);
  cr_expect_str_eq(keys, want_keys, "%s", text);
}

Test(json, objects_arrays_and_numbers_are_read)
{
  expect_read("{}", 0, "");
  expect_read(" {\t}\r\n ", 0, "");
  expect_read("{\"a\":[]}", 0, "a.");
  expect_read("{\"a\":[1],\"\":[20,300] , \"b c\" : [ ]}", 321, "a..b c.");
  expect_read("{\"n\":[18446744073709551615]}", UINT64_MAX, "n.");
  expect_read("{\"n\":[9007199254740993,0]}", UINT64_C(9007199254740993), "n.");
}

Test(json, escapes_and_utf8_are_decoded)
{
  expect_read("{\"\\\"\\\\\\/\\b\\f\\n\\r\\t\":[]}", 0, "\"\\/\b\f\n\r\t.");
  expect_read("{\"\\u0041\\u00e9\\u20AC\\uD834\\uDd1e\":[]}", 0,
              "A\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e.");
  expect_read("{\"\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\x7f\":[1]}", 1,
              "\xc3\xa9\xe2\x82\xac\xf0\x9d\x84\x9e\x7f.");
}

Test(json, what_is_no_json_is_refused)
{
  static const char *const wrong[] = {
      "",
      " ",
      "}",
      "]",
      "[1]",
      "\"a\"",
      "{]",
      "{\"a\":[1}]",
      "{} {}",
      "{},",
      "{}x",
      "{,}",
      "{\"a\"}",
      "{\"a\":}",
      "{\"a\" \"b\"}",
      "{\"a\" [1]}",
      "{\"a\"::[1]}",
      "{:\"a\":[1]}",
      "{\"a\":[1],}",
      "{,\"a\":[1]}",
      "{\"a\":[1]\"b\":[1]}",
      "{\"a\":[1],,\"b\":[1]}",
      "{\"a\":[1]:\"b\":[1]}",
      "{\"a\",[1]}",
      "{\"a\":[1,]}",
      "{\"a\":[,1]}",
      "{\"a\":[1,,2]}",
      "{\"a\":[1 2]}",
      "{\"a\":[1:2]}",
      "{\"a\":[,]}",
      "{a:[1]}",
      "{1:[1]}",
      "{[1]:[1]}",
      "{'a':[1]}",
      "{\"a\":1}",
      "{\"a\":\"b\"}",
      "{\"a\":{}}",
      "{\"a\":[\"1\"]}",
      "{\"a\":[[1]]}",
      "{\"a\":[\xc3\xa9]}",
      "{\"a\":[1]/* */}",
      "\xef\xbb\xbf{}",
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
    expect(wrong[i], FL_E_FORMAT);
}

Test(json, numbers_that_are_no_whole_numbers_are_refused)
{
  static const char *const wrong[] = {
      "-1",    "-0",  "01",   "00",
      "1.0",   "1e3", "1.",   "0x10",
      "1_0",   "+1",  "true", "null",
      "false", "nan", "1-1",  "18446744073709551615a",
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char text[64];
    (void)snprintf(text, sizeof text, "{\"a\":[%s]}", wrong[i]);
    expect(text, FL_E_FORMAT);
  }
  expect("{\"a\":[18446744073709551616]}", FL_E_RANGE);
  expect("{\"a\":[99999999999999999999999]}", FL_E_RANGE);
}

Test(json, malformed_strings_are_refused)
{
  static const char *const wrong[] = {
      "\\x",
      "\\u12",
      "\\u12g4",
      "\\ud834",
      "\\ud834x",
      "\\ud834\\u0041",
      "\\udd1e",
      "\\udd1e\\ud834",
      "\x80",
      "\xc3",
      "\xc0\xaf",
      "\xe0\x80\xaf",
      "\xed\xa0\x80",
      "\xf4\x90\x80\x80",
      "\xf8\x88\x80\x80",
      "\xff",
      "\xe2\x82",
      "a\nb",
      "a\tb",
      "\x01",
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char text[64];
    (void)snprintf(text, sizeof text, "{\"%s\":[1]}", wrong[i]);
    expect(text, FL_E_FORMAT);
  }
}

Test(json, text_behind_a_nul_is_not_overlooked)
{
  static char keys[MAX_TEXT];
  uint64_t sum;
  cr_expect_eq(read_text("{}\0", 3, &sum, keys), FL_E_FORMAT);
  cr_expect_eq(read_text("{}\0garbage", 10, &sum, keys), FL_E_FORMAT);
  cr_expect_eq(read_text("{\"a\0\":[1]}", 10, &sum, keys), FL_E_FORMAT);
  cr_expect_eq(read_text("{\"a\\\0\":[1]}", 11, &sum, keys), FL_E_FORMAT);
}

Test(json, every_cut_is_refused)
{
  static const char text[] = "{\"a\\u20ac\" : [1, 23], \"b\":[]}";
  static char keys[MAX_TEXT];
  uint64_t sum;
  for (size_t n = 0; n < sizeof text - 1; n++) {
    fl_status st = read_text(text, n, &sum, keys);
    cr_expect(st == FL_E_TRUNCATED || st == FL_E_FORMAT, "at %zu: %s", n,
              fl_status_name(st));
  }
  cr_expect_eq(read_text(text, sizeof text - 1, &sum, keys), FL_OK);
}

Test(json, every_changed_byte_is_read_or_refused_with_a_text)
{
  static const char text[] = "{\"a\\u20ac\" : [1, 23], \"b\":[]}";
  static char keys[MAX_TEXT];
  uint64_t sum;
  for (size_t at = 0; at < sizeof text - 1; at++) {
    for (int c = 0; c < 256; c++) {
      char changed[sizeof text];
      memcpy(changed, text, sizeof text);
      changed[at] = (char)c;
      fl_status st = read_text(changed, sizeof text - 1, &sum, keys);
      cr_expect(st == FL_OK || fl_last_error()[0] != '\0', "byte %zu: %d", at,
                c);
      cr_expect(st == FL_OK || st == FL_E_FORMAT || st == FL_E_TRUNCATED ||
                    st == FL_E_RANGE || st == FL_E_TOO_LARGE,
                "byte %zu: %d: %s", at, c, fl_status_name(st));
    }
  }
}

Test(json, depth_is_bounded)
{
  static char deep[200002];
  memset(deep, '[', 100000);
  memset(deep + 100000, ']', 100000);
  expect(deep, FL_E_TOO_LARGE);
  expect("[[[[[1]]]]]", FL_E_TOO_LARGE);
  expect("[[[[1]]]]", FL_E_FORMAT);
  expect("{\"[[[[[[\":[1]}", FL_OK);
  expect("{\"\\\"[[[[[[\":[1]}", FL_OK);
}

Test(json, number_of_values_is_bounded)
{
  size_t n = 2 * (size_t)FLI_JSON_MAX_VALUES + 16;
  char *text = malloc(n);
  fli_json json;
  cr_assert_not_null(text);
  memset(text, ' ', n);
  text[0] = '[';
  for (size_t i = 0; i < FLI_JSON_MAX_VALUES - 1; i++)
    memcpy(text + 1 + 2 * i, "0,", 2);
  text[2 * FLI_JSON_MAX_VALUES - 2] = ']';
  cr_expect_eq(fli_json_open(&json, NULL, text, n, "text"), FL_OK);
  fli_json_close(&json);
  memcpy(text + 2 * FLI_JSON_MAX_VALUES - 2, ",0]", 3);
  cr_expect_eq(fli_json_open(&json, NULL, text, n, "text"), FL_E_TOO_LARGE);
  fli_json_close(&json);
  free(text);
}

Test(json, errors_name_the_text_and_the_place)
{
  expect("{\"a\":[1,x]}", FL_E_FORMAT);
  cr_expect_str_eq(fl_last_error(), "text: JSON, byte 0: malformed");
  expect("{\"a\":[1,-2]}", FL_E_FORMAT);
  cr_expect_str_eq(fl_last_error(), "text: JSON, byte 8: want a whole number");
  expect("{\"a\":[1],}", FL_E_FORMAT);
  cr_expect_str_eq(fl_last_error(), "text: JSON, byte 8: unexpected character");
}

Test(json, what_is_quoted_is_read_again)
{
  static char keys[MAX_TEXT];
  uint64_t sum;
  fli_bytes out;
  fli_bytes_init(&out, NULL);
  cr_assert_eq(fli_bytes_append(&out, "{", 1), FL_OK);
  cr_assert_eq(fli_json_quote(&out, "a\"b\\c/d {}[]~"), FL_OK);
  cr_assert_eq(fli_bytes_append(&out, ":[7]}", 5), FL_OK);
  cr_expect_eq(read_text((char *)out.data, out.size, &sum, keys), FL_OK);
  cr_expect_str_eq(keys, "a\"b\\c/d {}[]~.");
  cr_expect_eq(sum, 7);
  fli_bytes_free(&out);
}

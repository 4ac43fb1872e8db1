/* SPDX-License-Identifier: Apache-2.0 */
/* Hostile weight files. Each is refused with a text that names the tensor and
 * the field, and the model stays what it was; no lie costs memory. */
#include <fl/weights.h>

#include <stdio.h>
#include <stdlib.h>

#include "model_fixture.h"
#include "weight_file.h"

enum { ALL = FL_LOAD_ALLOW_MISSING | FL_LOAD_ALLOW_EXTRA };

/* 32 bytes of data for two tensors: w [2, 3], b [2]. */
static const uint8_t data[32] = {1};
static weight_file file;
static char error[256]; /* text of the last load */

static fl_model *new_model(fl_context *context)
{
  const uint64_t w[2] = {2, 3};
  const uint64_t b = 2;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  float *weights = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, context), FL_OK);
  (void)fl_model_builder_tensor(builder, "w", w, 2, 1);
  (void)fl_model_builder_tensor(builder, "b", &b, 1, 1);
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
  fl_model_builder_free(builder);
  cr_assert_eq(fl_model_get_weights(model, &weights, NULL), FL_OK);
  for (size_t i = 0; i < 8; i++)
    weights[i] = (float)i + 1.0f;
  return model;
}

/* Load `file` into a model of its own. */
static fl_status load(uint32_t flags)
{
  fl_model *model = new_model(NULL);
  float *weights = NULL;
  fl_status st = weight_file_load(&file, model, flags, NULL);
  (void)snprintf(error, sizeof error, "%s", fl_last_error());
  cr_assert_eq(fl_model_get_weights(model, &weights, NULL), FL_OK);
  for (size_t i = 0; i < 8 && st != FL_OK; i++)
    cr_assert(weights[i] == (float)i + 1.0f, "it changed");
  fl_model_free(model);
  return st;
}

static void expect(const char *header, fl_status status, const char *text)
{
  weight_file_make(&file, header, data, sizeof data);
  fl_status st = load(0);
  cr_expect_eq(st, status, "%s: got %s", header, fl_status_name(st));
  if (text) cr_expect_str_eq(error, text, "%s", header);
}

#define W "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"
#define B "\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[24,32]}"
static const char good[] = "{" W "," B "}";

Test(safetensors, the_good_file_is_good)
{
  expect(good, FL_OK, "");
  expect("{" B "," W "}        ", FL_OK, "");
}

Test(safetensors, shapes_are_compared_by_dimension)
{
  static const char *const wrong[][2] = {
      {"3,2", "weights: tensor w: shape, got [3, 2], want [2, 3]"},
      {"6", "weights: tensor w: shape, got [6], want [2, 3]"},
      {"2,3,1", "weights: tensor w: shape, got [2, 3, 1], want [2, 3]"},
      {"1,2,3", "weights: tensor w: shape, got [1, 2, 3], want [2, 3]"},
  };
  for (size_t i = 0; i < 4; i++) {
    char header[256];
    (void)snprintf(header, sizeof header,
                   "{\"w\":{\"dtype\":\"F32\",\"shape\":[%s],\"data_offsets\":"
                   "[0,24]}," B "}",
                   wrong[i][0]);
    expect(header, FL_E_DIM, wrong[i][1]);
    cr_expect_eq(load(ALL), FL_E_DIM);
  }
}

Test(safetensors, dtypes_without_a_meaning_for_weights_are_refused)
{
  expect("{\"w\":{\"dtype\":\"I32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"
         "," B "}",
         FL_E_UNSUPPORTED,
         "weights: tensor w: dtype, got I32, want F32, F16, BF16 or F64");
  expect("{\"w\":{\"dtype\":\"F128\",\"shape\":[2,3],\"data_offsets\":[0,24]}"
         "," B "}",
         FL_E_UNSUPPORTED, "weights: tensor w: dtype is unknown");
  expect("{\"w\":{\"dtype\":\"f32\",\"shape\":[2,3],\"data_offsets\":[0,24]}"
         "," B "}",
         FL_E_UNSUPPORTED, "weights: tensor w: dtype is unknown");
}

Test(safetensors, offsets_that_do_not_tile_the_data_are_refused)
{
  static const struct {
    const char *w;
    const char *b;
    const char *text;
  } wrong[] = {
      {"0,24", "20,28",
       "weights: tensor b: data_offsets, it begins at 20, want 24"},
      {"0,24", "28,36",
       "weights: tensor b: data_offsets, it begins at 28, want 24"},
      {"8,32", "32,40",
       "weights: tensor w: data_offsets, it begins at 8, want 0"},
      {"0,24", "0,8",
       "weights: tensor w: data_offsets, it begins at 0, want 8"},
      {"0,20", "20,28",
       "weights: tensor w: data_offsets, got 20 bytes, want 6 of F32"},
      {"0,28", "28,36",
       "weights: tensor w: data_offsets, got 28 bytes, want 6 of F32"},
      {"24,0", "24,32", "weights: tensor w: data_offsets, want [begin, end]"},
      {"0", "24,32", "weights: tensor w: data_offsets, want [begin, end]"},
      {"0,24,24", "24,32",
       "weights: tensor w: data_offsets, want [begin, end]"},
      {"", "24,32", "weights: tensor w: data_offsets, want [begin, end]"},
      {"0,1152921504606846976", "24,32",
       "weights: tensor w: data_offsets, got 1152921504606846976 bytes, want 6 "
       "of F32"},
      {"18446744073709551592,18446744073709551615", "0,8",
       "weights: tensor w: data_offsets, got 23 bytes, want 6 of F32"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char header[256];
    (void)snprintf(header, sizeof header,
                   "{\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":"
                   "[%s]},\"b\":{\"dtype\":\"F32\",\"shape\":[2],"
                   "\"data_offsets\":[%s]}}",
                   wrong[i].w, wrong[i].b);
    expect(header, FL_E_FORMAT, wrong[i].text);
  }
}

Test(safetensors, fields_stand_once_and_no_other_ones)
{
  static const char *const wrong[][2] = {
      {"\"dtype\":\"F32\",\"shape\":[2,3]",
       "weights: tensor w: want dtype, shape and data_offsets"},
      {"\"dtype\":\"F32\",\"data_offsets\":[0,24]",
       "weights: tensor w: want dtype, shape and data_offsets"},
      {"\"shape\":[2,3],\"data_offsets\":[0,24]",
       "weights: tensor w: want dtype, shape and data_offsets"},
      {"", "weights: tensor w: want dtype, shape and data_offsets"},
      {"\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24],\"dtype\":"
       "\"F32\"",
       "weights: tensor w: a field stands twice"},
      {"\"dtype\":\"F32\",\"shape\":[2,3],\"shape\":[2,3],\"data_offsets\":"
       "[0,24]",
       "weights: tensor w: a field stands twice"},
      {"\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24],\"more\":1",
       "weights: tensor w: a field is unknown"},
  };
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    char header[256];
    (void)snprintf(header, sizeof header, "{\"w\":{%s}," B "}", wrong[i][0]);
    expect(header, FL_E_FORMAT, wrong[i][1]);
  }
}

Test(safetensors, names_stand_once)
{
  expect("{" W "," B ",\"\\u0077\":{\"dtype\":\"F32\",\"shape\":[0],"
         "\"data_offsets\":[32,32]}}",
         FL_E_FORMAT, "weights: tensor w stands twice");
  /* Those that would be skipped, too. */
  expect("{" W "," B ",\"x\":{\"dtype\":\"U8\",\"shape\":[0],"
         "\"data_offsets\":[32,32]},\"x\":{\"dtype\":\"U8\",\"shape\":[0],"
         "\"data_offsets\":[32,32]}}",
         FL_E_FORMAT, "weights: tensor x stands twice");
}

#define HEX31 "00112233445566778899aabbccddeeff00112233445566778899aabbccddee"

Test(safetensors, metadata_are_texts_and_stand_once)
{
  expect("{\"__metadata__\":{}," W "," B "}", FL_OK, "");
  expect("{\"__metadata__\":{\"libfl_schema\":\"" HEX31 "ff\"}," W "," B "}",
         FL_OK, "");
  expect("{\"__metadata__\":{},\"__metadata__\":{}," W "," B "}", FL_E_FORMAT,
         "weights: __metadata__ stands twice");
  expect("{\"__metadata__\":{\"a\":1}," W "," B "}", FL_E_FORMAT, NULL);
  expect("{\"__metadata__\":[]," W "," B "}", FL_E_FORMAT, NULL);
  static const char *const hashes[] = {"",         HEX31,      HEX31 "fff",
                                       HEX31 "fg", HEX31 "FF", HEX31 "f"};
  for (size_t i = 0; i < sizeof hashes / sizeof *hashes; i++) {
    char header[512];
    (void)snprintf(header, sizeof header,
                   "{\"__metadata__\":{\"libfl_schema\":\"%s\"}," W "," B "}",
                   hashes[i]);
    expect(header, FL_E_FORMAT,
           "weights: metadata libfl_schema, want 64 hexadecimal digits, once");
  }
  expect("{\"__metadata__\":{\"libfl_schema\":\"" HEX31
         "ff\",\"libfl_schema\":\"" HEX31 "ff\"}," W "," B "}",
         FL_E_FORMAT, NULL);
}

Test(safetensors, headers_that_are_no_object_are_refused)
{
  static const char *const wrong[] = {"",     "[]",        "1",         "\"w\"",
                                      " {}",  "{",         "{}{}",      "{} x",
                                      "null", "{\"w\":1}", "{\"w\":{}}"};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    weight_file_make(&file, wrong[i], data, sizeof data);
    fl_status st = load(ALL);
    cr_expect(st == FL_E_FORMAT || st == FL_E_TRUNCATED, "%s: %s", wrong[i],
              fl_status_name(st));
  }
}

Test(safetensors, every_cut_is_truncated)
{
  weight_file_make(&file, good, data, sizeof data);
  size_t whole = file.n;
  for (size_t n = 0; n < whole; n++) {
    file.n = n;
    cr_expect_eq(load(0), FL_E_TRUNCATED, "at %zu: %s", n, error);
  }
}

Test(safetensors, a_byte_too_many_is_refused)
{
  weight_file_make(&file, good, data, sizeof data);
  file.n++;
  cr_expect_eq(load(0), FL_E_FORMAT);
  cr_expect_str_eq(error, "weights: goes on behind its end");
  cr_expect_eq(load(ALL), FL_E_FORMAT);
}

Test(safetensors, every_changed_bit_of_the_header_is_read_or_refused)
{
  weight_file_make(&file, good, data, sizeof data);
  for (size_t bit = 0; bit < 8 * (8 + strlen(good)); bit++) {
    uint8_t mask = (uint8_t)(1u << bit % 8);
    file.bytes[bit / 8] ^= mask;
    fl_status st = load(0);
    cr_expect(st != FL_E_INTERNAL && st != FL_E_NOMEM && st != FL_E_IO,
              "bit %zu: %s", bit, error);
    cr_expect_neq(st, FL_OK, "bit %zu", bit);
    file.bytes[bit / 8] ^= mask;
  }
}

Test(safetensors, more_than_eight_dimensions_are_refused)
{
  expect("{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,2,3],"
         "\"data_offsets\":[0,24]}," B "}",
         FL_E_TOO_LARGE, "weights: tensor w: shape, want <= 8 dimensions");
  expect("{\"w\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,2,3],"
         "\"data_offsets\":[0,24]}," B "}",
         FL_E_DIM, NULL);
}

Test(safetensors, products_and_numbers_do_not_wrap)
{
  expect("{\"w\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],"
         "\"data_offsets\":[0,0]}," B "}",
         FL_E_RANGE, "weights: tensor w: shape, its product is above 2^64 - 1");
  /* 2^62 + 6 values of 4 bytes are 24 bytes mod 2^64. */
  expect("{\"w\":{\"dtype\":\"F32\",\"shape\":[4611686018427387910],"
         "\"data_offsets\":[0,24]}," B "}",
         FL_E_FORMAT, NULL);
  expect("{\"w\":{\"dtype\":\"F32\",\"shape\":[18446744073709551618],"
         "\"data_offsets\":[0,24]}," B "}",
         FL_E_RANGE, NULL);
  expect("{\"w\":{\"dtype\":\"F32\",\"shape\":[2.0,3],"
         "\"data_offsets\":[0,24]}," B "}",
         FL_E_FORMAT, NULL);
  expect("{\"w\":{\"dtype\":\"F32\",\"shape\":[-2,-3],"
         "\"data_offsets\":[0,24]}," B "}",
         FL_E_FORMAT, NULL);
}

/* Peak of what a load allocates beyond its model. */
static uint64_t memory_of_load(fl_status status, uint32_t flags)
{
  fl_context *context = NULL;
  uint64_t before;
  uint64_t after;
  uint64_t peak;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  fl_model *model = new_model(context);
  cr_assert_eq(fl_context_get_memory(context, &before, NULL), FL_OK);
  cr_expect_eq(weight_file_load(&file, model, flags, NULL), status, "%s",
               fl_last_error());
  cr_assert_eq(fl_context_get_memory(context, &after, &peak), FL_OK);
  cr_expect_eq(before, after);
  fl_model_free(model);
  fl_context_free(context);
  return peak - before;
}

Test(safetensors, declared_sizes_cost_no_memory)
{
  enum { LITTLE = 3 << 16 };
  weight_file_make(&file, good, data, sizeof data);
  fli_store_u64(file.bytes, 16 << 20);
  cr_expect_lt(memory_of_load(FL_E_TRUNCATED, 0), LITTLE);
  fli_store_u64(file.bytes, (16 << 20) + 1);
  cr_expect_lt(memory_of_load(FL_E_TOO_LARGE, 0), LITTLE);
  fli_store_u64(file.bytes, UINT64_C(1) << 60);
  cr_expect_lt(memory_of_load(FL_E_TOO_LARGE, 0), LITTLE);
  fli_store_u64(file.bytes, UINT64_MAX);
  cr_expect_lt(memory_of_load(FL_E_TOO_LARGE, 0), LITTLE);
  weight_file_make(&file,
                   "{" W "," B ",\"x\":{\"dtype\":\"U8\",\"shape\":"
                   "[1152921504606846976],\"data_offsets\":"
                   "[32,1152921504606847008]}}",
                   data, sizeof data);
  cr_expect_lt(memory_of_load(FL_E_TRUNCATED, ALL), LITTLE);
}

/* `n` empty tensors behind w and b, in one header. */
static char *many_tensors(size_t n)
{
  static const char entry[] = ",\"%zu\":{\"dtype\":\"U8\",\"shape\":[0],"
                              "\"data_offsets\":[32,32]}";
  size_t capacity = sizeof good + n * (sizeof entry + 8);
  char *header = malloc(capacity);
  cr_assert_not_null(header);
  size_t at = (size_t)snprintf(header, capacity, "{" W "," B);
  for (size_t i = 0; i < n; i++)
    at += (size_t)snprintf(header + at, capacity - at, entry, i);
  header[at] = '}';
  header[at + 1] = '\0';
  return header;
}

/* Reads header and data from `user`, a string and the data behind it. */
typedef struct big_file {
  uint8_t size[8];
  const char *header;
  size_t at;
} big_file;

static fl_status big_read(void *user, void *buf, size_t n, size_t *got)
{
  big_file *big = user;
  size_t length = strlen(big->header);
  const void *from = big->size + big->at;
  size_t left = 8 - big->at;
  if (big->at >= 8 + length) {
    from = data + (big->at - 8 - length);
    left = sizeof data - (big->at - 8 - length);
  } else if (big->at >= 8) {
    from = big->header + (big->at - 8);
    left = length - (big->at - 8);
  }
  *got = n < left ? n : left;
  memcpy(buf, from, *got);
  big->at += *got;
  return FL_OK;
}

static fl_status load_many(size_t n)
{
  fl_model *model = new_model(NULL);
  big_file big = {.header = many_tensors(n)};
  fl_reader reader = {big_read, &big};
  fli_store_u64(big.size, strlen(big.header));
  fl_status st = fl_model_load_weights(model, &reader, ALL, NULL);
  free((void *)(uintptr_t)big.header);
  fl_model_free(model);
  return st;
}

Test(safetensors, number_of_tensors_is_bounded)
{
  cr_expect_eq(load_many(65534), FL_OK, "%s", fl_last_error());
  cr_expect_eq(load_many(65535), FL_E_TOO_LARGE);
  cr_expect_str_eq(fl_last_error(), "weights: want <= 65536 tensors");
}

Test(safetensors, odd_names_are_shown_in_a_safe_form)
{
  char header[512];
  char text[256];
  char name[201];
  memset(name, 'n', 200);
  name[200] = '\0';
  expect("{" W "," B ",\"\\u0007\\n\xe2\x82\xac\":{\"dtype\":\"U8\","
         "\"shape\":[0],\"data_offsets\":[32,32]}}",
         FL_E_SCHEMA,
         "weights: tensor ????? of the file is none of the model's");
  (void)snprintf(header, sizeof header,
                 "{" W "," B ",\"%s\":{\"dtype\":\"U8\",\"shape\":[0],"
                 "\"data_offsets\":[32,32]}}",
                 name);
  (void)snprintf(text, sizeof text,
                 "weights: tensor %.79s of the file is none of the model's",
                 name);
  expect(header, FL_E_SCHEMA, text);
}

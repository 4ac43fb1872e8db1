/* SPDX-License-Identifier: Apache-2.0 */
/* Weight files: what a model saves and loads. What is wrong with malformed ones
 * is in test_safetensors.c. */
#include <fl/weights.h>

#include <math.h>
#include <stdio.h>

#include "model_fixture.h"
#include "weight_file.h"

enum { ALL = FL_LOAD_ALLOW_MISSING | FL_LOAD_ALLOW_EXTRA };

static weight_file file;

/* w, mean and b of fixture_tensors are 1, 2, ... 13. */
static fl_model *new_model(void)
{
  const float mean[4] = {7, 8, 9, 10};
  const float rest[9] = {1, 2, 3, 4, 5, 6, 11, 12, 13};
  fl_model *model = fixture_tensors(NULL);
  cr_assert_eq(fl_model_set_weights(model, NULL, rest, 9), FL_OK);
  cr_assert_eq(fl_model_set_tensor(model, 1, mean, 4), FL_OK);
  return model;
}

static void expect_tensor(const fl_model *model, uint32_t index,
                          const float *want, size_t n)
{
  float got[16];
  cr_assert_eq(fl_model_copy_tensor(model, index, got, n), FL_OK);
  cr_expect_arr_eq(got, want, n * sizeof *want, "tensor %u", index);
}

static fl_load_report new_report(void)
{
  fl_load_report report;
  cr_assert_eq(fl_load_report_init(&report, sizeof report), FL_OK);
  return report;
}

Test(weights, what_is_saved_is_loaded)
{
  static const size_t steps[] = {0, 1, 7};
  fl_model *model = new_model();
  weight_file_clear(&file);
  cr_assert_eq(weight_file_save(&file, model), FL_OK);
  for (size_t i = 0; i < 3; i++) {
    const float want[13] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13};
    fl_model *other = fixture_tensors(NULL);
    fl_load_report report = new_report();
    file.step = steps[i];
    cr_expect_eq(weight_file_load(&file, other, 0, &report), FL_OK, "%s",
                 fl_last_error());
    expect_tensor(other, 0, want, 6);
    expect_tensor(other, 1, want + 6, 4);
    expect_tensor(other, 2, want + 10, 3);
    cr_expect_eq(report.schema, FL_LOAD_SCHEMA_SAME);
    cr_expect_eq(report.n_loaded, 3);
    cr_expect_eq(report.n_missing + report.n_extra + report.n_converted, 0);
    fl_model_free(other);
  }
  fl_model_free(model);
}

Test(weights, trained_model_comes_back_bit_by_bit)
{
  fl_model *model = fixture_mlp(NULL, 50, 40, 10);
  fl_model *other = fixture_mlp(NULL, 50, 40, 10);
  float *a = NULL;
  float *b = NULL;
  uint64_t n = 0;
  cr_assert_eq(fl_model_init_weights(model, SEED), FL_OK);
  cr_assert_eq(fl_model_get_weights(model, &a, &n), FL_OK);
  cr_assert_eq(fl_model_get_weights(other, &b, NULL), FL_OK);
  a[0] = -0.0f;
  a[1] = 1e-45f;
  weight_file_clear(&file);
  cr_assert_eq(weight_file_save(&file, model), FL_OK);
  cr_assert_eq(weight_file_load(&file, other, 0, NULL), FL_OK);
  cr_expect_arr_eq(a, b, n * sizeof *a);
  fl_model_free(model);
  fl_model_free(other);
}

Test(weights, values_begin_aligned_and_the_file_ends_with_them)
{
  fl_model *model = new_model();
  weight_file_clear(&file);
  cr_assert_eq(weight_file_save(&file, model), FL_OK);
  uint64_t size = fli_load_u64(file.bytes);
  cr_expect_eq(size % 8, 0);
  cr_expect_eq(file.n, 8 + size + 13 * sizeof(float));
  for (size_t i = 0; i < 13; i++)
    cr_expect(fli_load_f32(file.bytes + 8 + size + 4 * i) == (float)(i + 1));
  fl_model_free(model);
}

Test(weights, names_with_quotes_and_backslashes_come_back)
{
  const float set = 5.0f;
  for (int i = 0; i < 2; i++) {
    fl_model_builder *builder = NULL;
    fl_model *model = NULL;
    cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
    (void)fl_model_builder_tensor(builder, "a \"b\"\\c\\u0041/", NULL, 0, 1);
    (void)fl_model_builder_tensor(builder, "~", NULL, 0, 1);
    cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
    fl_model_builder_free(builder);
    if (i == 0) {
      cr_assert_eq(fl_model_set_tensor(model, 0, &set, 1), FL_OK);
      weight_file_clear(&file);
      cr_assert_eq(weight_file_save(&file, model), FL_OK);
    } else {
      cr_expect_eq(weight_file_load(&file, model, 0, NULL), FL_OK, "%s",
                   fl_last_error());
      expect_tensor(model, 0, &set, 1);
    }
    fl_model_free(model);
  }
}

/* As other writers do: names in another order than the values, white space,
 * fields in any order, escapes, other metadata. */
Test(weights, other_writers_files_are_read)
{
  static const char header[] =
      " {\"b\" :\n{ \"data_offsets\":[0, 12],\"shape\" : [3],\"dtype\":"
      "\"F32\"}, \"__metadata__\":{\"format\":\"pt\",\"who\":\"\\u20ac\"},"
      "\"\\u0077\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[28,52]}"
      ",\"m\\u0065an\":{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":"
      "[12,28]}}   ";
  float values[13];
  uint8_t data[52];
  fl_model *model = fixture_tensors(NULL);
  fl_load_report report = new_report();
  for (size_t i = 0; i < 13; i++) {
    values[i] = (float)i + 0.5f;
    fli_store_f32(data + 4 * i, values[i]);
  }
  weight_file_make(&file, header + 1, data, sizeof data);
  cr_assert_eq(weight_file_load(&file, model, 0, &report), FL_OK, "%s",
               fl_last_error());
  expect_tensor(model, 2, values, 3);
  expect_tensor(model, 1, values + 3, 4);
  expect_tensor(model, 0, values + 7, 6);
  cr_expect_eq(report.schema, FL_LOAD_SCHEMA_NONE);
  weight_file_make(&file, header, data, sizeof data);
  cr_expect_eq(weight_file_load(&file, model, 0, NULL), FL_E_FORMAT);
  fl_model_free(model);
}

static const char bigger[] =
    "{\"x\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
    "\"none\":{\"dtype\":\"F32\",\"shape\":[2,0],\"data_offsets\":[8,8]},"
    "\"b\":{\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[8,14]},"
    "\"nothing\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[14,14]},"
    "\"\xe2\x82\xac\":{\"dtype\":\"U8\",\"shape\":[1,2],\"data_offsets\":"
    "[14,16]}}";
/* bf16 1, -2, .5 in the middle. */
static const uint8_t bigger_data[16] = {
    9, 9, 9, 9, 9, 9, 9, 9, 0x80, 0x3f, 0x00, 0xc0, 0x00, 0x3f, 9, 9};

Test(weights, missing_and_extra_tensors_pass_when_they_may)
{
  const float mean[4] = {7, 8, 9, 10};
  const float b[3] = {1.0f, -2.0f, 0.5f};
  fl_model *model = new_model();
  fl_load_report report = new_report();
  uint8_t is_loaded[3] = {7, 7, 7};
  report.is_loaded = is_loaded;
  report.capacity = 3;
  weight_file_make(&file, bigger, bigger_data, sizeof bigger_data);
  cr_assert_eq(weight_file_load(&file, model, ALL, &report), FL_OK, "%s",
               fl_last_error());
  expect_tensor(model, 1, mean, 4);
  expect_tensor(model, 2, b, 3);
  cr_expect_eq(report.n_loaded, 1);
  cr_expect_eq(report.n_missing, 2);
  cr_expect_eq(report.n_extra, 4);
  cr_expect_eq(report.n_converted, 1);
  cr_expect(is_loaded[0] == 0 && is_loaded[1] == 0 && is_loaded[2] == 1);
  fl_model_free(model);
}

Test(weights, missing_and_extra_tensors_are_named_when_they_may_not)
{
  fl_model *model = new_model();
  fl_load_report report = new_report();
  report.n_loaded = 77;
  weight_file_make(&file, bigger, bigger_data, sizeof bigger_data);
  cr_expect_eq(weight_file_load(&file, model, 0, &report), FL_E_SCHEMA);
  cr_expect_str_eq(fl_last_error(), "weights: tensor w is not in the file");
  cr_expect_eq(weight_file_load(&file, model, FL_LOAD_ALLOW_EXTRA, &report),
               FL_E_SCHEMA);
  cr_expect_str_eq(fl_last_error(), "weights: tensor w is not in the file");
  cr_expect_eq(weight_file_load(&file, model, FL_LOAD_ALLOW_MISSING, &report),
               FL_E_SCHEMA);
  cr_expect_str_eq(fl_last_error(),
                   "weights: tensor none of the file is none of the model's");
  cr_expect_eq(report.n_loaded, 77);
  fl_model_free(model);
}

Test(weights, a_file_without_any_of_the_tensors_is_refused)
{
  fl_model *model = new_model();
  weight_file_make(&file, "{}", "", 0);
  cr_expect_eq(weight_file_load(&file, model, ALL, NULL), FL_E_SCHEMA);
  cr_expect_str_eq(fl_last_error(),
                   "weights: no tensor of the file is one of the model's");
  fl_model_free(model);
}

Test(weights, another_schema_is_told_and_no_obstacle)
{
  const uint64_t w[2] = {2, 3};
  const uint64_t mean = 4;
  const uint64_t b = 3;
  const float values[3] = {11, 12, 13};
  fl_model_builder *builder = NULL;
  fl_model *other = NULL;
  fl_model *model = new_model();
  fl_load_report report = new_report();
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  (void)fl_model_builder_tensor(builder, "b", &b, 1, 0);
  (void)fl_model_builder_tensor(builder, "mean", &mean, 1, 1);
  (void)fl_model_builder_tensor(builder, "w", w, 2, 1);
  cr_assert_eq(fl_model_builder_build(builder, &other), FL_OK);
  weight_file_clear(&file);
  cr_assert_eq(weight_file_save(&file, model), FL_OK);
  cr_expect_eq(weight_file_load(&file, other, 0, &report), FL_OK);
  cr_expect_eq(report.schema, FL_LOAD_SCHEMA_OTHER);
  expect_tensor(other, 0, values, 3);
  fl_model_builder_free(builder);
  fl_model_free(model);
  fl_model_free(other);
}

/* The value of 16 bits of IEEE binary16, in double. */
static double half_value(uint32_t bits)
{
  int exponent = (int)(bits >> 10 & 31u);
  double mantissa = (double)(bits & 0x3ffu);
  double value = exponent == 0 ? ldexp(mantissa, -24)
                               : ldexp(mantissa + 1024.0, exponent - 25);
  return bits & 0x8000u ? -value : value;
}

/* One tensor "v" of `n` values. */
static fl_model *new_vector(uint64_t n)
{
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  (void)fl_model_builder_tensor(builder, "v", &n, 1, 1);
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
  fl_model_builder_free(builder);
  return model;
}

static fl_status load_vector(fl_model *model, const char *dtype,
                             const void *data, size_t bytes)
{
  char header[128];
  (void)snprintf(header, sizeof header,
                 "{\"v\":{\"dtype\":\"%s\",\"shape\":[%u],\"data_offsets\":"
                 "[0,%zu]}}",
                 dtype, (unsigned)fl_model_weight_count(model), bytes);
  weight_file_make(&file, header, data, bytes);
  return weight_file_load(&file, model, 0, NULL);
}

Test(weights, every_half_is_converted_exactly)
{
  enum { N = 1024 };
  fl_model *model = new_vector(N);
  float *got = NULL;
  cr_assert_eq(fl_model_get_weights(model, &got, NULL), FL_OK);
  for (uint32_t block = 0; block < 64; block++) {
    uint8_t data[2 * N];
    for (uint32_t i = 0; i < N; i++)
      fli_store_u16(data + 2 * i, (uint16_t)(block * N + i));
    int is_finite = block % 32 != 31;
    cr_assert_eq(load_vector(model, "F16", data, sizeof data),
                 is_finite ? FL_OK : FL_E_NOT_FINITE);
    for (uint32_t i = 0; i < N && is_finite; i++) {
      float want = (float)half_value(block * N + i);
      cr_assert_eq(fli_f32_bits(got[i]), fli_f32_bits(want), "%u", i);
    }
  }
  fl_model_free(model);
}

Test(weights, doubles_are_rounded_to_even)
{
  static const double values[8] = {
      1.0,         1.0 + 0x1p-24, 1.0 + 0x1.8p-23, 1.0 + 0x1.00001p-24,
      -0x1.8p-149, 0x1p-150,      0x1.fffffep127,  -0.0};
  static const float want[8] = {
      1.0f,       1.0f, 1.0f + 0x1p-22f, 1.0f + 0x1p-23f,
      -0x1p-148f, 0.0f, 0x1.fffffep127f, -0.0f};
  uint8_t data[64];
  fl_model *model = new_vector(8);
  for (size_t i = 0; i < 8; i++)
    fli_store_u64(data + 8 * i, fli_f64_bits(values[i]));
  cr_assert_eq(load_vector(model, "F64", data, sizeof data), FL_OK, "%s",
               fl_last_error());
  expect_tensor(model, 0, want, 8);
  fl_model_free(model);
}

Test(weights, values_larger_than_one_chunk_are_converted)
{
  enum { N = 7000 };
  static uint8_t data[8 * N];
  fl_model *model = new_vector(N);
  float *got = NULL;
  for (size_t i = 0; i < N; i++)
    fli_store_u64(data + 8 * i, fli_f64_bits((double)i - 0.25));
  cr_assert_eq(fl_model_get_weights(model, &got, NULL), FL_OK);
  cr_assert_eq(load_vector(model, "F64", data, sizeof data), FL_OK);
  for (size_t i = 0; i < N; i++)
    cr_assert(got[i] == (float)i - 0.25f, "%zu", i);
  fl_model_free(model);
}

Test(weights, values_that_are_not_finite_are_refused)
{
  static const struct {
    const char *dtype;
    uint64_t bits;
    size_t bytes;
  } bad[] = {
      {"F32", 0x7f800000, 4},
      {"F32", 0xffc00000, 4},
      {"F16", 0x7c00, 2},
      {"F16", 0xfe00, 2},
      {"BF16", 0xff80, 2},
      {"BF16", 0x7fc0, 2},
      {"F64", 0x7ff0000000000000, 8},
      {"F64", 0x7ff8000000000000, 8},
      {"F64", 0x47f0000000000000, 8}, /* 2^128 */
      {"F64", 0xc7efffffffffffff, 8}, /* rounds to -2^128 */
  };
  fl_model *model = new_vector(3);
  const float before[3] = {1, 2, 3};
  cr_assert_eq(fl_model_set_weights(model, NULL, before, 3), FL_OK);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    for (size_t at = 0; at < 3; at++) {
      uint8_t bits[8];
      uint8_t data[24] = {0};
      fli_store_u64(bits, bad[i].bits);
      memcpy(data + at * bad[i].bytes, bits, bad[i].bytes);
      cr_expect_eq(load_vector(model, bad[i].dtype, data, 3 * bad[i].bytes),
                   FL_E_NOT_FINITE, "%s %zu", bad[i].dtype, at);
      char text[64];
      (void)snprintf(text, sizeof text,
                     "weights: tensor v: value %zu is not finite", at);
      cr_expect_str_eq(fl_last_error(), text);
      expect_tensor(model, 0, before, 3);
    }
  }
  fl_model_free(model);
}

Test(weights, diverged_models_are_not_saved)
{
  fl_model *model = new_model();
  float *weights = NULL;
  cr_assert_eq(fl_model_get_weights(model, &weights, NULL), FL_OK);
  weights[7] = NAN;
  weight_file_clear(&file);
  cr_expect_eq(weight_file_save(&file, model), FL_E_NOT_FINITE);
  cr_expect_str_eq(fl_last_error(), "weights: tensor b: value 1 is not finite");
  cr_expect_eq(file.n, 0);
  fl_model_free(model);
}

Test(weights, a_tensor_may_not_be_called_metadata)
{
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  (void)fl_model_builder_tensor(builder, "__metadata__", NULL, 0, 1);
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
  weight_file_clear(&file);
  cr_expect_eq(weight_file_save(&file, model), FL_E_CONFLICT);
  cr_expect_eq(file.n, 0);
  fl_model_builder_free(builder);
  fl_model_free(model);
}

/* ---- notes ---- */

static fl_status save_notes(const fl_model *model, const fl_weights_note *notes,
                            uint32_t n)
{
  const fl_writer writer = {weight_file_write, &file};
  weight_file_clear(&file);
  return fl_model_save_weights_with(model, notes, n, &writer);
}

Test(weights, notes_stand_in_the_metadata)
{
  static const char want[] = "\",\"round\":\"3\",\"loss\":\"a \\\"b\"}";
  const fl_weights_note notes[] = {{"round", "3"}, {"loss", "a \"b"}};
  static weight_file plain;
  fl_model *model = new_model();
  fl_load_report report = new_report();
  cr_assert_eq(save_notes(model, notes, 2), FL_OK);
  int is_found = 0;
  for (size_t i = 0; i + sizeof want < file.n; i++)
    is_found |= memcmp(file.bytes + i, want, sizeof want - 2) == 0;
  cr_expect(is_found);
  cr_expect_eq(weight_file_load(&file, model, 0, &report), FL_OK);
  cr_expect_eq(report.schema, (uint32_t)FL_LOAD_SCHEMA_SAME);
  /* None: what the plain function writes. */
  cr_assert_eq(save_notes(model, NULL, 0), FL_OK);
  weight_file_clear(&plain);
  cr_assert_eq(weight_file_save(&plain, model), FL_OK);
  cr_expect_eq(plain.n, file.n);
  cr_expect_arr_eq(plain.bytes, file.bytes, file.n);
  fl_model_free(model);
}

Test(weights, notes_that_cannot_be_are_refused)
{
  char name[66], text[1026];
  memset(name, 'n', sizeof name);
  memset(text, 't', sizeof text);
  name[65] = text[1025] = 0;
  const fl_weights_note bad[] = {
      {NULL, "x"},   {"x", NULL},     {"", "x"},
      {name, "x"},   {"x", text},     {"x", "a\nb"},
      {"\x7f", "x"}, {"format", "x"}, {"libfl_schema", ""}};
  const fl_weights_note twice[] = {{"a", ""}, {"b", ""}, {"a", "x"}};
  fl_model *model = new_model();
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
    cr_expect_eq(save_notes(model, &bad[i], 1), FL_E_ARGUMENT, "note %zu", i);
  cr_expect_eq(save_notes(model, twice, 3), FL_E_ARGUMENT);
  cr_expect_eq(save_notes(model, NULL, 1), FL_E_ARGUMENT);
  cr_expect_eq(save_notes(model, twice, 65), FL_E_ARGUMENT);
  cr_expect_eq(file.n, 0);
  name[64] = text[1024] = 0;
  const fl_weights_note longest = {name, text};
  cr_expect_eq(save_notes(model, &longest, 1), FL_OK);
  fl_model_free(model);
}

Test(weights, failing_streams_are_reported_at_every_call)
{
  fl_model *model = new_model();
  weight_file_clear(&file);
  cr_assert_eq(weight_file_save(&file, model), FL_OK);
  file.step = 16;
  for (int calls = 0;; calls++) {
    file.fail_after = calls;
    file.status = calls % 2 ? FL_E_NOMEM : FL_E_CALLBACK;
    fl_status st = weight_file_load(&file, model, 0, NULL);
    if (st == FL_OK) break;
    cr_assert_eq(st, calls % 2 ? FL_E_NOMEM : FL_E_IO, "call %d", calls);
  }
  cr_expect_gt(file.at / 16, 10);
  for (int calls = 0;; calls++) {
    file.fail_after = calls;
    file.status = FL_E_CALLBACK;
    fl_status st = weight_file_save(&file, model);
    if (st == FL_OK) break;
    cr_assert_eq(st, FL_E_IO, "call %d", calls);
  }
  fl_model_free(model);
}

static fl_status lying_read(void *user, void *buf, size_t n, size_t *got)
{
  (void)user;
  (void)buf;
  *got = n + 1;
  return FL_OK;
}

Test(weights, a_stream_that_gives_more_than_asked_for_is_refused)
{
  fl_model *model = new_model();
  fl_reader reader = {lying_read, NULL};
  cr_expect_eq(fl_model_load_weights(model, &reader, 0, NULL), FL_E_IO);
  fl_model_free(model);
}

Test(weights, reports_of_older_hosts_and_small_ones)
{
  fl_model *model = new_model();
  fl_load_report report;
  uint8_t is_loaded[2] = {7, 7};
  weight_file_clear(&file);
  cr_assert_eq(weight_file_save(&file, model), FL_OK);
  memset(&report, 0x5a, sizeof report);
  cr_assert_eq(
      fl_load_report_init(&report, offsetof(fl_load_report, n_missing)), FL_OK);
  cr_expect_eq(weight_file_load(&file, model, 0, &report), FL_OK);
  cr_expect_eq(report.n_loaded, 3);
  cr_expect_eq(report.n_missing, 0x5a5a5a5a);
  report = new_report();
  report.is_loaded = is_loaded;
  report.capacity = 2;
  cr_expect_eq(weight_file_load(&file, model, 0, &report), FL_E_SIZE);
  cr_expect_eq(is_loaded[0], 7);
  report.struct_size = 2;
  cr_expect_eq(weight_file_load(&file, model, 0, &report), FL_E_OPTIONS);
  fl_model_free(model);
}

Test(weights, null_arguments_and_unknown_flags_are_refused)
{
  fl_model *model = new_model();
  fl_writer writer = {NULL, NULL};
  fl_reader reader = {NULL, NULL};
  cr_expect_eq(fl_model_save_weights(model, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_model_save_weights(model, &writer), FL_E_ARGUMENT);
  cr_expect_eq(fl_model_load_weights(model, NULL, 0, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_model_load_weights(model, &reader, 0, NULL), FL_E_ARGUMENT);
  cr_expect_eq(weight_file_load(&file, NULL, 0, NULL), FL_E_ARGUMENT);
  cr_expect_eq(weight_file_save(&file, NULL), FL_E_ARGUMENT);
  cr_expect_eq(weight_file_load(&file, model, 4, NULL), FL_E_ARGUMENT);
  fl_model_free(model);
}

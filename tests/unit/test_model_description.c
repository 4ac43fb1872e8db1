/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions: what is written can be read, canonically; what is hostile is
 * refused before it costs memory. */
#include <fl/model.h>

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "model/model.h"
#include "model_fixture.h"

enum { CAPACITY = 1024 };

typedef struct text {
  uint8_t bytes[CAPACITY];
  size_t n;
} text;

static text describe(const fl_model *model)
{
  text out = {.n = 0};
  size_t needed = 0;
  cr_assert_eq(fl_model_copy_description(model, NULL, 0, &needed), FL_OK);
  cr_assert_leq(needed, CAPACITY);
  cr_assert_eq(fl_model_copy_description(model, out.bytes, needed, &out.n),
               FL_OK);
  cr_assert_eq(out.n, needed);
  return out;
}

static text describe_mlp(void)
{
  fl_model *model = fixture_mlp(NULL, 5, 4, 3);
  text out = describe(model);
  fl_model_free(model);
  return out;
}

/* Begin a description: version, and an array of n nodes to come. */
static void begin(fli_msg_writer *writer, fli_bytes *bytes, uint64_t version,
                  uint32_t n)
{
  fli_bytes_init(bytes, NULL);
  fli_writer_init(writer, bytes);
  fli_writer_map(writer, 2);
  fli_field_u64(writer, 1, version);
  fli_writer_u64(writer, 2);
  fli_writer_array(writer, n);
}

static void add_tensor(fli_msg_writer *writer, const char *name, uint64_t dim0,
                       uint64_t dim1)
{
  fli_writer_map(writer, 5);
  fli_field_str(writer, 1, "tensor");
  fli_field_str(writer, 2, name);
  fli_field_u64(writer, 3, 0);
  fli_writer_u64(writer, 16);
  fli_writer_array(writer, 2);
  fli_writer_u64(writer, dim0);
  fli_writer_u64(writer, dim1);
  fli_writer_u64(writer, 17);
  fli_writer_bool(writer, 1);
}

/* A layer without attributes. */
static void add_layer(fli_msg_writer *writer, const char *kind,
                      const char *name)
{
  fli_writer_map(writer, 2);
  fli_field_str(writer, 1, kind);
  fli_field_str(writer, 2, name);
}

static void assert_refused(fli_msg_writer *writer, fl_status want)
{
  fl_model *model = NULL;
  cr_assert_eq(fli_writer_status(writer), FL_OK);
  fl_status got = fl_model_from_description(&model, NULL, writer->bytes->data,
                                            writer->bytes->size);
  cr_assert_eq(got, want, "got %s (%s), want %s", fl_status_name(got),
               fl_last_error(), fl_status_name(want));
  cr_assert_null(model);
  cr_assert(strlen(fl_last_error()) > 0);
  fli_bytes_free(writer->bytes);
}

Test(model_description, read_model_is_the_written_one)
{
  fl_model *models[2] = {fixture_mlp(NULL, 5, 4, 3), fixture_tensors(NULL)};
  for (size_t i = 0; i < 2; i++) {
    text first = describe(models[i]);
    fl_model *copy = NULL;
    cr_assert_eq(fl_model_from_description(&copy, NULL, first.bytes, first.n),
                 FL_OK, "%s", fl_last_error());
    text second = describe(copy);
    cr_assert_eq(second.n, first.n);
    cr_assert_arr_eq(second.bytes, first.bytes, first.n);
    cr_assert_arr_eq(copy->schema, models[i]->schema, FL_HASH_BYTES);
    cr_assert_eq(fl_model_output_count(copy), fl_model_output_count(models[i]));
    fl_model_free(copy);
    fl_model_free(models[i]);
  }
}

Test(model_description, small_buffer_is_refused_with_the_size_needed)
{
  fl_model *model = fixture_mlp(NULL, 5, 4, 3);
  uint8_t buffer[CAPACITY];
  size_t needed = 0;
  size_t again = 0;
  cr_assert_eq(fl_model_copy_description(model, NULL, 0, &needed), FL_OK);
  cr_assert_eq(fl_model_copy_description(model, buffer, needed - 1, &again),
               FL_E_SIZE);
  cr_assert_eq(again, needed);
  cr_assert_eq(fl_model_copy_description(model, buffer, 1, NULL),
               FL_E_ARGUMENT);
  cr_assert_eq(fl_model_copy_description(model, NULL, 1, &again),
               FL_E_ARGUMENT);
  fl_model_free(model);
}

Test(model_description, every_truncation_fails_cleanly)
{
  text whole = describe_mlp();
  for (size_t n = 0; n < whole.n; n++) {
    fl_model *model = NULL;
    uint8_t *exact = malloc(n + 1);
    cr_assert_not_null(exact);
    memcpy(exact, whole.bytes, n);
    exact = realloc(exact, n > 0 ? n : 1);
    fl_status st = fl_model_from_description(&model, NULL, exact, n);
    cr_assert(st == FL_E_TRUNCATED || st == FL_E_FORMAT, "%zu: %s", n,
              fl_status_name(st));
    cr_assert_null(model);
    free(exact);
  }
}

Test(model_description, trailing_bytes_are_refused)
{
  text whole = describe_mlp();
  fl_model *model = NULL;
  whole.bytes[whole.n] = 0xc0;
  cr_assert_eq(
      fl_model_from_description(&model, NULL, whole.bytes, whole.n + 1),
      FL_E_FORMAT);
}

Test(model_description, every_flipped_bit_gives_a_model_or_an_error)
{
  text whole = describe_mlp();
  for (size_t bit = 0; bit < whole.n * 8; bit++) {
    fl_model *model = NULL;
    text bad = whole;
    bad.bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    fl_status st = fli_model_from_description_capped(&model, NULL, bad.bytes,
                                                     bad.n, 100000);
    cr_assert((st == FL_OK) == (model != NULL), "bit %zu", bit);
    fl_model_free(model);
  }
}

Test(model_description, random_bytes_give_a_model_or_an_error)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 0, 0);
  text whole = describe_mlp();
  for (int i = 0; i < 3000; i++) {
    fl_model *model = NULL;
    text bad = whole;
    for (uint32_t k = fli_rng_below(&rng, 6); k-- > 0;) {
      bad.bytes[fli_rng_below(&rng, (uint32_t)bad.n)] =
          (uint8_t)fli_rng_below(&rng, 256);
    }
    fl_status st = fli_model_from_description_capped(&model, NULL, bad.bytes,
                                                     bad.n, 100000);
    cr_assert((st == FL_OK) == (model != NULL), "seed %d, case %d", SEED, i);
    fl_model_free(model);
  }
}

Test(model_description, unknown_version_is_refused)
{
  fli_bytes bytes;
  fli_msg_writer writer;
  begin(&writer, &bytes, 2, 0);
  assert_refused(&writer, FL_E_VERSION);
}

Test(model_description, missing_version_is_refused)
{
  fli_bytes bytes;
  fli_msg_writer writer;
  fli_bytes_init(&bytes, NULL);
  fli_writer_init(&writer, &bytes);
  fli_writer_map(&writer, 0);
  assert_refused(&writer, FL_E_FORMAT);
}

Test(model_description, unknown_layer_is_named)
{
  fli_bytes bytes;
  fli_msg_writer writer;
  fl_model *model = NULL;
  begin(&writer, &bytes, 1, 1);
  add_layer(&writer, "capsule", "c");
  cr_assert_eq(fl_model_from_description(&model, NULL, bytes.data, bytes.size),
               FL_E_UNSUPPORTED);
  cr_assert_not_null(strstr(fl_last_error(), "capsule"));
  fli_bytes_free(&bytes);
}

Test(model_description, critical_unknown_key_is_refused_and_others_skipped)
{
  static const uint32_t keys[2] = {127, 200};
  static const fl_status want[2] = {FL_OK, FL_E_VERSION};
  for (size_t i = 0; i < 2; i++) {
    fli_bytes bytes;
    fli_msg_writer writer;
    fl_model *model = NULL;
    begin(&writer, &bytes, 1, 1);
    fli_writer_map(&writer, 6);
    fli_field_str(&writer, 1, "tensor");
    fli_field_str(&writer, 2, "w");
    fli_field_u64(&writer, 3, 0);
    fli_writer_u64(&writer, 16);
    fli_writer_array(&writer, 0);
    fli_writer_u64(&writer, 17);
    fli_writer_bool(&writer, 1);
    fli_field_u64(&writer, keys[i], 1);
    cr_assert_eq(
        fl_model_from_description(&model, NULL, bytes.data, bytes.size),
        want[i]);
    fl_model_free(model);
    fli_bytes_free(&bytes);
  }
}

Test(model_description, missing_attribute_is_refused)
{
  fli_bytes bytes;
  fli_msg_writer writer;
  begin(&writer, &bytes, 1, 1);
  fli_writer_map(&writer, 4);
  fli_field_str(&writer, 1, "tensor");
  fli_field_str(&writer, 2, "w");
  fli_field_u64(&writer, 3, 0);
  fli_writer_u64(&writer, 17);
  fli_writer_bool(&writer, 1);
  assert_refused(&writer, FL_E_FORMAT); /* no dims */
  begin(&writer, &bytes, 1, 3);
  fli_writer_map(&writer, 4);
  fli_field_str(&writer, 1, "input");
  fli_field_str(&writer, 2, "input");
  fli_writer_u64(&writer, 16);
  fli_writer_array(&writer, 1);
  fli_writer_u64(&writer, 4);
  fli_field_f32(&writer, 18, 0.0f); /* no scale: would read all as 0 */
  add_layer(&writer, "softmax_cross_entropy", "l");
  add_tensor(&writer, "w", 1, 1);
  assert_refused(&writer, FL_E_FORMAT);
}

Test(model_description, builder_rules_hold_for_peers_too)
{
  fli_bytes bytes;
  fli_msg_writer writer;
  begin(&writer, &bytes, 1, 0);
  assert_refused(&writer, FL_E_FORMAT); /* no tensor */
  begin(&writer, &bytes, 1, 1);
  add_layer(&writer, "relu", "r");
  assert_refused(&writer, FL_E_FORMAT); /* no input */
  begin(&writer, &bytes, 1, 2);
  add_tensor(&writer, "w", 1, 1);
  add_tensor(&writer, "w", 1, 1);
  assert_refused(&writer, FL_E_FORMAT); /* same name */
  begin(&writer, &bytes, 1, 1);
  add_tensor(&writer, "w", 0, 1);
  assert_refused(&writer, FL_E_FORMAT); /* empty dimension */
  begin(&writer, &bytes, 1, 1);
  add_tensor(&writer, "", 1, 1);
  assert_refused(&writer, FL_E_FORMAT); /* no name */
  begin(&writer, &bytes, 1, 1);
  fli_writer_map(&writer, 0);
  assert_refused(&writer, FL_E_FORMAT); /* no kind */
  begin(&writer, &bytes, 1, 1);
  add_layer(&writer, "tensor", "w");
  assert_refused(&writer, FL_E_FORMAT); /* no module */
}

Test(model_description, too_many_nodes_are_refused_before_they_are_read)
{
  fli_bytes bytes;
  fli_msg_writer writer;
  begin(&writer, &bytes, 1, FLI_MAX_NODES + 1);
  for (uint32_t i = 0; i <= FLI_MAX_NODES; i++) {
    fli_writer_map(&writer, 0);
  }
  assert_refused(&writer, FL_E_TOO_LARGE);
}

Test(model_description, too_many_dimensions_are_refused)
{
  fli_bytes bytes;
  fli_msg_writer writer;
  begin(&writer, &bytes, 1, 1);
  fli_writer_map(&writer, 4);
  fli_field_str(&writer, 1, "tensor");
  fli_field_str(&writer, 2, "w");
  fli_field_u64(&writer, 3, 0);
  fli_writer_u64(&writer, 16);
  fli_writer_array(&writer, 9);
  for (uint64_t i = 0; i < 9; i++) {
    fli_writer_u64(&writer, 1);
  }
  assert_refused(&writer, FL_E_TOO_LARGE);
}

Test(model_description, declared_weights_are_compared_with_the_cap_first)
{
  fli_bytes bytes;
  fli_msg_writer writer;
  fl_model *model = NULL;
  fl_context *context = NULL;
  uint64_t peak = 0;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  begin(&writer, &bytes, 1, 1);
  add_tensor(&writer, "w", UINT64_C(1) << 20, UINT64_C(1) << 11);
  cr_assert_lt(bytes.size, 100);
  cr_assert_eq(fli_model_from_description_capped(&model, context, bytes.data,
                                                 bytes.size, 1 << 28),
               FL_E_TOO_LARGE);
  cr_assert_null(model);
  cr_assert_eq(fl_context_get_memory(context, NULL, &peak), FL_OK);
  cr_assert_lt(peak, 64 * 1024);
  fli_bytes_free(&bytes);
  begin(&writer, &bytes, 1, 1);
  add_tensor(&writer, "w", UINT64_C(1) << 20, UINT64_C(1) << 12);
  assert_refused(&writer, FL_E_TOO_LARGE);
  fl_context_free(context);
}

Test(model_description, cap_itself_is_allowed)
{
  fli_bytes bytes;
  fli_msg_writer writer;
  fl_model *model = NULL;
  begin(&writer, &bytes, 1, 1);
  add_tensor(&writer, "w", 25, 4);
  cr_assert_eq(fli_model_from_description_capped(&model, NULL, bytes.data,
                                                 bytes.size, 99),
               FL_E_TOO_LARGE);
  cr_assert_eq(fli_model_from_description_capped(&model, NULL, bytes.data,
                                                 bytes.size, 100),
               FL_OK);
  fl_model_free(model);
  fli_bytes_free(&bytes);
}

Test(model_description, longer_than_256_kib_is_refused)
{
  fl_model *model = NULL;
  size_t n = FLI_MAX_DESCRIPTION + 1;
  uint8_t *bytes = calloc(n, 1);
  cr_assert_not_null(bytes);
  cr_assert_eq(fl_model_from_description(&model, NULL, bytes, n),
               FL_E_TOO_LARGE);
  free(bytes);
}

Test(model_description, null_arguments_are_refused)
{
  fl_model *model = NULL;
  const uint8_t byte = 0;
  cr_assert_eq(fl_model_from_description(NULL, NULL, &byte, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_from_description(&model, NULL, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_from_description(&model, NULL, NULL, 0),
               FL_E_TRUNCATED);
}

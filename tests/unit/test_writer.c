/* SPDX-License-Identifier: Apache-2.0 */
/* Growable bytes and the msgpack writer: shortest forms, values that come back
 * through the reader, and what happens when memory runs out. */
#include "wire/writer.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/compiler.h"
#include "base/error.h"
#include "base/rng.h"
#include "wire/reader.h"

static void assert_bytes(const fli_bytes *bytes, const void *want, size_t n)
{
  cr_assert_eq(bytes->size, n);
  cr_assert_eq(memcmp(bytes->data, want, n), 0);
}

Test(bytes, append_reserve_and_consume)
{
  fli_bytes bytes;
  fli_bytes_init(&bytes, NULL);
  cr_assert_eq(fli_bytes_append(&bytes, "hello", 5), FL_OK);
  cr_assert_eq(fli_bytes_append(&bytes, NULL, 0), FL_OK);
  cr_assert_eq(fli_bytes_reserve(&bytes, 1000), FL_OK);
  cr_assert_geq(bytes.capacity, 1005);
  assert_bytes(&bytes, "hello", 5);
  fli_bytes_consume(&bytes, 2);
  assert_bytes(&bytes, "llo", 3);
  fli_bytes_consume(&bytes, 3);
  cr_assert_eq(bytes.size, 0);
  fli_bytes_free(&bytes);
}

Test(bytes, clear_keeps_the_memory_and_free_gives_it_back)
{
  fl_context *context;
  uint64_t now;
  fli_bytes bytes;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  fli_bytes_init(&bytes, context);
  fl_context_get_memory(context, &now, NULL);
  uint64_t before = now;
  cr_assert_eq(fli_bytes_append(&bytes, "hello", 5), FL_OK);
  const uint8_t *data = bytes.data;
  fli_bytes_clear(&bytes);
  cr_assert_eq(bytes.size, 0);
  cr_assert_eq(bytes.data, data);
  fli_bytes_free(&bytes);
  fl_context_get_memory(context, &now, NULL);
  cr_assert_eq(now, before);
  cr_assert_eq(fli_bytes_append(&bytes, "again", 5), FL_OK);
  assert_bytes(&bytes, "again", 5);
  fli_bytes_free(&bytes);
  fl_context_free(context);
}

Test(bytes, sizes_that_overflow_are_refused)
{
  fli_bytes bytes;
  fli_bytes_init(&bytes, NULL);
  cr_assert_eq(fli_bytes_append(&bytes, "x", 1), FL_OK);
  cr_assert_eq(fli_bytes_reserve(&bytes, SIZE_MAX), FL_E_NOMEM);
  assert_bytes(&bytes, "x", 1);
  fli_bytes_free(&bytes);
}

Test(writer, integers_take_their_shortest_form)
{
  static const struct {
    uint64_t value;
    size_t size;
  } cases[] = {{0, 1},         {127, 1},        {128, 2},
               {255, 2},       {256, 3},        {65535, 3},
               {65536, 5},     {UINT32_MAX, 5}, {(uint64_t)UINT32_MAX + 1, 9},
               {UINT64_MAX, 9}};
  fli_bytes bytes;
  fli_msg_writer writer;
  fli_bytes_init(&bytes, NULL);
  fli_writer_init(&writer, &bytes);
  for (size_t i = 0; i < FLI_COUNT_OF(cases); i++) {
    fli_bytes_clear(&bytes);
    fli_writer_u64(&writer, cases[i].value);
    cr_assert_eq(bytes.size, cases[i].size, "case %zu", i);
  }
  fli_bytes_free(&bytes);
}

Test(writer, signed_values_that_are_not_negative_look_like_unsigned_ones)
{
  static const uint8_t want[] = {0x05, 0x05, 0xcd, 0x12, 0x34, 0xcd,
                                 0x12, 0x34, 0xff, 0xd0, 0xdf};
  fli_bytes bytes;
  fli_msg_writer writer;
  fli_bytes_init(&bytes, NULL);
  fli_writer_init(&writer, &bytes);
  fli_writer_u64(&writer, 5);
  fli_writer_i64(&writer, 5);
  fli_writer_u64(&writer, 0x1234);
  fli_writer_i64(&writer, 0x1234);
  fli_writer_i64(&writer, -1);
  fli_writer_i64(&writer, -33);
  assert_bytes(&bytes, want, sizeof want);
  fli_bytes_free(&bytes);
}

Test(writer, fields_are_key_and_value)
{
  static const uint8_t want[] = {0x85, 1,    7,    2, 0xca, 0x3f, 0x80, 0, 0, 3,
                                 0xcb, 0x3f, 0xf0, 0, 0,    0,    0,    0, 0, 4,
                                 0xa2, 'h',  'i',  5, 0xc4, 2,    8,    9};
  fli_bytes bytes;
  fli_msg_writer writer;
  fli_bytes_init(&bytes, NULL);
  fli_writer_init(&writer, &bytes);
  fli_writer_map(&writer, 5);
  fli_field_u64(&writer, 1, 7);
  fli_field_f32(&writer, 2, 1.0f);
  fli_field_f64(&writer, 3, 1.0);
  fli_field_str(&writer, 4, "hi");
  fli_field_bin(&writer, 5, "\x08\x09", 2);
  cr_assert_eq(fli_writer_status(&writer), FL_OK);
  assert_bytes(&bytes, want, sizeof want);
  fli_bytes_free(&bytes);
}

enum { N_VALUES = 2000 };

static uint64_t random_magnitude(fli_rng *rng)
{
  return fli_rng_u64(rng) >> fli_rng_below(rng, 64);
}

Test(writer, whatever_is_written_is_read_back)
{
  const uint64_t seed = 11;
  fli_rng rng;
  fli_bytes bytes;
  fli_msg_writer writer;
  fli_msg_reader reader;
  fli_bytes_init(&bytes, NULL);
  fli_writer_init(&writer, &bytes);
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  fli_writer_array(&writer, 6 * N_VALUES);
  for (int i = 0; i < N_VALUES; i++) {
    char blob[300];
    memset(blob, 'a' + i % 26, sizeof blob);
    uint64_t value = random_magnitude(&rng);
    size_t n = fli_rng_below(&rng, sizeof blob);
    blob[n] = '\0';
    fli_writer_u64(&writer, value);
    fli_writer_i64(&writer, (int64_t)value);
    fli_writer_f64(&writer, (double)value * 0.37);
    fli_writer_bool(&writer, (int32_t)(value & 2));
    fli_writer_str(&writer, blob);
    fli_writer_bin(&writer, blob, n);
  }
  cr_assert_eq(fli_writer_status(&writer), FL_OK);
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  fli_reader_init(&reader, bytes.data, bytes.size);
  cr_assert_eq(fli_reader_array(&reader), 6 * N_VALUES);
  for (int i = 0; i < N_VALUES; i++) {
    uint64_t value = random_magnitude(&rng);
    size_t n = fli_rng_below(&rng, 300);
    size_t got;
    cr_assert_eq(fli_reader_u64(&reader), value, "seed %d", (int)seed);
    cr_assert_eq(fli_reader_i64(&reader), (int64_t)value);
    cr_assert_eq(fli_reader_f64(&reader), (double)value * 0.37);
    cr_assert_eq(fli_reader_bool(&reader), (value & 2) != 0);
    const char *text = fli_reader_str(&reader, &got);
    cr_assert_eq(got, n);
    cr_assert(n == 0 || text[n - 1] == 'a' + i % 26);
    fli_reader_bin(&reader, &got);
    cr_assert_eq(got, n);
  }
  fli_reader_leave(&reader);
  cr_assert_eq(fli_reader_finish(&reader), FL_OK);
  fli_bytes_free(&bytes);
}

Test(writer, running_out_of_memory_sticks)
{
  fl_context_options options;
  fl_context *context;
  fli_bytes bytes;
  fli_msg_writer writer;
  static const uint8_t block[8192];
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.memory_cap = 4096;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  fli_bytes_init(&bytes, context);
  fli_writer_init(&writer, &bytes);
  fli_writer_u64(&writer, 1);
  cr_assert_eq(fli_writer_status(&writer), FL_OK);
  fli_writer_bin(&writer, block, sizeof block);
  cr_assert_eq(fli_writer_status(&writer), FL_E_NOMEM);
  size_t size = bytes.size;
  fli_writer_u64(&writer, 1);
  cr_assert_eq(bytes.size, size);
  fli_clear_error(); /* as any public function called meanwhile does */
  cr_assert_eq(fli_writer_status(&writer), FL_E_NOMEM);
  cr_assert_str_neq(fl_last_error(), "");
  fli_bytes_free(&bytes);
  fl_context_free(context);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* fl_buffer and its streams. */
#include <criterion/criterion.h>
#include <string.h>

#include <fl/base.h>

static fl_buffer *new_buffer(void)
{
  fl_buffer *buffer = NULL;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  return buffer;
}

static size_t size_of(const fl_buffer *buffer)
{
  const uint8_t *data;
  size_t n;
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  return n;
}

Test(buffer, new_one_is_empty)
{
  fl_buffer *buffer = new_buffer();
  cr_assert_eq(size_of(buffer), 0);
  fl_buffer_free(buffer);
}

Test(buffer, appends_in_order_while_growing)
{
  fl_buffer *buffer = new_buffer();
  for (unsigned i = 0; i < 5000; i++) {
    uint8_t byte = (uint8_t)(i * 7);
    cr_assert_eq(fl_buffer_append(buffer, &byte, 1), FL_OK);
  }
  const uint8_t *data;
  size_t n;
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  cr_assert_eq(n, 5000);
  for (unsigned i = 0; i < 5000; i++) {
    cr_assert_eq(data[i], (uint8_t)(i * 7));
  }
  fl_buffer_free(buffer);
}

Test(buffer, nothing_may_be_appended_from_null)
{
  fl_buffer *buffer = new_buffer();
  cr_assert_eq(fl_buffer_append(buffer, NULL, 0), FL_OK);
  cr_assert_eq(fl_buffer_append(buffer, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(size_of(buffer), 0);
  fl_buffer_free(buffer);
}

Test(buffer, reader_gives_pieces_then_end_of_data)
{
  fl_buffer *buffer = new_buffer();
  fl_writer writer;
  fl_reader reader;
  char piece[4];
  size_t got = 9;
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(writer.write(writer.user, "abcdef", 6), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(reader.read(reader.user, piece, 4, &got), FL_OK);
  cr_assert_eq(got, 4);
  cr_assert_eq(memcmp(piece, "abcd", 4), 0);
  cr_assert_eq(reader.read(reader.user, piece, 4, &got), FL_OK);
  cr_assert_eq(got, 2);
  cr_assert_eq(memcmp(piece, "ef", 2), 0);
  cr_assert_eq(reader.read(reader.user, piece, 4, &got), FL_OK);
  cr_assert_eq(got, 0);
  fl_buffer_free(buffer);
}

Test(buffer, a_new_reader_starts_at_the_first_byte)
{
  fl_buffer *buffer = new_buffer();
  fl_reader reader;
  char byte;
  size_t got;
  cr_assert_eq(fl_buffer_append(buffer, "xy", 2), FL_OK);
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
    cr_assert_eq(reader.read(reader.user, &byte, 1, &got), FL_OK);
    cr_assert_eq(byte, 'x');
  }
  fl_buffer_free(buffer);
}

Test(buffer, clear_drops_content_and_read_position)
{
  fl_buffer *buffer = new_buffer();
  fl_reader reader;
  char bytes[2];
  size_t got;
  cr_assert_eq(fl_buffer_append(buffer, "old", 3), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(reader.read(reader.user, bytes, 2, &got), FL_OK);
  fl_buffer_clear(buffer);
  cr_assert_eq(size_of(buffer), 0);
  cr_assert_eq(fl_buffer_append(buffer, "n", 1), FL_OK);
  cr_assert_eq(reader.read(reader.user, bytes, 2, &got), FL_OK);
  cr_assert_eq(got, 1);
  cr_assert_eq(bytes[0], 'n');
  fl_buffer_free(buffer);
}

Test(buffer, append_above_the_memory_cap_changes_nothing)
{
  static const uint8_t block[4096];
  fl_context_options options;
  fl_context *context = NULL;
  fl_buffer *buffer = NULL;
  uint64_t bytes_now = 1;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.memory_cap = 1024;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  cr_assert_eq(fl_buffer_new(&buffer, context), FL_OK);
  cr_assert_eq(fl_buffer_append(buffer, "keep", 4), FL_OK);
  cr_assert_eq(fl_buffer_append(buffer, block, sizeof block), FL_E_NOMEM);
  cr_assert_eq(size_of(buffer), 4);
  fl_buffer_free(buffer);
  cr_assert_eq(fl_context_get_memory(context, &bytes_now, NULL), FL_OK);
  cr_assert_eq(bytes_now, 0);
  fl_context_free(context);
}

Test(buffer, null_arguments_are_refused)
{
  fl_buffer *buffer = new_buffer();
  fl_writer writer;
  fl_reader reader;
  const uint8_t *data;
  size_t n;
  cr_assert_eq(fl_buffer_new(NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_buffer_append(NULL, "x", 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_buffer_get(NULL, &data, &n), FL_E_ARGUMENT);
  cr_assert_eq(fl_buffer_get(buffer, NULL, &n), FL_E_ARGUMENT);
  cr_assert_eq(fl_buffer_get(buffer, &data, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_buffer_as_writer(NULL, &writer), FL_E_ARGUMENT);
  cr_assert_eq(fl_buffer_as_writer(buffer, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_buffer_as_reader(NULL, &reader), FL_E_ARGUMENT);
  cr_assert_eq(fl_buffer_as_reader(buffer, NULL), FL_E_ARGUMENT);
  fl_buffer_clear(NULL);
  fl_buffer_free(NULL);
  fl_buffer_free(buffer);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The envelope of saved states: nothing but the very bytes that were written
 * is accepted. */
#include "wire/container.h"

#include <criterion/criterion.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

enum { KIND = FLI_STATE_CLIENT, VERSION = 3, MAX_SIZE = 1 << 20 };

/* A stream over memory that gives or takes at most `step` bytes at a time and
 * fails after `fail_after` calls. */
typedef struct stream {
  fli_bytes bytes;
  size_t at;
  size_t step;
  int fail_after; /* -1 = never */
  fl_status failure;
} stream;

static fl_status stream_read(void *user, void *buf, size_t n, size_t *got)
{
  stream *s = user;
  if (s->fail_after == 0) return s->failure;
  if (s->fail_after > 0) s->fail_after--;
  if (n > s->step) n = s->step;
  if (n > s->bytes.size - s->at) n = s->bytes.size - s->at;
  if (n > 0) memcpy(buf, s->bytes.data + s->at, n);
  s->at += n;
  *got = n;
  return FL_OK;
}

static fl_status stream_write(void *user, const void *buf, size_t n)
{
  stream *s = user;
  if (s->fail_after == 0) return s->failure;
  if (s->fail_after > 0) s->fail_after--;
  return fli_bytes_append(&s->bytes, buf, n);
}

static void stream_init(stream *s)
{
  fli_bytes_init(&s->bytes, NULL);
  s->at = 0;
  s->step = SIZE_MAX;
  s->fail_after = -1;
  s->failure = FL_E_CALLBACK;
}

/* A container with `text` in it. */
static void save(stream *s, const char *text)
{
  fli_bytes payload;
  fl_writer writer = {stream_write, s};
  stream_init(s);
  fli_bytes_init(&payload, NULL);
  cr_assert_eq(fli_bytes_append(&payload, text, strlen(text)), FL_OK);
  cr_assert_eq(fli_container_write(&writer, KIND, VERSION, &payload), FL_OK);
  fli_bytes_free(&payload);
}

/* Read it; a failure leaves `payload` ("old") alone. */
static fl_status load(stream *s, uint64_t max_size, const char *want)
{
  fli_bytes payload;
  uint32_t version = 77;
  fl_reader reader = {stream_read, s};
  s->at = 0;
  fli_bytes_init(&payload, NULL);
  cr_assert_eq(fli_bytes_append(&payload, "old", 3), FL_OK);
  fl_status st =
      fli_container_read(&reader, KIND, VERSION, max_size, &version, &payload);
  if (st != FL_OK) want = "old";
  cr_assert_eq(version, st == FL_OK ? (uint32_t)VERSION : 77u);
  cr_assert_eq(payload.size, strlen(want));
  if (payload.size > 0)
    cr_assert_eq(memcmp(payload.data, want, payload.size), 0);
  fli_bytes_free(&payload);
  return st;
}

Test(container, state_comes_back)
{
  stream s;
  save(&s, "some state");
  cr_assert_eq(s.bytes.size, 20 + 10 + 32);
  cr_assert_eq(load(&s, MAX_SIZE, "some state"), FL_OK);
  s.step = 1;
  cr_assert_eq(load(&s, 10, "some state"), FL_OK);
  fli_bytes_free(&s.bytes);
}

Test(container, empty_state_comes_back)
{
  stream s;
  save(&s, "");
  cr_assert_eq(load(&s, 0, ""), FL_OK);
  fli_bytes_free(&s.bytes);
}

Test(container, every_cut_is_truncated)
{
  stream s;
  save(&s, "some state");
  for (size_t n = s.bytes.size; n-- > 0;) {
    s.bytes.size = n;
    cr_assert_eq(load(&s, MAX_SIZE, ""), FL_E_TRUNCATED, "at %zu", n);
  }
  fli_bytes_free(&s.bytes);
}

Test(container, every_flipped_bit_is_noticed)
{
  stream s;
  save(&s, "some state");
  for (size_t bit = 0; bit < 8 * s.bytes.size; bit++) {
    uint8_t mask = (uint8_t)(1u << (bit % 8));
    s.bytes.data[bit / 8] ^= mask;
    cr_assert_neq(load(&s, MAX_SIZE, ""), FL_OK, "bit %zu", bit);
    s.bytes.data[bit / 8] ^= mask;
  }
  cr_assert_eq(load(&s, MAX_SIZE, "some state"), FL_OK);
  fli_bytes_free(&s.bytes);
}

Test(container, magic_kind_version_size_and_hash_have_their_codes)
{
  stream s;
  save(&s, "some state");
  s.bytes.data[3] = '2';
  cr_assert_eq(load(&s, MAX_SIZE, ""), FL_E_FORMAT);
  s.bytes.data[3] = '1';
  s.bytes.data[4] = FLI_STATE_SERVER;
  cr_assert_eq(load(&s, MAX_SIZE, ""), FL_E_FORMAT);
  s.bytes.data[4] = KIND;
  s.bytes.data[8] = VERSION + 1;
  cr_assert_eq(load(&s, MAX_SIZE, ""), FL_E_VERSION);
  s.bytes.data[8] = 0;
  cr_assert_eq(load(&s, MAX_SIZE, ""), FL_E_VERSION);
  s.bytes.data[8] = VERSION - 1;
  cr_assert_eq(load(&s, MAX_SIZE, ""), FL_E_FORMAT);
  cr_assert_str_eq(fl_last_error(), "state: hash does not match");
  s.bytes.data[8] = VERSION;
  cr_assert_eq(load(&s, 9, ""), FL_E_TOO_LARGE);
  cr_assert_eq(load(&s, 10, "some state"), FL_OK);
  fli_bytes_free(&s.bytes);
}

Test(container, declared_size_costs_no_memory)
{
  stream s;
  fl_context *context;
  fli_bytes payload;
  uint32_t version;
  uint64_t peak;
  fl_reader reader = {stream_read, &s};
  save(&s, "some state");
  fli_store_u64(s.bytes.data + 12, UINT64_C(1) << 40);
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  fli_bytes_init(&payload, context);
  cr_assert_eq(fli_container_read(&reader, KIND, VERSION, UINT64_MAX, &version,
                                  &payload),
               FL_E_TRUNCATED);
  fl_context_get_memory(context, NULL, &peak);
  cr_assert_lt(peak, 1 << 18);
  fl_context_free(context);
  fli_bytes_free(&s.bytes);
}

Test(container, failing_streams_are_io_errors)
{
  stream s;
  save(&s, "some state");
  for (int calls = 0; calls < 3; calls++) {
    s.fail_after = calls;
    cr_assert_eq(load(&s, MAX_SIZE, ""), FL_E_IO);
  }
  fl_writer writer = {stream_write, &s};
  fli_bytes payload = s.bytes;
  for (int calls = 0; calls < 3; calls++) {
    stream sink;
    stream_init(&sink);
    sink.fail_after = calls;
    writer.user = &sink;
    cr_assert_eq(fli_container_write(&writer, KIND, VERSION, &payload),
                 FL_E_IO);
    fli_bytes_free(&sink.bytes);
  }
  fli_bytes_free(&s.bytes);
}

/* A host's hooks set no text of their own. */
Test(container, stream_out_of_memory_has_its_code_and_a_text)
{
  stream s;
  save(&s, "some state");
  fl_writer writer = {stream_write, &s};
  fli_bytes payload;
  fli_bytes_init(&payload, NULL);
  s.failure = FL_E_NOMEM;
  s.fail_after = 0;
  fli_clear_error();
  cr_assert_eq(load(&s, MAX_SIZE, ""), FL_E_NOMEM);
  cr_assert_str_eq(fl_last_error(), "stream: read gave status -200");
  fli_clear_error();
  cr_assert_eq(fli_container_write(&writer, KIND, VERSION, &payload),
               FL_E_NOMEM);
  cr_assert_str_eq(fl_last_error(), "stream: write gave status -200");
  fli_bytes_free(&s.bytes);
}

static fl_status read_too_much(void *user, void *buf, size_t n, size_t *got)
{
  *got = n + 1;
  return FL_OK;
}

Test(container, stream_that_claims_more_than_asked_is_an_io_error)
{
  fl_reader reader = {read_too_much, NULL};
  fli_bytes payload;
  uint32_t version;
  fli_bytes_init(&payload, NULL);
  cr_assert_eq(
      fli_container_read(&reader, KIND, VERSION, MAX_SIZE, &version, &payload),
      FL_E_IO);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded reader against msgpack-c's unpacker. What ours accepts, msgpack-c
 * must accept too, with the same length and the same values. What ours calls
 * malformed or truncated, msgpack-c must not accept; that way round is tried
 * only on small inputs without 32-bit counts, because msgpack-c allocates what
 * an array or a map declares. */
#include "fuzz.h"

#include <math.h>
#include <msgpack.h>

#include "wire/reader.h"

enum { SMALL = 64 };

static void compare_number(fli_msg_reader *reader, const msgpack_object *want)
{
  if (want->type == MSGPACK_OBJECT_POSITIVE_INTEGER) {
    FUZZ_CHECK(fli_reader_u64(reader) == want->via.u64);
  } else if (want->type == MSGPACK_OBJECT_NEGATIVE_INTEGER) {
    FUZZ_CHECK(fli_reader_i64(reader) == want->via.i64);
  } else {
    double got = fli_reader_f64(reader);
    FUZZ_CHECK(want->type == MSGPACK_OBJECT_FLOAT32 ||
               want->type == MSGPACK_OBJECT_FLOAT64);
    FUZZ_CHECK(got == want->via.f64 || (isnan(got) && isnan(want->via.f64)));
  }
}

/* msgpack-c points anywhere when there are no bytes. */
static void compare_view(const void *got, size_t n, const char *want,
                         uint32_t want_n)
{
  FUZZ_CHECK(n == want_n);
  FUZZ_CHECK(n == 0 || got == want);
}

/* Read one value and compare; the nesting is at most FLI_MAX_DEPTH. */
static void compare(fli_msg_reader *reader, const msgpack_object *want)
{
  const void *view;
  size_t n;
  fli_kind kind = fli_reader_peek(reader);
  FUZZ_CHECK(kind != FLI_KIND_END);
  switch (kind) {
  case FLI_KIND_NIL:
    FUZZ_CHECK(want->type == MSGPACK_OBJECT_NIL);
    fli_reader_skip(reader);
    break;
  case FLI_KIND_BOOL:
    FUZZ_CHECK(want->type == MSGPACK_OBJECT_BOOLEAN);
    FUZZ_CHECK(fli_reader_bool(reader) == (int32_t)want->via.boolean);
    break;
  case FLI_KIND_INT:
  case FLI_KIND_FLOAT: compare_number(reader, want); break;
  case FLI_KIND_STR:
    FUZZ_CHECK(want->type == MSGPACK_OBJECT_STR);
    view = fli_reader_str(reader, &n);
    compare_view(view, n, want->via.str.ptr, want->via.str.size);
    break;
  case FLI_KIND_BIN:
    FUZZ_CHECK(want->type == MSGPACK_OBJECT_BIN);
    view = fli_reader_bin(reader, &n);
    compare_view(view, n, want->via.bin.ptr, want->via.bin.size);
    break;
  case FLI_KIND_ARRAY:
    FUZZ_CHECK(want->type == MSGPACK_OBJECT_ARRAY);
    FUZZ_CHECK(fli_reader_array(reader) == want->via.array.size);
    for (uint32_t i = 0; i < want->via.array.size; i++)
      compare(reader, &want->via.array.ptr[i]);
    fli_reader_leave(reader);
    break;
  case FLI_KIND_MAP:
    FUZZ_CHECK(want->type == MSGPACK_OBJECT_MAP);
    FUZZ_CHECK(fli_reader_map(reader) == want->via.map.size);
    for (uint32_t i = 0; i < want->via.map.size; i++) {
      compare(reader, &want->via.map.ptr[i].key);
      compare(reader, &want->via.map.ptr[i].val);
    }
    fli_reader_leave(reader);
    break;
  default:
    FUZZ_CHECK(want->type == MSGPACK_OBJECT_EXT);
    fli_reader_skip(reader);
    break;
  }
  FUZZ_CHECK(fli_reader_status(reader) == FL_OK);
}

static int has_wide_count(const uint8_t *data, size_t n)
{
  return memchr(data, 0xdd, n) != NULL || memchr(data, 0xdf, n) != NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fli_msg_reader reader;
  msgpack_unpacked unpacked;
  size_t used = 0;
  if (n == 0) return 0;
  fli_reader_init(&reader, data, n);
  fli_reader_skip(&reader);
  fl_status st = fli_reader_status(&reader);
  if (st == FL_E_TOO_LARGE) return 0; /* limits that msgpack-c has not */
  if (st != FL_OK && (n > SMALL || has_wide_count(data, n))) return 0;
  msgpack_unpacked_init(&unpacked);
  msgpack_unpack_return got =
      msgpack_unpack_next(&unpacked, (const char *)data, n, &used);
  int is_accepted =
      got == MSGPACK_UNPACK_SUCCESS || got == MSGPACK_UNPACK_EXTRA_BYTES;
  FUZZ_CHECK(is_accepted == (st == FL_OK));
  if (is_accepted) {
    FUZZ_CHECK(used == (size_t)(reader.at - data));
    fli_reader_init(&reader, data, n);
    compare(&reader, &unpacked.data);
    FUZZ_CHECK(used == (size_t)(reader.at - data));
  }
  msgpack_unpacked_destroy(&unpacked);
  return 0;
}

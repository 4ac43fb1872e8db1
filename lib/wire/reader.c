/* SPDX-License-Identifier: Apache-2.0 */
/* The bounded msgpack reader. All tags pass through decode_head (what does
 * the tag say?) and check_head (do we believe it?): the second is the only
 * place where a declared length is compared with its limit and with the bytes
 * at hand, and nothing moves past a value before that.
 *
 * msgpack: https://github.com/msgpack/msgpack/blob/master/spec.md */
#include "wire/reader.h"

#include <assert.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"

/* One value's head: its tag and the number behind it. */
typedef struct value_head {
  fli_kind kind;
  int is_negative;     /* INT: bits are in two's complement */
  size_t head_size;    /* bytes of tag and number */
  uint64_t bits;       /* INT, BOOL, FLOAT: the value */
  uint64_t n;          /* STR, BIN, EXT: bytes; ARRAY, MAP: entries */
  const uint8_t *data; /* STR, BIN, EXT: the bytes */
} value_head;

/* Tags 0xc0..0xdf: kind and bytes of the number that follows. */
static const struct {
  uint8_t kind;
  uint8_t number_size;
} tag_table[32] = {{FLI_KIND_NIL, 0},   {0, 0}, /* 0xc1 is never used */
                   {FLI_KIND_BOOL, 0},  {FLI_KIND_BOOL, 0},
                   {FLI_KIND_BIN, 1},   {FLI_KIND_BIN, 2},
                   {FLI_KIND_BIN, 4},   {FLI_KIND_EXT, 1},
                   {FLI_KIND_EXT, 2},   {FLI_KIND_EXT, 4},
                   {FLI_KIND_FLOAT, 4}, {FLI_KIND_FLOAT, 8},
                   {FLI_KIND_INT, 1},   {FLI_KIND_INT, 2},
                   {FLI_KIND_INT, 4},   {FLI_KIND_INT, 8},
                   {FLI_KIND_INT, 1},   {FLI_KIND_INT, 2},
                   {FLI_KIND_INT, 4},   {FLI_KIND_INT, 8},
                   {FLI_KIND_EXT, 0},   {FLI_KIND_EXT, 0},
                   {FLI_KIND_EXT, 0},   {FLI_KIND_EXT, 0},
                   {FLI_KIND_EXT, 0},   {FLI_KIND_STR, 1},
                   {FLI_KIND_STR, 2},   {FLI_KIND_STR, 4},
                   {FLI_KIND_ARRAY, 2}, {FLI_KIND_ARRAY, 4},
                   {FLI_KIND_MAP, 2},   {FLI_KIND_MAP, 4}};

static const char *kind_name(fli_kind kind)
{
  static const char *const names[] = {"?",     "nil",       "bool",   "integer",
                                      "float", "string",    "bytes",  "array",
                                      "map",   "extension", "nothing"};
  return names[kind];
}

static size_t bytes_left(const fli_msg_reader *reader)
{
  return (size_t)(reader->end - reader->at);
}

static uint64_t load_big_endian(const uint8_t *p, size_t n)
{
  uint64_t value = 0;
  for (size_t i = 0; i < n; i++)
    value = value << 8 | p[i];
  return value;
}

/* An integer of number_size bytes in two's complement; note its sign. */
static void decode_signed(value_head *head, size_t number_size)
{
  uint64_t sign = UINT64_C(1) << (8 * number_size - 1);
  head->is_negative = (head->bits & sign) != 0;
  if (head->is_negative) head->bits |= ~(sign - 1);
}

/* Tags 0xc0..0xdf. */
static fl_status decode_table_head(const uint8_t *at, size_t left,
                                   value_head *head)
{
  uint8_t tag = at[0];
  size_t number_size = tag_table[tag - 0xc0].number_size;
  head->kind = (fli_kind)tag_table[tag - 0xc0].kind;
  if (head->kind == 0) return FL_E_FORMAT;
  if (left - 1 < number_size) return FL_E_TRUNCATED;
  uint64_t number = load_big_endian(at + 1, number_size);
  head->head_size = 1 + number_size;
  switch (head->kind) {
  case FLI_KIND_BOOL: head->bits = tag & 1; break;
  case FLI_KIND_FLOAT: head->bits = number; break;
  case FLI_KIND_INT:
    head->bits = number;
    if (tag >= 0xd0) decode_signed(head, number_size);
    break;
  case FLI_KIND_EXT: /* a type byte comes before the data */
    head->n = 1 + (tag >= 0xd4 ? UINT64_C(1) << (tag - 0xd4) : number);
    break;
  default: head->n = number; break;
  }
  return FL_OK;
}

static fl_status decode_head(const uint8_t *at, size_t left, value_head *head)
{
  memset(head, 0, sizeof *head);
  if (left == 0) return FL_E_TRUNCATED;
  uint8_t tag = at[0];
  if (tag >= 0xc0 && tag < 0xe0) return decode_table_head(at, left, head);
  head->head_size = 1;
  if (tag < 0x80) {
    head->kind = FLI_KIND_INT;
    head->bits = tag;
  } else if (tag < 0x90) {
    head->kind = FLI_KIND_MAP;
    head->n = tag & 15u;
  } else if (tag < 0xa0) {
    head->kind = FLI_KIND_ARRAY;
    head->n = tag & 15u;
  } else if (tag < 0xc0) {
    head->kind = FLI_KIND_STR;
    head->n = tag & 31u;
  } else {
    head->kind = FLI_KIND_INT;
    head->bits = tag;
    decode_signed(head, 1);
  }
  return FL_OK;
}

/* Compare what a head declares with the limits and with the `left` bytes
 * behind it. An entry of an array takes a byte at least, one of a map two. */
static fl_status check_head(const value_head *head, size_t left)
{
  switch (head->kind) {
  case FLI_KIND_STR:
    if (head->n > FLI_MAX_STRING) return FL_E_TOO_LARGE;
    if (head->n > left) return FL_E_TRUNCATED; /* check: string length */
    break;
  case FLI_KIND_BIN:
  case FLI_KIND_EXT:
    if (head->n > left) return FL_E_TRUNCATED; /* check: bytes length */
    break;
  case FLI_KIND_ARRAY:
    if (head->n > FLI_MAX_ARRAY) return FL_E_TOO_LARGE;
    if (head->n > left) return FL_E_TRUNCATED; /* check: array length */
    break;
  case FLI_KIND_MAP:
    if (head->n > FLI_MAX_MAP) return FL_E_TOO_LARGE;
    if (2 * head->n > left) return FL_E_TRUNCATED; /* check: map length */
    break;
  default: break;
  }
  return FL_OK;
}

static void fail_head(fli_msg_reader *reader, fl_status status,
                      const value_head *head)
{
  const char *kind = kind_name(head->kind);
  reader->status = status;
  if (status == FL_E_TOO_LARGE) {
    fli_error(status, "msgpack %s: got length %" PRIu64 ", above its limit",
              kind, head->n);
  } else if (status == FL_E_TRUNCATED) {
    fli_error(status, "msgpack %s: got %zu bytes, want more",
              head->kind ? kind : "value", bytes_left(reader));
  } else {
    fli_error(status, "msgpack value: got tag 0xc1, which is never used");
  }
}

/* Read the next value's head, and the bytes of a string, bin or ext. Returns
 * 0 when the reader is or becomes broken. */
static int take_any(fli_msg_reader *reader, value_head *head)
{
  if (reader->status != FL_OK) return 0;
  size_t left = bytes_left(reader);
  fl_status status = decode_head(reader->at, left, head);
  if (status == FL_OK) status = check_head(head, left - head->head_size);
  if (status != FL_OK) {
    fail_head(reader, status, head);
    return 0;
  }
  reader->at += head->head_size;
  if (head->kind == FLI_KIND_STR || head->kind == FLI_KIND_BIN ||
      head->kind == FLI_KIND_EXT) {
    head->data = reader->at;
    reader->at += head->n;
  }
  return 1;
}

static int take(fli_msg_reader *reader, fli_kind kind, value_head *head)
{
  if (!take_any(reader, head)) return 0;
  if (head->kind == kind) return 1;
  reader->status = fli_error(FL_E_FORMAT, "msgpack value: got %s, want %s",
                             kind_name(head->kind), kind_name(kind));
  return 0;
}

static double head_to_double(const value_head *head)
{
  if (head->kind == FLI_KIND_FLOAT) {
    if (head->head_size == 5)
      return (double)fli_f32_from_bits((uint32_t)head->bits);
    return fli_f64_from_bits(head->bits);
  }
  return head->is_negative ? (double)(int64_t)head->bits : (double)head->bits;
}

static uint32_t enter(fli_msg_reader *reader, fli_kind kind)
{
  value_head head;
  if (!take(reader, kind, &head)) return 0;
  if (reader->depth >= FLI_MAX_DEPTH) {
    fli_reader_fail(reader, FL_E_TOO_LARGE, "msgpack value: nested too deep");
    return 0;
  }
  reader->depth++;
  return (uint32_t)head.n;
}

void fli_reader_init(fli_msg_reader *reader, const uint8_t *data, size_t n)
{
  static const uint8_t nothing[1] = {0};
  reader->at = data ? data : nothing;
  reader->end = reader->at + (data ? n : 0);
  reader->status = FL_OK;
  reader->depth = 0;
  reader->version = 0;
}

fl_status fli_reader_status(const fli_msg_reader *reader)
{
  return reader->status;
}

fli_kind fli_reader_peek(const fli_msg_reader *reader)
{
  value_head head;
  if (reader->status != FL_OK) return FLI_KIND_END;
  fl_status status = decode_head(reader->at, bytes_left(reader), &head);
  return status == FL_OK ? head.kind : FLI_KIND_END;
}

void fli_reader_fail(fli_msg_reader *reader, fl_status status, const char *what)
{
  assert(status != FL_OK);
  if (reader->status == FL_OK) reader->status = fli_error(status, "%s", what);
}

uint64_t fli_reader_u64(fli_msg_reader *reader)
{
  value_head head;
  if (!take(reader, FLI_KIND_INT, &head)) return 0;
  if (head.is_negative) {
    fli_reader_fail(reader, FL_E_RANGE, "msgpack integer: is negative");
    return 0;
  }
  return head.bits;
}

int64_t fli_reader_i64(fli_msg_reader *reader)
{
  value_head head;
  if (!take(reader, FLI_KIND_INT, &head)) return 0;
  if (!head.is_negative && head.bits > INT64_MAX) {
    fli_reader_fail(reader, FL_E_RANGE, "msgpack integer: above 2^63 - 1");
    return 0;
  }
  return (int64_t)head.bits;
}

uint32_t fli_reader_u32(fli_msg_reader *reader)
{
  return (uint32_t)fli_reader_u64_in(reader, 0, UINT32_MAX, "msgpack integer");
}

uint64_t fli_reader_u64_in(fli_msg_reader *reader, uint64_t lo, uint64_t hi,
                           const char *what)
{
  uint64_t value = fli_reader_u64(reader);
  if (reader->status != FL_OK) return 0;
  if (value < lo || value > hi) {
    reader->status =
        fli_error(FL_E_RANGE, "%s: got %" PRIu64 ", want %" PRIu64 "..%" PRIu64,
                  what, value, lo, hi);
    return 0;
  }
  return value;
}

double fli_reader_f64(fli_msg_reader *reader)
{
  value_head head;
  if (!take_any(reader, &head)) return 0;
  if (head.kind != FLI_KIND_FLOAT && head.kind != FLI_KIND_INT) {
    reader->status = fli_error(FL_E_FORMAT, "msgpack value: got %s, want float",
                               kind_name(head.kind));
    return 0;
  }
  return head_to_double(&head);
}

float fli_reader_f32(fli_msg_reader *reader)
{
  double value = fli_reader_f64(reader);
  if (!isfinite(value) || fabs(value) > (double)FLT_MAX) {
    fli_reader_fail(reader, FL_E_NOT_FINITE, "msgpack float: is not finite");
    return 0;
  }
  return (float)value;
}

int32_t fli_reader_bool(fli_msg_reader *reader)
{
  value_head head;
  return take(reader, FLI_KIND_BOOL, &head) ? (int32_t)head.bits : 0;
}

const char *fli_reader_str(fli_msg_reader *reader, size_t *n)
{
  value_head head;
  *n = 0;
  if (!take(reader, FLI_KIND_STR, &head)) return "";
  *n = (size_t)head.n;
  return (const char *)head.data;
}

const uint8_t *fli_reader_bin(fli_msg_reader *reader, size_t *n)
{
  value_head head;
  *n = 0;
  if (!take(reader, FLI_KIND_BIN, &head)) return NULL;
  *n = (size_t)head.n;
  return head.data;
}

void fli_reader_bin_exact(fli_msg_reader *reader, uint8_t *out, size_t n,
                          const char *what)
{
  size_t got;
  const uint8_t *data = fli_reader_bin(reader, &got);
  if (!data) return;
  if (got != n) {
    reader->status =
        fli_error(FL_E_DIM, "%s: got %zu bytes, want %zu", what, got, n);
    return;
  }
  memcpy(out, data, n);
}

void fli_reader_floats(fli_msg_reader *reader, float *out, size_t n,
                       const char *what)
{
  size_t got;
  const uint8_t *data = fli_reader_bin(reader, &got);
  if (!data) return;
  if (got % 4 != 0 || got / 4 != n) {
    reader->status =
        fli_error(FL_E_DIM, "%s: got %zu bytes, want 4 x %zu", what, got, n);
    return;
  }
  for (size_t i = 0; i < n; i++) {
    out[i] = fli_load_f32(data + 4 * i);
  }
}

void fli_reader_str_copy(fli_msg_reader *reader, char *out, size_t capacity,
                         const char *what)
{
  size_t n;
  const char *text = fli_reader_str(reader, &n);
  assert(capacity >= 1);
  out[0] = '\0';
  if (n >= capacity) {
    reader->status = fli_error(FL_E_TOO_LARGE, "%s: got %zu bytes, want <= %zu",
                               what, n, capacity - 1);
    return;
  }
  for (size_t i = 0; i < n; i++) {
    if (text[i] >= ' ' && text[i] <= '~') continue;
    reader->status = fli_error(FL_E_FORMAT,
                               "%s: got byte 0x%02x, want "
                               "printable ASCII",
                               what, (uint8_t)text[i]);
    return;
  }
  memcpy(out, text, n);
  out[n] = '\0';
}

uint32_t fli_reader_map(fli_msg_reader *reader)
{
  return enter(reader, FLI_KIND_MAP);
}

uint32_t fli_reader_array(fli_msg_reader *reader)
{
  return enter(reader, FLI_KIND_ARRAY);
}

void fli_reader_leave(fli_msg_reader *reader)
{
  if (reader->status != FL_OK) return;
  assert(reader->depth > 0);
  reader->depth--;
}

void fli_reader_skip(fli_msg_reader *reader)
{
  /* values still to skip on each level below the one we are on */
  uint64_t waiting[FLI_MAX_DEPTH + 1] = {1};
  uint32_t level = 0;
  uint32_t deepest = FLI_MAX_DEPTH - reader->depth;
  value_head head;
  for (;;) {
    while (waiting[level] == 0) {
      if (level == 0) return;
      level--;
    }
    waiting[level]--;
    if (!take_any(reader, &head)) return;
    if (head.kind != FLI_KIND_ARRAY && head.kind != FLI_KIND_MAP) continue;
    if (level == deepest) {
      fli_reader_fail(reader, FL_E_TOO_LARGE, "msgpack value: nested too deep");
      return;
    }
    waiting[++level] = head.kind == FLI_KIND_MAP ? 2 * head.n : head.n;
  }
}

fl_status fli_reader_finish(fli_msg_reader *reader)
{
  if (reader->status == FL_OK && reader->at != reader->end)
    reader->status = fli_error(FL_E_FORMAT,
                               "msgpack value: got %zu bytes "
                               "behind its end",
                               bytes_left(reader));
  return reader->status;
}

fli_fields fli_fields_begin(fli_msg_reader *reader)
{
  fli_fields fields = {reader, 0, -1};
  fields.left = fli_reader_map(reader);
  return fields;
}

int fli_fields_next(fli_fields *fields, uint32_t *key)
{
  if (fields->reader->status != FL_OK) return 0;
  if (fields->left == 0) {
    fli_reader_leave(fields->reader);
    return 0;
  }
  fields->left--;
  *key = fli_reader_u32(fields->reader);
  if ((int64_t)*key <= fields->last_key)
    fli_reader_fail(fields->reader, FL_E_FORMAT,
                    "message map: keys do not ascend");
  fields->last_key = *key;
  return fields->reader->status == FL_OK;
}

void fli_fields_unknown(fli_fields *fields)
{
  if (fields->last_key >= 128) {
    fli_reader_fail(fields->reader, FL_E_VERSION,
                    "message map: unknown critical key");
    return;
  }
  fli_reader_skip(fields->reader);
}

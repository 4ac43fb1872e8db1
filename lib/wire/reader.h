/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded pull reader for msgpack from untrusted peers. It never allocates,
 * never recurses, and checks every declared length against the bytes at hand
 * before it believes it (msgpack-c's unpacker asks malloc for what a 9-byte
 * input declares). Depth <= 8, map <= 256 entries, array <= 2^20, string <= 4
 * KiB; bin is bounded by the bytes at hand.
 *
 * The first error sticks: later reads do nothing and return zero values, so a
 * parser reads all fields and checks fli_reader_status once. */
#ifndef FLI_READER_H
#define FLI_READER_H

#include <fl/base.h>

enum {
  FLI_MAX_DEPTH = 8,
  FLI_MAX_MAP = 256,
  FLI_MAX_ARRAY = 1 << 20,
  FLI_MAX_STRING = 4096
};

typedef enum fli_kind {
  FLI_KIND_NIL = 1,
  FLI_KIND_BOOL,
  FLI_KIND_INT,   /* any integer, negative or not */
  FLI_KIND_FLOAT, /* f32 or f64 */
  FLI_KIND_STR,
  FLI_KIND_BIN,
  FLI_KIND_ARRAY,
  FLI_KIND_MAP,
  FLI_KIND_EXT,
  FLI_KIND_END /* no bytes left, or an error */
} fli_kind;

typedef struct fli_msg_reader {
  const uint8_t *at;
  const uint8_t *end;
  fl_status status;
  uint32_t depth;
  uint32_t version; /* of the saved state that is read; 0: of none */
} fli_msg_reader;

void fli_reader_init(fli_msg_reader *reader, const uint8_t *data, size_t n);
fl_status fli_reader_status(const fli_msg_reader *reader);
/* Kind of the next value, without reading it. */
fli_kind fli_reader_peek(const fli_msg_reader *reader);
/* Set the error (if none is set yet) with a text; for parsers' own checks. */
void fli_reader_fail(fli_msg_reader *reader, fl_status status,
                     const char *what);

uint64_t fli_reader_u64(fli_msg_reader *reader); /* FL_E_RANGE if negative */
int64_t fli_reader_i64(fli_msg_reader *reader);
uint32_t fli_reader_u32(fli_msg_reader *reader); /* FL_E_RANGE above 2^32-1 */
/* Value in [lo, hi] or FL_E_RANGE naming `what`. */
uint64_t fli_reader_u64_in(fli_msg_reader *reader, uint64_t lo, uint64_t hi,
                           const char *what);
double fli_reader_f64(fli_msg_reader *reader); /* also takes integers */
float fli_reader_f32(fli_msg_reader *reader);  /* finite or FL_E_NOT_FINITE */
int32_t fli_reader_bool(fli_msg_reader *reader);
/* Borrowed views into the input; strings are not terminated. */
const char *fli_reader_str(fli_msg_reader *reader, size_t *n);
const uint8_t *fli_reader_bin(fli_msg_reader *reader, size_t *n);
/* Exactly n bytes into out. FL_E_DIM. */
void fli_reader_bin_exact(fli_msg_reader *reader, uint8_t *out, size_t n,
                          const char *what);
/* Exactly n float32, little-endian, of a bin into out. FL_E_DIM. */
void fli_reader_floats(fli_msg_reader *reader, float *out, size_t n,
                       const char *what);
/* Copy a string into out (capacity >= 1, always terminated). FL_E_TOO_LARGE;
 * FL_E_FORMAT unless printable ASCII. */
void fli_reader_str_copy(fli_msg_reader *reader, char *out, size_t capacity,
                         const char *what);

/* Enter a map / array: number of entries (0 on error). Leave when done. */
uint32_t fli_reader_map(fli_msg_reader *reader);
uint32_t fli_reader_array(fli_msg_reader *reader);
void fli_reader_leave(fli_msg_reader *reader);
/* Skip one value of any shape (nesting bounded). */
void fli_reader_skip(fli_msg_reader *reader);
/* FL_E_FORMAT when bytes are left. Returns the status. */
fl_status fli_reader_finish(fli_msg_reader *reader);

/* Map with small integer keys, the shape of every message: calls back nothing,
 * just a loop:
 *   for (fli_fields f = fli_fields_begin(&r); fli_fields_next(&f, &key);)
 *     switch (key) { case 1: ...; default: fli_fields_unknown(&f); }
 * Keys must ascend strictly (so duplicates are impossible); an unknown key
 * below 128 is skipped, from 128 on (critical) it is FL_E_VERSION. */
typedef struct fli_fields {
  fli_msg_reader *reader;
  uint32_t left;
  int64_t last_key;
} fli_fields;
fli_fields fli_fields_begin(fli_msg_reader *reader);
/* 1 and *key set while there is another; leaves the map at the end. */
int fli_fields_next(fli_fields *fields, uint32_t *key);
void fli_fields_unknown(fli_fields *fields);

#endif

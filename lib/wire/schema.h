/* SPDX-License-Identifier: Apache-2.0 */
/* Messages as data: a table of fields says how one struct of messages.h and
 * one msgpack map become each other, so that parsing and writing cannot drift
 * apart. Private to lib/wire. */
#ifndef FLI_SCHEMA_H
#define FLI_SCHEMA_H

#include "wire/frame.h"
#include "wire/reader.h"

typedef enum fli_field_kind {
  FLI_FIELD_U32,   /* uint32_t in [lo, hi]; optional without flag: absent = 0 */
  FLI_FIELD_U64,   /* uint64_t in [lo, hi] */
  FLI_FIELD_F32,   /* float, finite and >= 0; absent = 0 */
  FLI_FIELD_F64,   /* double, finite; absent = NaN */
  FLI_FIELD_ANY,   /* any double; needs a flag when optional */
  FLI_FIELD_TEXT,  /* char[size], printable ASCII; absent = "" */
  FLI_FIELD_ARRAY, /* uint8_t[size]; needs a flag when optional */
  FLI_FIELD_KEY,   /* const uint8_t *, lo..hi bytes; absent = NULL */
  FLI_FIELD_VIEW,  /* const uint8_t *, lo..hi bytes; absent = NULL */
  FLI_FIELD_U16S   /* the same, whole uint16_t only */
} fli_field_kind;

/* Beside a kind: the field may be missing. */
enum { FLI_FIELD_OPTIONAL = 128 };
enum { FLI_FIELD_NAME = 23 };

/* Small, and without pointers, which the loader would have to relocate: there
 * are more than a hundred, and a client has them all. */
typedef struct fli_field {
  char name[FLI_FIELD_NAME]; /* "hello.samples", for the error text */
  uint8_t lo;
  uint8_t key;     /* below 32 */
  uint8_t kind;    /* fli_field_kind, and OPTIONAL */
  uint16_t offset; /* of the member */
  /* TEXT, ARRAY: its bytes. VIEW, U16S: offset of the size_t that holds the
   * bytes. */
  uint16_t size;
  /* ARRAY, U64: of the int that says "there"; 0 = none. Neighbours with one
   * flag come together. */
  uint16_t flag_offset;
  uint64_t hi;
} fli_field;

typedef struct fli_schema {
  char name[11]; /* "hello" */
  uint8_t type;  /* FLI_MSG_* */
  size_t message_size;
  const fli_field *fields; /* in ascending order of keys */
  size_t n_fields;
  uint32_t together; /* bits of keys that come all or not at all */
  /* What the table cannot say; may be NULL. */
  void (*check)(fli_msg_reader *reader, const void *message);
} fli_schema;

fl_status fli_schema_parse(const fli_schema *schema, void *message,
                           const uint8_t *body, size_t n);
/* Append one frame. */
fl_status fli_schema_write(const fli_schema *schema, uint8_t type,
                           fli_bytes *out, const void *message);

#endif

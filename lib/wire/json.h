/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded pull reader for JSON from untrusted files, over jsmn's tokens: the
 * only user of jsmn. Stricter than jsmn, which takes a text as it comes: every
 * byte between tokens has to be white space or the one mark that belongs there,
 * and strings have to be UTF-8. Objects, arrays, strings and whole numbers;
 * nested at most 4 deep, at most 2^20 values.
 *
 * The first error sticks: later reads do nothing and return nothing, so a
 * parser reads on and checks the status once.
 *
 *   fli_json_object(&json);
 *   while (fli_json_next(&json)) {
 *     const char *key = fli_json_string(&json, &n);
 *     ... exactly one value ...
 *   }
 */
#ifndef FLI_JSON_H
#define FLI_JSON_H

#include "wire/writer.h"

enum { FLI_JSON_MAX_DEPTH = 4, FLI_JSON_MAX_VALUES = 1 << 20 };

/* An object or array that was entered. */
typedef struct fli_json_level {
  size_t end; /* of its closing bracket */
  int is_object;
  int is_begun;
} fli_json_level;

typedef struct fli_json {
  fl_context *context;
  const char *what; /* names the text in errors */
  char *text;
  size_t n;
  void *tokens; /* in the order of the text */
  size_t n_tokens;
  size_t next;    /* token to be read */
  size_t at;      /* everything before it is accounted for */
  char separator; /* due before the next value; 0 = none */
  fli_json_level levels[FLI_JSON_MAX_DEPTH];
  uint32_t depth;
  fl_status status;
} fli_json;

/* Cut the text into tokens. Strings are decoded in place, so the text is the
 * reader's until fli_json_close. Memory: 20 bytes for each value.
 * FL_E_FORMAT, FL_E_TRUNCATED, FL_E_TOO_LARGE (n >= 2^31 included),
 * FL_E_NOMEM. */
fl_status fli_json_open(fli_json *json, fl_context *context, char *text,
                        size_t n, const char *what);
/* Give the memory back; strings that were read stay in the text. */
void fli_json_close(fli_json *json);
fl_status fli_json_status(const fli_json *json);

/* Enter the object / array that comes next. */
void fli_json_object(fli_json *json);
void fli_json_array(fli_json *json);
/* 1 while the innermost object (array) has another key (item); leaves it when
 * there is none. */
int fli_json_next(fli_json *json);
/* The string or key that comes next, decoded and not terminated; NULL on
 * error. */
const char *fli_json_string(fli_json *json, size_t *n);
/* Whole number in 0..2^64-1, exact. FL_E_RANGE above. */
uint64_t fli_json_u64(fli_json *json);
/* FL_E_FORMAT when something is left. Returns the status. */
fl_status fli_json_finish(fli_json *json);

/* Append a string of printable ASCII with quotes and escapes. */
fl_status fli_json_quote(fli_bytes *out, const char *text);

#endif

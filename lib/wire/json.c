/* SPDX-License-Identifier: Apache-2.0 */
/* jsmn tells where values begin and end, without memory of its own; it tells
 * little of what is between them. {"a" "b"}, [1,,2], {} {}, a raw newline in a
 * string and text behind a NUL are all the same to it, even in strict mode. So
 * it only proposes: first the text is looked through for control characters and
 * depth (jsmn's time is quadratic in the depth), then every step of the reader
 * proves that the bytes from the last value to the next are what they must be.
 * A token in the wrong place cannot pass. */
#include "wire/json.h"

#define JSMN_STATIC
#define JSMN_STRICT
/* Without the links jsmn's time is quadratic in the number of siblings. */
#define JSMN_PARENT_LINKS
#include <jsmn.h>

#include <assert.h>
#include <limits.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/size.h"

static void fail_at(fli_json *json, fl_status status, size_t at,
                    const char *why)
{
  if (json->status != FL_OK) return;
  json->status =
      fli_error(status, "%s: JSON, byte %zu: %s", json->what, at, why);
}

static int is_space(char c)
{
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* No control characters but white space outside of strings, and the depth. */
static void look_through(fli_json *json)
{
  int is_string = 0;
  size_t depth = 0;
  for (size_t i = 0; i < json->n; i++) {
    char c = json->text[i];
    if ((unsigned char)c < 0x20 && (is_string || !is_space(c))) {
      fail_at(json, FL_E_FORMAT, i, "control character");
      return;
    }
    if (is_string) {
      if (c == '\\') {
        i++; /* whatever it is, it does not end the string */
      } else if (c == '"') {
        is_string = 0;
      }
    } else if (c == '"') {
      is_string = 1;
    } else if (c == '{' || c == '[') {
      if (depth++ == FLI_JSON_MAX_DEPTH) {
        fail_at(json, FL_E_TOO_LARGE, i, "nested too deep");
        return;
      }
    } else if ((c == '}' || c == ']') && depth > 0) {
      depth--;
    }
  }
}

/* jsmn with tokens, or without any to count them. */
static int run_jsmn(const fli_json *json, unsigned n_tokens)
{
  jsmn_parser parser;
  jsmn_init(&parser);
  return jsmn_parse(&parser, json->text, json->n, json->tokens, n_tokens);
}

static void cut(fli_json *json)
{
  int n = run_jsmn(json, 0);
  if (n > FLI_JSON_MAX_VALUES) {
    fail_at(json, FL_E_TOO_LARGE, 0, "too many values");
    return;
  }
  if (n > 0) {
    json->tokens = fli_alloc(json->context, (size_t)n, sizeof(jsmntok_t));
    if (!json->tokens) {
      json->status = fli_nomem((size_t)n * sizeof(jsmntok_t));
      return;
    }
    json->n_tokens = (size_t)n;
    n = run_jsmn(json, (unsigned)n);
  }
  if (n == JSMN_ERROR_PART) {
    fail_at(json, FL_E_TRUNCATED, json->n, "ends too early");
  } else if (n <= 0 || (size_t)n != json->n_tokens) {
    fail_at(json, FL_E_FORMAT, 0, "malformed");
  }
}

fl_status fli_json_open(fli_json *json, fl_context *context, char *text,
                        size_t n, const char *what)
{
  *json = (fli_json){.context = context, .what = what, .text = text, .n = n};
  if (n > INT_MAX) fail_at(json, FL_E_TOO_LARGE, 0, "too long");
  if (json->status == FL_OK) look_through(json);
  if (json->status == FL_OK) cut(json);
  if (json->status != FL_OK) fli_json_close(json);
  return json->status;
}

void fli_json_close(fli_json *json)
{
  fli_free(json->context, json->tokens, json->n_tokens * sizeof(jsmntok_t));
  json->tokens = NULL;
  json->n_tokens = 0;
}

fl_status fli_json_status(const fli_json *json)
{
  return json->status;
}

/* From where we are up to `to` there is `mark` once (0: not at all), and white
 * space. */
static void pass_over(fli_json *json, size_t to, char mark)
{
  int is_missing = mark != 0;
  for (; json->at < to; json->at++) {
    char c = json->text[json->at];
    if (is_space(c)) continue;
    if (!is_missing || c != mark) {
      fail_at(json, FL_E_FORMAT, json->at, "unexpected character");
      return;
    }
    is_missing = 0;
  }
  if (is_missing) fail_at(json, FL_E_FORMAT, json->at, "separator missing");
}

/* The token that comes next, of this type; everything before it is passed
 * over, its opening quote or bracket included. NULL on error. */
static const jsmntok_t *take(fli_json *json, jsmntype_t type, const char *want)
{
  size_t limit = json->n;
  if (json->status != FL_OK) return NULL;
  if (json->depth > 0) limit = json->levels[json->depth - 1].end;
  const jsmntok_t *tokens = json->tokens;
  const jsmntok_t *token = tokens + json->next;
  if (json->next >= json->n_tokens || (size_t)token->start >= limit) {
    fail_at(json, FL_E_FORMAT, json->at, "value missing");
    return NULL;
  }
  if (token->type != type) {
    fail_at(json, FL_E_FORMAT, (size_t)token->start, want);
    return NULL;
  }
  int has_quote = type == JSMN_STRING;
  pass_over(json, (size_t)(token->start - has_quote), json->separator);
  if (json->status != FL_OK) return NULL;
  json->separator = 0;
  json->at = (size_t)(token->start + (type != JSMN_PRIMITIVE && !has_quote));
  json->next++;
  return token;
}

static void enter(fli_json *json, jsmntype_t type, const char *want)
{
  const jsmntok_t *token = take(json, type, want);
  if (!token) return;
  assert(json->depth < FLI_JSON_MAX_DEPTH);
  json->levels[json->depth++] = (fli_json_level){
      .end = (size_t)token->end, .is_object = type == JSMN_OBJECT};
}

void fli_json_object(fli_json *json)
{
  enter(json, JSMN_OBJECT, "want an object");
}

void fli_json_array(fli_json *json)
{
  enter(json, JSMN_ARRAY, "want an array");
}

int fli_json_next(fli_json *json)
{
  if (json->status != FL_OK) return 0;
  assert(json->depth > 0);
  fli_json_level *level = &json->levels[json->depth - 1];
  const jsmntok_t *tokens = json->tokens;
  if (json->next < json->n_tokens &&
      (size_t)tokens[json->next].start < level->end) {
    json->separator = level->is_begun ? ',' : 0;
    level->is_begun = 1;
    return 1;
  }
  pass_over(json, level->end - 1, 0);
  json->at = level->end;
  json->depth--;
  return 0;
}

/* Length of the UTF-8 sequence at `p`, or 0 when it is none. */
static size_t utf8_length(const uint8_t *p, size_t left)
{
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  if (p[0] < 0x80) return 1;
  size_t n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
  if (p[0] < 0xc0 || p[0] > 0xf7 || n > left) return 0;
  uint32_t code = p[0] & (0x7fu >> n);
  for (size_t i = 1; i < n; i++) {
    if ((p[i] & 0xc0) != 0x80) return 0;
    code = code << 6 | (p[i] & 0x3fu);
  }
  if (code < least[n] || code > 0x10ffff) return 0;
  return code >= 0xd800 && code <= 0xdfff ? 0 : n;
}

static size_t utf8_write(char *out, uint32_t code)
{
  size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  for (size_t i = n; i-- > 1; code >>= 6)
    out[i] = (char)(0x80 | (code & 0x3f));
  out[0] = (char)(n == 1 ? code : ((0xf00u >> n) & 0xff) | code);
  return n;
}

/* Four hexadecimal digits behind "\u" at `p`; UINT32_MAX when they are not
 * there. */
static uint32_t hex_unit(const char *p, size_t left)
{
  uint32_t unit = 0;
  if (left < 6 || p[0] != '\\' || p[1] != 'u') return UINT32_MAX;
  for (size_t i = 2; i < 6; i++) {
    char c = p[i];
    uint32_t digit = c >= '0' && c <= '9'   ? (uint32_t)(c - '0')
                     : c >= 'a' && c <= 'f' ? (uint32_t)(c - 'a') + 10
                     : c >= 'A' && c <= 'F' ? (uint32_t)(c - 'A') + 10
                                            : UINT32_MAX;
    if (digit == UINT32_MAX) return UINT32_MAX;
    unit = unit << 4 | digit;
  }
  return unit;
}

/* Decode the escape at `p` to `out`; returns how many bytes it took, 0 when it
 * is malformed (half a surrogate pair is). Never writes more than it takes. */
static size_t unescape(const char *p, size_t left, char *out, size_t *written)
{
  static const char from[] = "\"\\/bfnrt";
  static const char to[] = "\"\\/\b\f\n\r\t";
  *written = 1;
  if (left < 2) return 0;
  const char *found = p[1] ? strchr(from, p[1]) : NULL;
  if (found) {
    *out = to[found - from];
    return 2;
  }
  uint32_t code = hex_unit(p, left);
  size_t taken = 6;
  if (code == UINT32_MAX || (code >= 0xdc00 && code <= 0xdfff)) return 0;
  if (code >= 0xd800 && code <= 0xdbff) {
    uint32_t low = hex_unit(p + 6, left - 6);
    if (low < 0xdc00 || low > 0xdfff) return 0;
    code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
    taken = 12;
  }
  *written = utf8_write(out, code);
  return taken;
}

/* In place; returns the decoded length. */
static size_t decode(fli_json *json, char *text, size_t n)
{
  size_t done = 0;
  for (size_t i = 0; i < n;) {
    size_t written = 0;
    size_t taken;
    if (text[i] == '\\') {
      taken = unescape(text + i, n - i, text + done, &written);
    } else {
      taken = written = utf8_length((const uint8_t *)text + i, n - i);
      memmove(text + done, text + i, taken);
    }
    if (taken == 0) {
      fail_at(json, FL_E_FORMAT, (size_t)(text - json->text) + i,
              "neither UTF-8 nor an escape");
      return 0;
    }
    i += taken;
    done += written;
  }
  return done;
}

const char *fli_json_string(fli_json *json, size_t *n)
{
  /* Is it a key? Then its value is the next thing to be read. */
  int is_key = json->depth > 0 && json->separator != ':' &&
               json->levels[json->depth - 1].is_object;
  *n = 0;
  const jsmntok_t *token = take(json, JSMN_STRING, "want a string");
  if (!token) return NULL;
  char *text = json->text + token->start;
  json->at = (size_t)token->end + 1;
  json->separator = is_key ? ':' : 0;
  *n = decode(json, text, (size_t)(token->end - token->start));
  return json->status == FL_OK ? text : NULL;
}

uint64_t fli_json_u64(fli_json *json)
{
  const jsmntok_t *token = take(json, JSMN_PRIMITIVE, "want a whole number");
  uint64_t value = 0;
  if (!token) return 0;
  const char *text = json->text;
  size_t from = (size_t)token->start, to = (size_t)token->end;
  for (size_t i = from; i < to; i++) {
    if (text[i] < '0' || text[i] > '9' || (i > from && text[from] == '0')) {
      fail_at(json, FL_E_FORMAT, i, "want a whole number");
      return 0;
    }
    if (!fli_mul_u64(value, 10, &value) ||
        !fli_add_u64(value, (uint64_t)(text[i] - '0'), &value)) {
      fail_at(json, FL_E_RANGE, from, "number above 2^64 - 1");
      return 0;
    }
  }
  json->at = to;
  return value;
}

fl_status fli_json_finish(fli_json *json)
{
  if (json->status == FL_OK && json->next < json->n_tokens)
    fail_at(json, FL_E_FORMAT, json->at, "more than one value");
  if (json->status == FL_OK) pass_over(json, json->n, 0);
  return json->status;
}

fl_status fli_json_quote(fli_bytes *out, const char *text)
{
  fl_status st = fli_bytes_append(out, "\"", 1);
  for (; *text && st == FL_OK; text++) {
    assert(*text >= 0x20 && *text < 0x7f);
    if (*text == '"' || *text == '\\') st = fli_bytes_append(out, "\\", 1);
    if (st == FL_OK) st = fli_bytes_append(out, text, 1);
  }
  return st == FL_OK ? fli_bytes_append(out, "\"", 1) : st;
}

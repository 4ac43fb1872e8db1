/* SPDX-License-Identifier: Apache-2.0 */
/* What tests of hostile updates and sums share: the kinds of compressors, and
 * the fields of the header with which both begin, each with the error that a
 * wrong value in it gives. */
#ifndef WRONG_BYTES_H
#define WRONG_BYTES_H

#include <criterion/criterion.h>

#include "compress_fixture.h"

static const struct {
  uint32_t codec;
  uint32_t mode;
} kinds[] = {
    {FL_CODEC_F32, 0},
    {FL_CODEC_BF16, 0},
    {FL_CODEC_THC, FL_THC_UNIFORM},
    {FL_CODEC_THC, FL_THC_DITHER},
    {FL_CODEC_THC, FL_THC_TABLE},
};
enum { KINDS = 5, DITHER = 3 };

/* `n` bytes at `at`: with any of them wrong the call gives `status`, and an
 * error with `text` in it. */
typedef struct wrong_field {
  size_t at;
  size_t n;
  fl_status status;
  const char *text;
} wrong_field;

/* The fields that both have; the payload's size and what follows are worded
 * by the message. */
enum { HEADER_FIELDS = 13, AT_PAYLOAD_SIZE = 48 };
static const wrong_field header_fields[HEADER_FIELDS] = {
    {0, 4, FL_E_FORMAT, "header: magic, got "},
    {4, 2, FL_E_VERSION, "header: format version, got "},
    {6, 1, FL_E_SCHEMA, "header: codec, got "},
    {7, 1, FL_E_SCHEMA, "header: mode, got "},
    {8, 1, FL_E_SCHEMA, "header: bits, got "},
    {9, 1, FL_E_STALE, "header: is_public, got "},
    {10, 2, FL_E_SCHEMA, "header: granularity, got "},
    {12, 4, FL_E_STALE, "header: slots, got "},
    {16, 4, FL_E_SCHEMA, "header: segments, got "},
    {20, 4, FL_E_FORMAT, "header: reserved bytes, got "},
    {24, 8, FL_E_STALE, "header: round, got "},
    {32, 8, FL_E_SCHEMA, "header: compressor, got "},
    {40, 8, FL_E_STALE, "header: scale, got "},
};

/* Field i of a message: those of the header, then its own. */
static inline wrong_field wrong_field_at(const wrong_field *own, size_t i)
{
  return i < HEADER_FIELDS ? header_fields[i] : own[i - HEADER_FIELDS];
}

/* The last error says this. */
static inline void expect_text(const char *text)
{
  cr_expect_not_null(strstr(fl_last_error(), text), "%s: got \"%s\"", text,
                     fl_last_error());
}

#endif

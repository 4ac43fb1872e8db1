/* SPDX-License-Identifier: Apache-2.0 */
/* A peer's byte stream: the first byte says how the rest is cut, then the frame
 * parser gets the pieces and every body goes to its message's parser. What
 * parses is written again, and that has to parse to the same bytes. */
#include "fuzz.h"

#include "wire_messages.h"

/* Parse a body that lies alone in memory. */
static fl_status rewrite(const fli_frame *frame, fli_bytes *out)
{
  uint8_t *body = fuzz_exact_copy(frame->body, frame->size);
  fli_frame copy = *frame;
  copy.body = body;
  fl_status st = wire_rewrite(&copy, out);
  free(body);
  return st;
}

static void check_frame(const fli_frame *frame)
{
  fli_bytes first, second;
  fli_bytes_init(&first, NULL);
  fli_bytes_init(&second, NULL);
  if (rewrite(frame, &first) == FL_OK) {
    fli_frame again = {1, frame->type, 0, first.data + FLI_FRAME_HEADER,
                       first.size - FLI_FRAME_HEADER};
    FUZZ_CHECK(first.data[5] == frame->type);
    FUZZ_CHECK(rewrite(&again, &second) == FL_OK);
    FUZZ_CHECK(first.size == second.size);
    FUZZ_CHECK(memcmp(first.data, second.data, first.size) == 0);
  }
  fli_bytes_free(&first);
  fli_bytes_free(&second);
}

/* 0 once the stream is broken. */
static int feed(fli_frame_parser *parser, const uint8_t *data, size_t n)
{
  fli_frame frame;
  fl_status st;
  fli_frame_feed(parser, data, n);
  while ((st = fli_frame_next(parser, &frame)) == FL_OK)
    check_frame(&frame);
  if (st != FL_E_EMPTY) fli_frame_parser_reset(parser);
  return st == FL_E_EMPTY;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fli_frame_parser parser;
  int is_whole = 1;
  if (n == 0) return 0;
  uint32_t cuts = *data++;
  n--;
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  for (size_t at = 0; at < n && is_whole;) {
    /* cuts 0: all at once; else pieces of 1..64 bytes */
    size_t piece = cuts ? 1 + (cuts >> 8) % 64 : n;
    cuts = cuts * 1664525u + 1013904223u * (cuts != 0);
    if (piece > n - at) piece = n - at;
    uint8_t *copy = fuzz_exact_copy(data + at, piece);
    is_whole = feed(&parser, copy, piece);
    free(copy);
    at += piece;
    FUZZ_CHECK(parser.pending.capacity <= 4 * n + 1024);
  }
  fli_frame_parser_free(&parser);
  return 0;
}

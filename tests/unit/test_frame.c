/* SPDX-License-Identifier: Apache-2.0 */
/* Frames out of byte streams: any cut gives the same frames, and no header can
 * make the parser keep or allocate what has not arrived. */
#include "wire/frame.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "wire/messages.h"

static void add_frame(fli_bytes *bytes, uint8_t type, const void *body,
                      size_t n)
{
  fl_status st;
  size_t begin = fli_frame_begin(bytes, type, &st);
  cr_assert_eq(st, FL_OK);
  st = fli_bytes_append(bytes, body, n);
  cr_assert_eq(fli_frame_end(bytes, begin, st), FL_OK);
}

/* Three frames: control, empty, chunk. */
static void make_stream(fli_bytes *bytes)
{
  fli_bytes_init(bytes, NULL);
  add_frame(bytes, FLI_MSG_WAIT, "\x81\x01\x05", 3);
  add_frame(bytes, FLI_MSG_BYE, "", 0);
  add_frame(bytes, FLI_MSG_CHUNK, "0123456789abcdefghij", 20);
}

/* Feed data[0..n) and count frames; checks each one's place in make_stream. */
static unsigned feed(fli_frame_parser *parser, const uint8_t *data, size_t n,
                     unsigned seen)
{
  static const struct {
    uint8_t type;
    const char *body;
    size_t size;
  } want[] = {{FLI_MSG_WAIT, "\x81\x01\x05", 3},
              {FLI_MSG_BYE, "", 0},
              {FLI_MSG_CHUNK, "0123456789abcdefghij", 20}};
  fli_frame frame;
  fl_status st;
  fli_frame_feed(parser, data, n);
  while ((st = fli_frame_next(parser, &frame)) == FL_OK) {
    cr_assert_lt(seen, 3);
    cr_assert_eq(frame.version, 1);
    cr_assert_eq(frame.flags, 0);
    cr_assert_eq(frame.type, want[seen].type);
    cr_assert_eq(frame.size, want[seen].size);
    cr_assert_eq(memcmp(frame.body, want[seen].body, frame.size), 0);
    seen++;
  }
  cr_assert_eq(st, FL_E_EMPTY);
  return seen;
}

Test(frame, layout_is_length_version_type_flags_body)
{
  static const uint8_t want[] = {3, 0, 0, 0, 1, 21, 0, 0, 0x81, 1, 5};
  fli_bytes bytes;
  fli_bytes_init(&bytes, NULL);
  add_frame(&bytes, FLI_MSG_WAIT, "\x81\x01\x05", 3);
  cr_assert_eq(bytes.size, sizeof want);
  cr_assert_eq(memcmp(bytes.data, want, sizeof want), 0);
  fli_bytes_free(&bytes);
}

Test(frame, whole_frames_are_given_out_in_place)
{
  fli_bytes stream;
  fli_frame_parser parser;
  fli_frame frame;
  make_stream(&stream);
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  fli_frame_feed(&parser, stream.data, stream.size);
  cr_assert_eq(fli_frame_next(&parser, &frame), FL_OK);
  cr_assert_eq(frame.body, stream.data + FLI_FRAME_HEADER);
  cr_assert_eq(parser.pending.capacity, 0);
  fli_frame_parser_free(&parser);
  fli_bytes_free(&stream);
}

Test(frame, any_cut_in_three_gives_the_same_frames)
{
  fli_bytes stream;
  make_stream(&stream);
  for (size_t a = 0; a <= stream.size; a++) {
    for (size_t b = a; b <= stream.size; b++) {
      fli_frame_parser parser;
      fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
      unsigned seen = feed(&parser, stream.data, a, 0);
      seen = feed(&parser, stream.data + a, b - a, seen);
      seen = feed(&parser, stream.data + b, stream.size - b, seen);
      cr_assert_eq(seen, 3, "cut at %zu and %zu", a, b);
      cr_assert_eq(parser.pending.size - parser.consume, 0);
      fli_frame_parser_free(&parser);
    }
  }
  fli_bytes_free(&stream);
}

Test(frame, one_byte_at_a_time_from_memory_that_goes_away)
{
  fli_bytes stream;
  fli_frame_parser parser;
  unsigned seen = 0;
  make_stream(&stream);
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  for (size_t i = 0; i < stream.size; i++) {
    uint8_t *byte = malloc(1);
    *byte = stream.data[i];
    seen = feed(&parser, byte, 1, seen);
    free(byte);
  }
  cr_assert_eq(seen, 3);
  fli_frame_parser_free(&parser);
  fli_bytes_free(&stream);
}

static fl_status next_of(uint32_t length, uint8_t version, uint8_t type,
                         uint16_t flags, fl_context *context)
{
  uint8_t bytes[10] = {0, 0, 0, 0, version, type};
  fli_frame_parser parser;
  fli_frame frame;
  fli_store_u32(bytes, length);
  fli_store_u16(bytes + 6, flags);
  fli_frame_parser_init(&parser, context, FLI_FRAME_MAX_BODY);
  fli_frame_feed(&parser, bytes, sizeof bytes);
  fl_status st = fli_frame_next(&parser, &frame);
  /* a broken stream stays broken */
  if (st != FL_E_EMPTY) cr_assert_eq(fli_frame_next(&parser, &frame), st);
  fli_frame_parser_free(&parser);
  return st;
}

Test(frame, declared_4_gib_in_10_bytes_is_too_large_and_costs_nothing)
{
  fl_context *context;
  uint64_t before, peak;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  fl_context_get_memory(context, &before, NULL);
  cr_assert_eq(next_of(UINT32_MAX, 1, FLI_MSG_CHUNK, 0, context),
               FL_E_TOO_LARGE);
  cr_assert_eq(next_of(UINT32_MAX, 1, FLI_MSG_HELLO, 0, context),
               FL_E_TOO_LARGE);
  fl_context_get_memory(context, NULL, &peak);
  cr_assert_eq(peak, before);
  fl_context_free(context);
}

Test(frame, memory_follows_what_arrives_not_what_is_declared)
{
  fl_context *context;
  uint64_t peak;
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  cr_assert_eq(next_of(FLI_FRAME_MAX_BODY, 1, FLI_MSG_CHUNK, 0, context),
               FL_E_EMPTY);
  fl_context_get_memory(context, NULL, &peak);
  cr_assert_lt(peak, 4096);
  fl_context_free(context);
}

Test(frame, limits_of_control_messages_and_chunks_hold_at_their_edges)
{
  cr_assert_eq(next_of(FLI_FRAME_MAX_CONTROL, 1, FLI_MSG_HELLO, 0, NULL),
               FL_E_EMPTY);
  cr_assert_eq(next_of(FLI_FRAME_MAX_CONTROL + 1, 1, FLI_MSG_HELLO, 0, NULL),
               FL_E_TOO_LARGE);
  cr_assert_eq(next_of(FLI_FRAME_MAX_BODY, 1, FLI_MSG_CHUNK, 0, NULL),
               FL_E_EMPTY);
  cr_assert_eq(next_of(FLI_FRAME_MAX_BODY + 1, 1, FLI_MSG_CHUNK, 0, NULL),
               FL_E_TOO_LARGE);
}

Test(frame, other_versions_and_flags_are_refused)
{
  cr_assert_eq(next_of(0, 0, FLI_MSG_BYE, 0, NULL), FL_E_VERSION);
  cr_assert_eq(next_of(0, 2, FLI_MSG_BYE, 0, NULL), FL_E_VERSION);
  cr_assert_eq(next_of(0, 1, FLI_MSG_BYE, 1, NULL), FL_E_VERSION);
  cr_assert_eq(next_of(0, 1, FLI_MSG_BYE, 0x8000, NULL), FL_E_VERSION);
}

Test(frame, small_max_body_bounds_control_messages_too)
{
  fli_frame_parser parser;
  fli_frame frame;
  const uint8_t header[] = {101, 0, 0, 0, 1, FLI_MSG_WAIT, 0, 0};
  fli_frame_parser_init(&parser, NULL, 100);
  fli_frame_feed(&parser, header, sizeof header);
  cr_assert_eq(fli_frame_next(&parser, &frame), FL_E_TOO_LARGE);
  fli_frame_parser_free(&parser);
}

Test(frame, reset_forgets_the_half_received_frame)
{
  fli_bytes stream;
  fli_frame_parser parser;
  make_stream(&stream);
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  cr_assert_eq(feed(&parser, stream.data, 9, 0), 0);
  fli_frame_parser_reset(&parser);
  cr_assert_eq(feed(&parser, stream.data, stream.size, 0), 3);
  fli_frame_parser_free(&parser);
  fli_bytes_free(&stream);
}

Test(frame, idle_parser_keeps_little_after_a_big_cut_frame)
{
  fli_bytes stream;
  fli_frame_parser parser;
  fli_frame frame;
  uint8_t *body = calloc(1, 1 << 18);
  fli_bytes_init(&stream, NULL);
  add_frame(&stream, FLI_MSG_CHUNK, body, 1 << 18);
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  fli_frame_feed(&parser, stream.data, stream.size - 1);
  cr_assert_eq(fli_frame_next(&parser, &frame), FL_E_EMPTY);
  fli_frame_feed(&parser, stream.data + stream.size - 1, 1);
  cr_assert_eq(fli_frame_next(&parser, &frame), FL_OK);
  cr_assert_eq(frame.size, 1 << 18);
  cr_assert_eq(fli_frame_next(&parser, &frame), FL_E_EMPTY);
  cr_assert_leq(parser.pending.capacity, 4096);
  fli_frame_parser_free(&parser);
  fli_bytes_free(&stream);
  free(body);
}

Test(frame, running_out_of_memory_is_reported_and_loses_nothing)
{
  fl_context_options options;
  fl_context *context;
  fli_frame_parser parser;
  fli_frame frame;
  fli_bytes stream;
  static const uint8_t body[8192];
  fli_bytes_init(&stream, NULL);
  add_frame(&stream, FLI_MSG_CHUNK, body, sizeof body);
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.memory_cap = 4096;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  fli_frame_parser_init(&parser, context, FLI_FRAME_MAX_BODY);
  fli_frame_feed(&parser, stream.data, stream.size - 1);
  cr_assert_eq(fli_frame_next(&parser, &frame), FL_E_NOMEM);
  fli_frame_parser_reset(&parser);
  fli_frame_feed(&parser, stream.data, stream.size);
  cr_assert_eq(fli_frame_next(&parser, &frame), FL_OK);
  fli_frame_parser_free(&parser);
  fl_context_free(context);
  fli_bytes_free(&stream);
}

Test(frame, failed_body_cuts_the_buffer_back)
{
  fli_bytes bytes;
  fl_status st;
  fli_bytes_init(&bytes, NULL);
  add_frame(&bytes, FLI_MSG_BYE, "", 0);
  size_t size = bytes.size;
  size_t begin = fli_frame_begin(&bytes, FLI_MSG_WAIT, &st);
  cr_assert_eq(st, FL_OK);
  cr_assert_eq(fli_bytes_append(&bytes, "half", 4), FL_OK);
  cr_assert_eq(fli_frame_end(&bytes, begin, FL_E_NOMEM), FL_E_NOMEM);
  cr_assert_eq(bytes.size, size);
  fli_bytes_free(&bytes);
}

Test(frame, too_large_bodies_are_not_sent)
{
  fli_bytes bytes;
  fl_status st;
  fli_bytes_init(&bytes, NULL);
  uint8_t *body = calloc(1, FLI_FRAME_MAX_CONTROL + 1);
  size_t begin = fli_frame_begin(&bytes, FLI_MSG_WELCOME, &st);
  st = fli_bytes_append(&bytes, body, FLI_FRAME_MAX_CONTROL + 1);
  cr_assert_eq(fli_frame_end(&bytes, begin, st), FL_E_TOO_LARGE);
  cr_assert_eq(bytes.size, 0);
  add_frame(&bytes, FLI_MSG_CHUNK, body, FLI_FRAME_MAX_CONTROL + 1);
  add_frame(&bytes, FLI_MSG_WELCOME, body, FLI_FRAME_MAX_CONTROL);
  fli_bytes_free(&bytes);
  free(body);
}

Test(frame, random_streams_in_random_cuts_never_misparse)
{
  for (uint32_t seed = 1; seed <= 50; seed++) {
    fli_rng rng;
    fli_bytes stream;
    fli_frame_parser parser;
    fli_frame frame;
    uint8_t body[600];
    uint32_t sent = 0, seen = 0;
    fli_rng_init(&rng, seed, FLI_RNG_TEST, 1, 0);
    fli_bytes_init(&stream, NULL);
    for (; sent < 40; sent++) {
      memset(body, (int)sent, sizeof body);
      add_frame(&stream, FLI_MSG_CHUNK, body, fli_rng_below(&rng, 600));
    }
    fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
    for (size_t at = 0; at < stream.size;) {
      size_t n = fli_rng_below(&rng, 900);
      if (n > stream.size - at) n = stream.size - at;
      fli_frame_feed(&parser, stream.data + at, n);
      at += n;
      while (fli_frame_next(&parser, &frame) == FL_OK) {
        for (size_t i = 0; i < frame.size; i++)
          cr_assert_eq(frame.body[i], seen, "seed %u", seed);
        seen++;
      }
    }
    cr_assert_eq(seen, sent, "seed %u", seed);
    fli_frame_parser_free(&parser);
    fli_bytes_free(&stream);
  }
}

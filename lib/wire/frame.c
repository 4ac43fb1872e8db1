/* SPDX-License-Identifier: Apache-2.0 */
/* Frames out of a byte stream that comes in any cut. A frame that lies whole
 * in the input is given out in place; only one that is cut is gathered in
 * `pending`, which never holds more than that frame. */
#include "wire/frame.h"

#include <assert.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "wire/messages.h"

/* A connection that sits idle keeps no more than this. */
enum { KEPT_CAPACITY = 4096 };

static size_t limit_of(uint8_t type, size_t max_body, size_t max_control)
{
  return type == FLI_MSG_CHUNK ? max_body : max_control;
}

/* Size of the whole frame that begins with this header. */
static fl_status check_header(const fli_frame_parser *parser,
                              const uint8_t *header, size_t *size)
{
  size_t body = fli_load_u32(header);
  uint8_t version = header[4];
  uint16_t flags = fli_load_u16(header + 6);
  size_t limit = limit_of(header[5], parser->max_body, parser->max_control);
  if (version < FLI_PROTOCOL_MIN || version > FLI_PROTOCOL_MAX)
    return fli_error(FL_E_VERSION, "frame version: got %u, want %d..%d",
                     version, FLI_PROTOCOL_MIN, FLI_PROTOCOL_MAX);
  if (flags != 0)
    return fli_error(FL_E_VERSION, "frame flags: got 0x%04x, want 0", flags);
  if (body > limit)
    return fli_error(FL_E_TOO_LARGE, "frame body: got %zu bytes, want <= %zu",
                     body, limit);
  *size = FLI_FRAME_HEADER + body;
  return FL_OK;
}

static void fill_frame(fli_frame *frame, const uint8_t *data, size_t size)
{
  frame->version = data[4];
  frame->type = data[5];
  frame->flags = fli_load_u16(data + 6);
  frame->body = data + FLI_FRAME_HEADER;
  frame->size = size - FLI_FRAME_HEADER;
}

/* Move bytes from the input until `pending` holds `want` of them; FL_E_EMPTY
 * when the input ends before. */
static fl_status gather(fli_frame_parser *parser, size_t want)
{
  if (parser->pending.size >= want) return FL_OK;
  if (parser->input_size == 0) return FL_E_EMPTY;
  size_t missing = want - parser->pending.size;
  size_t n = missing < parser->input_size ? missing : parser->input_size;
  fl_status status = fli_bytes_append(&parser->pending, parser->input, n);
  if (status != FL_OK) return status;
  parser->input += n;
  parser->input_size -= n;
  return n == missing ? FL_OK : FL_E_EMPTY;
}

static void drop_consumed(fli_frame_parser *parser)
{
  if (parser->consume == 0) return;
  fli_bytes_consume(&parser->pending, parser->consume);
  parser->consume = 0;
  if (parser->pending.capacity > KEPT_CAPACITY)
    fli_bytes_free(&parser->pending);
}

void fli_frame_parser_init(fli_frame_parser *parser, fl_context *context,
                           size_t max_body)
{
  memset(parser, 0, sizeof *parser);
  fli_bytes_init(&parser->pending, context);
  parser->max_body = max_body;
  parser->max_control =
      max_body < FLI_FRAME_MAX_CONTROL ? max_body : FLI_FRAME_MAX_CONTROL;
}

void fli_frame_parser_free(fli_frame_parser *parser)
{
  fli_frame_parser_reset(parser);
}

void fli_frame_parser_reset(fli_frame_parser *parser)
{
  fli_bytes_free(&parser->pending);
  parser->input = NULL;
  parser->input_size = 0;
  parser->consume = 0;
}

void fli_frame_feed(fli_frame_parser *parser, const uint8_t *data, size_t n)
{
  assert(parser->input_size == 0);
  parser->input = data;
  parser->input_size = n;
}

fl_status fli_frame_next(fli_frame_parser *parser, fli_frame *frame)
{
  fl_status st = FL_OK;
  size_t size;
  drop_consumed(parser);
  if (parser->pending.size == 0 && parser->input_size >= FLI_FRAME_HEADER) {
    FLI_TRY(check_header(parser, parser->input, &size));
    if (parser->input_size >= size) {
      fill_frame(frame, parser->input, size);
      parser->input += size;
      parser->input_size -= size;
      return FL_OK;
    }
  }
  FLI_TRY(gather(parser, FLI_FRAME_HEADER));
  FLI_TRY(check_header(parser, parser->pending.data, &size));
  FLI_TRY(gather(parser, size));
  fill_frame(frame, parser->pending.data, size);
  parser->consume = size;
out:
  return st;
}

size_t fli_frame_begin(fli_bytes *bytes, uint8_t type, fl_status *status)
{
  const uint8_t header[FLI_FRAME_HEADER] = {0,    0, 0, 0, FLI_PROTOCOL_MAX,
                                            type, 0, 0};
  size_t begin = bytes->size;
  *status = fli_bytes_append(bytes, header, sizeof header);
  return begin;
}

fl_status fli_frame_end(fli_bytes *bytes, size_t begin, fl_status status)
{
  fl_status st = FL_OK;
  FLI_TRY(status);
  uint8_t *header = bytes->data + begin;
  size_t body = bytes->size - begin - FLI_FRAME_HEADER;
  size_t limit = limit_of(header[5], FLI_FRAME_MAX_BODY, FLI_FRAME_MAX_CONTROL);
  if (body > limit)
    FLI_TRY(fli_error(FL_E_TOO_LARGE, "frame body: got %zu bytes, want <= %zu",
                      body, limit));
  fli_store_u32(header, (uint32_t)body);
  return FL_OK;
out:
  bytes->size = begin;
  return st;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Frames: u32 length | u8 version | u8 type | u16 flags | body, little-endian;
 * length counts the body alone. The stream parser keeps at most one partial
 * frame, and checks the declared length against its limit before it allocates:
 * it allocates as bytes arrive, never what a header merely declares. */
#ifndef FLI_FRAME_H
#define FLI_FRAME_H

#include "wire/writer.h"

enum {
  FLI_FRAME_HEADER = 8,
  FLI_FRAME_MAX_BODY = (4 << 20) + 16, /* CHUNK: 4 MiB and a header */
  FLI_FRAME_MAX_CONTROL = 1 << 20,     /* everything else */
  FLI_PROTOCOL_MIN = 1,
  FLI_PROTOCOL_MAX = 1
};

typedef struct fli_frame {
  uint8_t version;
  uint8_t type; /* FLI_MSG_* */
  uint16_t flags;
  const uint8_t *body;
  size_t size;
} fli_frame;

typedef struct fli_frame_parser {
  fli_bytes pending;    /* a frame's beginning */
  const uint8_t *input; /* what fli_frame_feed was given, not yet parsed */
  size_t input_size;
  size_t consume;     /* bytes of `pending` to drop before the next frame */
  size_t max_body;    /* of a CHUNK */
  size_t max_control; /* of every other type */
} fli_frame_parser;

/* max_body is at most FLI_FRAME_MAX_BODY; max_control becomes the smaller of it
 * and FLI_FRAME_MAX_CONTROL, and the owner may lower the field further. */
void fli_frame_parser_init(fli_frame_parser *parser, fl_context *context,
                           size_t max_body);
void fli_frame_parser_free(fli_frame_parser *parser);
/* Forget a half-received frame. */
void fli_frame_parser_reset(fli_frame_parser *parser);
/* Hand over input; it is borrowed until fli_frame_next said FL_E_EMPTY, which
 * has copied the rest. Call next until then before feeding again. */
void fli_frame_feed(fli_frame_parser *parser, const uint8_t *data, size_t n);
/* Next whole frame, its body borrowed until the next call on the parser.
 * FL_E_EMPTY: more bytes needed. FL_E_TOO_LARGE, FL_E_VERSION, FL_E_NOMEM:
 * the stream cannot go on; reset. Flags other than 0 are FL_E_VERSION. */
fl_status fli_frame_next(fli_frame_parser *parser, fli_frame *frame);

/* Append a frame: begin, write the body with a fli_msg_writer, end (patches
 * the length; FL_E_TOO_LARGE above the limit for its type). On failure `bytes`
 * is cut back to where it was. */
size_t fli_frame_begin(fli_bytes *bytes, uint8_t type, fl_status *status);
fl_status fli_frame_end(fli_bytes *bytes, size_t begin, fl_status status);

#endif

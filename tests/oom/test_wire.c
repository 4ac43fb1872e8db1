/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the wire module fails once: frames, messages, transfers
 * and containers report it, and leave nothing behind. */
#include "oom/oom.h"

#include "base/error.h"
#include "wire/container.h"
#include "wire/transfer.h"
#include "wire_messages.h"
#include "outgoing.h"

static uint8_t payload_bytes[20000];

static fl_status write_all_messages(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fli_bytes out;
  (void)arg;
  fli_bytes_init(&out, context);
  for (uint32_t i = 0; i < WIRE_SAMPLES; i++) {
    size_t before = out.size;
    st = wire_sample(i, &out);
    if (st != FL_OK) {
      CHECK_EQ_U64(out.size, before);
      break;
    }
  }
  fli_bytes_free(&out);
  return st;
}

static fl_status parse_frames_in_pieces(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fli_bytes stream;
  fli_frame_parser parser;
  fli_frame frame;
  (void)arg;
  fli_bytes_init(&stream, NULL);
  for (uint32_t i = 0; i < WIRE_SAMPLES; i++)
    CHECK_OK(wire_sample(i, &stream));
  fli_frame_parser_init(&parser, context, FLI_FRAME_MAX_BODY);
  for (size_t at = 0; at < stream.size && st == FL_OK; at += 5) {
    size_t left = stream.size - at;
    fli_frame_feed(&parser, stream.data + at, left < 5 ? left : 5);
    while ((st = fli_frame_next(&parser, &frame)) == FL_OK)
      continue;
    if (st == FL_E_EMPTY) st = FL_OK;
  }
  fli_frame_parser_free(&parser);
  fli_bytes_free(&stream);
  return st;
}

static fl_status move_a_payload(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fli_outgoing outgoing = {0};
  fli_incoming incoming;
  fli_bytes out;
  fli_chunk chunk;
  fli_manifest manifest;
  int is_complete = 0;
  (void)arg;
  wire_manifest(&manifest);
  fli_incoming_init(&incoming, context);
  fli_bytes_init(&out, context);
  FLI_TRY(outgoing_begin(&outgoing, &out, &manifest, payload_bytes,
                         sizeof payload_bytes, FLI_CHUNK_MIN));
  FLI_TRY(fli_incoming_begin(&incoming, &manifest, sizeof payload_bytes));
  while (outgoing.is_active) {
    fli_bytes_clear(&out);
    FLI_TRY(fli_outgoing_next(&outgoing, &out));
    FLI_TRY(fli_parse_chunk(&chunk, out.data + FLI_FRAME_HEADER,
                            out.size - FLI_FRAME_HEADER));
    FLI_TRY(fli_incoming_chunk(&incoming, &chunk, &is_complete));
  }
  CHECK(is_complete);
out:
  fli_incoming_reset(&incoming);
  fli_bytes_free(&out);
  return st;
}

static fl_status save_and_load(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  uint32_t version;
  fli_bytes payload;
  (void)arg;
  fli_bytes_init(&payload, context);
  FLI_TRY(fl_buffer_new(&buffer, context));
  FLI_TRY(fl_buffer_as_writer(buffer, &writer));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  FLI_TRY(fli_bytes_append(&payload, payload_bytes, sizeof payload_bytes));
  FLI_TRY(fli_container_write(&writer, FLI_STATE_SERVER, 1, &payload));
  FLI_TRY(fli_container_read(&reader, FLI_STATE_SERVER, 1, UINT64_MAX, &version,
                             &payload));
out:
  fl_buffer_free(buffer);
  fli_bytes_free(&payload);
  return st;
}

static void messages_report_it(void)
{
  oom_loop(write_all_messages, NULL);
}

static void frame_parser_reports_it(void)
{
  oom_loop(parse_frames_in_pieces, NULL);
}

static void transfers_report_it(void)
{
  oom_loop(move_a_payload, NULL);
}

static void containers_report_it(void)
{
  oom_loop(save_and_load, NULL);
}

int main(void)
{
  CHECK_CASE(messages_report_it);
  CHECK_CASE(frame_parser_reports_it);
  CHECK_CASE(transfers_report_it);
  CHECK_CASE(containers_report_it);
  return check_report();
}

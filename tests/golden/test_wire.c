/* SPDX-License-Identifier: Apache-2.0 */
/* The exact bytes of the protocol, version 1: one frame of every message type,
 * and the shapes with nothing optional. Another byte here is another protocol:
 * it needs a new version number, not new golden bytes. */
#include <stdlib.h>

#include "check.h"
#include "wire_messages.h"

static const struct {
  const char *name;
  const char *hex;
} golden[WIRE_SAMPLES] = {
    {"hello",
     "7e000000010100008b0101020303a870686f6e652d313704a56d6e697374050306cd"
     "177007a561726d363408c420101112131415161718191a1b1c1d1e1f202122232425"
     "262728292a2b2c2d2e2f09c410404142434445464748494a4b4c4d4e4f0a040bc420"
     "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f"},
    {"norm", "1200000001020000840103020103c406803f0040003f04cd176f"},
    {"metrics",
     "1700000001030000850103020603cb3fe000000000000004cd036605cd03e8"},
    {"decline", "05000000010400008201030201"},
    {"get_model", "0300000001050000810106"},
    {"bye", "05000000010600008201030201"},
    {"welcome",
     "7c000000011000008d010102a56d6e69737403c410404142434445464748494a4b4c"
     "4d4e4f04c420101112131415161718191a1b1c1d1e1f202122232425262728292a2b"
     "2c2d2e2f05c404810193c0060307020804091e0aca402000000bc420808182838485"
     "868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f0c020d0f"},
    {"plan",
     "8200000001110000de0010010302010307040805cdbb800602072008ca3d4ccccd09"
     "cf0123456789abcdef0a050bc420606162636465666768696a6b6c6d6e6f70717273"
     "7475767778797a7b7c7d7e7f0cce000927c00d020ec420a0a1a2a3a4a5a6a7a8a9aa"
     "abacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf0fc406803f0040003f10ca4040"
     "0000"},
    {"scale",
     "3d00000001120000860103020103c420a0a1a2a3a4a5a6a7a8a9aaabacadaeafb0b1"
     "b2b3b4b5b6b7b8b9babbbcbdbebf04c406803f0040003f05ca4020000006ce00015f"
     "90"},
    {"ack", "18000000011300008401030201030804af616c726561647920636f756e746564"},
    {"evaluate",
     "2800000001140000830103020603c420606162636465666768696a6b6c6d6e6f7071"
     "72737475767778797a7b7c7d7e7f"},
    {"wait", "16000000011500008201cd05dc02af73746167696e672069732066756c6c"},
    {"reject", "0f0000000116000082010502aa6e6f206a6f6220227822"},
    {"done",
     "280000000117000083010f020f03c420606162636465666768696a6b6c6d6e6f7071"
     "72737475767778797a7b7c7d7e7f"},
    {"manifest",
     "4f000000012000008b0109020103ce0001117004ce0001000005c420c0c1c2c3c4c5"
     "c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf0603070108cb3fe8"
     "00000000000009060a020bc406010000020500"},
    {"chunk",
     "300000000121000009000000000000000000010000000000a0a1a2a3a4a5a6a7a8a9"
     "aaabacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf"},
    {"hello-minimal",
     "1500000001010000850101020303a870686f6e652d3137050306cd1770"},
    {"welcome-known-schema",
     "75000000011000008c010102a56d6e69737403c410404142434445464748494a4b4c"
     "4d4e4f04c420101112131415161718191a1b1c1d1e1f202122232425262728292a2b"
     "2c2d2e2f060307020804091e0aca402000000bc420808182838485868788898a8b8c"
     "8d8e8f909192939495969798999a9b9c9d9e9f0c020d0f"},
    {"plan-exchanged",
     "4e000000011100008d010302010307040805cdbb800602072008ca3d4ccccd09cf01"
     "23456789abcdef0a050bc420606162636465666768696a6b6c6d6e6f707172737475"
     "767778797a7b7c7d7e7f0cce000927c00d01"},
    {"manifest-steps",
     "3c00000001200000890109020303ce0001117004ce0001000005c420c0c1c2c3c4c5"
     "c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf0603070109060a02"},
    {"welcome-table",
     "7c000000011000008d010102a56d6e69737403c410404142434445464748494a4b4c"
     "4d4e4f04c420101112131415161718191a1b1c1d1e1f202122232425262728292a2b"
     "2c2d2e2f06030703080209070aca402000000bc420808182838485868788898a8b8c"
     "8d8e8f909192939495969798999a9b9c9d9e9f0c020d0f0ec40400020507"},
    {"hello-depth",
     "80000000010100008c0101020303a870686f6e652d313704a56d6e697374050306cd"
     "177007a561726d363408c420101112131415161718191a1b1c1d1e1f202122232425"
     "262728292a2b2c2d2e2f09c410404142434445464748494a4b4c4d4e4f0a040bc420"
     "606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f0c03"},
    {"plan-freezing",
     "5a00000001110000de0010010302010307040805cdbb800602072008ca3d4ccccd09"
     "cf0123456789abcdef0a050bc420606162636465666768696a6b6c6d6e6f70717273"
     "7475767778797a7b7c7d7e7f0cce000927c00d01130214c4038101021501"},
    {"manifest-report",
     "5b000000012000008d0109020103ce0001117004ce0001000005c420c0c1c2c3c4c5"
     "c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf0603070108cb3fe8"
     "00000000000009060a020bc4060100000205000c020dcb3fc0000000000000"},
    {"get_slice", "0d000000010c0000830103020103c4050152000009"},
    {"slice", "0d000000011c0000830103020203c4050152000009"},
    {"plan-slices",
     "8a00000001110000de0011010302010307040805cdbb800602072008ca3d4ccccd09"
     "cf0123456789abcdef0a050bc420606162636465666768696a6b6c6d6e6f70717273"
     "7475767778797a7b7c7d7e7f0cce000927c00d020ec420a0a1a2a3a4a5a6a7a8a9aa"
     "abacadaeafb0b1b2b3b4b5b6b7b8b9babbbcbdbebf0fc406803f0040003f10ca4040"
     "00001cc4050152000009"},
    {"manifest-slices",
     "53000000012000008c0109020103ce0001117004ce0001000005c420c0c1c2c3c4c5"
     "c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf0603070108cb3fe8"
     "00000000000009060a020bc40601000002050018cd0fa0"},
};

static void unhex(const char *hex, fli_bytes *out)
{
  fli_bytes_init(out, NULL);
  for (; *hex; hex += 2) {
    const char digits[3] = {hex[0], hex[1], '\0'};
    uint8_t byte = (uint8_t)strtoul(digits, NULL, 16);
    CHECK_OK(fli_bytes_append(out, &byte, 1));
  }
}

static void check_same(const fli_bytes *got, const fli_bytes *want)
{
  CHECK_EQ_U64(got->size, want->size);
  if (got->size == want->size) CHECK_EQ_MEM(got->data, want->data, want->size);
}

/* Written from the struct, and parsed and written again: the same bytes. */
static void check_sample(uint32_t index)
{
  fli_bytes want, written, again;
  fli_frame_parser parser;
  fli_frame frame;
  unhex(golden[index].hex, &want);
  fli_bytes_init(&written, NULL);
  fli_bytes_init(&again, NULL);
  CHECK_EQ_STR(wire_sample_name(index), golden[index].name);
  CHECK_OK(wire_sample(index, &written));
  check_same(&written, &want);
  fli_frame_parser_init(&parser, NULL, FLI_FRAME_MAX_BODY);
  fli_frame_feed(&parser, want.data, want.size);
  CHECK_OK(fli_frame_next(&parser, &frame));
  CHECK_OK(wire_rewrite(&frame, &again));
  check_same(&again, &want);
  CHECK_STATUS(fli_frame_next(&parser, &frame), FL_E_EMPTY);
  fli_frame_parser_free(&parser);
  fli_bytes_free(&want);
  fli_bytes_free(&written);
  fli_bytes_free(&again);
}

int main(void)
{
  for (uint32_t i = 0; i < WIRE_SAMPLES; i++) {
    check_sample(i);
    check_end_case(golden[i].name);
  }
  return check_report();
}

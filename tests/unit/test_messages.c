/* SPDX-License-Identifier: Apache-2.0 */
/* Every message: written and read back, cut, with keys removed and added, with
 * each value at and beyond its range, and mutated at random. The writers do
 * not check ranges, so they make the wrong values too. */
#include "wire/messages.h"

#include <criterion/criterion.h>
#include <fl/protocol.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/rng.h"
#include "wire_messages.h"

static fli_frame frame_of(const fli_bytes *bytes)
{
  fli_frame frame = {bytes->data[4], bytes->data[5], 0,
                     bytes->data + FLI_FRAME_HEADER,
                     bytes->size - FLI_FRAME_HEADER};
  return frame;
}

static fl_status rewrite(uint8_t type, const uint8_t *body, size_t n)
{
  fli_frame frame = {1, type, 0, body, n};
  fli_bytes out;
  fli_bytes_init(&out, NULL);
  fl_status st = wire_rewrite(&frame, &out);
  fli_bytes_free(&out);
  return st;
}

Test(messages, every_sample_is_read_and_written_to_the_same_bytes)
{
  for (uint32_t i = 0; i < WIRE_SAMPLES; i++) {
    fli_bytes bytes, again;
    fli_bytes_init(&bytes, NULL);
    fli_bytes_init(&again, NULL);
    cr_assert_eq(wire_sample(i, &bytes), FL_OK);
    cr_assert_eq(fli_load_u32(bytes.data), bytes.size - FLI_FRAME_HEADER);
    fli_frame frame = frame_of(&bytes);
    cr_assert_eq(wire_rewrite(&frame, &again), FL_OK, "%s: %s",
                 wire_sample_name(i), fl_last_error());
    cr_assert_eq(again.size, bytes.size);
    cr_assert_eq(memcmp(again.data, bytes.data, bytes.size), 0);
    fli_bytes_free(&bytes);
    fli_bytes_free(&again);
  }
}

Test(messages, hello_members_arrive)
{
  fli_bytes bytes;
  fli_hello want, got;
  fli_bytes_init(&bytes, NULL);
  wire_hello(&want);
  cr_assert_eq(fli_write_hello(&bytes, &want), FL_OK);
  fli_frame frame = frame_of(&bytes);
  cr_assert_eq(fli_parse_hello(&got, frame.body, frame.size), FL_OK);
  cr_assert_eq(got.version_max, 3);
  cr_assert_str_eq(got.client_id, "phone-17");
  cr_assert_str_eq(got.job, "mnist");
  cr_assert_eq(got.samples, 6000);
  cr_assert(got.has_schema && got.has_token && got.has_model);
  cr_assert_eq(memcmp(got.schema, want.schema, sizeof got.schema), 0);
  cr_assert_eq(memcmp(got.token, want.token, sizeof got.token), 0);
  cr_assert_eq(memcmp(got.model_hash, want.model_hash, FLI_HASH_BYTES), 0);
  cr_assert_eq(got.model_version, 4);
  fli_bytes_free(&bytes);
}

Test(messages, absent_members_have_their_stand_ins)
{
  fli_bytes bytes;
  fli_plan plan;
  fli_manifest manifest;
  fli_hello hello;
  fli_bytes_init(&bytes, NULL);
  cr_assert_eq(wire_sample(18, &bytes), FL_OK);
  fli_frame frame = frame_of(&bytes);
  cr_assert_eq(fli_parse_plan(&plan, frame.body, frame.size), FL_OK);
  cr_assert_null(plan.noise_seed);
  cr_assert_null(plan.norms);
  cr_assert_eq(plan.clip, 0.0f);
  fli_bytes_clear(&bytes);
  cr_assert_eq(wire_sample(19, &bytes), FL_OK);
  frame = frame_of(&bytes);
  cr_assert_eq(fli_parse_manifest(&manifest, frame.body, frame.size), FL_OK);
  cr_assert(isnan(manifest.loss));
  cr_assert_null(manifest.clamped);
  fli_bytes_clear(&bytes);
  cr_assert_eq(wire_sample(16, &bytes), FL_OK);
  frame = frame_of(&bytes);
  cr_assert_eq(fli_parse_hello(&hello, frame.body, frame.size), FL_OK);
  cr_assert(!hello.has_schema && !hello.has_token && !hello.has_model);
  cr_assert_str_eq(hello.job, "");
  fli_bytes_free(&bytes);
}

Test(messages, every_cut_of_every_sample_is_truncated)
{
  for (uint32_t i = 0; i < WIRE_SAMPLES; i++) {
    fli_bytes bytes;
    fli_bytes_init(&bytes, NULL);
    cr_assert_eq(wire_sample(i, &bytes), FL_OK);
    fli_frame frame = frame_of(&bytes);
    size_t least =
        frame.type == FLI_MSG_CHUNK ? FLI_CHUNK_HEADER + 1u : frame.size;
    for (size_t n = 0; n < least; n++) {
      uint8_t *cut = malloc(n ? n : 1);
      memcpy(cut, frame.body, n);
      cr_assert_eq(rewrite(frame.type, cut, n), FL_E_TRUNCATED, "%s at %zu",
                   wire_sample_name(i), n);
      free(cut);
    }
    fli_bytes_free(&bytes);
  }
}

Test(messages, bytes_behind_the_map_are_malformed)
{
  for (uint32_t i = 0; i < WIRE_SAMPLES; i++) {
    fli_bytes bytes;
    fli_bytes_init(&bytes, NULL);
    cr_assert_eq(wire_sample(i, &bytes), FL_OK);
    cr_assert_eq(fli_bytes_append(&bytes, "", 1), FL_OK);
    fli_frame frame = frame_of(&bytes);
    if (frame.type != FLI_MSG_CHUNK)
      cr_assert_eq(rewrite(frame.type, frame.body, frame.size), FL_E_FORMAT);
    fli_bytes_free(&bytes);
  }
}

/* Copy the map in `body` without `removed` and with a last entry `added` (0 =
 * none), and parse that. */
static fl_status parse_changed(const fli_frame *frame, uint32_t removed,
                               uint32_t added)
{
  fli_bytes out;
  fli_msg_writer writer;
  fli_msg_reader reader;
  fli_bytes_init(&out, NULL);
  fli_writer_init(&writer, &out);
  fli_reader_init(&reader, frame->body, frame->size);
  uint32_t n = fli_reader_map(&reader);
  fli_writer_map(&writer, n - (removed != 0) + (added != 0));
  for (uint32_t i = 0; i < n; i++) {
    const uint8_t *begin = reader.at;
    uint32_t key = fli_reader_u32(&reader);
    fli_reader_skip(&reader);
    if (key != removed)
      cr_assert_eq(fli_bytes_append(&out, begin, (size_t)(reader.at - begin)),
                   FL_OK);
  }
  if (added) fli_field_str(&writer, added, "new");
  fl_status st = rewrite(frame->type, out.data, out.size);
  fli_bytes_free(&out);
  return st;
}

/* Bit k = key k may be missing. */
static uint32_t optional_keys(uint8_t type)
{
  switch (type) {
  case FLI_MSG_HELLO: return 1u << 4 | 1u << 7 | 1u << 8 | 1u << 9;
  case FLI_MSG_WELCOME: return 1u << 5;
  case FLI_MSG_PLAN: return 1u << 16;
  case FLI_MSG_ACK: return 1u << 4;
  case FLI_MSG_WAIT:
  case FLI_MSG_REJECT: return 1u << 2;
  case FLI_MSG_MANIFEST: return 1u << 8 | 1u << 11;
  default: return 0;
  }
}

Test(messages, removing_a_key_fails_exactly_when_it_is_required)
{
  for (uint32_t i = 0; i < 15; i++) {
    fli_bytes bytes;
    fli_bytes_init(&bytes, NULL);
    cr_assert_eq(wire_sample(i, &bytes), FL_OK);
    fli_frame frame = frame_of(&bytes);
    uint32_t n = (frame.body[0] == 0xde) ? frame.body[2] : frame.body[0] & 15u;
    for (uint32_t key = 1; key <= n; key++) {
      int may = optional_keys(frame.type) >> key & 1;
      cr_assert_eq(parse_changed(&frame, key, 0), may ? FL_OK : FL_E_FORMAT,
                   "%s without %u", wire_sample_name(i), key);
    }
    fli_bytes_free(&bytes);
  }
}

Test(messages, unknown_keys_are_ignored_below_128_and_refused_from_there)
{
  for (uint32_t i = 0; i < 15; i++) {
    fli_bytes bytes;
    fli_bytes_init(&bytes, NULL);
    cr_assert_eq(wire_sample(i, &bytes), FL_OK);
    fli_frame frame = frame_of(&bytes);
    cr_assert_eq(parse_changed(&frame, 0, 127), FL_OK);
    cr_assert_eq(parse_changed(&frame, 0, 128), FL_E_VERSION);
    fli_bytes_free(&bytes);
  }
}

static void wire_norm(fli_norm *m)
{
  *m = (fli_norm){3, 1, wire_norms, sizeof wire_norms, 5999};
}

static void wire_metrics(fli_metrics *m)
{
  *m = (fli_metrics){.round = 3, .loss = 0.5, .correct = 870, .count = 1000};
}

typedef fli_scale_msg fli_scale;

static void wire_scale(fli_scale *m)
{
  *m = (fli_scale){3, 1, wire_key(), wire_norms, sizeof wire_norms, 2.5f, 9};
}

static void wire_ack(fli_ack *m)
{
  *m = (fli_ack){3, 1, 8, "already counted"};
}

static void wire_wait(fli_wait *m)
{
  *m = (fli_wait){1500, "staging is full"};
}

static void wire_reject(fli_reject *m)
{
  *m = (fli_reject){5, "no such job"};
}

/* Write the sample with a change made to `m`; parsing it gives `want`. */
#define EXPECT(name, want, change)                                          \
  do {                                                                      \
    fli_##name m, parsed;                                                   \
    fli_bytes bytes;                                                        \
    wire_##name(&m);                                                        \
    change;                                                                 \
    fli_bytes_init(&bytes, NULL);                                           \
    cr_assert_eq(fli_write_##name(&bytes, &m), FL_OK);                      \
    fl_status st = fli_parse_##name(&parsed, bytes.data + FLI_FRAME_HEADER, \
                                    bytes.size - FLI_FRAME_HEADER);         \
    cr_assert_eq(st, want, "%s with %s: got %s (%s)", #name, #change,       \
                 fl_status_name(st), fl_last_error());                      \
    fli_bytes_free(&bytes);                                                 \
  } while (0)

#define LAST_ROUND ((UINT64_C(1) << 48) - 1)
#define MOST_SAMPLES (UINT64_C(1) << 40)
#define LAST_MS (UINT64_MAX / 1000000)

Test(messages, hello_ranges)
{
  EXPECT(hello, FL_E_RANGE, m.version_min = 0);
  EXPECT(hello, FL_E_RANGE, m.version_max = 0);
  EXPECT(hello, FL_E_RANGE, m.version_min = 4);
  EXPECT(hello, FL_OK, m.version_min = 3);
  EXPECT(hello, FL_E_FORMAT, m.client_id[0] = '\0');
  EXPECT(hello, FL_E_FORMAT, m.client_id[0] = '\n');
  EXPECT(hello, FL_OK, memset(m.client_id, 'x', 64));
  EXPECT(hello, FL_E_RANGE, m.samples = 0);
  EXPECT(hello, FL_OK, m.samples = 1);
  EXPECT(hello, FL_OK, m.samples = MOST_SAMPLES);
  EXPECT(hello, FL_E_RANGE, m.samples = MOST_SAMPLES + 1);
}

Test(messages, hello_wants_model_version_and_hash_together)
{
  static const uint8_t body[] = {0x86, 1, 1, 2, 1, 3,    0xa1,
                                 'a',  5, 0, 6, 1, 0x0a, 7};
  fli_hello hello;
  cr_assert_eq(fli_parse_hello(&hello, body, sizeof body), FL_E_FORMAT);
}

Test(messages, client_id_of_65_bytes_is_too_large)
{
  uint8_t body[80] = {0x85, 1, 1, 2, 1, 3, 0xd9, 65};
  fli_hello hello;
  memset(body + 8, 'x', 65);
  memcpy(body + 73, "\x05\x00\x06\x01", 4);
  cr_assert_eq(fli_parse_hello(&hello, body, 77), FL_E_TOO_LARGE);
}

Test(messages, welcome_ranges)
{
  EXPECT(welcome, FL_E_RANGE, m.version = 0);
  EXPECT(welcome, FL_E_RANGE, m.version = FLI_PROTOCOL_MAX + 1);
  EXPECT(welcome, FL_E_FORMAT, m.job[0] = '\0');
  EXPECT(welcome, FL_E_RANGE, m.codec = 0);
  EXPECT(welcome, FL_OK, m.bits = 8);
  EXPECT(welcome, FL_E_RANGE, m.bits = 9);
  EXPECT(welcome, FL_E_RANGE, m.granularity = 65536);
  EXPECT(welcome, FL_E_NOT_FINITE, m.clip = NAN);
  EXPECT(welcome, FL_E_RANGE, m.clip = -1);
  EXPECT(welcome, FL_OK, m.round = 0);
  EXPECT(welcome, FL_E_RANGE, m.rounds = 0);
}

static void welcome_table(fli_welcome *m, uint32_t bits, const uint8_t *table,
                          size_t n)
{
  wire_add_table(m);
  m->bits = bits;
  m->table = table;
  m->table_size = n;
  m->granularity = table[n - 1];
}

Test(messages, welcome_table_rises_from_0_to_the_granularity)
{
  static const uint8_t flat[] = {0, 2, 2, 7}, falling[] = {0, 3, 2, 7},
                       late[] = {1, 2, 3, 7}, good[] = {0, 1, 6, 255};
  uint8_t all[256];
  for (int i = 0; i < 256; i++)
    all[i] = (uint8_t)i;
  EXPECT(welcome, FL_OK, wire_add_table(&m));
  EXPECT(welcome, FL_OK, welcome_table(&m, 2, good, 4));
  EXPECT(welcome, FL_OK, welcome_table(&m, 8, all, 256));
  EXPECT(welcome, FL_E_FORMAT, welcome_table(&m, 2, flat, 4));
  EXPECT(welcome, FL_E_FORMAT, welcome_table(&m, 2, falling, 4));
  EXPECT(welcome, FL_E_FORMAT, welcome_table(&m, 2, late, 4));
  EXPECT(welcome, FL_E_FORMAT, (wire_add_table(&m), m.granularity = 8));
}

Test(messages, welcome_table_has_2_to_the_bits_values)
{
  static const uint8_t table[] = {0, 1, 2, 3, 4};
  uint8_t big[257] = {0};
  EXPECT(welcome, FL_E_FORMAT, welcome_table(&m, 2, table, 3));
  EXPECT(welcome, FL_E_FORMAT, welcome_table(&m, 2, table, 5));
  EXPECT(welcome, FL_E_RANGE, welcome_table(&m, 8, big, sizeof big));
}

Test(messages, welcome_description_is_bounded)
{
  uint8_t *text = calloc(1, (256 << 10) + 1);
  EXPECT(welcome, FL_OK,
         (m.description = text, m.description_size = 256 << 10));
  EXPECT(welcome, FL_E_RANGE,
         (m.description = text, m.description_size = (256 << 10) + 1));
  free(text);
}

Test(messages, plan_ranges)
{
  EXPECT(plan, FL_E_RANGE, m.round = 0);
  EXPECT(plan, FL_OK, m.round = LAST_ROUND);
  EXPECT(plan, FL_E_RANGE, m.round = LAST_ROUND + 1);
  EXPECT(plan, FL_E_RANGE, m.slot = 8);
  EXPECT(plan, FL_E_RANGE, m.slots = 0);
  EXPECT(plan, FL_OK, (m.slots = 65535, m.slot = 65534));
  EXPECT(plan, FL_E_RANGE, m.slots = 65536);
  EXPECT(plan, FL_OK, m.weight_cap = 0);
  EXPECT(plan, FL_E_RANGE, m.epochs = 0);
  EXPECT(plan, FL_OK, m.epochs = 1000000);
  EXPECT(plan, FL_E_RANGE, m.epochs = 1000001);
  EXPECT(plan, FL_E_RANGE, m.batch_size = 0);
  EXPECT(plan, FL_E_RANGE, m.batch_size = 1000001);
  EXPECT(plan, FL_OK, m.learning_rate = 0);
  EXPECT(plan, FL_E_RANGE, m.learning_rate = -0.1f);
  EXPECT(plan, FL_E_NOT_FINITE, m.learning_rate = INFINITY);
  EXPECT(plan, FL_OK, m.deadline_ms = LAST_MS);
  EXPECT(plan, FL_E_RANGE, m.deadline_ms = LAST_MS + 1);
  EXPECT(plan, FL_E_RANGE, m.scale_mode = 0);
  EXPECT(plan, FL_E_RANGE, m.scale_mode = 3);
  EXPECT(plan, FL_E_RANGE,
         (m.has_counted = 1, m.counted_round = LAST_ROUND + 1));
}

/* A PLAN of n keys, of which `tail` is the last, in place of the last two. */
static fl_status parse_some(fli_frame frame, const uint8_t tail[2], uint8_t n)
{
  fli_plan plan;
  uint8_t body[1024];
  memcpy(body, frame.body, frame.size);
  cr_assert_eq(body[0], 0xde); /* map 16 */
  body[2] = n;
  memcpy(body + frame.size - 4, tail, 2);
  return fli_parse_plan(&plan, body, frame.size - 2);
}

Test(messages, error_feedback_comes_as_a_whole_or_not_at_all)
{
  fli_bytes bytes;
  fli_plan plan;
  fli_welcome welcome;
  fli_bytes_init(&bytes, NULL);
  for (int has = 0; has <= 1; has++) {
    wire_plan(&plan);
    plan.has_counted = has;
    plan.counted_round = 9;
    plan.counted_attempt = 3;
    fli_bytes_clear(&bytes);
    cr_assert_eq(fli_write_plan(&bytes, &plan), FL_OK);
    fli_frame frame = frame_of(&bytes);
    cr_assert_eq(fli_parse_plan(&plan, frame.body, frame.size), FL_OK);
    for (uint8_t key = 17; has && key <= 18; key++)
      cr_expect_eq(parse_some(frame, (uint8_t[]){key, 1}, frame.body[2] - 1),
                   FL_E_FORMAT);
    cr_expect_eq(plan.has_counted, has);
    cr_expect_eq(plan.counted_round, has ? 9u : 0u);
    cr_expect_eq(plan.counted_attempt, has ? 3u : 0u);
    wire_welcome(&welcome);
    welcome.has_feedback = has;
    welcome.feedback_decay = 0.f;
    fli_bytes_clear(&bytes);
    cr_assert_eq(fli_write_welcome(&bytes, &welcome), FL_OK);
    frame = frame_of(&bytes);
    cr_assert_eq(fli_parse_welcome(&welcome, frame.body, frame.size), FL_OK);
    cr_expect_eq(welcome.has_feedback, has);
  }
  fli_bytes_free(&bytes);
}

Test(messages, plan_wants_seed_and_norms_together)
{
  EXPECT(plan, FL_E_FORMAT, m.noise_seed = NULL);
  EXPECT(plan, FL_E_FORMAT, m.norms = NULL);
  EXPECT(plan, FL_E_FORMAT, m.norms_size = 5);
}

Test(messages, norm_ranges)
{
  EXPECT(norm, FL_E_RANGE, m.round = 0);
  EXPECT(norm, FL_E_RANGE, m.samples = 0);
  EXPECT(norm, FL_E_RANGE, m.samples = MOST_SAMPLES + 1);
  EXPECT(norm, FL_E_FORMAT, m.norms_size = 1);
  EXPECT(norm, FL_OK, m.norms_size = 0);
}

Test(messages, metrics_ranges)
{
  EXPECT(metrics, FL_E_RANGE, m.round = 0);
  EXPECT(metrics, FL_E_NOT_FINITE, m.loss = (double)NAN);
  EXPECT(metrics, FL_E_NOT_FINITE, m.loss = -(double)INFINITY);
  EXPECT(metrics, FL_OK, m.correct = 1000);
  EXPECT(metrics, FL_E_RANGE, m.correct = 1001);
  EXPECT(metrics, FL_OK, m.count = m.correct = 0);
  EXPECT(metrics, FL_E_RANGE, m.count = MOST_SAMPLES + 1);
}

Test(messages, scale_ack_wait_and_reject_ranges)
{
  EXPECT(scale, FL_E_RANGE, m.round = 0);
  EXPECT(scale, FL_E_RANGE, m.clip = -2);
  EXPECT(scale, FL_E_FORMAT, m.norms_size = 3);
  EXPECT(ack, FL_OK, m.round = 0);
  EXPECT(ack, FL_OK, m.reason = 65535);
  EXPECT(ack, FL_E_RANGE, m.reason = 65536);
  EXPECT(ack, FL_E_FORMAT, m.text[0] = '\t');
  EXPECT(wait, FL_OK, m.wait_ms = 0);
  EXPECT(wait, FL_E_RANGE, m.wait_ms = UINT64_MAX);
  EXPECT(reject, FL_E_RANGE, m.reason = FL_REJECT_NONE);
}

Test(messages, manifest_ranges)
{
  EXPECT(manifest, FL_E_RANGE, m.kind = 0);
  EXPECT(manifest, FL_E_RANGE, m.kind = 5);
  EXPECT(manifest, FL_E_RANGE, m.total = 0);
  EXPECT(manifest, FL_OK, m.total = FLI_TRANSFER_MAX);
  EXPECT(manifest, FL_E_RANGE, m.total = FLI_TRANSFER_MAX + 1);
  EXPECT(manifest, FL_OK, m.chunk_size = 4096);
  EXPECT(manifest, FL_E_RANGE, m.chunk_size = 4095);
  EXPECT(manifest, FL_OK, m.chunk_size = 4 << 20);
  EXPECT(manifest, FL_E_RANGE, m.chunk_size = (4 << 20) + 1);
  EXPECT(manifest, FL_E_NOT_FINITE, m.loss = (double)INFINITY);
  EXPECT(manifest, FL_E_FORMAT, m.clamped_size = 5);
  EXPECT(manifest, FL_E_RANGE, m.round = 0);
  EXPECT(manifest, FL_OK, (m.kind = FLI_TRANSFER_MODEL, m.round = 0));
  EXPECT(manifest, FL_E_RANGE,
         (m.kind = FLI_TRANSFER_STEPS, m.base_version = m.model_version));
}

Test(messages, hashes_have_32_bytes)
{
  static const uint8_t body[] = {0x83, 1, 3, 2, 6, 3, 0xc4, 2, 8, 9};
  fli_evaluate evaluate;
  cr_assert_eq(fli_parse_evaluate(&evaluate, body, sizeof body), FL_E_DIM);
  cr_assert_str_eq(fl_last_error(),
                   "evaluate.model_hash: got 2 bytes, want 32");
}

Test(messages, missing_field_is_named)
{
  static const uint8_t body[] = {0x82, 1, 3, 2, 6};
  fli_evaluate evaluate;
  cr_assert_eq(fli_parse_evaluate(&evaluate, body, sizeof body), FL_E_FORMAT);
  cr_assert_str_eq(fl_last_error(), "evaluate.model_hash: is missing");
}

Test(messages, chunk_carries_its_bytes)
{
  fli_bytes bytes;
  fli_chunk want = {9, 65536, wire_key(), FLI_KEY_BYTES}, got;
  fli_bytes_init(&bytes, NULL);
  cr_assert_eq(fli_write_chunk(&bytes, &want), FL_OK);
  fli_frame frame = frame_of(&bytes);
  cr_assert_eq(fli_parse_chunk(&got, frame.body, frame.size), FL_OK);
  cr_assert_eq(got.transfer, 9);
  cr_assert_eq(got.offset, 65536);
  cr_assert_eq(got.size, FLI_KEY_BYTES);
  cr_assert_eq(memcmp(got.data, want.data, got.size), 0);
  fli_bytes_free(&bytes);
}

Test(messages, chunk_data_is_bounded)
{
  uint8_t *body = calloc(1, FLI_CHUNK_HEADER + FLI_CHUNK_MAX + 1);
  fli_chunk chunk;
  cr_assert_eq(fli_parse_chunk(&chunk, body, FLI_CHUNK_HEADER + FLI_CHUNK_MAX),
               FL_OK);
  cr_assert_eq(
      fli_parse_chunk(&chunk, body, FLI_CHUNK_HEADER + FLI_CHUNK_MAX + 1),
      FL_E_TOO_LARGE);
  free(body);
}

Test(messages, norms_on_the_grid_survive_the_wire)
{
  const float want[3] = {1.0f, 0.0f, 0x1.7ep+40f};
  float got[3];
  uint8_t data[6];
  fli_norms_to_bf16(data, want, 3);
  cr_assert_eq(fli_norms_from_bf16(got, 3, data, sizeof data), FL_OK);
  cr_assert_eq(memcmp(got, want, sizeof got), 0);
}

Test(messages, bad_norms_leave_the_output_alone)
{
  static const struct {
    uint16_t bits;
    fl_status want;
  } cases[] = {{0x7f80, FL_E_NOT_FINITE}, {0x7fc0, FL_E_NOT_FINITE},
               {0xff80, FL_E_NOT_FINITE}, {0xbf80, FL_E_RANGE},
               {0x8000, FL_E_RANGE},      {0x7f01, FL_E_RANGE},
               {0x7f7f, FL_E_RANGE}};
  for (size_t i = 0; i < FLI_COUNT_OF(cases); i++) {
    uint8_t data[4] = {0x80, 0x3f};
    float norms[2] = {7, 7};
    fli_store_u16(data + 2, cases[i].bits);
    cr_assert_eq(fli_norms_from_bf16(norms, 2, data, 4), cases[i].want);
    cr_assert_eq(norms[0], 7.0f);
  }
}

Test(messages, largest_norm_is_two_to_the_127)
{
  const uint8_t data[2] = {0x00, 0x7f};
  float norm = 0;
  cr_assert_eq(fli_norms_from_bf16(&norm, 1, data, 2), FL_OK);
  cr_assert_eq(norm, 0x1p127f);
}

Test(messages, norms_count_has_to_agree)
{
  const uint8_t data[4] = {0};
  float norms[3];
  cr_assert_eq(fli_norms_from_bf16(norms, 3, data, 4), FL_E_DIM);
  cr_assert_eq(fli_norms_from_bf16(norms, 1, data, 3), FL_E_DIM);
  cr_assert_eq(fli_norms_from_bf16(norms, 0, data, 0), FL_OK);
}

/* What parses after a mutation is written to bytes that parse to the same. */
Test(messages, mutated_messages_are_refused_or_stable)
{
  for (uint32_t seed = 1; seed <= 20000; seed++) {
    fli_rng rng;
    fli_bytes bytes, first, second;
    fli_rng_init(&rng, seed, FLI_RNG_TEST, 2, 0);
    fli_bytes_init(&bytes, NULL);
    fli_bytes_init(&first, NULL);
    fli_bytes_init(&second, NULL);
    cr_assert_eq(wire_sample(fli_rng_below(&rng, WIRE_SAMPLES), &bytes), FL_OK);
    for (uint32_t i = fli_rng_below(&rng, 4); i < 4; i++) {
      uint32_t at = fli_rng_below(&rng, (uint32_t)bytes.size - 8) + 8;
      bytes.data[at] = (uint8_t)fli_rng_u32(&rng);
    }
    fli_frame frame = frame_of(&bytes);
    if (wire_rewrite(&frame, &first) == FL_OK) {
      frame = frame_of(&first);
      cr_assert_eq(wire_rewrite(&frame, &second), FL_OK, "seed %u", seed);
      cr_assert_eq(second.size, first.size, "seed %u", seed);
      cr_assert_eq(memcmp(second.data, first.data, first.size), 0, "seed %u",
                   seed);
    }
    fli_bytes_free(&bytes);
    fli_bytes_free(&first);
    fli_bytes_free(&second);
  }
}

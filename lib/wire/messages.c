/* SPDX-License-Identifier: Apache-2.0 */
/* The protocol's messages: one table of fields each (schema.h), what a table
 * cannot say in a check function, and CHUNK, which is not a map. The meaning:
 * docs/design/protocol.md. A row is (struct, key, member, range), optional ones
 * begin with OPT_. */
#include "wire/messages.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/error.h"
#include "wire/schema.h"

/* Rounds: what fli_rng_init keeps whole. Milliseconds: what fits in ns. Passes:
 * epochs and batch size. Reasons: newer ones than the table's are fine. */
#define MAX_ROUND ((UINT64_C(1) << 48) - 1)
#define MAX_MS (UINT64_MAX / 1000000)
#define MAX_PASSES 1000000
#define MAX_REASON UINT16_MAX
#define MAX_SAMPLES (UINT64_C(1) << 40)
#define MAX_DESCRIPTION (256 << 10)
#define MAX_BITS 8
#define MAX_SLOT 65534
#define MAX_COHORT 63

/* 0 */
#define FITS(name) (0 * sizeof(char[sizeof(name) <= FLI_FIELD_NAME ? 1 : -1]))
#define ROW(msg, number, member, what, optional, ...)                 \
  {                                                                   \
    .name = #msg "." #member, .key = number + FITS(#msg "." #member), \
    .kind = (what) | ((optional) ? FLI_FIELD_OPTIONAL : 0),           \
    .offset = offsetof(struct fli_##msg, member), __VA_ARGS__         \
  }
#define SIZE_OF(msg, member) .size = sizeof(((struct fli_##msg *)0)->member)
#define U32(msg, key, member, min, max) \
  ROW(msg, key, member, FLI_FIELD_U32, 0, .lo = min, .hi = max)
#define U64(msg, key, member, min, max) \
  ROW(msg, key, member, FLI_FIELD_U64, 0, .lo = min, .hi = max)
#define OPT_U32(msg, key, member, max) \
  ROW(msg, key, member, FLI_FIELD_U32, 1, .lo = 0, .hi = max)
#define OPT_U64(msg, key, member, flag)                     \
  ROW(msg, key, member, FLI_FIELD_U64, 1, .hi = UINT64_MAX, \
      .flag_offset = offsetof(struct fli_##msg, flag))
#define F32(msg, key, member) ROW(msg, key, member, FLI_FIELD_F32, 0, .lo = 0)
#define OPT_F32(msg, key, member) \
  ROW(msg, key, member, FLI_FIELD_F32, 1, .lo = 0)
#define OPT_FLAGGED(msg, key, member, what, max, flag) \
  ROW(msg, key, member, what, 1, .hi = max,            \
      .flag_offset = offsetof(struct fli_##msg, flag))
#define OPT_F64(msg, key, member) \
  ROW(msg, key, member, FLI_FIELD_F64, 1, .lo = 0)
#define TEXT(msg, key, member) \
  ROW(msg, key, member, FLI_FIELD_TEXT, 0, SIZE_OF(msg, member))
#define OPT_TEXT(msg, key, member) \
  ROW(msg, key, member, FLI_FIELD_TEXT, 1, SIZE_OF(msg, member))
#define ARRAY(msg, key, member) \
  ROW(msg, key, member, FLI_FIELD_ARRAY, 0, SIZE_OF(msg, member))
#define OPT_ARRAY(msg, key, member, flag)                         \
  ROW(msg, key, member, FLI_FIELD_ARRAY, 1, SIZE_OF(msg, member), \
      .flag_offset = offsetof(struct fli_##msg, flag))
/* 32 bytes, borrowed */
#define KEY32(msg, key, member, optional)                             \
  ROW(msg, key, member, FLI_FIELD_KEY, optional, .lo = FLI_KEY_BYTES, \
      .hi = FLI_KEY_BYTES)
#define VIEW(msg, key, member, what, optional, max)         \
  ROW(msg, key, member, what, optional, .lo = 0, .hi = max, \
      .size = offsetof(struct fli_##msg, member##_size))
#define NORMS(msg, key, optional) \
  VIEW(msg, key, norms, FLI_FIELD_U16S, optional, FLI_FRAME_MAX_CONTROL)

static const fli_field hello_fields[] = {
    U32(hello, 1, version_min, 1, UINT32_MAX),
    U32(hello, 2, version_max, 1, UINT32_MAX),
    TEXT(hello, 3, client_id),
    OPT_TEXT(hello, 4, job),
    U64(hello, 5, capabilities, 0, UINT64_MAX),
    U64(hello, 6, samples, 1, MAX_SAMPLES),
    OPT_TEXT(hello, 7, device_class),
    OPT_ARRAY(hello, 8, schema, has_schema),
    OPT_ARRAY(hello, 9, token, has_token),
    OPT_U64(hello, 10, model_version, has_model),
    OPT_ARRAY(hello, 11, model_hash, has_model),
    OPT_U32(hello, 12, depth, UINT32_MAX),
    OPT_ARRAY(hello, 13, public_key, has_key),
    OPT_ARRAY(hello, 14, signature, has_signature),
    OPT_ARRAY(hello, 15, server_key, has_server_key),
    OPT_U32(hello, 20, lacks, UINT32_MAX),
};

static const fli_field challenge_fields[] = {
    ARRAY(challenge, 1, nonce),
};

static const fli_field norm_fields[] = {
    U64(norm, 1, round, 1, MAX_ROUND),
    U32(norm, 2, attempt, 0, UINT32_MAX),
    NORMS(norm, 3, 0),
    U64(norm, 4, samples, 1, MAX_SAMPLES),
};

static const fli_field metrics_fields[] = {
    U64(metrics, 1, round, 1, MAX_ROUND),
    U64(metrics, 2, model_version, 0, UINT64_MAX),
    ROW(metrics, 3, loss, FLI_FIELD_ANY, 0, .lo = 0),
    U64(metrics, 4, correct, 0, MAX_SAMPLES),
    U64(metrics, 5, count, 0, MAX_SAMPLES),
    OPT_FLAGGED(metrics, 6, cohort, FLI_FIELD_U32, MAX_COHORT, is_probe),
    OPT_FLAGGED(metrics, 7, attempt, FLI_FIELD_U32, UINT32_MAX, is_probe),
};

static const fli_field decline_fields[] = {
    U64(decline, 1, round, 0, MAX_ROUND),
    U32(decline, 2, attempt, 0, UINT32_MAX),
    OPT_U32(decline, 3, forgets, 1),
};

static const fli_field get_model_fields[] = {
    U64(get_model, 1, version, 0, UINT64_MAX),
};

static const fli_field get_slice_fields[] = {
    U64(get_slice, 1, round, 1, MAX_ROUND),
    U32(get_slice, 2, attempt, 0, UINT32_MAX),
    VIEW(get_slice, 3, request, FLI_FIELD_VIEW, 0, FLI_FRAME_MAX_CONTROL),
};

static const fli_field slice_msg_fields[] = {
    U64(slice_msg, 1, round, 1, MAX_ROUND),
    U32(slice_msg, 2, attempt, 0, UINT32_MAX),
    VIEW(slice_msg, 3, answer, FLI_FIELD_VIEW, 0, FLI_FRAME_MAX_CONTROL),
};

static const fli_field welcome_fields[] = {
    U32(welcome, 1, version, FLI_PROTOCOL_MIN, FLI_PROTOCOL_MAX),
    TEXT(welcome, 2, job),
    ARRAY(welcome, 3, token),
    ARRAY(welcome, 4, schema),
    VIEW(welcome, 5, description, FLI_FIELD_VIEW, 1, MAX_DESCRIPTION),
    U32(welcome, 6, codec, 1, UINT16_MAX),
    U32(welcome, 7, thc_mode, 0, UINT16_MAX),
    U32(welcome, 8, bits, 0, MAX_BITS),
    U32(welcome, 9, granularity, 0, UINT16_MAX),
    F32(welcome, 10, clip),
    ARRAY(welcome, 11, rotation_seed),
    U64(welcome, 12, round, 0, MAX_ROUND),
    U64(welcome, 13, rounds, 1, MAX_ROUND),
    VIEW(welcome, 14, table, FLI_FIELD_VIEW, 1, 1 << MAX_BITS),
    OPT_FLAGGED(welcome, 15, feedback_decay, FLI_FIELD_F32, 0, has_feedback),
    OPT_U32(welcome, 31, has_status, 1),
};

static const fli_field plan_fields[] = {
    U64(plan, 1, round, 1, MAX_ROUND),
    U32(plan, 2, attempt, 0, UINT32_MAX),
    U32(plan, 3, slot, 0, MAX_SLOT),
    U32(plan, 4, slots, 1, MAX_SLOT + 1),
    U64(plan, 5, weight_cap, 0, MAX_SAMPLES),
    U32(plan, 6, epochs, 1, MAX_PASSES),
    U32(plan, 7, batch_size, 1, MAX_PASSES),
    F32(plan, 8, learning_rate),
    U64(plan, 9, seed, 0, UINT64_MAX),
    U64(plan, 10, model_version, 0, UINT64_MAX),
    ARRAY(plan, 11, model_hash),
    U64(plan, 12, deadline_ms, 0, MAX_MS),
    U32(plan, 13, scale_mode, 1, 2),
    KEY32(plan, 14, noise_seed, 1),
    NORMS(plan, 15, 1),
    OPT_F32(plan, 16, clip),
    OPT_FLAGGED(plan, 17, counted_round, FLI_FIELD_U64, MAX_ROUND, has_counted),
    OPT_FLAGGED(plan, 18, counted_attempt, FLI_FIELD_U32, UINT32_MAX,
                has_counted),
    OPT_U32(plan, 19, first_active, FLI_MAX_MODULES - 1),
    VIEW(plan, 20, freeze_plan, FLI_FIELD_VIEW, 1, FLI_MAX_FREEZE_PLAN),
    OPT_U32(plan, 21, freeze_reports, UINT16_MAX),
    OPT_FLAGGED(plan, 22, cohort, FLI_FIELD_U32, MAX_COHORT, has_cohort),
    OPT_U32(plan, 24, demands, UINT32_MAX),
    OPT_U32(plan, 25, scale_round, UINT32_MAX),
    OPT_ARRAY(plan, 26, control_hash, has_control),
    VIEW(plan, 28, slices, FLI_FIELD_VIEW, 1, FLI_MAX_SLICES_PLAN),
    OPT_F32(plan, 30, prox_mu),
};

static const fli_field scale_msg_fields[] = {
    U64(scale_msg, 1, round, 1, MAX_ROUND),
    U32(scale_msg, 2, attempt, 0, UINT32_MAX),
    KEY32(scale_msg, 3, noise_seed, 0),
    NORMS(scale_msg, 4, 0),
    F32(scale_msg, 5, clip),
    U64(scale_msg, 6, deadline_ms, 0, MAX_MS),
};

static const fli_field ack_fields[] = {
    U64(ack, 1, round, 0, MAX_ROUND),
    U32(ack, 2, attempt, 0, UINT32_MAX),
    U32(ack, 3, reason, 0, MAX_REASON),
    OPT_TEXT(ack, 4, text),
};

static const fli_field evaluate_fields[] = {
    U64(evaluate, 1, round, 1, MAX_ROUND),
    U64(evaluate, 2, model_version, 0, UINT64_MAX),
    ARRAY(evaluate, 3, model_hash),
    OPT_FLAGGED(evaluate, 4, cohort, FLI_FIELD_U32, MAX_COHORT, is_probe),
    OPT_FLAGGED(evaluate, 5, attempt, FLI_FIELD_U32, UINT32_MAX, is_probe),
};

static const fli_field wait_fields[] = {
    U64(wait, 1, wait_ms, 0, MAX_MS),
    OPT_TEXT(wait, 2, text),
};

static const fli_field reject_fields[] = {
    U32(reject, 1, reason, 1, MAX_REASON),
    OPT_TEXT(reject, 2, text),
};

static const fli_field done_fields[] = {
    U64(done, 1, rounds, 0, MAX_ROUND),
    U64(done, 2, model_version, 0, UINT64_MAX),
    ARRAY(done, 3, model_hash),
};

static const fli_field manifest_fields[] = {
    U64(manifest, 1, transfer, 0, UINT64_MAX),
    U32(manifest, 2, kind, FLI_TRANSFER_UPDATE, FLI_TRANSFER_PROBE),
    U64(manifest, 3, total, 1, FLI_TRANSFER_MAX),
    U32(manifest, 4, chunk_size, 0, FLI_CHUNK_MAX),
    ARRAY(manifest, 5, hash),
    U64(manifest, 6, round, 0, MAX_ROUND),
    U32(manifest, 7, attempt, 0, UINT32_MAX),
    OPT_F64(manifest, 8, loss),
    U64(manifest, 9, model_version, 0, UINT64_MAX),
    U64(manifest, 10, base_version, 0, UINT64_MAX),
    VIEW(manifest, 11, clamped, FLI_FIELD_U16S, 1, FLI_FRAME_MAX_CONTROL),
    OPT_FLAGGED(manifest, 12, report_module, FLI_FIELD_U32, UINT32_MAX,
                has_report),
    OPT_FLAGGED(manifest, 13, report_value, FLI_FIELD_ANY, 0, has_report),
    OPT_FLAGGED(manifest, 14, cohort, FLI_FIELD_U32, MAX_COHORT, has_cohort),
    OPT_U32(manifest, 24, slices_size, UINT32_MAX),
    OPT_ARRAY(manifest, 25, signature, has_signature),
};

static const fli_field missing_fields[] = {
    U64(missing, 1, transfer, 0, UINT64_MAX),
    VIEW(missing, 2, ranges, FLI_FIELD_VIEW, 0, FLI_MAX_GAPS *FLI_RANGE_BYTES),
};

static void check_hello(fli_msg_reader *reader, const void *message)
{
  const fli_hello *hello = message;
  if (hello->version_max < hello->version_min)
    fli_reader_fail(reader, FL_E_RANGE,
                    "hello.version_max: is below version_min");
}

static void check_metrics(fli_msg_reader *reader, const void *message)
{
  const fli_metrics *metrics = message;
  if (metrics->correct > metrics->count)
    fli_reader_fail(reader, FL_E_RANGE, "metrics.correct: is above count");
  if (!metrics->is_probe && !isfinite(metrics->loss))
    fli_reader_fail(reader, FL_E_NOT_FINITE, "metrics.loss: is not finite");
}

/* Which codecs have a table is for higher layers to know. */
static void check_welcome(fli_msg_reader *reader, const void *message)
{
  const fli_welcome *welcome = message;
  const uint8_t *table = welcome->table;
  const size_t n = (size_t)1 << welcome->bits;
  if (!table) return;
  if (welcome->table_size != n) {
    fli_reader_fail(reader, FL_E_FORMAT,
                    "welcome.table: is not of 2^bits values");
    return;
  }
  int is_rising = table[0] == 0 && table[n - 1] == welcome->granularity;
  for (size_t i = 1; i < n; i++)
    is_rising = is_rising && table[i] > table[i - 1];
  if (!is_rising)
    fli_reader_fail(reader, FL_E_FORMAT,
                    "welcome.table: does not rise from 0 to granularity");
}

static void check_plan(fli_msg_reader *reader, const void *message)
{
  const fli_plan *plan = message;
  if (plan->slot >= plan->slots)
    fli_reader_fail(reader, FL_E_RANGE, "plan.slot: is not below slots");
  if (plan->prox_mu > 1e6f)
    fli_reader_fail(reader, FL_E_RANGE, "plan.prox_mu: is above 1e6");
}

static void check_manifest(fli_msg_reader *reader, const void *message)
{
  const fli_manifest *manifest = message;
  if (manifest->chunk_size < FLI_CHUNK_MIN)
    fli_reader_fail(reader, FL_E_RANGE, "manifest.chunk_size: is too small");
  if (manifest->kind == FLI_TRANSFER_UPDATE && manifest->round == 0)
    fli_reader_fail(reader, FL_E_RANGE, "manifest.round: got 0 for an update");
  if (manifest->slices_size >= manifest->total)
    fli_reader_fail(reader, FL_E_RANGE,
                    "manifest.slices_size: is not below total");
  if (manifest->kind == FLI_TRANSFER_STEPS &&
      manifest->base_version >= manifest->model_version)
    fli_reader_fail(reader, FL_E_RANGE,
                    "manifest.base_version: is not below model_version");
}

#define SCHEMA(msg, number, keys, check_fn)                           \
  static const fli_schema msg##_schema = {#msg,                       \
                                          number,                     \
                                          sizeof(struct fli_##msg),   \
                                          msg##_fields,               \
                                          FLI_COUNT_OF(msg##_fields), \
                                          keys,                       \
                                          check_fn};
#define PARSE(name, msg)                                                     \
  fl_status fli_parse_##name(struct fli_##msg *message, const uint8_t *body, \
                             size_t n)                                       \
  {                                                                          \
    return fli_schema_parse(&msg##_schema, message, body, n);                \
  }
#define WRITE(name, msg)                                                      \
  fl_status fli_write_##name(fli_bytes *out, const struct fli_##msg *message) \
  {                                                                           \
    return fli_schema_write(&msg##_schema, msg##_schema.type, out, message);  \
  }
#define MESSAGE(name, msg, number, keys, check_fn) \
  SCHEMA(msg, number, keys, check_fn) PARSE(name, msg) WRITE(name, msg)

MESSAGE(hello, hello, FLI_MSG_HELLO, 1u << 10 | 1u << 11, check_hello)
MESSAGE(norm, norm, FLI_MSG_NORM, 0, NULL)
MESSAGE(metrics, metrics, FLI_MSG_METRICS, 0, check_metrics)
MESSAGE(get_model, get_model, FLI_MSG_GET_MODEL, 0, NULL)
MESSAGE(get_slice, get_slice, FLI_MSG_GET_SLICE, 0, NULL)
MESSAGE(slice_msg, slice_msg, FLI_MSG_SLICE, 0, NULL)
MESSAGE(welcome, welcome, FLI_MSG_WELCOME, 0, check_welcome)
MESSAGE(plan, plan, FLI_MSG_PLAN, 1u << 14 | 1u << 15, check_plan)
MESSAGE(scale, scale_msg, FLI_MSG_SCALE, 0, NULL)
MESSAGE(ack, ack, FLI_MSG_ACK, 0, NULL)
MESSAGE(evaluate, evaluate, FLI_MSG_EVALUATE, 0, NULL)
MESSAGE(wait, wait, FLI_MSG_WAIT, 0, NULL)
MESSAGE(reject, reject, FLI_MSG_REJECT, 0, NULL)
MESSAGE(done, done, FLI_MSG_DONE, 0, NULL)
MESSAGE(challenge, challenge, FLI_MSG_CHALLENGE, 0, NULL)
MESSAGE(manifest, manifest, FLI_MSG_MANIFEST, 0, check_manifest)
MESSAGE(missing, missing, FLI_MSG_STATUS, 0, NULL)
SCHEMA(decline, FLI_MSG_DECLINE, 0, NULL)
PARSE(decline, decline)

fl_status fli_write_decline(fli_bytes *out, uint8_t type,
                            const fli_decline *message)
{
  assert(type == FLI_MSG_DECLINE || type == FLI_MSG_BYE);
  return fli_schema_write(&decline_schema, type, out, message);
}

fl_status fli_parse_chunk(fli_chunk *message, const uint8_t *body, size_t n)
{
  if (n <= FLI_CHUNK_HEADER)
    return fli_error(FL_E_TRUNCATED, "chunk: got %zu bytes, want > %d", n,
                     FLI_CHUNK_HEADER);
  if (n - FLI_CHUNK_HEADER > FLI_CHUNK_MAX)
    return fli_error(FL_E_TOO_LARGE, "chunk: got %zu bytes of data, want <= %d",
                     n - FLI_CHUNK_HEADER, FLI_CHUNK_MAX);
  message->transfer = fli_load_u64(body);
  message->offset = fli_load_u64(body + 8);
  message->data = body + FLI_CHUNK_HEADER;
  message->size = n - FLI_CHUNK_HEADER;
  return FL_OK;
}

fl_status fli_write_chunk(fli_bytes *out, const fli_chunk *message)
{
  fl_status st;
  uint8_t header[FLI_CHUNK_HEADER];
  size_t begin = fli_frame_begin(out, FLI_MSG_CHUNK, &st);
  fli_store_u64(header, message->transfer);
  fli_store_u64(header + 8, message->offset);
  if (st == FL_OK) st = fli_bytes_append(out, header, sizeof header);
  if (st == FL_OK && message->data)
    st = fli_bytes_append(out, message->data, message->size);
  else if (st == FL_OK && (st = fli_bytes_reserve(out, message->size)) == FL_OK)
    out->size += message->size;
  return fli_frame_end(out, begin, st);
}

/* The largest norm of fl_scale, as bf16. */
enum { BF16_2_127 = 0x7f00 };

fl_status fli_norms_from_bf16(float *norms, uint64_t n, const uint8_t *data,
                              size_t size)
{
  if (size % 2 != 0 || size / 2 != n)
    return fli_error(FL_E_DIM, "norms: got %zu bytes, want 2 for each block",
                     size);
  for (uint64_t i = 0; i < n; i++) {
    uint16_t bits = fli_load_u16(data + 2 * i);
    if ((bits & 0x7f80) == 0x7f80)
      return fli_error(FL_E_NOT_FINITE, "norms: one is not finite");
    if (bits & 0x8000) return fli_error(FL_E_RANGE, "norms: one is negative");
    if (bits > BF16_2_127)
      return fli_error(FL_E_RANGE, "norms: one is above 2^127");
  }
  for (uint64_t i = 0; i < n; i++)
    norms[i] = fli_f32_from_bf16(fli_load_u16(data + 2 * i));
  return FL_OK;
}

void fli_norms_to_bf16(uint8_t *data, const float *norms, uint64_t n)
{
  for (uint64_t i = 0; i < n; i++)
    fli_store_u16(data + 2 * i, fli_bf16_from_f32_up(norms[i]));
}

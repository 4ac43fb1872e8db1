/* SPDX-License-Identifier: Apache-2.0 */
/* A chain of step records, applied to a paged model one tensor at a time. Of a
 * record only its head is in memory. Its payload has one segment behind the
 * other, and what one of them is as a sum, or an update, of its own is decoded
 * by the code that decodes the whole. */
#include <inttypes.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "client/paged.h"
#include "compress/partial.h"
#include "compress/update.h"

enum {
  HEAD_FIELDS = 512, /* more than the head has but for its norms */
  TAIL = 16,
  SUM_TALLIES = FLI_PREAMBLE_BYTES /* where a sum says how many it has */
};

/* A record, and where its payload lies in the chain. */
typedef struct walk {
  fl_paged *paged;
  fl_context *context;
  uint64_t at, size; /* of the chain: read so far, all */
  fli_step_record step;
  float *norms;
  uint8_t *head;
  size_t head_size;
  fli_agreed agreed;
  uint64_t payload, payload_size;
  /* A sum: `tallies` in front of the lanes; an update: header and mask. */
  int is_sum;
  uint8_t *front;
  size_t front_size;
  uint32_t n_tallies;
  size_t tally_size;
  uint64_t next; /* where the next segment begins in the payload */
  uint32_t from, to;
} walk;

static const fli_layout *layout_of(const walk *w)
{
  return &w->paged->client->compressor->layout;
}

static fl_status get(const walk *w, uint64_t at, uint8_t *out, size_t n)
{
  if (at > w->size || n > w->size - at)
    return fli_error(FL_E_TRUNCATED, "step: the chain ends in a record");
  return fli_pages_get(w->paged, FLI_REGION_STEPS, at, out, n);
}

/* ---- records ---- */

/* Length of the bin at the reader's place, which need not be at hand in whole.
 */
static fl_status read_bin_header(fli_msg_reader *reader, uint64_t *n)
{
  const size_t left = (size_t)(reader->end - reader->at);
  const uint8_t *at = reader->at;
  const size_t bytes = left < 1       ? 0
                       : at[0] == 0xc4 ? 1
                       : at[0] == 0xc5 ? 2
                       : at[0] == 0xc6 ? 4
                                       : 0;
  if (bytes == 0 || left < 1 + bytes)
    return fli_error(FL_E_FORMAT, "step: its payload is no bin");
  *n = 0;
  for (size_t i = 1; i <= bytes; i++)
    *n = *n << 8 | at[i];
  reader->at += 1 + bytes;
  return FL_OK;
}

/* Fields come in the order that fli_step_write has. */
static fl_status read_head(walk *w, fli_fields *fields, fli_msg_reader *reader)
{
  uint32_t key = 0, seen = 0;
  while (fli_fields_next(fields, &key)) {
    if (key == FLI_STEP_PAYLOAD) break;
    seen += key >= 1 && key < FLI_STEP_PAYLOAD;
    fli_step_field(reader, fields, key, &w->step);
  }
  fl_status st = fli_reader_status(reader);
  if (st != FL_OK) return st;
  if (key != FLI_STEP_PAYLOAD || seen != FLI_STEP_PAYLOAD - 1 ||
      fields->left != 1)
    return fli_error(FL_E_FORMAT, "step: got other fields than a step's");
  st = read_bin_header(reader, &w->payload_size);
  w->payload = w->at + (uint64_t)(reader->at - w->head);
  return st;
}

static fl_status read_tail(walk *w)
{
  uint8_t tail[TAIL];
  fli_msg_reader reader;
  if (w->payload_size > w->size - w->payload)
    return fli_error(FL_E_TRUNCATED, "step: its payload ends early");
  const uint64_t at = w->payload + w->payload_size;
  const size_t n = w->size - at < TAIL ? (size_t)(w->size - at) : TAIL;
  fl_status st = get(w, at, tail, n);
  if (st != FL_OK) return st;
  fli_reader_init(&reader, tail, n);
  const uint32_t key = fli_reader_u32(&reader);
  w->step.scale.is_public = fli_reader_u32(&reader);
  st = fli_reader_status(&reader);
  if (st == FL_OK && key != FLI_STEP_FIELDS)
    st = fli_error(FL_E_FORMAT, "step: got other fields than a step's");
  w->at = at + (uint64_t)(reader.at - tail);
  return st;
}

static fl_status read_record(walk *w)
{
  fl_status st = FL_OK;
  fli_msg_reader reader;
  const uint64_t left = w->size - w->at;
  const size_t n = left < w->head_size ? (size_t)left : w->head_size;
  fl_scale *scale = &w->step.scale;
  FLI_TRY(get(w, w->at, w->head, n));
  fli_step_init(&w->step);
  fli_reader_init(&reader, w->head, n);
  fli_fields fields = fli_fields_begin(&reader);
  FLI_TRY(read_head(w, &fields, &reader));
  scale->n_norms = w->paged->client->n_norms;
  scale->norms = w->norms;
  FLI_TRY(fli_norms_from_bf16(w->norms, scale->n_norms, w->step.norms,
                              w->step.norms_size));
  FLI_TRY(read_tail(w));
out:
  return st;
}

/* ---- payloads ---- */

static fl_status read_front(walk *w)
{
  uint8_t magic[FLI_SUM_HEADER];
  const uint32_t n = layout_of(w)->n_segments;
  fl_status st = FL_OK;
  if (w->payload_size < sizeof magic)
    return fli_error(FL_E_TRUNCATED, "step: its payload is no header");
  FLI_TRY(get(w, w->payload, magic, sizeof magic));
  w->is_sum = fli_load_u32(magic) == FLI_SUM_MAGIC;
  w->front_size = fli_update_front(n);
  if (w->is_sum) {
    w->n_tallies = fli_load_u32(magic + SUM_TALLIES);
    w->tally_size = FLI_TALLY_HEADER + (w->agreed.slots + 7) / 8;
    if (w->n_tallies != 1 && w->n_tallies != n + 1)
      return fli_error(FL_E_FORMAT, "sum: tallies, got %u, want 1 or %u",
                       w->n_tallies, n + 1);
    w->front_size = FLI_SUM_HEADER + w->n_tallies * w->tally_size;
  }
  if (w->payload_size < w->front_size)
    return fli_error(FL_E_TRUNCATED, "step: its payload ends in the header");
  w->front = fli_alloc(w->context, w->front_size, 1);
  if (!w->front) return fli_nomem(w->front_size);
  FLI_TRY(get(w, w->payload, w->front, w->front_size));
  w->next = w->front_size;
out:
  return st;
}

/* What the header says before any segment is looked at. */
static fl_status check_front(const walk *w)
{
  fli_update update;
  uint64_t payload;
  if (!w->is_sum)
    return fli_update_read(&w->agreed, w->front, (size_t)w->payload_size,
                           &update);
  const fl_status st = fli_preamble_read(&w->agreed, FLI_SUM_MAGIC, w->front,
                                         w->front_size, &payload);
  if (st == FL_OK && payload != w->payload_size - w->front_size)
    return fli_error(FL_E_FORMAT, "sum: payload, got %" PRIu64, payload);
  return st;
}

static const uint8_t *tally_of(const walk *w, uint32_t segment)
{
  const size_t i = w->n_tallies == 1 ? 0 : 1 + (size_t)segment;
  return w->front + FLI_SUM_HEADER + i * w->tally_size;
}

/* Bytes of a segment in the payload. */
static fl_status size_of(const walk *w, uint32_t segment, size_t *n)
{
  enum { COUNT = 0, LANE_WEIGHT = 4 };
  *n = 0;
  if (!w->is_sum) {
    if (w->front[FLI_UPDATE_HEADER + segment])
      *n = fli_payload_size(&w->agreed, fli_agreed_count(&w->agreed, segment));
    return FL_OK;
  }
  const uint8_t *tally = tally_of(w, segment);
  const uint64_t total = fli_load_u32(tally + LANE_WEIGHT);
  if (fli_load_u32(tally + COUNT) > total ||
      total > w->agreed.compressor->codec->most_total(&w->agreed))
    return fli_error(FL_E_RANGE, "sum: segment %u, lane weight, got %" PRIu64,
                     segment, total);
  *n = fli_lanes_size(&w->agreed, segment, total);
  return FL_OK;
}

/* Headers of an update of this segment alone. */
static size_t update_front(const walk *w, uint32_t segment, uint8_t *out)
{
  enum { SLOT = 56, SAMPLES = 64 };
  uint8_t *mask = out + w->front_size; /* room for it is behind */
  const uint32_t n = layout_of(w)->n_segments;
  memset(mask, 0, n);
  mask[segment] = 1;
  return fli_update_write(&w->agreed, fli_load_u32(w->front + SLOT),
                          fli_load_u64(w->front + SAMPLES), mask, out);
}

/* Headers of a sum that has this segment alone: the others hold nothing. */
static size_t sum_front(const walk *w, uint32_t segment, size_t lanes,
                        uint8_t *out)
{
  const uint32_t n = layout_of(w)->n_segments;
  const uint32_t n_tallies = n == 1 ? w->n_tallies : n + 1;
  uint8_t *at = out + FLI_SUM_HEADER;
  fli_preamble_write(&w->agreed, FLI_SUM_MAGIC, lanes, out);
  fli_store_u32(out + SUM_TALLIES, n_tallies);
  fli_store_u32(out + SUM_TALLIES + 4,
                fli_load_u32(w->front + SUM_TALLIES + 4));
  memset(at, 0, n_tallies * w->tally_size);
  memcpy(at, w->front + FLI_SUM_HEADER, w->tally_size);
  if (n_tallies > 1)
    memcpy(at + (1 + (size_t)segment) * w->tally_size, tally_of(w, segment),
           w->tally_size);
  return FLI_SUM_HEADER + n_tallies * w->tally_size;
}

/* The mean of one segment, from `size` bytes of the payload. */
static fl_status decode(walk *w, uint32_t segment, size_t size, float *out)
{
  fl_status st = FL_OK;
  const uint32_t n = layout_of(w)->n_segments;
  fl_partial *partial = NULL;
  const size_t front = w->is_sum
                           ? FLI_SUM_HEADER + ((size_t)n + 1) * w->tally_size
                           : w->front_size + n;
  const size_t room = front + size;
  uint8_t *bytes = fli_alloc(w->context, room, 1);
  if (!bytes) return fli_nomem(room);
  const size_t used = w->is_sum ? sum_front(w, segment, size, bytes)
                                : update_front(w, segment, bytes);
  FLI_TRY(get(w, w->payload + w->next, bytes + used, size));
  FLI_TRY(fl_partial_new(&partial, w->agreed.compressor, &w->step.scale));
  if (w->is_sum)
    FLI_TRY(fl_partial_merge_bytes(partial, bytes, used + size));
  else
    FLI_TRY(fl_partial_add(partial, bytes, used + size));
  fli_free(w->context, bytes, room);
  bytes = NULL;
  st = fli_partial_decode_segment(partial, segment, out);
out:
  fli_free(w->context, bytes, room);
  fl_partial_free(partial);
  return st;
}

/* ---- weights ---- */

static fl_status step_segment(walk *w, uint32_t segment, float *change)
{
  fl_status st = FL_OK;
  size_t size = 0;
  const fli_segment *s = &layout_of(w)->segments[segment];
  const size_t n = (size_t)s->n;
  const float *before;
  FLI_TRY(size_of(w, segment, &size));
  if (size > w->payload_size - w->next)
    return fli_error(FL_E_TRUNCATED, "step: its payload ends in a segment");
  memset(change, 0, n * sizeof *change);
  if (size > 0) FLI_TRY(decode(w, segment, size, change));
  w->next += size;
  FLI_TRY(fli_paged_tensor(w->paged, w->from, segment, &before));
  fli_step_add(change, before, w->step.rate, n);
  const size_t bad = flk_kernels()->find_not_finite(change, n);
  if (bad != n)
    return fli_error(FL_E_NOT_FINITE, "step: weight %" PRIu64 " leaves float32",
                     s->offset + bad);
  st = fli_pages_put_floats(w->paged, w->to, s->offset, change, n);
out:
  return st;
}

static fl_status step_all(walk *w)
{
  fl_status st = FL_OK;
  const size_t room = (size_t)w->paged->tensor_room;
  float *change = fli_alloc(w->context, room, sizeof *change);
  if (!change) return fli_nomem(room * sizeof *change);
  FLI_TRY(read_front(w));
  FLI_TRY(check_front(w));
  for (uint32_t s = 0; s < layout_of(w)->n_segments; s++)
    FLI_TRY(step_segment(w, s, change));
  if (w->next != w->payload_size)
    st = fli_error(FL_E_FORMAT, "step: bytes behind its payload");
out:
  fli_free(w->context, w->front, w->front_size);
  w->front = NULL;
  fli_free(w->context, change, room * sizeof *change);
  return st;
}

static fl_status apply_one(walk *w, uint64_t version)
{
  fl_status st = read_record(w);
  if (st != FL_OK) return st;
  if (w->step.base_version != version)
    return fli_error(FL_E_STALE,
                     "step: base version, got %" PRIu64 ", want %" PRIu64,
                     w->step.base_version, version);
  st = fli_agreed_init(&w->agreed, w->paged->client->compressor,
                       &w->step.scale);
  if (st != FL_OK) return st;
  st = step_all(w);
  fli_agreed_free(&w->agreed);
  return st;
}

static fl_status apply_all(walk *w, uint64_t *version)
{
  fl_status st = FL_OK;
  fl_paged *paged = w->paged;
  w->norms = fli_alloc(w->context, (size_t)paged->client->n_norms,
                       sizeof *w->norms);
  w->head = fli_alloc(w->context, w->head_size, 1);
  if (!w->norms || !w->head) FLI_TRY(fli_nomem(w->head_size));
  do {
    FLI_TRY(apply_one(w, *version));
    (*version)++;
    /* Steps behind the first begin where it ended. */
    w->from = w->to;
    paged->is_in_place = 1;
  } while (w->at < w->size);
out:
  paged->is_in_place = 0;
  fli_free(w->context, w->norms,
           (size_t)paged->client->n_norms * sizeof *w->norms);
  fli_free(w->context, w->head, w->head_size);
  return st;
}

fl_status fli_paged_apply(fl_paged *paged, uint64_t size)
{
  fl_client *client = paged->client;
  uint64_t version = client->canonical.version;
  uint8_t hash[FLI_HASH_BYTES];
  walk w = {.paged = paged,
            .context = paged->context,
            .size = size,
            .head_size = HEAD_FIELDS + 2 * (size_t)client->n_norms,
            .from = paged->current,
            .to = paged->current ^ 1u};
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  fl_status st = apply_all(&w, &version);
  fli_fpguard_leave(&guard);
  if (st == FL_OK)
    st = fli_pages_hash(paged, w.to, fli_paged_bytes(paged), hash);
  if (st != FL_OK) return st;
  paged->current = w.to;
  client->canonical.version = version;
  memcpy(client->model_hash, hash, sizeof hash);
  return FL_OK;
}

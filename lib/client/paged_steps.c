/* SPDX-License-Identifier: Apache-2.0 */
/* A chain of step records, applied to a paged model a window at a time. Of a
 * record only its head is in memory, and of its payload what a few units are
 * decoded from. Headers are believed as far as memory is safe: that the result
 * is the model, its hash proves. */
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
  RECORDS_MOST = 64, /* each may write what it changes; beyond: a full copy */
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
  /* Header and mask of an update; of a sum the header alone: its tallies are
   * read one at a time. */
  int is_sum;
  fli_update update;
  fli_tally tally; /* of the segment at hand */
  fli_mean mean;
  float *change;  /* FLI_WINDOW_MAX */
  uint8_t *bytes; /* FLI_STEP_ROOM: of an update, then lanes */
  uint8_t *front;
  size_t front_size;
  uint32_t n_tallies;
  size_t tally_size;
  uint8_t *raw_tally; /* tally_size */
  uint64_t next;      /* where the next segment begins in the payload */
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
  const size_t bytes = left < 1        ? 0
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
  w->front_size = w->is_sum ? FLI_SUM_HEADER : fli_update_front(n);
  w->next = w->front_size;
  if (w->is_sum) {
    w->n_tallies = fli_load_u32(magic + SUM_TALLIES);
    if (w->n_tallies != 1 && w->n_tallies != n + 1)
      return fli_error(FL_E_FORMAT, "sum: tallies, got %u, want 1 or %u",
                       w->n_tallies, n + 1);
    w->next += (uint64_t)w->n_tallies * w->tally_size;
  }
  if (w->payload_size < w->next)
    return fli_error(FL_E_TRUNCATED, "step: its payload ends in the header");
  w->front = fli_alloc(w->context, w->front_size, 1);
  if (!w->front) return fli_nomem(w->front_size);
  FLI_TRY(get(w, w->payload, w->front, w->front_size));
out:
  return st;
}

/* What the header says before any segment is looked at. */
static fl_status check_front(walk *w)
{
  uint64_t payload;
  if (!w->is_sum)
    return fli_update_read(&w->agreed, w->front, (size_t)w->payload_size,
                           &w->update);
  const fl_status st = fli_preamble_read(&w->agreed, FLI_SUM_MAGIC, w->front,
                                         w->front_size, &payload);
  if (st == FL_OK && payload != w->payload_size - w->next)
    return fli_error(FL_E_FORMAT, "sum: payload, got %" PRIu64, payload);
  return st;
}

static fl_status read_tally(walk *w, uint32_t segment)
{
  const uint64_t i = w->n_tallies == 1 ? 0 : 1 + (uint64_t)segment;
  return get(w, w->payload + FLI_SUM_HEADER + i * w->tally_size, w->raw_tally,
             w->tally_size);
}

/* Bytes of a segment in the payload. */
static fl_status size_of(walk *w, uint32_t segment, size_t *n)
{
  enum { COUNT = 0, LANE_WEIGHT = 4 };
  *n = 0;
  if (!w->is_sum) {
    if (w->front[FLI_UPDATE_HEADER + segment])
      *n = fli_payload_size(&w->agreed, fli_agreed_count(&w->agreed, segment));
    return FL_OK;
  }
  const uint8_t *tally = w->raw_tally;
  const fl_status st = read_tally(w, segment);
  if (st != FL_OK) return st;
  const uint64_t total = fli_load_u32(tally + LANE_WEIGHT);
  if (fli_load_u32(tally + COUNT) > total ||
      total > w->agreed.compressor->codec->most_total(&w->agreed))
    return fli_error(FL_E_RANGE, "sum: segment %u, lane weight, got %" PRIu64,
                     segment, total);
  *n = fli_lanes_size(&w->agreed, segment, total);
  return FL_OK;
}

/* ---- weights ---- */

/* What one segment is decoded with: the tally in the header, which nobody has
 * looked at, or that of the one update. */
static fl_status open_segment(walk *w, uint32_t segment)
{
  const fli_codec *codec = w->agreed.compressor->codec;
  const uint64_t cap = w->agreed.weight_cap > 0 ? w->agreed.weight_cap : 1;
  const uint8_t *from = w->is_sum ? w->raw_tally : NULL;
  fli_tally *tally = &w->tally;
  memset(tally->slots, 0, w->tally_size - FLI_TALLY_HEADER);
  if (from) {
    *tally = (fli_tally){.count = fli_load_u32(from),
                         .lane_weight = fli_load_u32(from + 4),
                         .samples = fli_load_u64(from + 8),
                         .slots = tally->slots};
    memcpy(tally->slots, from + FLI_TALLY_HEADER,
           w->tally_size - FLI_TALLY_HEADER);
  } else {
    *tally =
        (fli_tally){.count = 1,
                    .lane_weight = 1,
                    .samples = fli_agreed_weight(&w->agreed, w->update.samples),
                    .slots = tally->slots};
    tally->slots[w->update.slot / 8] |= (uint8_t)(1u << (w->update.slot % 8));
  }
  uint32_t count = 0;
  for (uint32_t slot = 0; slot < w->agreed.slots; slot++)
    count += (uint32_t)fli_has_slot(tally, slot);
  if (count != tally->count || tally->lane_weight < count ||
      tally->lane_weight > codec->most_total(&w->agreed) ||
      tally->samples < tally->lane_weight ||
      tally->samples / cap > tally->lane_weight)
    return fli_error(FL_E_FORMAT, "step: segment %u, its tally", segment);
  w->mean.tally = tally;
  w->mean.segment = segment;
  w->mean.width = codec->lane_width(&w->agreed, tally->lane_weight);
  return fli_mean_begin(&w->mean);
}

/* Lanes of `n` coordinates, from coordinate `first` of the segment on. */
static fl_status get_lanes(walk *w, uint64_t first, size_t n)
{
  const fli_agreed *agreed = &w->agreed;
  const fli_codec *codec = agreed->compressor->codec;
  const uint32_t width = w->mean.width, segment = w->mean.segment;
  uint8_t *lanes = w->bytes + FLI_STEP_UNITS * FLI_UNIT_MAX * sizeof(float);
  w->mean.lanes = lanes;
  w->mean.skip = fli_lane_bytes(width, first);
  if (w->is_sum) {
    const fl_status st = get(w, w->payload + w->next + w->mean.skip, lanes,
                             fli_lane_bytes(width, n));
    if (st != FL_OK) return st;
    const uint64_t most =
        codec->lane_limit(agreed, segment, w->tally.lane_weight);
    if (agreed->compressor->kernels->lane_max(lanes, width, n) > most)
      return fli_error(FL_E_RANGE, "sum: segment %u, a lane is too great",
                       segment);
    return FL_OK;
  }
  const uint8_t *src = w->bytes;
  const uint32_t weight = 1;
  const fli_addends addends = {.src = &src,
                               .weights = &weight,
                               .count = 1,
                               .segment = segment,
                               .first = 0,
                               .n = n};
  const uint64_t at = w->payload + w->next + fli_payload_size(agreed, first);
  const fl_status st = get(w, at, w->bytes, fli_payload_size(agreed, n));
  if (st != FL_OK) return st;
  memset(lanes, 0, fli_lane_bytes(width, n));
  if (n > 0 && codec->add(agreed, &addends, lanes, width))
    return fli_error(FL_E_RANGE, "update: segment %u, a value above its norm",
                     segment);
  return FL_OK;
}

/* What the step changes in a window, or zeros. */
static fl_status decode_window(walk *w, const fli_window *window)
{
  const fli_segment *s = &layout_of(w)->segments[w->mean.segment];
  const uint64_t *starts = w->agreed.starts;
  w->mean.out = w->change;
  w->mean.out_first = window->offset;
  for (uint64_t unit = window->first; unit < window->last;) {
    uint64_t last = unit + FLI_STEP_UNITS;
    if (last > window->last) last = window->last;
    fl_status st = get_lanes(w, starts[unit] - starts[s->first_unit],
                             (size_t)(starts[last] - starts[unit]));
    if (st == FL_OK) st = fli_mean_units(&w->mean, unit, last);
    if (st != FL_OK) return st;
    unit = last;
  }
  return FL_OK;
}

static fl_status step_window(walk *w, const fli_window *window, int is_held)
{
  fl_status st = FL_OK;
  const float *before;
  if (is_held)
    FLI_TRY(decode_window(w, window));
  else
    memset(w->change, 0, window->n * sizeof *w->change);
  FLI_TRY(fli_paged_window(w->paged, w->from, window, &before));
  fli_step_add(w->change, before, w->step.rate, window->n);
  const size_t bad = flk_kernels()->find_not_finite(w->change, window->n);
  if (bad != window->n)
    return fli_error(FL_E_NOT_FINITE, "step: weight %" PRIu64 " leaves float32",
                     window->offset + bad);
  if (w->from == w->to &&
      memcmp(w->change, before, window->n * sizeof *before) == 0)
    return FL_OK;
  st = fli_pages_put_floats(w->paged, w->to, window->offset, w->change,
                            window->n);
out:
  return st;
}

static fl_status step_segment(walk *w, uint32_t segment)
{
  fl_status st = FL_OK;
  size_t size = 0;
  const fli_segment *s = &layout_of(w)->segments[segment];
  const uint64_t last = s->first_unit + fli_segment_units(s);
  FLI_TRY(size_of(w, segment, &size));
  if (size > w->payload_size - w->next)
    return fli_error(FL_E_TRUNCATED, "step: its payload ends in a segment");
  /* It stays, where it lies. */
  if (size == 0 && w->from == w->to) return FL_OK;
  if (size > 0) FLI_TRY(open_segment(w, segment));
  for (uint64_t unit = s->first_unit; unit < last;) {
    const fli_window window = fli_layout_window(layout_of(w), segment, unit);
    FLI_TRY(step_window(w, &window, size > 0));
    unit = window.last;
  }
  w->next += size;
out:
  return st;
}

static void close_step(walk *w)
{
  const size_t bitmap = w->tally_size - FLI_TALLY_HEADER;
  fli_free(w->context, w->front, w->front_size);
  fli_free(w->context, w->raw_tally, w->tally_size);
  fli_free(w->context, w->tally.slots, bitmap);
  fli_free(w->context, w->mean.offsets,
           (w->agreed.slots / 2 + 1) * sizeof(uint16_t));
  w->front = NULL;
  w->raw_tally = NULL;
  w->tally.slots = NULL;
  w->mean.offsets = NULL;
}

static fl_status open_step(walk *w)
{
  const size_t half = w->agreed.slots / 2 + 1;
  w->tally_size = FLI_TALLY_HEADER + (w->agreed.slots + 7) / 8;
  w->mean = (fli_mean){.agreed = &w->agreed};
  w->tally.slots = fli_alloc(w->context, w->tally_size - FLI_TALLY_HEADER, 1);
  w->raw_tally = fli_alloc(w->context, w->tally_size, 1);
  if (!w->tally.slots || !w->raw_tally) return fli_nomem(w->tally_size);
  if (w->agreed.offsets) {
    w->mean.offsets = fli_alloc(w->context, half, sizeof(uint16_t));
    if (!w->mean.offsets) return fli_nomem(half * sizeof(uint16_t));
  }
  const fl_status st = read_front(w);
  return st == FL_OK ? check_front(w) : st;
}

static fl_status step_all(walk *w)
{
  fl_status st = open_step(w);
  for (uint32_t s = 0; s < layout_of(w)->n_segments && st == FL_OK; s++)
    st = step_segment(w, s);
  if (st == FL_OK && w->next != w->payload_size)
    st = fli_error(FL_E_FORMAT, "step: bytes behind its payload");
  close_step(w);
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
  st =
      fli_agreed_init(&w->agreed, w->paged->client->compressor, &w->step.scale);
  if (st != FL_OK) return st;
  st = step_all(w);
  fli_agreed_free(&w->agreed);
  return st;
}

static fl_status apply_all(walk *w, uint64_t *version)
{
  fl_status st = FL_OK;
  fl_paged *paged = w->paged;
  const uint64_t first = *version;
  w->norms =
      fli_alloc(w->context, (size_t)paged->client->n_norms, sizeof *w->norms);
  w->head = fli_alloc(w->context, w->head_size, 1);
  w->change = fli_alloc(w->context, FLI_WINDOW_MAX, sizeof *w->change);
  w->bytes = fli_alloc(w->context, FLI_STEP_ROOM, 1);
  if (!w->norms || !w->head || !w->change || !w->bytes)
    FLI_TRY(fli_nomem(w->head_size + FLI_WINDOW_MAX * sizeof *w->change));
  do {
    if (*version - first >= RECORDS_MOST ||
        *version >= paged->client->incoming.manifest.model_version)
      FLI_TRY(
          fli_error(FL_E_FORMAT, "step: got more records than the chain's"));
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
  fli_free(w->context, w->change, FLI_WINDOW_MAX * sizeof *w->change);
  fli_free(w->context, w->bytes, FLI_STEP_ROOM);
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

/* SPDX-License-Identifier: Apache-2.0 */
/* Sums as bytes: preamble, tallies, lanes. One tally when every segment holds
 * the same updates, else one for all and one per segment. Lanes have the width
 * that their count needs, so equal sums are equal bytes; a reader that finds
 * another form than the writer's refuses it. */
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/size.h"
#include "compress/partial.h"
#include "compress/update.h"

/* Behind the preamble. */
enum { AT_TALLIES = FLI_PREAMBLE_BYTES, AT_RESERVED = FLI_PREAMBLE_BYTES + 4 };
/* In a tally. */
enum { AT_COUNT = 0, AT_LANE_WEIGHT = 4, AT_SAMPLES = 8 };

static int is_same_tally(const fli_tally *a, const fli_tally *b, size_t bitmap)
{
  return a->count == b->count && a->lane_weight == b->lane_weight &&
         a->samples == b->samples && memcmp(a->slots, b->slots, bitmap) == 0;
}

/* 1 when one tally says it all. */
static int is_uniform(const fli_tally *all, const fli_tally *tallies,
                      uint32_t n_segments, size_t bitmap)
{
  for (uint32_t s = 0; s < n_segments; s++) {
    if (!is_same_tally(all, &tallies[s], bitmap)) return 0;
  }
  return 1;
}

static uint8_t *write_tally(const fl_partial *partial, const fli_tally *tally,
                            uint8_t *out)
{
  fli_store_u32(out + AT_COUNT, tally->count);
  fli_store_u32(out + AT_LANE_WEIGHT, (uint32_t)tally->lane_weight);
  fli_store_u64(out + AT_SAMPLES, tally->samples);
  memcpy(out + FLI_TALLY_HEADER, tally->slots, partial->bitmap_size);
  return out + FLI_TALLY_HEADER + partial->bitmap_size;
}

static void write_sum(const fl_partial *partial, uint32_t n_tallies,
                      size_t lanes, uint8_t *out)
{
  uint32_t n_segments = partial->agreed.compressor->layout.n_segments;
  fli_preamble_write(&partial->agreed, FLI_SUM_MAGIC, lanes, out);
  fli_store_u32(out + AT_TALLIES, n_tallies);
  fli_store_u32(out + AT_RESERVED, 0);
  uint8_t *at = write_tally(partial, &partial->all, out + FLI_SUM_HEADER);
  for (uint32_t s = 0; s + 1 < n_tallies; s++) {
    at = write_tally(partial, &partial->tallies[s], at);
  }
  for (uint32_t s = 0; s < n_segments; s++) {
    if (!partial->lanes[s].data) continue;
    memcpy(at, partial->lanes[s].data, partial->lanes[s].size);
    at += partial->lanes[s].size;
  }
}

fl_status fl_partial_copy_sum(const fl_partial *partial, uint8_t *buffer,
                              size_t capacity, size_t *needed)
{
  fli_clear_error();
  if (!partial) return fli_error(FL_E_ARGUMENT, "partial: got NULL");
  uint32_t n_segments = partial->agreed.compressor->layout.n_segments;
  int uniform = is_uniform(&partial->all, partial->tallies, n_segments,
                           partial->bitmap_size);
  uint32_t n_tallies = uniform ? 1 : n_segments + 1;
  size_t lanes = 0;
  for (uint32_t s = 0; s < n_segments; s++)
    lanes += partial->lanes[s].size;
  size_t size = FLI_SUM_HEADER + lanes +
                n_tallies * (FLI_TALLY_HEADER + partial->bitmap_size);
  if (needed) *needed = size;
  if (!buffer && capacity == 0) return FL_OK;
  if (!buffer) return fli_error(FL_E_ARGUMENT, "sum: buffer is NULL");
  if (capacity < size) {
    return fli_error(FL_E_SIZE, "sum: buffer, got %zu bytes, want %zu",
                     capacity, size);
  }
  write_sum(partial, n_tallies, lanes, buffer);
  return FL_OK;
}

static uint32_t count_bits(const uint8_t *bytes, size_t n)
{
  uint32_t count = 0;
  for (size_t i = 0; i < n; i++) {
    for (uint32_t b = bytes[i]; b != 0; b &= b - 1)
      count++;
  }
  return count;
}

/* `count` updates that weigh `total` in lanes and `samples` together:
 * possible? */
static int is_possible(const fli_agreed *agreed, uint32_t count, uint64_t total,
                       uint64_t samples)
{
  const fli_codec *codec = agreed->compressor->codec;
  uint64_t cap = agreed->weight_cap == 0 ? 1 : agreed->weight_cap;
  uint64_t most;
  if (!fli_mul_u64(cap, total, &most)) most = UINT64_MAX;
  return total >= count &&
         total <= (uint64_t)count * codec->most_weight(agreed) &&
         total <= codec->most_total(agreed) && samples >= total &&
         samples <= most;
}

static fl_status check_part(const fli_agreed *agreed, const fli_tally *part,
                            const fli_tally *all, size_t bitmap)
{
  int is_part = part->samples <= all->samples && part->count <= all->count &&
                part->lane_weight <= all->lane_weight;
  for (size_t i = 0; i < bitmap; i++) {
    is_part &= (part->slots[i] & ~all->slots[i]) == 0;
  }
  if (is_part && is_possible(agreed, all->count - part->count,
                             all->lane_weight - part->lane_weight,
                             all->samples - part->samples)) {
    return FL_OK;
  }
  return fli_error(FL_E_FORMAT, "sum: a segment holds more than the sum");
}

/* A tally, which holds nothing that `all` does not (NULL: is `all`). */
static fl_status read_tally(const fl_partial *partial, const uint8_t *data,
                            const fli_tally *all, fli_tally *tally)
{
  size_t size = partial->bitmap_size;
  uint32_t slots = partial->agreed.slots;
  tally->count = fli_load_u32(data + AT_COUNT);
  tally->lane_weight = fli_load_u32(data + AT_LANE_WEIGHT);
  tally->samples = fli_load_u64(data + AT_SAMPLES);
  memcpy(tally->slots, data + FLI_TALLY_HEADER, size);
  if ((slots % 8 != 0 && tally->slots[size - 1] >> (slots % 8) != 0) ||
      count_bits(tally->slots, size) != tally->count) {
    return fli_error(FL_E_FORMAT, "sum: count %u and its slots do not agree",
                     tally->count);
  }
  if (!is_possible(&partial->agreed, tally->count, tally->lane_weight,
                   tally->samples)) {
    return fli_error(FL_E_RANGE, "sum: %u updates of weight %llu, samples %llu",
                     tally->count, (unsigned long long)tally->lane_weight,
                     (unsigned long long)tally->samples);
  }
  if (!all) return FL_OK;
  return check_part(&partial->agreed, tally, all, size);
}

/* A sum's bytes, taken apart into memory of our own (but for the lanes). */
typedef struct parsed_sum {
  fli_tally all;
  fli_tally *tallies;
  fli_lanes *lanes;
  uint8_t *bitmaps;
  uint32_t n_segments;
  size_t bitmap_size;
} parsed_sum;

static fl_status parsed_init(parsed_sum *sum, const fl_partial *partial)
{
  const fl_compressor *compressor = partial->agreed.compressor;
  fl_context *context = compressor->context;
  size_t n = compressor->layout.n_segments;
  sum->n_segments = compressor->layout.n_segments;
  sum->bitmap_size = partial->bitmap_size;
  sum->tallies = fli_alloc(context, n, sizeof(fli_tally));
  sum->lanes = fli_alloc(context, n, sizeof(fli_lanes));
  sum->bitmaps = fli_alloc(context, n + 1, sum->bitmap_size);
  if (!sum->tallies || !sum->lanes || !sum->bitmaps) {
    return fli_nomem(
        n * (sizeof(fli_tally) + sizeof(fli_lanes) + sum->bitmap_size));
  }
  sum->all.slots = sum->bitmaps + n * sum->bitmap_size;
  for (size_t s = 0; s < n; s++) {
    sum->tallies[s].slots = sum->bitmaps + s * sum->bitmap_size;
  }
  return FL_OK;
}

static void parsed_free(parsed_sum *sum, fl_context *context)
{
  size_t n = sum->n_segments;
  fli_free(context, sum->tallies, n * sizeof(fli_tally));
  fli_free(context, sum->lanes, n * sizeof(fli_lanes));
  fli_free(context, sum->bitmaps, (n + 1) * sum->bitmap_size);
}

/* Tallies from `data`, which holds n_tallies of them. */
static fl_status read_tallies(parsed_sum *sum, const fl_partial *partial,
                              const uint8_t *data, uint32_t n_tallies)
{
  fl_status st = FL_OK;
  size_t step = FLI_TALLY_HEADER + sum->bitmap_size;
  FLI_TRY(read_tally(partial, data, NULL, &sum->all));
  for (uint32_t s = 0; s < sum->n_segments; s++) {
    const uint8_t *at = n_tallies == 1 ? data : data + (s + 1) * step;
    FLI_TRY(read_tally(partial, at, &sum->all, &sum->tallies[s]));
  }
  if (n_tallies > 1 &&
      is_uniform(&sum->all, sum->tallies, sum->n_segments, sum->bitmap_size)) {
    st = fli_error(FL_E_FORMAT, "sum: equal tallies are stored twice");
  }
out:
  return st;
}

/* Lanes from `data`, of `size` bytes. */
static fl_status read_lanes(parsed_sum *sum, const fl_partial *partial,
                            const uint8_t *data, size_t size)
{
  const fli_agreed *agreed = &partial->agreed;
  const fl_compressor *compressor = agreed->compressor;
  size_t want = 0;
  for (uint32_t s = 0; s < sum->n_segments; s++) {
    want += fli_lanes_size(agreed, s, sum->tallies[s].lane_weight);
  }
  fl_status st = fli_check_length("sum: lanes", size, want);
  if (st != FL_OK) return st;
  for (uint32_t s = 0; s < sum->n_segments; s++) {
    uint64_t total = sum->tallies[s].lane_weight;
    fli_lanes *lanes = &sum->lanes[s];
    lanes->size = fli_lanes_size(agreed, s, total);
    lanes->width = compressor->codec->lane_width(agreed, total);
    lanes->data = (uint8_t *)(uintptr_t)data; /* only read */
    data += lanes->size;
    if (lanes->size == 0) continue;
    uint64_t max = compressor->kernels->lane_max(
        lanes->data, lanes->width, (size_t)fli_agreed_count(agreed, s));
    if (max > compressor->codec->lane_limit(agreed, s, total)) {
      return fli_error(FL_E_RANGE, "sum: segment %u, a lane is too great", s);
    }
  }
  return FL_OK;
}

static fl_status parse(parsed_sum *sum, const fl_partial *partial,
                       const uint8_t *data, size_t n)
{
  fl_status st = FL_OK;
  uint64_t payload;
  FLI_TRY(
      fli_preamble_read(&partial->agreed, FLI_SUM_MAGIC, data, n, &payload));
  if (n < FLI_SUM_HEADER) return fli_check_length("sum", n, FLI_SUM_HEADER);
  uint32_t n_tallies = fli_load_u32(data + AT_TALLIES);
  if (n_tallies != 1 && n_tallies != sum->n_segments + 1) {
    return fli_error(FL_E_FORMAT, "sum: tallies, got %u, want 1 or %u",
                     n_tallies, sum->n_segments + 1);
  }
  if (fli_load_u32(data + AT_RESERVED) != 0) {
    return fli_error(FL_E_FORMAT, "sum: reserved bytes are set");
  }
  size_t front = FLI_SUM_HEADER +
                 (size_t)n_tallies * (FLI_TALLY_HEADER + sum->bitmap_size);
  if (n < front) return fli_check_length("sum", n, front);
  FLI_TRY(read_tallies(sum, partial, data + FLI_SUM_HEADER, n_tallies));
  FLI_TRY(read_lanes(sum, partial, data + front, n - front));
  if (payload != n - front) {
    st = fli_error(FL_E_FORMAT, "sum: payload, got %llu, want %zu",
                   (unsigned long long)payload, n - front);
  }
out:
  return st;
}

/* The slots that a sum of an edge may hold; NULL: any. */
typedef struct slot_range {
  uint32_t first;
  uint32_t n;
} slot_range;

static fl_status check_slots(const fl_partial *partial, const fli_tally *all,
                             const slot_range *own)
{
  for (uint32_t slot = 0; own && slot < partial->agreed.slots; slot++) {
    if (!fli_has_slot(all, slot) ||
        (slot >= own->first && slot - own->first < own->n))
      continue;
    return fli_error(FL_E_CONFLICT,
                     "sum: slot %u, want %u slots from %u on alone", slot,
                     own->n, own->first);
  }
  return FL_OK;
}

static fl_status merge(fl_partial *partial, const uint8_t *data, size_t n,
                       const slot_range *own)
{
  fl_status st = FL_OK;
  parsed_sum sum = {0};
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  FLI_TRY(parsed_init(&sum, partial));
  FLI_TRY(parse(&sum, partial, data, n));
  FLI_TRY(check_slots(partial, &sum.all, own));
  fli_sum_view view = {
      .all = sum.all, .tallies = sum.tallies, .lanes = sum.lanes};
  FLI_TRY(fli_partial_merge_view(partial, &view));
out:
  fli_fpguard_leave(&guard);
  parsed_free(&sum, partial->agreed.compressor->context);
  return st;
}

fl_status fl_partial_merge_bytes(fl_partial *partial, const uint8_t *data,
                                 size_t n)
{
  fli_clear_error();
  if (!partial || (!data && n > 0)) {
    return fli_error(FL_E_ARGUMENT, "partial: got NULL");
  }
  return merge(partial, data, n, NULL);
}

fl_status fl_partial_merge_edge(fl_partial *partial, const uint8_t *data,
                                size_t n, uint32_t first_slot, uint32_t n_slots)
{
  fli_clear_error();
  if (!partial || (!data && n > 0)) {
    return fli_error(FL_E_ARGUMENT, "partial: got NULL");
  }
  return merge(partial, data, n, &(slot_range){first_slot, n_slots});
}

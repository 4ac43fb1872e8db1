/* SPDX-License-Identifier: Apache-2.0 */
/* Running sums of encoded updates. A change is checked completely and its
 * memory is got before the first lane is touched, so that a failure leaves the
 * sum as it was. Lanes of n updates are as wide as n updates need: they widen
 * when one more would not fit, and never wrap. */
#include "compress/partial.h"

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/size.h"
#include "compress/update.h"

size_t fli_lane_bytes(uint32_t width, uint64_t n)
{
  return (size_t)n << width;
}

size_t fli_lane_offset(const fli_agreed *agreed, const fli_unit *unit,
                       uint32_t width)
{
  const fli_layout *layout = &agreed->compressor->layout;
  uint64_t first = layout->segments[unit->segment].first_unit;
  return fli_lane_bytes(width,
                        agreed->starts[unit->index] - agreed->starts[first]);
}

size_t fli_lanes_size(const fli_agreed *agreed, uint32_t segment,
                      uint64_t total)
{
  if (total == 0) return 0;
  uint32_t width = agreed->compressor->codec->lane_width(agreed, total);
  return fli_lane_bytes(width, fli_agreed_count(agreed, segment));
}

fl_status fli_tally_check_total(const fli_agreed *agreed, uint64_t total,
                                uint64_t samples, uint64_t more)
{
  uint64_t most = agreed->compressor->codec->most_total(agreed);
  uint64_t sum;
  if (total > most) {
    return fli_error(FL_E_RANGE, "sum: lane weight, got %llu, want <= %llu",
                     (unsigned long long)total, (unsigned long long)most);
  }
  if (!fli_add_u64(samples, more, &sum)) {
    return fli_error(FL_E_RANGE, "sum: samples leave 64 bits");
  }
  return FL_OK;
}

int fli_has_slot(const fli_tally *tally, uint32_t slot)
{
  return tally->slots[slot / 8] >> (slot % 8) & 1;
}

static const fl_compressor *compressor_of(const fl_partial *partial)
{
  return partial->agreed.compressor;
}

/* One segment's lanes, and those that are added to them. */
typedef struct merge_job {
  const fli_agreed *agreed;
  uint32_t segment;
  fli_lanes to;
  fli_lanes from;
} merge_job;

static void merge_units(void *arg, uint64_t first, uint64_t last)
{
  const merge_job *job = arg;
  const fli_agreed *agreed = job->agreed;
  const fl_compressor *compressor = agreed->compressor;
  const fli_segment *segment = &compressor->layout.segments[job->segment];
  uint64_t at = agreed->starts[first] - agreed->starts[segment->first_unit];
  uint64_t n = agreed->starts[last] - agreed->starts[first];
  compressor->kernels->accumulate[job->to.width][job->from.width](
      job->to.data + fli_lane_bytes(job->to.width, at),
      job->from.data + fli_lane_bytes(job->from.width, at), (size_t)n);
}

static void merge_lanes(const fli_agreed *agreed, uint32_t segment,
                        const fli_lanes *to, const fli_lanes *from)
{
  merge_job job = {
      .agreed = agreed, .segment = segment, .to = *to, .from = *from};
  if (!from->data) return;
  fli_for_segment(&agreed->compressor->layout, segment, merge_units, &job);
}

static void free_lanes(fl_context *context, fli_lanes *lanes)
{
  fli_free(context, lanes->data, lanes->size);
  *lanes = (fli_lanes){0};
}

void fli_partial_unstage(fl_partial *partial)
{
  const fl_compressor *compressor = compressor_of(partial);
  for (uint32_t s = 0; s < compressor->layout.n_segments; s++) {
    free_lanes(compressor->context, &partial->staged[s]);
  }
}

void fli_partial_tidy(fl_partial *partial)
{
  const fl_compressor *compressor = compressor_of(partial);
  for (uint32_t s = 0; s < compressor->layout.n_segments; s++) {
    if (partial->tallies[s].count == 0)
      free_lanes(compressor->context, &partial->lanes[s]);
  }
}

fl_status fli_partial_stage(fl_partial *partial, uint32_t segment,
                            uint64_t total)
{
  const fl_compressor *compressor = compressor_of(partial);
  const fli_agreed *agreed = &partial->agreed;
  if (total == 0) return FL_OK;
  uint32_t width = compressor->codec->lane_width(agreed, total);
  const fli_lanes *now = &partial->lanes[segment];
  if (now->data && now->width == width) return FL_OK;
  size_t size = fli_lanes_size(agreed, segment, total);
  fli_lanes wider = {.size = size, .width = width};
  wider.data = fli_alloc(compressor->context, size, 1);
  if (!wider.data) return fli_nomem(size);
  partial->staged[segment] = wider;
  return FL_OK;
}

void fli_partial_commit(fl_partial *partial)
{
  const fl_compressor *compressor = compressor_of(partial);
  for (uint32_t s = 0; s < compressor->layout.n_segments; s++) {
    if (!partial->staged[s].data) continue;
    merge_lanes(&partial->agreed, s, &partial->staged[s], &partial->lanes[s]);
    free_lanes(compressor->context, &partial->lanes[s]);
    partial->lanes[s] = partial->staged[s];
    partial->staged[s] = (fli_lanes){0};
  }
}

static void merge_tally(fli_tally *to, const fli_tally *from, size_t size)
{
  to->count += from->count;
  to->lane_weight += from->lane_weight;
  to->samples += from->samples;
  for (size_t i = 0; i < size; i++)
    to->slots[i] |= from->slots[i];
}

/* The two sums share no update, and the lanes hold both. */
static fl_status check_merge(const fl_partial *partial, const fli_tally *other)
{
  const fli_agreed *agreed = &partial->agreed;
  const fli_tally *all = &partial->all;
  for (size_t i = 0; i < partial->bitmap_size; i++) {
    if ((all->slots[i] & other->slots[i]) == 0) continue;
    return fli_error(FL_E_DUPLICATE, "sum: a slot of %zu..%zu is in both",
                     8 * i, 8 * i + 7);
  }
  return fli_tally_check_total(agreed, all->lane_weight + other->lane_weight,
                               all->samples, other->samples);
}

fl_status fli_partial_merge_view(fl_partial *partial, const fli_sum_view *view)
{
  fl_status st = FL_OK;
  uint32_t n_segments = compressor_of(partial)->layout.n_segments;
  FLI_TRY(check_merge(partial, &view->all));
  for (uint32_t s = 0; s < n_segments; s++) {
    if (view->tallies[s].count == 0) continue;
    FLI_TRY(fli_partial_stage(partial, s,
                              partial->tallies[s].lane_weight +
                                  view->tallies[s].lane_weight));
  }
  fli_partial_commit(partial);
  for (uint32_t s = 0; s < n_segments; s++) {
    if (view->tallies[s].count == 0) continue;
    merge_lanes(&partial->agreed, s, &partial->lanes[s], &view->lanes[s]);
    merge_tally(&partial->tallies[s], &view->tallies[s], partial->bitmap_size);
  }
  merge_tally(&partial->all, &view->all, partial->bitmap_size);
out:
  if (st != FL_OK) fli_partial_unstage(partial);
  return st;
}

static fl_status get_memory(fl_partial *partial, fl_context *context)
{
  size_t n = compressor_of(partial)->layout.n_segments;
  partial->bitmap_size = (partial->agreed.slots + 7) / 8;
  partial->tallies = fli_alloc(context, n, sizeof(fli_tally));
  partial->lanes = fli_alloc(context, n, sizeof(fli_lanes));
  partial->staged = fli_alloc(context, n, sizeof(fli_lanes));
  partial->bitmaps = fli_alloc(context, n + 1, partial->bitmap_size);
  if (!partial->tallies || !partial->lanes || !partial->staged ||
      !partial->bitmaps) {
    return fli_nomem(
        n * (2 * sizeof(fli_lanes) + sizeof(fli_tally) + partial->bitmap_size));
  }
  partial->all.slots = partial->bitmaps + n * partial->bitmap_size;
  for (size_t s = 0; s < n; s++) {
    partial->tallies[s].slots = partial->bitmaps + s * partial->bitmap_size;
  }
  return FL_OK;
}

fl_status fl_partial_new(fl_partial **out, const fl_compressor *compressor,
                         const fl_scale *scale)
{
  fli_clear_error();
  if (!out || !compressor) {
    return fli_error(FL_E_ARGUMENT, "partial: got NULL");
  }
  fl_status st = FL_OK;
  fl_partial *partial = fli_alloc(compressor->context, 1, sizeof *partial);
  if (!partial) return fli_nomem(sizeof *partial);
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  st = fli_agreed_init(&partial->agreed, compressor, scale);
  fli_fpguard_leave(&guard);
  if (st != FL_OK) {
    fli_free(compressor->context, partial, sizeof *partial);
    return st;
  }
  FLI_TRY(get_memory(partial, compressor->context));
  *out = partial;
  partial = NULL;
out:
  fl_partial_free(partial);
  return st;
}

void fl_partial_free(fl_partial *partial)
{
  if (!partial) return;
  fl_context *context = fli_context_ref(compressor_of(partial)->context);
  size_t n = compressor_of(partial)->layout.n_segments;
  for (size_t s = 0; partial->lanes && s < n; s++) {
    free_lanes(context, &partial->lanes[s]);
  }
  fli_free(context, partial->tallies, n * sizeof(fli_tally));
  fli_free(context, partial->lanes, n * sizeof(fli_lanes));
  fli_free(context, partial->staged, n * sizeof(fli_lanes));
  fli_free(context, partial->bitmaps, (n + 1) * partial->bitmap_size);
  fli_agreed_free(&partial->agreed);
  fli_free(context, partial, sizeof *partial);
  fli_context_unref(context);
}

fl_status fl_partial_peek(const fl_partial *partial, const uint8_t *data,
                          size_t n, uint32_t *slot, uint64_t *samples)
{
  fli_clear_error();
  if (!partial || (!data && n > 0)) {
    return fli_error(FL_E_ARGUMENT, "partial: got NULL");
  }
  fli_update update;
  fl_status st = fli_update_read(&partial->agreed, data, n, &update);
  if (st != FL_OK) return st;
  if (slot) *slot = update.slot;
  if (samples) *samples = update.samples;
  return FL_OK;
}

fl_status fl_partial_merge(fl_partial *partial, const fl_partial *other)
{
  fli_clear_error();
  if (!partial || !other) {
    return fli_error(FL_E_ARGUMENT, "partial: got NULL");
  }
  if (compressor_of(partial)->id != compressor_of(other)->id) {
    return fli_error(FL_E_SCHEMA, "sum: made by another compressor");
  }
  if (partial->agreed.id != other->agreed.id) {
    return fli_error(FL_E_STALE, "sum: made with another scale");
  }
  fli_sum_view view = {
      .all = other->all, .tallies = other->tallies, .lanes = other->lanes};
  return fli_partial_merge_view(partial, &view);
}

uint64_t fl_partial_weight(const fl_partial *partial)
{
  return partial ? partial->all.lane_weight : 0;
}

uint32_t fl_partial_count(const fl_partial *partial)
{
  return partial ? partial->all.count : 0;
}

int32_t fl_partial_has_slot(const fl_partial *partial, uint32_t slot)
{
  if (!partial || slot >= partial->agreed.slots) return 0;
  return fli_has_slot(&partial->all, slot);
}

uint64_t fl_partial_samples(const fl_partial *partial)
{
  return partial ? partial->all.samples : 0;
}

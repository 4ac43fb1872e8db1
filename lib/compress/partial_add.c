/* SPDX-License-Identifier: Apache-2.0 */
/* Adding encoded updates, many at once: lanes are read and written once for
 * all of them. Every update is checked completely and all memory is got before
 * the first lane changes; what is bad is left out by itself. An update of lane
 * weight w counts as if w workers had sent it. */
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "compress/partial.h"
#include "compress/update.h"

typedef struct item {
  fli_update update;
  fl_status status;
  uint32_t weight;
} item;

typedef struct batch {
  fl_partial *partial;
  item *items;
  uint32_t count;
  const uint8_t **src; /* payloads of the segment at hand, */
  uint32_t *weights;   /* and their weights: of those that hold it */
  fli_tally taken;     /* what was found good so far */
} batch;

static fl_status batch_init(batch *b, fl_partial *partial, uint32_t count)
{
  fl_context *context = partial->agreed.compressor->context;
  *b = (batch){.partial = partial, .count = count};
  b->items = fli_alloc(context, count, sizeof *b->items);
  b->src = fli_alloc(context, count, sizeof *b->src);
  b->weights = fli_alloc(context, count, sizeof *b->weights);
  b->taken.slots = fli_alloc(context, partial->bitmap_size, 1);
  if (b->items && b->src && b->weights && b->taken.slots) return FL_OK;
  return fli_nomem(count * (sizeof *b->items + sizeof *b->src) +
                   count * sizeof *b->weights + partial->bitmap_size);
}

static void batch_free(batch *b)
{
  fl_context *context = b->partial->agreed.compressor->context;
  fli_free(context, b->items, b->count * sizeof *b->items);
  fli_free(context, b->src, b->count * sizeof *b->src);
  fli_free(context, b->weights, b->count * sizeof *b->weights);
  fli_free(context, b->taken.slots, b->partial->bitmap_size);
}

/* A segment's bytes of one update. */
typedef struct check_job {
  const fli_agreed *agreed;
  uint32_t segment;
  const uint8_t *payload;
  atomic_int is_bad;
} check_job;

static uint64_t first_unit(const fli_agreed *agreed, uint32_t segment)
{
  return agreed->compressor->layout.segments[segment].first_unit;
}

static void check_units(void *arg, uint64_t first, uint64_t last)
{
  check_job *job = arg;
  const fli_agreed *agreed = job->agreed;
  const uint64_t *starts = agreed->starts;
  uint64_t at = starts[first] - starts[first_unit(agreed, job->segment)];
  const uint8_t *src = job->payload + fli_payload_size(agreed, at);
  size_t n = (size_t)(starts[last] - starts[first]);
  if (agreed->compressor->codec->check(agreed, job->segment, src, n)) return;
  atomic_store_explicit(&job->is_bad, 1, memory_order_relaxed);
}

static fl_status check_payload(const fli_agreed *agreed,
                               const fli_update *update)
{
  const fl_compressor *compressor = agreed->compressor;
  check_job job = {.agreed = agreed, .payload = update->payload};
  if (!compressor->codec->check) return FL_OK;
  atomic_init(&job.is_bad, 0);
  for (uint32_t s = 0; s < compressor->layout.n_segments; s++) {
    if (!update->mask[s]) continue;
    job.segment = s;
    fli_for_segment(&compressor->layout, s, check_units, &job);
    if (atomic_load(&job.is_bad)) {
      return fli_error(FL_E_RANGE, "update: segment %u, a value above its norm",
                       s);
    }
    job.payload += fli_payload_size(agreed, fli_agreed_count(agreed, s));
  }
  return FL_OK;
}

static fl_status check_weight(const fli_agreed *agreed, uint32_t weight)
{
  uint32_t most = agreed->compressor->codec->most_weight(agreed);
  if (weight < 1 || weight > FL_MAX_LANE_WEIGHT) {
    return fli_error(FL_E_RANGE, "update: lane weight, got %u, want 1..%d",
                     weight, (int)FL_MAX_LANE_WEIGHT);
  }
  if (weight <= most) return FL_OK;
  return fli_error(FL_E_CONFLICT,
                   "update: lane weight, got %u, want 1 with this codec",
                   weight);
}

static void count_update(const fli_agreed *agreed, fli_tally *tally,
                         const item *one)
{
  const fli_update *update = &one->update;
  tally->count++;
  tally->lane_weight += one->weight;
  tally->samples += one->weight * fli_agreed_weight(agreed, update->samples);
  tally->slots[update->slot / 8] |= (uint8_t)(1u << (update->slot % 8));
}

/* Read and check one update, and count it among those that are taken. */
static fl_status take(batch *b, item *one, const uint8_t *data, size_t size)
{
  fl_status st = FL_OK;
  const fl_partial *partial = b->partial;
  const fli_agreed *agreed = &partial->agreed;
  if (!data && size > 0) return fli_error(FL_E_ARGUMENT, "update: got NULL");
  FLI_TRY(fli_update_read(agreed, data, size, &one->update));
  uint32_t slot = one->update.slot;
  if (fli_has_slot(&partial->all, slot) || fli_has_slot(&b->taken, slot)) {
    return fli_error(FL_E_DUPLICATE, "update: slot %u is in the sum", slot);
  }
  FLI_TRY(check_weight(agreed, one->weight));
  FLI_TRY(fli_tally_check_total(
      agreed, partial->all.lane_weight + b->taken.lane_weight + one->weight,
      partial->all.samples + b->taken.samples,
      one->weight * fli_agreed_weight(agreed, one->update.samples)));
  FLI_TRY(check_payload(agreed, &one->update));
  count_update(agreed, &b->taken, one);
out:
  return st;
}

/* Get memory for what the segments will hold. */
static fl_status stage(batch *b)
{
  fl_partial *partial = b->partial;
  uint32_t n_segments = partial->agreed.compressor->layout.n_segments;
  for (uint32_t s = 0; s < n_segments; s++) {
    uint64_t more = 0;
    for (uint32_t i = 0; i < b->count; i++) {
      const item *one = &b->items[i];
      if (one->status == FL_OK && one->update.mask[s]) more += one->weight;
    }
    if (more == 0) continue;
    fl_status st =
        fli_partial_stage(partial, s, partial->tallies[s].lane_weight + more);
    if (st != FL_OK) return st;
  }
  return FL_OK;
}

/* One segment's lanes, and what is added to them. */
typedef struct add_job {
  const fli_agreed *agreed;
  fli_lanes to;
  fli_addends addends;
} add_job;

static void add_units(void *arg, uint64_t first, uint64_t last)
{
  const add_job *job = arg;
  const fli_agreed *agreed = job->agreed;
  const uint64_t *starts = agreed->starts;
  fli_addends addends = job->addends;
  addends.first = starts[first] - starts[first_unit(agreed, addends.segment)];
  addends.n = (size_t)(starts[last] - starts[first]);
  agreed->compressor->codec->add(
      agreed, &addends,
      job->to.data + fli_lane_bytes(job->to.width, addends.first),
      job->to.width);
}

/* Add what the updates hold of a segment, and move their payloads on. */
static void add_segment(batch *b, uint32_t segment)
{
  fl_partial *partial = b->partial;
  const fli_agreed *agreed = &partial->agreed;
  size_t size = fli_payload_size(agreed, fli_agreed_count(agreed, segment));
  size_t n = 0;
  int is_weighted = 0;
  for (uint32_t i = 0; i < b->count; i++) {
    item *one = &b->items[i];
    if (one->status != FL_OK || !one->update.mask[segment]) continue;
    b->src[n] = one->update.payload;
    b->weights[n++] = one->weight;
    is_weighted |= one->weight != 1;
    one->update.payload += size;
    count_update(agreed, &partial->tallies[segment], one);
  }
  if (n == 0) return;
  add_job job = {.agreed = agreed,
                 .to = partial->lanes[segment],
                 .addends = {.src = b->src,
                             .weights = is_weighted ? b->weights : NULL,
                             .count = n,
                             .segment = segment}};
  fli_for_segment(&agreed->compressor->layout, segment, add_units, &job);
}

static void add_all(batch *b)
{
  fl_partial *partial = b->partial;
  uint32_t n_segments = partial->agreed.compressor->layout.n_segments;
  for (uint32_t s = 0; s < n_segments; s++)
    add_segment(b, s);
  for (uint32_t i = 0; i < b->count; i++) {
    if (b->items[i].status != FL_OK) continue;
    count_update(&partial->agreed, &partial->all, &b->items[i]);
  }
}

/* What the caller of a batch gave. */
typedef struct given {
  const uint8_t *const *data;
  const size_t *sizes;
  const uint32_t *weights;
  uint32_t count;
} given;

static fl_status add_batch(fl_partial *partial, const given *all,
                           fl_status *results)
{
  fl_status st = FL_OK;
  batch b;
  FLI_TRY(batch_init(&b, partial, all->count));
  for (uint32_t i = 0; i < all->count; i++) {
    item *one = &b.items[i];
    one->weight = all->weights ? all->weights[i] : 1;
    one->status = take(&b, one, all->data[i], all->sizes[i]);
  }
  FLI_TRY(stage(&b));
  fli_partial_commit(partial);
  add_all(&b);
  for (uint32_t i = 0; results && i < all->count; i++)
    results[i] = b.items[i].status;
out:
  if (st != FL_OK) fli_partial_unstage(partial);
  batch_free(&b);
  return st;
}

fl_status fl_partial_add_batch(fl_partial *partial, const uint8_t *const *data,
                               const size_t *sizes, const uint32_t *weights,
                               uint32_t count, fl_status *results)
{
  fli_clear_error();
  fl_status st = FL_OK;
  if (!partial || (count > 0 && (!data || !sizes))) {
    st = fli_error(FL_E_ARGUMENT, "partial: got NULL");
  } else if (count > 0) {
    fli_fpguard guard;
    fli_fpguard_enter(&guard);
    st = add_batch(partial, &(given){data, sizes, weights, count}, results);
    fli_fpguard_leave(&guard);
  }
  for (uint32_t i = 0; results && st != FL_OK && i < count; i++)
    results[i] = st;
  return st;
}

fl_status fl_partial_add(fl_partial *partial, const uint8_t *data, size_t n)
{
  fl_status result;
  fl_status st = fl_partial_add_batch(partial, &data, &n, NULL, 1, &result);
  return st == FL_OK ? result : st;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Adding encoded updates, many at once: lanes are read and written once for
 * all of them, and the updates are read once. Headers are checked and all
 * memory is got before the first lane changes. Values that are not possible are
 * found while they are added; then the batch is taken away again, to the bit,
 * and added with its payloads checked first, and what is bad is left out by
 * itself. An update of lane weight w counts as if w workers had sent it.
 * Threads share the coordinates, not the updates: no lane has two of them. */
#include <assert.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "compress/partial.h"
#include "compress/update.h"

typedef struct item {
  fli_update update;
  fl_status status;
  uint32_t weight;
  size_t skip; /* bytes of the payload before the segment at hand */
} item;

/* What the caller of a batch gave. */
typedef struct given {
  const uint8_t *const *data;
  const size_t *sizes;
  const uint32_t *weights;
  uint32_t count;
} given;

typedef struct batch {
  fl_partial *partial;
  item *items;
  uint32_t count;
  int is_checked;      /* payloads were, by `take` */
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
static fl_status take_one(batch *b, item *one, const uint8_t *data, size_t size)
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
  if (b->is_checked) FLI_TRY(check_payload(agreed, &one->update));
  count_update(agreed, &b->taken, one);
out:
  return st;
}

static void take(batch *b, const given *all)
{
  const size_t bytes = b->partial->bitmap_size;
  memset(b->taken.slots, 0, bytes);
  b->taken = (fli_tally){.slots = b->taken.slots};
  for (uint32_t i = 0; i < all->count; i++) {
    item *one = &b->items[i];
    one->weight = all->weights ? all->weights[i] : 1;
    one->status = take_one(b, one, all->data[i], all->sizes[i]);
  }
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
  atomic_int is_bad;
} add_job;

static void add_units(void *arg, uint64_t first, uint64_t last)
{
  add_job *job = arg;
  const fli_agreed *agreed = job->agreed;
  const uint64_t *starts = agreed->starts;
  fli_addends addends = job->addends;
  addends.first = starts[first] - starts[first_unit(agreed, addends.segment)];
  addends.n = (size_t)(starts[last] - starts[first]);
  if (!agreed->compressor->codec->add(
          agreed, &addends,
          job->to.data + fli_lane_bytes(job->to.width, addends.first),
          job->to.width))
    return;
  atomic_store_explicit(&job->is_bad, 1, memory_order_relaxed);
}

/* Add what the updates hold of a segment, or take it away again. Returns 1 when
 * there was a value that is not possible. */
static int add_segment(batch *b, uint32_t segment, int is_taken_away)
{
  fl_partial *partial = b->partial;
  const fli_agreed *agreed = &partial->agreed;
  size_t size = fli_payload_size(agreed, fli_agreed_count(agreed, segment));
  size_t n = 0;
  int is_weighted = 0;
  for (uint32_t i = 0; i < b->count; i++) {
    item *one = &b->items[i];
    if (one->status != FL_OK || !one->update.mask[segment]) continue;
    b->src[n] = one->update.payload + one->skip;
    b->weights[n++] = one->weight;
    is_weighted |= one->weight != 1;
    one->skip += size;
  }
  if (n == 0) return 0;
  add_job job = {.agreed = agreed,
                 .to = partial->lanes[segment],
                 .addends = {.src = b->src,
                             .weights = is_weighted ? b->weights : NULL,
                             .count = n,
                             .segment = segment,
                             .is_taken_away = is_taken_away}};
  atomic_init(&job.is_bad, 0);
  fli_for_segment(&agreed->compressor->layout, segment, add_units, &job);
  return atomic_load(&job.is_bad);
}

static int add_all(batch *b, int is_taken_away)
{
  uint32_t n_segments = b->partial->agreed.compressor->layout.n_segments;
  int is_bad = 0;
  for (uint32_t i = 0; i < b->count; i++)
    b->items[i].skip = 0;
  for (uint32_t s = 0; s < n_segments; s++)
    is_bad |= add_segment(b, s, is_taken_away);
  return is_bad;
}

static void count_all(batch *b)
{
  fl_partial *partial = b->partial;
  const fli_agreed *agreed = &partial->agreed;
  uint32_t n_segments = agreed->compressor->layout.n_segments;
  for (uint32_t i = 0; i < b->count; i++) {
    const item *one = &b->items[i];
    if (one->status != FL_OK) continue;
    for (uint32_t s = 0; s < n_segments; s++) {
      if (one->update.mask[s]) count_update(agreed, &partial->tallies[s], one);
    }
    count_update(agreed, &partial->all, one);
  }
}

/* Add what was taken. If some of it is not possible, do it again, with a look
 * at every value first: what was added is taken away before. */
static fl_status fold(batch *b, const given *all)
{
  fl_status st = stage(b);
  if (st != FL_OK) return st;
  fli_partial_commit(b->partial);
  if (!add_all(b, 0)) return FL_OK;
  assert(!b->is_checked);
  (void)add_all(b, 1);
  b->is_checked = 1;
  take(b, all); /* perhaps what looked like a duplicate of a bad one, too */
  st = stage(b);
  if (st != FL_OK) return st;
  fli_partial_commit(b->partial);
  (void)add_all(b, 0);
  return FL_OK;
}

static fl_status add_batch(fl_partial *partial, const given *all,
                           fl_status *results)
{
  fl_status st = FL_OK;
  batch b;
  FLI_TRY(batch_init(&b, partial, all->count));
  take(&b, all);
  FLI_TRY(fold(&b, all));
  count_all(&b);
  for (uint32_t i = 0; results && i < all->count; i++)
    results[i] = b.items[i].status;
out:
  fli_partial_tidy(partial);
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

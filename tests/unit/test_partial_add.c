/* SPDX-License-Identifier: Apache-2.0 */
/* Batches: many updates at once are the same as one by one in any tree, bad
 * ones are left out, lane weights count as often as they say, and no lane
 * wraps. */
#include <criterion/criterion.h>

#include "base/bytes.h"
#include "compress/partial.h"
#include "compress_fixture.h"

enum { KINDS = 4, WORKERS = 6, SEGMENTS = 3, DIM = 300 + 4097 + 20 };
/* In an update: its slot; with one segment, its payload. In a sum: the tally of
 * all. */
enum { AT_SLOT = 56, AT_PAYLOAD = 128, AT_WEIGHT = 68 };
static const uint64_t sizes[] = {300, 4097, 20};

static const struct {
  uint32_t codec;
  uint32_t mode;
} kinds[KINDS] = {{FL_CODEC_F32, 0},
                  {FL_CODEC_BF16, 0},
                  {FL_CODEC_THC, FL_THC_UNIFORM},
                  {FL_CODEC_THC, FL_THC_DITHER}};
enum { UNIFORM = 2, DITHER = 3 };

/* Updates of three segments; worker w leaves out segment w % 4. */
typedef struct world {
  cf_round r;
  cf_bytes update[WORKERS];
  const uint8_t *data[WORKERS];
  size_t size[WORKERS];
} world;

static void world_open(world *w, uint32_t kind, uint64_t cap)
{
  fl_compressor_options options;
  float *x[WORKERS];
  cf_options(&options, kinds[kind].codec, kinds[kind].mode, 4);
  cf_open(&w->r, NULL, &options, sizes, SEGMENTS, WORKERS);
  w->r.scale.weight_cap = cap;
  for (uint32_t i = 0; i < WORKERS; i++) {
    x[i] = cf_normal(DIM, 20 + i);
    cf_agree(&w->r, x[i], 10 + i);
  }
  for (uint32_t i = 0; i < WORKERS; i++) {
    uint8_t mask[SEGMENTS] = {i % 4 != 0, i % 4 != 1, i % 4 != 2};
    w->update[i] = cf_encode_some(&w->r, i, 10 + i, mask, SEGMENTS, x[i]);
    w->data[i] = w->update[i].data;
    w->size[i] = w->update[i].size;
    free(x[i]);
  }
}

static void world_close(world *w)
{
  for (uint32_t i = 0; i < WORKERS; i++)
    free(w->update[i].data);
  cf_close(&w->r);
}

static void expect_same_sum(const fl_partial *a, const fl_partial *b,
                            const char *what, uint32_t number)
{
  cf_bytes one = cf_sum(a), two = cf_sum(b);
  cr_expect(cf_equal(one, two), "%s %u", what, number);
  free(one.data);
  free(two.data);
}

Test(partial_add, batch_is_the_same_as_one_by_one)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    world_open(&w, kind, 12);
    fl_partial *batch = cf_partial(&w.r), *single = cf_partial(&w.r);
    fl_status results[WORKERS];
    cf_must(
        fl_partial_add_batch(batch, w.data, w.size, NULL, WORKERS, results));
    for (uint32_t i = 0; i < WORKERS; i++) {
      cr_expect_eq(results[i], FL_OK);
      cf_must(fl_partial_add(single, w.data[i], w.size[i]));
    }
    expect_same_sum(batch, single, "kind", kind);
    cr_expect_eq(fl_partial_weight(batch), WORKERS);
    fl_partial_free(batch);
    fl_partial_free(single);
    world_close(&w);
  }
}

Test(partial_add, bad_updates_are_left_out_and_stop_no_other)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    enum { COUNT = 8 };
    static const fl_status want[COUNT] = {FL_OK,       FL_E_TRUNCATED, FL_OK,
                                          FL_E_STALE,  FL_E_DUPLICATE, FL_OK,
                                          FL_E_FORMAT, FL_E_ARGUMENT};
    world_open(&w, kind, 0);
    cf_bytes late = w.update[3];
    late.data[24] ^= 1;
    const uint8_t *data[COUNT] = {w.data[0], w.data[1], w.data[2], late.data,
                                  w.data[0], w.data[5], w.data[4], NULL};
    size_t size[COUNT] = {w.size[0], w.size[1] - 1, w.size[2], late.size,
                          w.size[0], w.size[5],     w.size[4], 100};
    w.update[4].data[72] = 2; /* mask */
    fl_status results[COUNT];
    fl_partial *batch = cf_partial(&w.r), *single = cf_partial(&w.r);
    cf_must(fl_partial_add_batch(batch, data, size, NULL, COUNT, results));
    cr_expect_arr_eq(results, want, sizeof want);
    for (uint32_t i = 0; i < COUNT; i++)
      cr_expect_eq(fl_partial_add(single, data[i], size[i]), want[i]);
    expect_same_sum(batch, single, "kind", kind);
    cf_must(fl_partial_add_batch(batch, data, size, NULL, COUNT, NULL));
    expect_same_sum(batch, single, "again", kind);
    fl_partial_free(batch);
    fl_partial_free(single);
    world_close(&w);
  }
}

Test(partial_add, value_above_the_norm_is_left_out)
{
  world w;
  fl_status results[WORKERS];
  world_open(&w, 0, 0);
  memset(w.update[2].data + w.size[2] - 4, 0xff, 4);
  fl_partial *partial = cf_partial(&w.r);
  cf_must(
      fl_partial_add_batch(partial, w.data, w.size, NULL, WORKERS, results));
  for (uint32_t i = 0; i < WORKERS; i++)
    cr_expect_eq(results[i], i == 2 ? FL_E_RANGE : FL_OK);
  cr_expect_eq(fl_partial_count(partial), WORKERS - 1);
  fl_partial_free(partial);
  world_close(&w);
}

/* Add some of the updates, by a batch, or by a sum of their own that is merged
 * whole or as bytes. */
static void add_some(const world *w, fl_partial *to, fli_rng *rng,
                     const uint32_t *order, const uint32_t *weights, uint32_t n)
{
  const uint8_t *data[WORKERS];
  size_t size[WORKERS];
  uint32_t own[WORKERS];
  for (uint32_t i = 0; i < n; i++) {
    data[i] = w->data[order[i]];
    size[i] = w->size[order[i]];
    own[i] = weights[order[i]];
  }
  uint32_t way = fli_rng_u32(rng) % 3;
  fl_partial *part = way == 0 ? to : cf_partial(&w->r);
  cf_must(fl_partial_add_batch(part, data, size, own, n, NULL));
  if (way == 0) return;
  cf_bytes bytes = cf_sum(part);
  cf_must(way == 1 ? fl_partial_merge(to, part)
                   : fl_partial_merge_bytes(to, bytes.data, bytes.size));
  free(bytes.data);
  fl_partial_free(part);
}

Test(partial_add, any_order_and_tree_of_weighted_batches_gives_the_same_bytes)
{
  enum { SEED = 77, TRIES = 60 };
  world w;
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 0, 0);
  world_open(&w, UNIFORM, 12);
  for (uint32_t t = 0; t < TRIES; t++) {
    static const uint32_t most[] = {1, 16, 300, FL_MAX_LANE_WEIGHT};
    uint32_t weights[WORKERS], order[WORKERS];
    for (uint32_t i = 0; i < WORKERS; i++)
      weights[i] = 1 + fli_rng_u32(&rng) % most[t % 4];
    for (uint32_t i = 0; i < WORKERS; i++) {
      uint32_t at = fli_rng_u32(&rng) % (i + 1);
      order[i] = order[at];
      order[at] = i;
    }
    fl_partial *want = cf_partial(&w.r), *got = cf_partial(&w.r);
    cf_must(fl_partial_add_batch(want, w.data, w.size, weights, WORKERS, NULL));
    for (uint32_t i = 0; i < WORKERS;) {
      uint32_t n = 1 + fli_rng_u32(&rng) % (WORKERS - i);
      add_some(&w, got, &rng, order + i, weights, n);
      i += n;
    }
    expect_same_sum(want, got, "try", t);
    fl_partial_free(want);
    fl_partial_free(got);
  }
  world_close(&w);
}

/* One segment of 256, whose updates can be told from each other. */
typedef struct small {
  cf_round r;
  cf_bytes update;
} small;

static void small_open(small *s, uint32_t bits, uint32_t slots, uint64_t cap)
{
  fl_compressor_options options;
  uint64_t n = 256;
  float *x = cf_normal(n, 3);
  cf_options(&options, FL_CODEC_THC, FL_THC_UNIFORM, bits);
  cf_open(&s->r, NULL, &options, &n, 1, slots);
  s->r.scale.weight_cap = cap;
  cf_agree(&s->r, x, 1);
  s->update = cf_encode_some(&s->r, 0, UINT64_MAX, NULL, 0, x);
  memset(s->update.data + AT_PAYLOAD, 0xff, s->update.size - AT_PAYLOAD);
  free(x);
}

static void small_close(small *s)
{
  free(s->update.data);
  cf_close(&s->r);
}

static fl_status add_weighted(small *s, fl_partial *partial, uint32_t slot,
                              uint32_t weight)
{
  const uint8_t *data = s->update.data;
  fl_status result;
  fli_store_u32(s->update.data + AT_SLOT, slot);
  cf_must(fl_partial_add_batch(partial, &data, &s->update.size, &weight, 1,
                               &result));
  return result;
}

static uint64_t lane(const fl_partial *partial, size_t i)
{
  const fli_lanes *lanes = &partial->lanes[0];
  const uint8_t *p = lanes->data + (i << lanes->width);
  return lanes->width == FLK_U8    ? *p
         : lanes->width == FLK_U16 ? fli_load_u16(p)
                                   : fli_load_u32(p);
}

static void expect_lanes(const fl_partial *partial, uint32_t width,
                         uint64_t want)
{
  cr_expect_eq(partial->lanes[0].width, width);
  for (size_t i = 0; i < 256; i++)
    cr_expect_eq(lane(partial, i), want, "lane %zu", i);
}

Test(partial_add, sum_of_weights_meets_the_bound_of_lanes_and_not_more)
{
  enum { MOST = ((1 << 30) - 1) / 255, FULL = MOST / FL_MAX_LANE_WEIGHT };
  uint32_t rest = MOST - FULL * FL_MAX_LANE_WEIGHT;
  small s;
  small_open(&s, 8, FULL + 3, 0);
  fl_partial *partial = cf_partial(&s.r), *one = cf_partial(&s.r);
  for (uint32_t slot = 0; slot < FULL; slot++)
    cf_must(add_weighted(&s, partial, slot, FL_MAX_LANE_WEIGHT));
  cr_expect_eq(add_weighted(&s, partial, FULL, rest + 1), FL_E_RANGE);
  cf_must(add_weighted(&s, partial, FULL, rest));
  cr_expect_eq(fl_partial_weight(partial), MOST);
  expect_lanes(partial, FLK_U32, (uint64_t)MOST * 255);
  cr_expect_eq(add_weighted(&s, partial, FULL + 1, 1), FL_E_RANGE);
  cf_must(add_weighted(&s, one, FULL + 1, 1));
  cr_expect_eq(fl_partial_merge(partial, one), FL_E_RANGE);
  cf_bytes bytes = cf_sum(one);
  cr_expect_eq(fl_partial_merge_bytes(partial, bytes.data, bytes.size),
               FL_E_RANGE);
  free(bytes.data);
  expect_lanes(partial, FLK_U32, (uint64_t)MOST * 255);
  cr_expect_eq(fl_partial_count(partial), FULL + 1);
  bytes = cf_sum(partial);
  fl_partial *again = cf_partial(&s.r);
  cf_must(fl_partial_merge_bytes(again, bytes.data, bytes.size));
  expect_same_sum(partial, again, "as", 1);
  float out[256];
  cf_must(fl_partial_decode(partial, out, 256));
  free(bytes.data);
  fl_partial_free(partial);
  fl_partial_free(one);
  fl_partial_free(again);
  small_close(&s);
}

Test(partial_add, samples_of_weighted_updates_stay_in_64_bits)
{
  enum { COUNT = 256 };
  uint64_t cap = UINT64_C(1) << 40;
  small s;
  small_open(&s, 1, COUNT + 2, cap);
  fl_partial *partial = cf_partial(&s.r), *other = cf_partial(&s.r);
  for (uint32_t slot = 0; slot < COUNT; slot++)
    cf_must(add_weighted(&s, partial, slot, FL_MAX_LANE_WEIGHT));
  cr_expect_eq(fl_partial_samples(partial), COUNT * cap * FL_MAX_LANE_WEIGHT);
  cr_expect_eq(add_weighted(&s, partial, COUNT, FL_MAX_LANE_WEIGHT),
               FL_E_RANGE);
  cf_must(add_weighted(&s, other, COUNT + 1, FL_MAX_LANE_WEIGHT));
  cr_expect_eq(fl_partial_merge(partial, other), FL_E_RANGE);
  cf_must(add_weighted(&s, partial, COUNT, COUNT - 1));
  fl_partial_free(partial);
  fl_partial_free(other);
  small_close(&s);
}

Test(partial_add, lanes_widen_within_a_batch)
{
  enum { SLOTS = 20 };
  static const uint32_t heavy[2] = {4000, 600};
  small s;
  const uint8_t *data[SLOTS];
  size_t size[SLOTS];
  small_open(&s, 4, SLOTS + 2, 0);
  uint8_t *copies = cf_get(SLOTS * s.update.size);
  for (uint32_t i = 0; i < SLOTS; i++) {
    uint8_t *copy = copies + i * s.update.size;
    memcpy(copy, s.update.data, s.update.size);
    fli_store_u32(copy + AT_SLOT, i);
    data[i] = copy;
    size[i] = s.update.size;
  }
  fl_partial *partial = cf_partial(&s.r), *jump = cf_partial(&s.r);
  cf_must(fl_partial_add_batch(partial, data, size, NULL, 17, NULL));
  expect_lanes(partial, FLK_U8, 17 * 15);
  cf_must(fl_partial_add_batch(partial, data + 17, size, NULL, 3, NULL));
  expect_lanes(partial, FLK_U16, 20 * 15);
  cf_must(add_weighted(&s, partial, 20, 4349));
  expect_lanes(partial, FLK_U16, 4369 * 15);
  cf_must(add_weighted(&s, partial, 21, 1));
  expect_lanes(partial, FLK_U32, 4370 * 15);
  cf_must(add_weighted(&s, jump, 20, 1));
  expect_lanes(jump, FLK_U8, 15);
  cf_must(fl_partial_add_batch(jump, data, size, heavy, 2, NULL));
  expect_lanes(jump, FLK_U32, 4601 * 15);
  free(copies);
  fl_partial_free(partial);
  fl_partial_free(jump);
  small_close(&s);
}

Test(partial_add, table_adds_the_values_of_indices)
{
  uint8_t values[16] = {0,  3,  5,  7,  9,  11, 13, 14,
                        16, 17, 19, 21, 23, 25, 27, 30};
  static const uint32_t weights[] = {1, 8, 5, 100};
  small s;
  small_open(&s, 4, 8, 0);
  s.r.compressor->values = values;
  s.r.compressor->granularity = 30;
  for (size_t i = 0; i < 128; i++)
    s.update.data[AT_PAYLOAD + i] = (uint8_t)(i % 16 * 17);
  fl_partial *partial = cf_partial(&s.r);
  uint64_t total = 0;
  for (uint32_t slot = 0; slot < 4; slot++) {
    /* What the header says follows from the granularity. */
    float *x = cf_normal(256, 3);
    cf_bytes header = cf_encode(&s.r, slot, x);
    memcpy(s.update.data, header.data, AT_PAYLOAD);
    cf_must(add_weighted(&s, partial, slot, weights[slot]));
    total += weights[slot];
    for (size_t i = 0; i < 256; i++)
      cr_expect_eq(lane(partial, i), total * values[i / 2 % 16]);
    free(header.data);
    free(x);
  }
  fl_partial_free(partial);
  s.r.compressor->values = NULL;
  small_close(&s);
}

/* 16 indices for 255 steps: lanes are full sooner than indices tell. */
Test(partial_add, table_of_255_steps_meets_the_bound_of_lanes)
{
  enum { SLOTS = 70, MOST = ((1 << 30) - 1) / 255 };
  enum { FULL = MOST / FL_MAX_LANE_WEIGHT };
  static const uint64_t n = 256;
  small s;
  fl_compressor_options options;
  cf_options(&options, FL_CODEC_THC, FL_THC_TABLE, 4);
  options.granularity = 255;
  cf_open(&s.r, NULL, &options, &n, 1, SLOTS);
  s.r.norms[0] = 32.0f;
  float *x = cf_normal(n, 3), out[256];
  s.update = cf_encode(&s.r, 0, x);
  memset(s.update.data + AT_PAYLOAD, 0xff, s.update.size - AT_PAYLOAD);
  fl_partial *partial = cf_partial(&s.r);
  cf_must(add_weighted(&s, partial, 0, 1));
  expect_lanes(partial, FLK_U8, 255);
  for (uint32_t slot = 1; slot <= FULL; slot++)
    cf_must(add_weighted(&s, partial, slot, FL_MAX_LANE_WEIGHT));
  uint32_t rest = MOST - FULL * FL_MAX_LANE_WEIGHT - 1;
  cf_bytes before = cf_sum(partial);
  cr_expect_eq(add_weighted(&s, partial, FULL + 1, rest + 1), FL_E_RANGE);
  cr_expect_not_null(strstr(fl_last_error(),
                            "sum: lane weight, got 4210753, want <= 4210752"));
  cf_bytes after = cf_sum(partial);
  cr_expect(cf_equal(before, after));
  cf_must(add_weighted(&s, partial, FULL + 1, rest));
  expect_lanes(partial, FLK_U32, UINT64_C(255) * MOST);
  cf_must(fl_partial_decode(partial, out, n));
  free(x);
  free(before.data);
  free(after.data);
  fl_partial_free(partial);
  small_close(&s);
}

Test(partial_add, mean_is_weighted_by_lane_weight_and_samples)
{
  static const uint32_t weights[WORKERS] = {16, 11, 9, 8, 7, 1};
  world w;
  world_open(&w, UNIFORM, 12);
  fl_partial *partial = cf_partial(&w.r);
  float *out = cf_get(DIM * sizeof(float)), *one = cf_get(DIM * sizeof(float));
  double *sum = cf_get(DIM * sizeof(double)), *total = cf_get(DIM * 8);
  uint64_t samples = 0;
  cf_must(
      fl_partial_add_batch(partial, w.data, w.size, weights, WORKERS, NULL));
  cf_must(fl_partial_decode(partial, out, DIM));
  for (uint32_t i = 0; i < WORKERS; i++) {
    uint64_t each = i < 2 ? 10 + i : 12;
    cf_must(fl_compressor_decode(w.r.compressor, &w.r.scale, w.data[i],
                                 w.size[i], one, DIM));
    samples += weights[i] * each;
    for (uint32_t c = 0; c < DIM; c++) {
      if (i % 4 == (c < 300 ? 0u : c < 4397 ? 1u : 2u)) continue;
      double weight = (double)weights[i] * (double)each;
      sum[c] += weight * (double)one[c];
      total[c] += weight;
    }
  }
  for (uint32_t c = 0; c < DIM; c++)
    one[c] = (float)(sum[c] / total[c]);
  cr_expect_lt(cf_nmse(out, one, DIM), 1e-10);
  cr_expect_eq(fl_partial_weight(partial), 52);
  cr_expect_eq(fl_partial_samples(partial), samples);
  cr_expect_eq(fl_partial_count(partial), WORKERS);
  free(out);
  free(one);
  free(sum);
  free(total);
  fl_partial_free(partial);
  world_close(&w);
}

Test(partial_add, weights_that_make_no_sense_are_refused)
{
  static const uint32_t weights[WORKERS] = {1, 2, 0, FL_MAX_LANE_WEIGHT + 1,
                                            1, 1};
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    fl_status results[WORKERS];
    world_open(&w, kind, 0);
    fl_partial *partial = cf_partial(&w.r);
    cf_must(fl_partial_add_batch(partial, w.data, w.size, weights, WORKERS,
                                 results));
    cr_expect_eq(results[0], FL_OK);
    cr_expect_eq(results[1], kind == UNIFORM ? FL_OK : FL_E_CONFLICT);
    cr_expect_eq(results[2], FL_E_RANGE);
    cr_expect_eq(results[3], FL_E_RANGE);
    cr_expect_eq(results[5], FL_OK);
    cr_expect_eq(fl_partial_count(partial), kind == UNIFORM ? 4 : 3);
    fl_partial_free(partial);
    world_close(&w);
  }
}

Test(partial_add, batch_checks_its_arguments)
{
  world w;
  fl_status results[WORKERS] = {FL_OK};
  world_open(&w, DITHER, 0);
  fl_partial *partial = cf_partial(&w.r);
  cr_expect_eq(fl_partial_add_batch(NULL, w.data, w.size, NULL, 1, results),
               FL_E_ARGUMENT);
  cr_expect_eq(results[0], FL_E_ARGUMENT);
  cr_expect_eq(fl_partial_add_batch(partial, NULL, w.size, NULL, 1, NULL),
               FL_E_ARGUMENT);
  cr_expect_eq(fl_partial_add_batch(partial, w.data, NULL, NULL, 1, NULL),
               FL_E_ARGUMENT);
  cr_expect_eq(fl_partial_add_batch(partial, NULL, NULL, NULL, 0, NULL), FL_OK);
  cr_expect_eq(fl_partial_add(partial, NULL, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_partial_count(partial), 0);
  cr_expect_eq(fl_partial_weight(NULL), 0);
  fl_partial_free(partial);
  world_close(&w);
}

static fl_status merge_claim(const world *w, const cf_bytes *sum,
                             uint32_t weight, uint64_t samples)
{
  fl_partial *partial = cf_partial(&w->r);
  cf_bytes copy = {cf_get(sum->size), sum->size};
  memcpy(copy.data, sum->data, sum->size);
  fli_store_u32(copy.data + AT_WEIGHT, weight);
  fli_store_u64(copy.data + AT_WEIGHT + 4, samples);
  fl_status st = fl_partial_merge_bytes(partial, copy.data, copy.size);
  cr_expect_eq(fl_partial_count(partial), st == FL_OK ? 1 : 0);
  if (st == FL_OK) {
    cf_bytes again = cf_sum(partial);
    cr_expect(cf_equal(again, copy));
    free(again.data);
  }
  free(copy.data);
  fl_partial_free(partial);
  return st;
}

Test(partial_add, readers_refuse_weights_that_cannot_be)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    world_open(&w, kind, 12);
    fl_partial *partial = cf_partial(&w.r);
    float *x = cf_normal(DIM, 1);
    cf_bytes update = cf_encode_some(&w.r, 2, 5, NULL, 0, x);
    cf_must(fl_partial_add(partial, update.data, update.size));
    cf_bytes sum = cf_sum(partial);
    int weighted = kind == UNIFORM;
    cr_expect_eq(merge_claim(&w, &sum, 1, 5), FL_OK);
    cr_expect_eq(merge_claim(&w, &sum, 0, 5), FL_E_RANGE);
    cr_expect_eq(merge_claim(&w, &sum, 1, 13), FL_E_RANGE);
    cr_expect_eq(merge_claim(&w, &sum, 2, 24), weighted ? FL_OK : FL_E_RANGE);
    cr_expect_eq(merge_claim(&w, &sum, 17, 17), weighted ? FL_OK : FL_E_RANGE);
    cr_expect_eq(merge_claim(&w, &sum, 2, 1), FL_E_RANGE);
    cr_expect_eq(merge_claim(&w, &sum, 2, 25), FL_E_RANGE);
    cr_expect_eq(merge_claim(&w, &sum, 18, 18),
                 weighted ? FL_E_TRUNCATED : FL_E_RANGE);
    cr_expect_eq(merge_claim(&w, &sum, 65536, 65536), FL_E_RANGE);
    free(x);
    free(update.data);
    free(sum.data);
    fl_partial_free(partial);
    world_close(&w);
  }
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Float updates are checked while they are added. Whatever is found then, the
 * sum is that of the good ones alone, bit for bit, and each result is what it
 * would have been one by one. */
#include <criterion/criterion.h>

#include <math.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "compress_fixture.h"

enum { SLOTS = 12, SEGMENTS = 3, DIM = 40 + 9000 + 7 };
static const uint64_t sizes[] = {40, 9000, 7};

typedef struct world {
  cf_round r;
  cf_bytes update[SLOTS];
  uint32_t bytes; /* of a value */
} world;

/* Slot i leaves out segment i % 4. */
static void world_open(world *w, uint32_t codec)
{
  fl_compressor_options options;
  cf_options(&options, codec, 0, 4);
  cf_open(&w->r, NULL, &options, sizes, SEGMENTS, SLOTS);
  w->bytes = codec == FL_CODEC_F32 ? 4 : 2;
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    float *x = cf_normal(DIM, slot);
    cf_agree(&w->r, x, 1);
    free(x);
  }
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    uint8_t mask[SEGMENTS] = {slot % 4 != 0, slot % 4 != 1, slot % 4 != 2};
    float *x = cf_normal(DIM, slot);
    w->update[slot] = cf_encode_some(&w->r, slot, 1, mask, SEGMENTS, x);
    free(x);
  }
}

static void world_close(world *w)
{
  for (uint32_t slot = 0; slot < SLOTS; slot++)
    free(w->update[slot].data);
  cf_close(&w->r);
}

static uint64_t coordinates(uint32_t slot)
{
  const uint32_t left_out = slot % 4;
  return DIM - (left_out < SEGMENTS ? sizes[left_out] : 0);
}

/* Make one value of an update impossible: NaN, infinity, or beyond its norm;
 * `place` counts from the end of the update. */
static void spoil(const world *w, cf_bytes update, uint64_t place, uint32_t how)
{
  static const float bad[] = {NAN, INFINITY, -INFINITY, 1e30f, -1e9f};
  uint8_t *at = update.data + update.size - (place + 1) * w->bytes;
  uint32_t bits;
  memcpy(&bits, &bad[how % 5], sizeof bits);
  if (w->bytes == 4) {
    fli_store_u32(at, bits);
  } else {
    fli_store_u16(at, (uint16_t)(bits >> 16));
  }
}

static cf_bytes copy_of(cf_bytes bytes)
{
  cf_bytes copy = {cf_get(bytes.size), bytes.size};
  memcpy(copy.data, bytes.data, bytes.size);
  return copy;
}

/* Of the slots whose bit is set. */
static cf_bytes sum_of(const world *w, uint32_t slots)
{
  fl_partial *partial = cf_partial(&w->r);
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    if (slots >> slot & 1)
      cf_must(
          fl_partial_add(partial, w->update[slot].data, w->update[slot].size));
  }
  cf_bytes sum = cf_sum(partial);
  fl_partial_free(partial);
  return sum;
}

static void expect_sum(const world *w, const fl_partial *partial,
                       uint32_t slots, uint64_t seed)
{
  cf_bytes got = cf_sum(partial), want = sum_of(w, slots);
  cr_expect(cf_equal(got, want), "seed %llu", (unsigned long long)seed);
  free(got.data);
  free(want.data);
}

/* Batches in which some updates are spoilt somewhere. */
Test(partial_fold, bad_values_anywhere_leave_the_sum_of_the_good_ones)
{
  static const uint32_t codecs[] = {FL_CODEC_F32, FL_CODEC_BF16};
  for (uint64_t seed = 0; seed < 60; seed++) {
    world w;
    fli_rng rng;
    fl_status results[SLOTS];
    const uint8_t *data[SLOTS];
    size_t size[SLOTS];
    cf_bytes sent[SLOTS];
    uint32_t good = 0;
    world_open(&w, codecs[seed % 2]);
    fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
    for (uint32_t i = 0; i < SLOTS; i++) {
      sent[i] = copy_of(w.update[i]);
      if (fli_rng_f64(&rng) < 0.3) {
        spoil(&w, sent[i],
              (uint64_t)(fli_rng_f64(&rng) * (double)coordinates(i)),
              (uint32_t)seed + i);
      } else {
        good |= 1u << i;
      }
      data[i] = sent[i].data;
      size[i] = sent[i].size;
    }
    fl_partial *partial = cf_partial(&w.r);
    for (uint32_t i = 0; i < SLOTS; i += 4)
      cf_must(fl_partial_add_batch(partial, data + i, size + i, NULL, 4,
                                   results + i));
    for (uint32_t i = 0; i < SLOTS; i++) {
      cr_expect_eq(results[i], good >> i & 1 ? FL_OK : FL_E_RANGE,
                   "seed %llu, slot %u", (unsigned long long)seed, i);
      cr_expect_eq(fl_partial_has_slot(partial, i), (int)(good >> i & 1));
      free(sent[i].data);
    }
    expect_sum(&w, partial, good, seed);
    fl_partial_free(partial);
    world_close(&w);
  }
}

Test(partial_fold, a_batch_of_bad_ones_leaves_an_empty_sum)
{
  world w;
  world_open(&w, FL_CODEC_F32);
  const uint8_t *data[SLOTS];
  size_t size[SLOTS];
  for (uint32_t i = 0; i < SLOTS; i++) {
    spoil(&w, w.update[i], i, i);
    data[i] = w.update[i].data;
    size[i] = w.update[i].size;
  }
  fl_partial *partial = cf_partial(&w.r);
  cf_must(fl_partial_add_batch(partial, data, size, NULL, SLOTS, NULL));
  cr_expect(strstr(fl_last_error(), "a value above its norm") != NULL);
  cr_expect_eq(fl_partial_count(partial), 0);
  expect_sum(&w, partial, 0, 0);
  float out[1];
  cr_expect_eq(fl_partial_decode(partial, out, DIM), FL_E_EMPTY);
  fl_partial_free(partial);
  world_close(&w);
}

/* A bad update has no slot: the good one behind it in the batch is no
 * duplicate, though it holds segments that the bad one did not. */
Test(partial_fold, a_good_update_behind_a_bad_one_of_its_slot_is_taken)
{
  world w;
  world_open(&w, FL_CODEC_F32);
  static const uint8_t mask[SEGMENTS] = {0, 0, 1};
  float *x = cf_normal(DIM, 5);
  cf_bytes bad = cf_encode_some(&w.r, 5, 1, mask, SEGMENTS, x);
  spoil(&w, bad, 0, 0);
  const uint8_t *data[] = {bad.data, w.update[5].data, w.update[5].data};
  const size_t size[] = {bad.size, w.update[5].size, w.update[5].size};
  fl_status results[3];
  fl_partial *partial = cf_partial(&w.r);
  cf_must(fl_partial_add_batch(partial, data, size, NULL, 3, results));
  cr_expect_eq(results[0], FL_E_RANGE);
  cr_expect_eq(results[1], FL_OK);
  cr_expect_eq(results[2], FL_E_DUPLICATE);
  expect_sum(&w, partial, 1u << 5, 0);
  cr_expect_eq(fl_partial_add(partial, bad.data, bad.size), FL_E_DUPLICATE);
  free(x);
  free(bad.data);
  fl_partial_free(partial);
  world_close(&w);
}

Test(partial_fold, a_bad_update_alone_leaves_the_sum_as_it_was)
{
  world w;
  world_open(&w, FL_CODEC_BF16);
  fl_partial *partial = cf_partial(&w.r);
  cf_must(fl_partial_add(partial, w.update[1].data, w.update[1].size));
  for (uint64_t place = 0; place < coordinates(2); place += 501) {
    cf_bytes bad = copy_of(w.update[2]);
    spoil(&w, bad, place, (uint32_t)place);
    cr_expect_eq(fl_partial_add(partial, bad.data, bad.size), FL_E_RANGE);
    free(bad.data);
  }
  expect_sum(&w, partial, 1u << 1, 0);
  fl_partial_free(partial);
  world_close(&w);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Sums: any order and tree gives the same bytes, lanes widen and never wrap,
 * weights, masks, duplicates, and hostile sum bytes. */
#include <criterion/criterion.h>

#include <math.h>

#include "base/bytes.h"
#include "compress/partial.h"
#include "compress_fixture.h"

#if defined(__SSE2__)
#  include <xmmintrin.h>
#  define HAVE_FLUSH 1
#endif

enum { KINDS = 4, WORKERS = 6 };
static const struct {
  uint32_t codec;
  uint32_t mode;
} kinds[KINDS] = {{FL_CODEC_F32, 0},
                  {FL_CODEC_BF16, 0},
                  {FL_CODEC_THC, FL_THC_UNIFORM},
                  {FL_CODEC_THC, FL_THC_DITHER}};

static const uint64_t sizes[] = {300, 4097, 20};
enum { SEGMENTS = 3, DIM = 300 + 4097 + 20 };

/* WORKERS updates of three segments; worker w leaves out segment w % 4. */
typedef struct world {
  cf_round r;
  float *x[WORKERS];
  cf_bytes update[WORKERS];
} world;

static void world_open(world *w, uint32_t kind, uint64_t cap)
{
  fl_compressor_options options;
  cf_options(&options, kinds[kind].codec, kinds[kind].mode, 4);
  cf_open(&w->r, NULL, &options, sizes, SEGMENTS, WORKERS);
  w->r.scale.weight_cap = cap;
  for (uint32_t i = 0; i < WORKERS; i++) {
    w->x[i] = cf_normal(DIM, 20 + i);
    cf_agree(&w->r, w->x[i], 10 + i);
  }
  for (uint32_t i = 0; i < WORKERS; i++) {
    uint8_t mask[SEGMENTS] = {i % 4 != 0, i % 4 != 1, i % 4 != 2};
    w->update[i] = cf_encode_some(&w->r, i, 10 + i, mask, SEGMENTS, w->x[i]);
  }
}

static void world_close(world *w)
{
  for (uint32_t i = 0; i < WORKERS; i++) {
    free(w->x[i]);
    free(w->update[i].data);
  }
  cf_close(&w->r);
}

static void add(fl_partial *partial, cf_bytes update)
{
  cf_must(fl_partial_add(partial, update.data, update.size));
}

Test(partial, order_and_tree_change_no_byte)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    world_open(&w, kind, 12);
    fl_partial *a = cf_partial(&w.r), *b = cf_partial(&w.r);
    fl_partial *left = cf_partial(&w.r), *right = cf_partial(&w.r);
    fl_partial *root = cf_partial(&w.r);
    for (uint32_t i = 0; i < WORKERS; i++) {
      add(a, w.update[i]);
      add(b, w.update[WORKERS - 1 - i]);
      add(i % 2 ? left : right, w.update[i]);
    }
    cf_must(fl_partial_merge(root, right));
    cf_bytes bytes = cf_sum(left);
    cf_must(fl_partial_merge_bytes(root, bytes.data, bytes.size));
    cf_bytes one = cf_sum(a), two = cf_sum(b), three = cf_sum(root);
    cr_expect(cf_equal(one, two), "kind %u: order", kind);
    cr_expect(cf_equal(one, three), "kind %u: tree", kind);
    cr_expect_eq(fl_partial_count(root), WORKERS);
    cr_expect_eq(fl_partial_samples(root), 10 + 11 + 4 * 12);
    free(bytes.data);
    free(one.data);
    free(two.data);
    free(three.data);
    fl_partial_free(a);
    fl_partial_free(b);
    fl_partial_free(left);
    fl_partial_free(right);
    fl_partial_free(root);
    world_close(&w);
  }
}

Test(partial, mean_is_weighted_by_capped_samples_per_segment)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    world_open(&w, kind, 12);
    fl_partial *partial = cf_partial(&w.r);
    float *out = cf_get(DIM * sizeof(float)), *want = cf_get(DIM * 4);
    for (uint32_t i = 0; i < WORKERS; i++)
      add(partial, w.update[i]);
    cf_must(fl_partial_decode(partial, out, DIM));
    for (uint32_t c = 0; c < DIM; c++) {
      uint32_t segment = c < 300 ? 0 : c < 4397 ? 1 : 2;
      double sum = 0.0, total = 0.0;
      for (uint32_t i = 0; i < WORKERS; i++) {
        if (i % 4 == segment) continue;
        double weight = i < 2 ? 10.0 + i : 12.0;
        sum += weight * (double)w.x[i][c];
        total += weight;
      }
      want[c] = (float)(sum / total);
    }
    double error = cf_nmse(out, want, DIM);
    double bound = kind == 0 ? 1e-12 : kind == 1 ? 1e-4 : 0.06;
    cr_expect(error < bound, "kind %u: error %g", kind, error);
    free(out);
    free(want);
    fl_partial_free(partial);
    world_close(&w);
  }
}

Test(partial, decoding_bytes_equals_decoding_the_sum)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    world_open(&w, kind, 0);
    fl_partial *partial = cf_partial(&w.r);
    float *a = cf_get(DIM * 4), *b = cf_get(DIM * 4);
    for (uint32_t i = 0; i < 3; i++)
      add(partial, w.update[i]);
    cf_bytes sum = cf_sum(partial);
    cf_must(fl_partial_decode(partial, a, DIM));
    cf_must(fl_compressor_decode(w.r.compressor, &w.r.scale, sum.data, sum.size,
                                 b, DIM));
    cr_expect_arr_eq(a, b, DIM * 4);
    free(sum.data);
    free(a);
    free(b);
    fl_partial_free(partial);
    world_close(&w);
  }
}

Test(partial, segment_without_contributors_decodes_to_zero)
{
  world w;
  uint8_t mask[SEGMENTS] = {1, 0, 1};
  world_open(&w, 3, 0);
  fl_partial *partial = cf_partial(&w.r);
  float *out = cf_normal(DIM, 1);
  cf_bytes update = cf_encode_some(&w.r, 5, 1, mask, SEGMENTS, w.x[0]);
  add(partial, update);
  cf_must(fl_partial_decode(partial, out, DIM));
  for (int i = 300; i < 4397; i++)
    cr_expect_eq(out[i], 0.0f);
  cr_expect_neq(out[0], 0.0f);
  free(update.data);
  free(out);
  fl_partial_free(partial);
  world_close(&w);
}

Test(partial, sum_rejects_second_update_from_same_slot)
{
  world w;
  world_open(&w, 3, 0);
  fl_partial *partial = cf_partial(&w.r), *other = cf_partial(&w.r);
  add(partial, w.update[2]);
  add(other, w.update[2]);
  add(other, w.update[3]);
  cf_bytes before = cf_sum(partial), bytes = cf_sum(other);
  cr_expect_eq(fl_partial_add(partial, w.update[2].data, w.update[2].size),
               FL_E_DUPLICATE);
  cr_expect_not_null(strstr(fl_last_error(), "update: slot 2 is in the sum"));
  cr_expect_eq(fl_partial_merge(partial, other), FL_E_DUPLICATE);
  cr_expect_eq(fl_partial_merge(partial, partial), FL_E_DUPLICATE);
  cr_expect_eq(fl_partial_merge_bytes(partial, bytes.data, bytes.size),
               FL_E_DUPLICATE);
  cf_bytes after = cf_sum(partial);
  cr_expect(cf_equal(before, after));
  cr_expect_eq(fl_partial_has_slot(partial, 2), 1);
  cr_expect_eq(fl_partial_has_slot(partial, 3), 0);
  cr_expect_eq(fl_partial_has_slot(partial, 600), 0);
  free(before.data);
  free(bytes.data);
  free(after.data);
  fl_partial_free(partial);
  fl_partial_free(other);
  world_close(&w);
}

/* The widths of lanes while `count` equal workers at the grid's top add up. */
static void widen(uint32_t bits, uint32_t count, uint32_t last_narrow)
{
  fl_compressor_options options;
  cf_round r;
  uint64_t n = 256;
  cf_options(&options, FL_CODEC_THC, FL_THC_UNIFORM, bits);
  cf_open(&r, NULL, &options, &n, 1, count);
  float *x = cf_normal(n, 3), out[256];
  cf_agree(&r, x, 1);
  fl_partial *partial = cf_partial(&r);
  cf_bytes update = cf_encode(&r, 0, x);
  memset(update.data + 128, 0xff, update.size - 128);
  for (uint32_t slot = 0; slot < count; slot++) {
    fli_store_u32(update.data + 56, slot);
    add(partial, update);
    cr_expect_eq(partial->lanes[0].width,
                 slot + 1 <= last_narrow ? FLK_U8 : FLK_U16, "after %u",
                 slot + 1);
  }
  for (int i = 0; i < 256; i++) {
    uint64_t lane = partial->lanes[0].width == FLK_U8
                        ? partial->lanes[0].data[i]
                        : fli_load_u16(partial->lanes[0].data + 2 * i);
    cr_expect_eq(lane, count * ((1u << bits) - 1u));
  }
  cf_must(fl_partial_decode(partial, out, 256));
  free(update.data);
  free(x);
  fl_partial_free(partial);
  cf_close(&r);
}

Test(partial, lanes_of_four_bits_widen_at_the_eighteenth_worker)
{
  widen(4, 17, 17);
  widen(4, 18, 17);
}

Test(partial, lanes_of_eight_bits_widen_at_the_second_worker)
{
  widen(8, 3, 1);
}

Test(partial, merge_crosses_the_16_bit_boundary)
{
  fl_compressor_options options;
  cf_round r;
  uint64_t n = 256;
  cf_options(&options, FL_CODEC_THC, FL_THC_UNIFORM, 8);
  cf_open(&r, NULL, &options, &n, 1, 258);
  float *x = cf_normal(n, 3);
  cf_agree(&r, x, 1);
  fl_partial *a = cf_partial(&r), *b = cf_partial(&r);
  cf_bytes update = cf_encode(&r, 0, x);
  memset(update.data + 128, 0xff, 256);
  for (uint32_t slot = 0; slot < 257; slot++) {
    fli_store_u32(update.data + 56, slot);
    add(a, update);
  }
  cr_expect_eq(a->lanes[0].width, FLK_U16);
  cr_expect_eq(fli_load_u16(a->lanes[0].data), 65535);
  fli_store_u32(update.data + 56, 257);
  add(b, update);
  cf_must(fl_partial_merge(a, b));
  cr_expect_eq(a->lanes[0].width, FLK_U32);
  for (int i = 0; i < 256; i++) {
    cr_expect_eq(fli_load_u32(a->lanes[0].data + 4 * i), 258 * 255);
  }
  free(update.data);
  free(x);
  fl_partial_free(a);
  fl_partial_free(b);
  cf_close(&r);
}

Test(partial, most_slots_at_the_full_norm_fit_int64)
{
  cf_round r;
  float x[1] = {-1.0f}, out[1];
  cf_open_simple(&r, FL_CODEC_F32, 0, 1, FL_MAX_SLOTS);
  cf_agree(&r, x, 1);
  fl_partial *partial = cf_partial(&r);
  cf_bytes update = cf_encode(&r, 0, x);
  for (uint32_t slot = 0; slot < FL_MAX_SLOTS; slot++) {
    fli_store_u32(update.data + 56, slot);
    add(partial, update);
  }
  cf_must(fl_partial_decode(partial, out, 1));
  cr_expect_eq(out[0], -1.0f);
  free(update.data);
  fl_partial_free(partial);
  cf_close(&r);
}

Test(partial, failed_add_leaves_the_sum_as_it_was)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    world_open(&w, kind, 0);
    fl_partial *partial = cf_partial(&w.r);
    add(partial, w.update[0]);
    cf_bytes before = cf_sum(partial);
    cf_bytes bad = w.update[1];
    cr_expect_eq(fl_partial_add(partial, bad.data, bad.size - 1),
                 FL_E_TRUNCATED);
    bad.data[24] ^= 1;
    cr_expect_eq(fl_partial_add(partial, bad.data, bad.size), FL_E_STALE);
    bad.data[24] ^= 1;
    if (kinds[kind].codec != FL_CODEC_THC) {
      memset(bad.data + bad.size - 4, 0xff, 4);
      cr_expect_eq(fl_partial_add(partial, bad.data, bad.size), FL_E_RANGE);
    }
    cf_bytes after = cf_sum(partial);
    cr_expect(cf_equal(before, after), "kind %u", kind);
    free(before.data);
    free(after.data);
    fl_partial_free(partial);
    world_close(&w);
  }
}

Test(partial, peek_reads_slot_and_samples_without_adding)
{
  world w;
  world_open(&w, 3, 0);
  fl_partial *partial = cf_partial(&w.r);
  uint32_t slot = 99;
  uint64_t samples = 99;
  cf_must(fl_partial_peek(partial, w.update[4].data, w.update[4].size, &slot,
                          &samples));
  cr_expect_eq(slot, 4);
  cr_expect_eq(samples, 14);
  cr_expect_eq(fl_partial_count(partial), 0);
  cr_expect_eq(fl_partial_peek(partial, w.update[4].data, 80, NULL, NULL),
               FL_E_TRUNCATED);
  fl_partial_free(partial);
  world_close(&w);
}

Test(partial, empty_sum_is_an_error_to_decode_and_harmless_to_merge)
{
  world w;
  world_open(&w, 3, 0);
  fl_partial *partial = cf_partial(&w.r);
  float *out = cf_get(DIM * 4);
  cr_expect_eq(fl_partial_decode(partial, out, DIM), FL_E_EMPTY);
  cr_expect_eq(fl_partial_decode(partial, out, DIM - 1), FL_E_DIM);
  cf_bytes empty = cf_sum(partial);
  add(partial, w.update[0]);
  cf_bytes before = cf_sum(partial);
  cf_must(fl_partial_merge_bytes(partial, empty.data, empty.size));
  cf_bytes after = cf_sum(partial);
  cr_expect(cf_equal(before, after));
  free(out);
  free(empty.data);
  free(before.data);
  free(after.data);
  fl_partial_free(partial);
  world_close(&w);
}

Test(partial, sums_of_another_scale_or_compressor_are_refused)
{
  world w, other;
  world_open(&w, 3, 0);
  world_open(&other, 2, 0);
  fl_partial *partial = cf_partial(&w.r), *foreign = cf_partial(&other.r);
  cr_expect_eq(fl_partial_merge(partial, foreign), FL_E_SCHEMA);
  cf_bytes bytes = cf_sum(foreign);
  cr_expect_eq(fl_partial_merge_bytes(partial, bytes.data, bytes.size),
               FL_E_SCHEMA);
  fl_partial_free(foreign);
  free(bytes.data);
  w.r.scale.round++;
  foreign = cf_partial(&w.r);
  cr_expect_eq(fl_partial_merge(partial, foreign), FL_E_STALE);
  bytes = cf_sum(foreign);
  cr_expect_eq(fl_partial_merge_bytes(partial, bytes.data, bytes.size),
               FL_E_STALE);
  fl_partial_free(foreign);
  free(bytes.data);
  fl_partial_free(partial);
  world_close(&w);
  world_close(&other);
}

/* Merging bytes either fails and changes nothing or gives the same bytes. */
static void merge_hostile(const world *w, const uint8_t *data, size_t n,
                          fl_status *status)
{
  fl_partial *partial = cf_partial(&w->r);
  uint8_t *copy = cf_get(n);
  memcpy(copy, data, n);
  *status = fl_partial_merge_bytes(partial, copy, n);
  cf_bytes after = cf_sum(partial);
  if (*status == FL_OK) {
    cr_expect(after.size == n && memcmp(after.data, data, n) == 0);
  } else {
    cr_expect_eq(fl_partial_count(partial), 0);
  }
  free(after.data);
  free(copy);
  fl_partial_free(partial);
}

Test(partial, hostile_sums_are_refused_or_canonical)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    fl_status st;
    world_open(&w, kind, 12);
    fl_partial *partial = cf_partial(&w.r);
    for (uint32_t i = 0; i < 3; i++)
      add(partial, w.update[i]);
    cf_bytes sum = cf_sum(partial);
    size_t front = 64 + 4 * 17;
    for (size_t n = 0; n < sum.size; n += n < front ? 1 : 997) {
      merge_hostile(&w, sum.data, n, &st);
      cr_expect_eq(st, FL_E_TRUNCATED, "kind %u, %zu bytes: %s", kind, n,
                   fl_status_name(st));
    }
    for (size_t bit = 0; bit < 8 * front; bit++) {
      sum.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
      merge_hostile(&w, sum.data, sum.size, &st);
      cr_expect(bit >= 8 * 64 || st != FL_OK, "bit %zu", bit);
      sum.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    }
    memset(sum.data + sum.size - 8, 0x7f, 8);
    merge_hostile(&w, sum.data, sum.size, &st);
    cr_expect_eq(st, FL_E_RANGE, "kind %u", kind);
    free(sum.data);
    fl_partial_free(partial);
    world_close(&w);
  }
}

Test(partial, new_checks_its_arguments)
{
  world w;
  fl_partial *partial = NULL;
  world_open(&w, 3, 0);
  cr_expect_eq(fl_partial_new(NULL, w.r.compressor, &w.r.scale), FL_E_ARGUMENT);
  cr_expect_eq(fl_partial_new(&partial, NULL, &w.r.scale), FL_E_ARGUMENT);
  cr_expect_eq(fl_partial_new(&partial, w.r.compressor, NULL), FL_E_ARGUMENT);
  w.r.scale.slots = 0;
  cr_expect_eq(fl_partial_new(&partial, w.r.compressor, &w.r.scale),
               FL_E_RANGE);
  cr_expect_null(partial);
  fl_partial_free(NULL);
  world_close(&w);
}

Test(partial, sum_outlives_compressor_and_scale)
{
  world w;
  world_open(&w, 3, 0);
  fl_partial *partial = cf_partial(&w.r);
  float *out = cf_get(DIM * 4);
  cf_bytes update = w.update[0];
  w.update[0] = (cf_bytes){NULL, 0};
  world_close(&w);
  add(partial, update);
  cf_must(fl_partial_decode(partial, out, DIM));
  free(update.data);
  free(out);
  fl_partial_free(partial);
}

#ifdef HAVE_FLUSH
/* A zero norm and a denormal one; the host's mode takes the two for equal. */
Test(partial, hosts_flush_to_zero_mode_changes_no_sum)
{
  fl_compressor_options options;
  cf_round r;
  fl_partial *partial = NULL;
  const uint64_t two[2] = {20, 30};
  float x[50] = {0};
  for (int i = 20; i < 50; i++)
    x[i] = (float)i * 0x1p-140f;
  cf_options(&options, FL_CODEC_F32, 0, 0);
  cf_open(&r, NULL, &options, two, 2, 2);
  cf_agree(&r, x, 1);
  fl_partial *want = cf_partial(&r);
  cf_bytes update = cf_encode(&r, 0, x), other = cf_encode(&r, 1, x);
  add(want, update);
  cf_bytes half = cf_sum(want);
  add(want, other);
  unsigned int before = _mm_getcsr();
  _mm_setcsr(before | 0x8040u);
  fl_status made = fl_partial_new(&partial, r.compressor, &r.scale);
  fl_status added = fl_partial_add(partial, other.data, other.size);
  fl_status merged = fl_partial_merge_bytes(partial, half.data, half.size);
  _mm_setcsr(before);
  cr_assert_eq(made, FL_OK);
  cr_expect_eq(added, FL_OK);
  cr_expect_eq(merged, FL_OK);
  cf_bytes a = cf_sum(partial), b = cf_sum(want);
  cr_expect(cf_equal(a, b));
  free(a.data);
  free(b.data);
  free(half.data);
  free(update.data);
  free(other.data);
  fl_partial_free(partial);
  fl_partial_free(want);
  cf_close(&r);
}

Test(partial, hosts_flush_to_zero_mode_hides_no_norm)
{
  float into[2] = {0.0f, 0x1p-128f};
  const float other[2] = {0x1p-130f, 0x1p-127f};
  unsigned int before = _mm_getcsr();
  _mm_setcsr(before | 0x8040u);
  fl_status st = fl_norms_merge(into, other, 2);
  _mm_setcsr(before);
  cr_expect_eq(st, FL_OK);
  cr_expect_arr_eq(into, other, sizeof other);
}
#endif

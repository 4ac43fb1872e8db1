/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of one encoded update: cut, too long, flipped, of another round,
 * scale or compressor. */
#include <criterion/criterion.h>

#include <math.h>

#include "base/bytes.h"
#include "wrong_bytes.h"

/* In a message. */
enum { AT_SLOT = 56, AT_MASK = 72, AT_PAYLOAD = 128 };

Test(update, updates_decode_only_with_their_own_round_and_scale)
{
  cf_round r;
  float *x = cf_normal(100, 4), out[100];
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 100, 4);
  cf_agree(&r, x, 1);
  cf_bytes update = cf_encode(&r, 0, x);
#define TRY_DECODE()                                                          \
  fl_compressor_decode(r.compressor, &r.scale, update.data, update.size, out, \
                       100)
  cr_expect_eq(TRY_DECODE(), FL_OK);
  r.scale.round++;
  cr_expect_eq(TRY_DECODE(), FL_E_STALE);
  r.scale.round--;
  r.scale.noise_seed[5] ^= 1;
  cr_expect_eq(TRY_DECODE(), FL_E_STALE);
  r.scale.noise_seed[5] ^= 1;
  r.norms[0] *= 2.0f;
  cr_expect_eq(TRY_DECODE(), FL_E_STALE);
  r.norms[0] /= 2.0f;
  r.scale.slots = 5;
  cr_expect_eq(TRY_DECODE(), FL_E_STALE);
  r.scale.slots = 4;
  r.scale.weight_cap = 1;
  cr_expect_eq(TRY_DECODE(), FL_E_STALE);
  r.scale.weight_cap = 0;
  cr_expect_eq(TRY_DECODE(), FL_OK);
#undef TRY_DECODE
  free(update.data);
  free(x);
  cf_close(&r);
}

Test(update, updates_of_another_compressor_are_refused)
{
  cf_round r, other;
  float *x = cf_normal(100, 4), out[100];
  fl_compressor_options options;
  uint64_t n = 100;
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 100, 4);
  cf_agree(&r, x, 1);
  cf_bytes update = cf_encode(&r, 0, x);
  cf_options(&options, FL_CODEC_THC, FL_THC_DITHER, 4);
  options.rotation_seed[0] ^= 1;
  cf_open(&other, NULL, &options, &n, 1, 4);
  cf_agree(&other, x, 1);
  cr_expect_eq(fl_compressor_decode(other.compressor, &other.scale, update.data,
                                    update.size, out, 100),
               FL_E_SCHEMA);
  free(update.data);
  free(x);
  cf_close(&r);
  cf_close(&other);
}

Test(update, cut_updates_are_truncated_and_longer_ones_malformed)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    cf_round r;
    float *x = cf_normal(100, 4), out[100];
    cf_open_simple(&r, kinds[kind].codec, kinds[kind].mode, 100, 4);
    cf_agree(&r, x, 1);
    cf_bytes update = cf_encode(&r, 0, x);
    for (size_t n = 0; n < update.size; n++) {
      uint8_t *cut = cf_get(n);
      memcpy(cut, update.data, n);
      cr_expect_eq(
          fl_compressor_decode(r.compressor, &r.scale, cut, n, out, 100),
          FL_E_TRUNCATED, "%zu bytes", n);
      expect_text("bytes, want");
      free(cut);
    }
    uint8_t *longer = cf_get(update.size + 1);
    memcpy(longer, update.data, update.size);
    cr_expect_eq(fl_compressor_decode(r.compressor, &r.scale, longer,
                                      update.size + 1, out, 100),
                 FL_E_FORMAT);
    expect_text("update: got");
    free(longer);
    free(update.data);
    free(x);
    cf_close(&r);
  }
}

Test(update, every_bit_of_the_header_matters)
{
  cf_round r;
  float *x = cf_normal(100, 4), out[100];
  cf_open_simple(&r, FL_CODEC_THC, FL_THC_DITHER, 100, 4);
  cf_agree(&r, x, 1);
  cf_bytes update = cf_encode(&r, 0, x);
  for (size_t bit = 0; bit < 8 * 128; bit++) {
    update.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    fl_status st = fl_compressor_decode(r.compressor, &r.scale, update.data,
                                        update.size, out, 100);
    update.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    /* Another slot or sample count is another valid update. */
    int is_free = (bit >= 56 * 8 && bit < 56 * 8 + 2) ||
                  (bit >= 64 * 8 + 1 && bit < 72 * 8);
    cr_expect(is_free ? st == FL_OK : st != FL_OK, "bit %zu: %s", bit,
              fl_status_name(st));
  }
  free(update.data);
  free(x);
  cf_close(&r);
}

Test(update, float_values_above_the_norm_are_refused)
{
  cf_round r;
  float *x = cf_normal(100, 4), out[100];
  static const float bad[] = {NAN, INFINITY, -1e30f};
  cf_open_simple(&r, FL_CODEC_F32, 0, 100, 4);
  cf_agree(&r, x, 1);
  cf_bytes update = cf_encode(&r, 0, x);
  for (int i = 0; i < 3; i++) {
    fli_store_f32(update.data + 128 + 4 * 50, bad[i]);
    cr_expect_eq(fl_compressor_decode(r.compressor, &r.scale, update.data,
                                      update.size, out, 100),
                 FL_E_RANGE);
  }
  free(update.data);
  free(x);
  cf_close(&r);
}

/* Two segments, of which an update holds both. */
typedef struct pair {
  cf_round r;
  cf_bytes update;
} pair;

static void pair_open(pair *p, uint32_t kind)
{
  static const uint64_t sizes[] = {300, 20};
  fl_compressor_options options;
  float *x = cf_normal(320, 4);
  cf_options(&options, kinds[kind].codec, kinds[kind].mode, 4);
  cf_open(&p->r, NULL, &options, sizes, 2, 5);
  cf_agree(&p->r, x, 1);
  p->update = cf_encode(&p->r, 1, x);
  free(x);
}

static void pair_close(pair *p)
{
  free(p->update.data);
  cf_close(&p->r);
}

/* Decoding and adding fail with this status and text; the sum, which holds
 * another update, stays as it was. */
static void expect_refused(const pair *p, fl_status want, const char *text)
{
  float out[320];
  float *x = cf_normal(320, 5);
  cf_bytes other = cf_encode(&p->r, 0, x);
  fl_partial *partial = cf_partial(&p->r);
  cf_must(fl_partial_add(partial, other.data, other.size));
  cf_bytes before = cf_sum(partial);
  cr_expect_eq(fl_compressor_decode(p->r.compressor, &p->r.scale,
                                    p->update.data, p->update.size, out, 320),
               want, "%s", text);
  expect_text(text);
  cr_expect_eq(fl_partial_add(partial, p->update.data, p->update.size), want,
               "%s", text);
  expect_text(text);
  cf_bytes after = cf_sum(partial);
  cr_expect(cf_equal(before, after), "%s", text);
  free(x);
  free(other.data);
  free(before.data);
  free(after.data);
  fl_partial_free(partial);
}

Test(update, every_wrong_field_is_named)
{
  static const wrong_field own[] = {
      {AT_PAYLOAD_SIZE, 8, FL_E_FORMAT, "update: payload, got "},
      {AT_SLOT + 1, 3, FL_E_RANGE, "update: slot, got "},
      {60, 4, FL_E_FORMAT, "update: reserved bytes are set"},
      {AT_MASK, 1, FL_E_FORMAT, "update: mask of segment 0, got "},
      {AT_MASK + 1, 1, FL_E_FORMAT, "update: mask of segment 1, got "},
      {AT_MASK + 2, 54, FL_E_FORMAT, "update: padding of the mask is set"},
  };
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    pair p;
    pair_open(&p, kind);
    for (size_t i = 0; i < HEADER_FIELDS + sizeof own / sizeof own[0]; i++) {
      const wrong_field field = wrong_field_at(own, i);
      for (size_t k = 0; k < field.n; k++) {
        p.update.data[field.at + k] ^= 0x50;
        expect_refused(&p, field.status, field.text);
        p.update.data[field.at + k] ^= 0x50;
      }
    }
    pair_close(&p);
  }
}

Test(update, slots_and_samples_that_cannot_be_are_named)
{
  pair p;
  pair_open(&p, DITHER);
  fli_store_u32(p.update.data + AT_SLOT, 5);
  expect_refused(&p, FL_E_RANGE, "update: slot, got 5, want < 5");
  fli_store_u32(p.update.data + AT_SLOT, UINT32_MAX);
  expect_refused(&p, FL_E_RANGE, "update: slot, got 4294967295, want < 5");
  fli_store_u32(p.update.data + AT_SLOT, 1);
  fli_store_u64(p.update.data + AT_SLOT + 8, 0);
  expect_refused(&p, FL_E_RANGE, "update: samples, got 0, want >= 1");
  pair_close(&p);
}

/* The mask says how many bytes there have to be. */
Test(update, mask_that_cuts_a_segment_is_refused)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    pair p;
    pair_open(&p, kind);
    uint64_t payload = p.update.size - AT_PAYLOAD;
    uint64_t second = kind < 2 ? payload / 16 : payload / 3;
    p.update.data[AT_MASK + 1] = 0;
    expect_refused(&p, FL_E_FORMAT, "update: payload, got ");
    fli_store_u64(p.update.data + AT_PAYLOAD_SIZE, payload - second);
    expect_refused(&p, FL_E_FORMAT, "update: got ");
    p.update.size -= second + 1;
    float out[320];
    cr_expect_eq(fl_compressor_decode(p.r.compressor, &p.r.scale, p.update.data,
                                      p.update.size, out, 320),
                 FL_E_TRUNCATED);
    expect_text("update: got ");
    p.update.size++;
    cf_must(fl_compressor_decode(p.r.compressor, &p.r.scale, p.update.data,
                                 p.update.size, out, 320));
    for (int i = 300; i < 320; i++)
      cr_expect_eq(out[i], 0.0f);
    pair_close(&p);
  }
}

Test(update, updates_of_another_table_or_model_are_refused)
{
  static const uint8_t tables[2][4] = {{0, 2, 3, 5}, {0, 1, 4, 5}};
  static const uint64_t sizes[2][2] = {{300, 20}, {20, 300}};
  cf_round r[3];
  for (int i = 0; i < 3; i++) {
    fl_compressor_options options;
    cf_options(&options, FL_CODEC_THC, FL_THC_TABLE, 2);
    options.table = tables[i == 1];
    options.n_table = 4;
    cf_open(&r[i], NULL, &options, sizes[i == 2], 2, 5);
    for (uint64_t k = 0; k < r[i].scale.n_norms; k++)
      r[i].norms[k] = 2.0f;
  }
  float *x = cf_normal(320, 4), out[320];
  cf_bytes update = cf_encode(&r[0], 1, x);
  for (int i = 0; i < 3; i++) {
    cr_expect_eq(fl_compressor_decode(r[i].compressor, &r[i].scale, update.data,
                                      update.size, out, 320),
                 i == 0 ? FL_OK : FL_E_SCHEMA);
    if (i > 0) expect_text("header: compressor, got ");
    cf_close(&r[i]);
  }
  free(update.data);
  free(x);
}

/* Constant indices decode to one coordinate of length l t. */
Test(update, mean_that_leaves_float32_is_refused)
{
  pair p;
  float out[320];
  pair_open(&p, DITHER);
  for (uint64_t i = 0; i < p.r.scale.n_norms; i++)
    p.r.norms[i] = 0x1p127f;
  float *x = cf_normal(320, 4);
  free(p.update.data);
  p.update = cf_encode(&p.r, 1, x);
  memset(p.update.data + AT_PAYLOAD, 0xff, p.update.size - AT_PAYLOAD);
  cr_expect_eq(fl_compressor_decode(p.r.compressor, &p.r.scale, p.update.data,
                                    p.update.size, out, 320),
               FL_E_RANGE);
  expect_text("decode: segment 0 leaves float32");
  free(x);
  pair_close(&p);
}

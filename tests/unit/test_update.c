/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes of one encoded update: cut, too long, flipped, of another round,
 * scale or compressor. */
#include <criterion/criterion.h>

#include <math.h>

#include "base/bytes.h"
#include "compress_fixture.h"

static const struct {
  uint32_t codec;
  uint32_t mode;
} kinds[] = {
    {FL_CODEC_F32, 0},
    {FL_CODEC_BF16, 0},
    {FL_CODEC_THC, FL_THC_UNIFORM},
    {FL_CODEC_THC, FL_THC_DITHER},
};
enum { KINDS = 4 };

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
      free(cut);
    }
    uint8_t *longer = cf_get(update.size + 1);
    memcpy(longer, update.data, update.size);
    cr_expect_eq(fl_compressor_decode(r.compressor, &r.scale, longer,
                                      update.size + 1, out, 100),
                 FL_E_FORMAT);
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

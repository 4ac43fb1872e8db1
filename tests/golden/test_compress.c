/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that compression must give on every machine: hashes of updates, sums
 * and decoded means of one small round per codec, and the first bytes of an
 * update in full. A difference means that peers of this version would not
 * understand each other: it needs a new format version, not new numbers. */
#include "base/bytes.h"
#include "check.h"
#include "compress_fixture.h"
#include "crypto/crypto.h"

enum { DIM = 2 * 4096 + 100 + 16, WORKERS = 3 };
static const uint64_t sizes[] = {2 * 4096 + 100, 16};

/* Values without a rounding in sight: multiples of 2^-8. */
static void fill(float *x, uint32_t worker)
{
  uint32_t state = 12345u + worker;
  for (int i = 0; i < DIM; i++) {
    state = state * 1664525u + 1013904223u;
    x[i] = (float)((int32_t)(state >> 20) - 2048) * 0x1p-8f;
  }
}

static void expect_hash(const char *name, const void *data, size_t n,
                        uint64_t want)
{
  uint8_t hash[FLI_HASH_BYTES];
  fli_hash(hash, data, n);
  uint64_t got = fli_hash_id(hash);
  if (got != want) {
    fprintf(stderr, "%s: got 0x%016llx\n", name, (unsigned long long)got);
  }
  CHECK_EQ_U64(got, want);
}

typedef struct golden {
  const char *name;
  uint32_t codec;
  uint32_t mode;
  uint32_t bits;
  uint64_t update; /* hashes */
  uint64_t sum;
  uint64_t mean;
} golden;

static const golden rows[] = {
    {"f32", FL_CODEC_F32, 0, 0, 0xef6939e952233d3e, 0x4cca33571ec6fdf9,
     0xa2068d7c53ff633d},
    {"bf16", FL_CODEC_BF16, 0, 0, 0x2b4d141275421462, 0x464878818dc4c7fe,
     0x6893e752eaf3380f},
    {"uniform 4", FL_CODEC_THC, FL_THC_UNIFORM, 4, 0x249e8ff68cfb7f4a,
     0xd69712f330b244b1, 0x0036d32e4fd7022c},
    {"dither 4", FL_CODEC_THC, FL_THC_DITHER, 4, 0x495661380ae270f6,
     0xd96ac3c7c4032a75, 0x6a5c6a51d89c4e67},
    {"dither 1", FL_CODEC_THC, FL_THC_DITHER, 1, 0x259023ffa1a462d5,
     0xdc16d85c4fe29898, 0x14277f4690144cca},
    {"uniform 3", FL_CODEC_THC, FL_THC_UNIFORM, 3, 0xcadff7b6f2645544,
     0x5b4652c5523fb350, 0xd92438992e141104},
    {"dither 8", FL_CODEC_THC, FL_THC_DITHER, 8, 0x0a12d0e43d273261,
     0x990f2cc0ea4f06e2, 0x4949579c32bc239e},
    {"table 4", FL_CODEC_THC, FL_THC_TABLE, 4, 0xb208979ff03d376c,
     0x3de7ade098be0427, 0x6a329198ffec39d4},
    {"table 2", FL_CODEC_THC, FL_THC_TABLE, 2, 0x9e15eaf7adac8fa8,
     0xdf9ecfb55175e21d, 0x144dda4ff780e5c1},
};

static void play(const golden *row)
{
  static float x[DIM], mean[DIM];
  uint8_t mean_bytes[4 * DIM];
  fl_compressor_options options;
  cf_round r;
  cf_options(&options, row->codec, row->mode, row->bits);
  cf_open(&r, NULL, &options, sizes, 2, WORKERS + 1);
  r.scale.weight_cap = 50;
  for (uint32_t w = 0; w < WORKERS; w++) {
    fill(x, w);
    cf_agree(&r, x, 30 + 20 * w);
  }
  fl_partial *partial = cf_partial(&r);
  for (uint32_t w = 0; w < WORKERS; w++) {
    uint8_t mask[2] = {1, w != 1};
    fill(x, w);
    cf_bytes update = cf_encode_some(&r, w, 30 + 20 * w, mask, 2, x);
    if (w == 0) expect_hash(row->name, update.data, update.size, row->update);
    cf_must(fl_partial_add(partial, update.data, update.size));
    free(update.data);
  }
  cf_bytes sum = cf_sum(partial);
  expect_hash(row->name, sum.data, sum.size, row->sum);
  cf_must(fl_partial_decode(partial, mean, DIM));
  for (int i = 0; i < DIM; i++)
    fli_store_f32(mean_bytes + 4 * i, mean[i]);
  expect_hash(row->name, mean_bytes, sizeof mean_bytes, row->mean);
  free(sum.data);
  fl_partial_free(partial);
  cf_close(&r);
}

/* A buffer of late updates: lanes of 36 updates in all. */
static void weighted_sum_gives_these_bytes(void)
{
  static const uint32_t weights[WORKERS] = {16, 11, 9};
  static float x[DIM], mean[DIM];
  uint8_t mean_bytes[4 * DIM];
  fl_compressor_options options;
  cf_round r;
  cf_bytes updates[WORKERS];
  const uint8_t *data[WORKERS];
  size_t size[WORKERS];
  cf_options(&options, FL_CODEC_THC, FL_THC_UNIFORM, 4);
  cf_open(&r, NULL, &options, sizes, 2, WORKERS + 1);
  r.scale.weight_cap = 50;
  for (uint32_t w = 0; w < WORKERS; w++) {
    fill(x, w);
    cf_agree(&r, x, 30 + 20 * w);
  }
  for (uint32_t w = 0; w < WORKERS; w++) {
    uint8_t mask[2] = {1, w != 1};
    fill(x, w);
    updates[w] = cf_encode_some(&r, w, 30 + 20 * w, mask, 2, x);
    data[w] = updates[w].data;
    size[w] = updates[w].size;
  }
  fl_partial *partial = cf_partial(&r);
  cf_must(fl_partial_add_batch(partial, data, size, weights, WORKERS, NULL));
  cf_bytes sum = cf_sum(partial);
  expect_hash("weighted sum", sum.data, sum.size, 0x3d1041acfc556a1d);
  cf_must(fl_partial_decode(partial, mean, DIM));
  for (int i = 0; i < DIM; i++)
    fli_store_f32(mean_bytes + 4 * i, mean[i]);
  expect_hash("weighted mean", mean_bytes, sizeof mean_bytes,
              0x94d4a38dfceffc71);
  for (uint32_t w = 0; w < WORKERS; w++)
    free(updates[w].data);
  free(sum.data);
  fl_partial_free(partial);
  cf_close(&r);
}

static void rounds_give_these_bytes(void)
{
  for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
    play(&rows[i]);
}

static void clips_have_these_bits(void)
{
  static const struct {
    uint32_t mode;
    uint32_t bits;
    float clip;
  } clips[] = {
      {FL_THC_DITHER, 1, 0.765625f},    {FL_THC_DITHER, 4, 2.5224609375f},
      {FL_THC_DITHER, 8, 3.921875f},    {FL_THC_UNIFORM, 1, 0.6572265625f},
      {FL_THC_UNIFORM, 4, 2.30859375f}, {FL_THC_UNIFORM, 8, 3.76953125f}};
  for (size_t i = 0; i < sizeof clips / sizeof clips[0]; i++) {
    fl_compressor_options options;
    fl_compressor *compressor = NULL;
    uint64_t n = 1;
    cf_options(&options, FL_CODEC_THC, clips[i].mode, clips[i].bits);
    cf_must(fl_compressor_new(&compressor, NULL, &options, &n, 1));
    CHECK_EQ_F64(fl_compressor_clip(compressor), clips[i].clip);
    fl_compressor_free(compressor);
  }
}

static void update_header_has_these_bytes(void)
{
  static const uint8_t want[32] = {'F', 'L', 'C', 'U', 2, 0, 1, 0, 32, 0, 0,
                                   0,   5,   0,   0,   0, 1, 0, 0, 0,  0, 0,
                                   0,   0,   3,   0,   0, 0, 0, 0, 0,  0};
  static const uint8_t tail[] = {8, 0, 0, 0, 0, 0, 0, 0, /* payload */
                                 2, 0, 0, 0, 0, 0, 0, 0, /* slot */
                                 1, 0, 0, 0, 0, 0, 0, 0, /* samples */
                                 1};                     /* mask */
  static const uint8_t floats[] = {0, 0, 0, 0x3f, 0, 0, 0, 0xbf};
  cf_round r;
  float x[2] = {0.5f, -0.5f};
  cf_open_simple(&r, FL_CODEC_F32, 0, 2, 5);
  cf_agree(&r, x, 1);
  cf_bytes update = cf_encode(&r, 2, x);
  CHECK_EQ_U64(update.size, 128 + 8);
  CHECK_EQ_MEM(update.data, want, 32);
  CHECK_EQ_MEM(update.data + 48, tail, sizeof tail);
  for (size_t i = 48 + sizeof tail; i < 128; i++)
    CHECK_EQ_U64(update.data[i], 0);
  CHECK_EQ_MEM(update.data + 128, floats, sizeof floats);
  free(update.data);
  cf_close(&r);
}

int main(void)
{
  CHECK_CASE(rounds_give_these_bytes);
  CHECK_CASE(weighted_sum_gives_these_bytes);
  CHECK_CASE(clips_have_these_bits);
  CHECK_CASE(update_header_has_these_bytes);
  return check_report();
}

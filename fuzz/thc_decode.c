/* SPDX-License-Identifier: Apache-2.0 */
/* Encoded updates, sums and step records from a peer. The first byte picks the
 * codec and whether the ids of the header, which are hashes that no fuzzer
 * finds, are put right. A sum that is accepted has to be written again byte
 * for byte; what is refused has to leave the sum and the model alone. */
#include "fuzz.h"

#include <math.h>

#include "compress/canonical.h"
#include "compress_fixture.h"

enum { KINDS = 5, IDS_AT = 32, IDS_END = 48, MEND_IDS = 0x80 };

static const struct {
  uint32_t codec;
  uint32_t mode;
  uint32_t bits;
} kinds[KINDS] = {{FL_CODEC_F32, 0, 0},
                  {FL_CODEC_BF16, 0, 0},
                  {FL_CODEC_THC, FL_THC_UNIFORM, 4},
                  {FL_CODEC_THC, FL_THC_DITHER, 4},
                  {FL_CODEC_THC, FL_THC_DITHER, 3}};

static const uint64_t sizes[] = {20, 300};
enum { DIM = 320, SLOTS = 5 };

static void open_round(cf_round *r, uint32_t kind)
{
  fl_compressor_options options;
  cf_options(&options, kinds[kind].codec, kinds[kind].mode, kinds[kind].bits);
  cf_open(r, NULL, &options, sizes, 2, SLOTS);
  r->scale.weight_cap = 100;
  for (uint64_t i = 0; i < r->scale.n_norms; i++)
    r->norms[i] = 2.0f;
}

static void add_update(const cf_round *r, const uint8_t *data, size_t n)
{
  fl_partial *partial = cf_partial(r);
  fl_status st = fl_partial_add(partial, data, n);
  FUZZ_CHECK(fl_partial_count(partial) == (st == FL_OK));
  if (st == FL_OK) {
    float out[DIM];
    cf_must(fl_partial_decode(partial, out, DIM));
    for (int i = 0; i < DIM; i++)
      FUZZ_CHECK(isfinite(out[i]));
    FUZZ_CHECK(fl_partial_add(partial, data, n) == FL_E_DUPLICATE);
  }
  fl_partial_free(partial);
}

/* Twice in one batch, heavy first: at most one of them is taken. */
static void add_batch(const cf_round *r, const uint8_t *data, size_t n)
{
  static const uint32_t weights[2] = {FL_MAX_LANE_WEIGHT, 1};
  const uint8_t *both[2] = {data, data};
  const size_t both_sizes[2] = {n, n};
  fl_status results[2];
  float out[DIM];
  fl_partial *partial = cf_partial(r);
  cf_must(fl_partial_add_batch(partial, both, both_sizes, weights, 2, results));
  int is_first = results[0] == FL_OK, is_second = results[1] == FL_OK;
  FUZZ_CHECK(!is_first || !is_second);
  FUZZ_CHECK(fl_partial_count(partial) == (is_first || is_second));
  if (is_first || is_second) {
    FUZZ_CHECK(fl_partial_weight(partial) == weights[is_second]);
    cf_must(fl_partial_decode(partial, out, DIM));
    for (int i = 0; i < DIM; i++)
      FUZZ_CHECK(isfinite(out[i]));
  }
  fl_partial_free(partial);
}

static void merge_sum(const cf_round *r, const uint8_t *data, size_t n)
{
  fl_partial *partial = cf_partial(r);
  fl_status st = fl_partial_merge_bytes(partial, data, n);
  if (st == FL_OK) {
    cf_bytes again = cf_sum(partial);
    FUZZ_CHECK(again.size == n && memcmp(again.data, data, n) == 0);
    free(again.data);
  } else {
    FUZZ_CHECK(fl_partial_count(partial) == 0);
  }
  fl_partial_free(partial);
}

static void apply_steps(const cf_round *r, const uint8_t *data, size_t n)
{
  static const uint8_t zeros[4 * DIM];
  fli_canonical model;
  cf_must(fli_canonical_init(&model, NULL, DIM));
  cf_must(fli_canonical_set(&model, 0, zeros, sizeof zeros));
  fl_status st = fli_canonical_apply(&model, r->compressor, data, n);
  FUZZ_CHECK(st != FL_OK || model.is_valid);
  FUZZ_CHECK(model.is_valid || model.version > 0);
  for (int i = 0; i < DIM; i++)
    FUZZ_CHECK(isfinite(model.weights[i]));
  fli_canonical_free(&model);
}

/* The ids that this round's updates carry. */
static void mend_ids(const cf_round *r, uint8_t *data, size_t n)
{
  fl_partial *partial = cf_partial(r);
  cf_bytes empty = cf_sum(partial);
  if (n >= IDS_END) {
    memcpy(data + IDS_AT, empty.data + IDS_AT, IDS_END - IDS_AT);
  }
  free(empty.data);
  fl_partial_free(partial);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  if (n == 0) return 0;
  cf_round r;
  float out[DIM];
  open_round(&r, (data[0] & 0x7fu) % KINDS);
  uint8_t *copy = fuzz_exact_copy(data + 1, n - 1);
  if (data[0] & MEND_IDS) mend_ids(&r, copy, n - 1);
  fl_compressor_decode(r.compressor, &r.scale, copy, n - 1, out, DIM);
  add_update(&r, copy, n - 1);
  add_batch(&r, copy, n - 1);
  merge_sum(&r, copy, n - 1);
  apply_steps(&r, copy, n - 1);
  free(copy);
  cf_close(&r);
  return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Canonical model and step records: replicas that apply the same chain agree,
 * wrong bases and hostile records change nothing. */
#include <criterion/criterion.h>

#include <math.h>

#include "base/bytes.h"
#include "compress/canonical.h"
#include "compress_fixture.h"

enum { DIM = 5000 };

static void hold(fli_canonical *c, uint64_t version)
{
  uint8_t *bytes = cf_get(4 * DIM);
  float *x = cf_normal(DIM, 1);
  for (int i = 0; i < DIM; i++)
    fli_store_f32(bytes + 4 * i, x[i]);
  cf_must(fli_canonical_init(c, NULL, DIM));
  cf_must(fli_canonical_set(c, version, bytes, 4 * DIM));
  free(bytes);
  free(x);
}

/* A record that leads from `base` to `base` + 1. */
static void make_step(cf_round *r, fli_bytes *out, uint64_t base, float rate)
{
  float *x = cf_normal(DIM, 100 + base);
  memset(r->norms, 0, (size_t)r->scale.n_norms * sizeof(float));
  r->scale.round = base;
  cf_agree(r, x, 1);
  cf_bytes update = cf_encode(r, 0, x);
  cf_must(fli_step_write(out, base, rate, &r->scale, update.data, update.size));
  free(update.data);
  free(x);
}

typedef struct chain {
  cf_round r;
  fli_canonical model;
  fli_bytes steps;
} chain;

static void chain_open(chain *c)
{
  cf_open_simple(&c->r, FL_CODEC_THC, FL_THC_DITHER, DIM, 1);
  hold(&c->model, 7);
  fli_bytes_init(&c->steps, NULL);
}

static void chain_close(chain *c)
{
  fli_bytes_free(&c->steps);
  fli_canonical_free(&c->model);
  cf_close(&c->r);
}

static fl_status apply(chain *c)
{
  return fli_canonical_apply(&c->model, c->r.compressor, c->steps.data,
                             c->steps.size);
}

Test(canonical, one_by_one_and_as_a_chain_give_the_same_model)
{
  chain a, b;
  uint8_t hash_a[FLI_HASH_BYTES], hash_b[FLI_HASH_BYTES];
  chain_open(&a);
  chain_open(&b);
  for (uint64_t v = 7; v < 11; v++) {
    fli_bytes_clear(&a.steps);
    make_step(&a.r, &a.steps, v, 0.5f);
    make_step(&b.r, &b.steps, v, 0.5f);
    cr_assert_eq(apply(&a), FL_OK, "%s", fl_last_error());
  }
  cr_assert_eq(apply(&b), FL_OK);
  cr_expect_eq(a.model.version, 11);
  cr_expect_eq(b.model.version, 11);
  fli_canonical_hash(&a.model, hash_a);
  fli_canonical_hash(&b.model, hash_b);
  cr_expect_arr_eq(hash_a, hash_b, FLI_HASH_BYTES);
  chain_close(&a);
  chain_close(&b);
}

Test(canonical, step_adds_rate_times_the_decoded_mean)
{
  chain c;
  chain_open(&c);
  float *before = cf_get(4 * DIM), *mean = cf_get(4 * DIM);
  memcpy(before, c.model.weights, 4 * DIM);
  make_step(&c.r, &c.steps, 7, 0.25f);
  float *x = cf_normal(DIM, 107);
  cf_bytes update = cf_encode(&c.r, 0, x);
  cf_must(fl_compressor_decode(c.r.compressor, &c.r.scale, update.data,
                               update.size, mean, DIM));
  cr_assert_eq(apply(&c), FL_OK);
  for (int i = 0; i < DIM; i++) {
    float change = 0.25f * mean[i];
    cr_expect_eq(c.model.weights[i], before[i] + change);
  }
  free(update.data);
  free(x);
  free(before);
  free(mean);
  chain_close(&c);
}

Test(canonical, full_copy_is_what_was_written)
{
  chain c;
  fli_canonical copy;
  chain_open(&c);
  cf_must(fli_canonical_write(&c.model, &c.steps));
  cr_expect_eq(c.steps.size, 4 * DIM);
  cf_must(fli_canonical_init(&copy, NULL, DIM));
  cr_expect_eq(copy.is_valid, 0);
  cf_must(fli_canonical_set(&copy, 7, c.steps.data, c.steps.size));
  cr_expect_arr_eq(copy.weights, c.model.weights, 4 * DIM);
  fli_canonical_free(&copy);
  chain_close(&c);
}

Test(canonical, bad_full_copies_change_nothing)
{
  chain c;
  uint8_t before[FLI_HASH_BYTES], after[FLI_HASH_BYTES];
  chain_open(&c);
  cf_must(fli_canonical_write(&c.model, &c.steps));
  fli_canonical_hash(&c.model, before);
  cr_expect_eq(fli_canonical_set(&c.model, 9, c.steps.data, 4 * DIM - 1),
               FL_E_DIM);
  fli_store_f32(c.steps.data + 400, NAN);
  cr_expect_eq(fli_canonical_set(&c.model, 9, c.steps.data, 4 * DIM),
               FL_E_NOT_FINITE);
  fli_canonical_hash(&c.model, after);
  cr_expect_arr_eq(before, after, FLI_HASH_BYTES);
  cr_expect_eq(c.model.version, 7);
  chain_close(&c);
}

Test(canonical, wrong_base_is_stale_and_harmless_at_the_front)
{
  chain c;
  chain_open(&c);
  make_step(&c.r, &c.steps, 8, 1.0f);
  cr_expect_eq(apply(&c), FL_E_STALE);
  cr_expect_eq(c.model.is_valid, 1);
  cr_expect_eq(c.model.version, 7);
  chain_close(&c);
}

Test(canonical, failure_behind_the_first_record_invalidates)
{
  chain c;
  chain_open(&c);
  make_step(&c.r, &c.steps, 7, 1.0f);
  make_step(&c.r, &c.steps, 9, 1.0f);
  cr_expect_eq(apply(&c), FL_E_STALE);
  cr_expect_eq(c.model.is_valid, 0);
  cr_expect_eq(apply(&c), FL_E_STATE);
  chain_close(&c);
}

Test(canonical, cut_records_are_refused_at_every_byte)
{
  chain c;
  uint8_t before[FLI_HASH_BYTES], after[FLI_HASH_BYTES];
  chain_open(&c);
  make_step(&c.r, &c.steps, 7, 1.0f);
  fli_canonical_hash(&c.model, before);
  for (size_t n = 0; n < c.steps.size; n += n < 200 ? 1 : 97) {
    uint8_t *cut = cf_get(n);
    memcpy(cut, c.steps.data, n);
    cr_expect_neq(fli_canonical_apply(&c.model, c.r.compressor, cut, n), FL_OK,
                  "%zu bytes", n);
    free(cut);
  }
  fli_canonical_hash(&c.model, after);
  cr_expect_arr_eq(before, after, FLI_HASH_BYTES);
  cr_expect_eq(c.model.is_valid, 1);
  chain_close(&c);
}

Test(canonical, steps_that_leave_float32_are_refused)
{
  chain c;
  chain_open(&c);
  make_step(&c.r, &c.steps, 7, 3e38f);
  cr_expect_eq(apply(&c), FL_E_NOT_FINITE);
  cr_expect_eq(c.model.is_valid, 1);
  cr_expect_eq(c.model.version, 7);
  chain_close(&c);
}

Test(canonical, flipped_bits_never_break_the_model_silently)
{
  chain c;
  chain_open(&c);
  make_step(&c.r, &c.steps, 7, 1.0f);
  for (size_t bit = 0; bit < 8 * 100; bit += 3) {
    c.steps.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    fl_status st = apply(&c);
    c.steps.data[bit / 8] ^= (uint8_t)(1u << (bit % 8));
    /* Another rate is another valid step: start over. */
    if (st == FL_OK) {
      for (int i = 0; i < DIM; i++)
        cr_assert(isfinite(c.model.weights[i]));
      fli_canonical_free(&c.model);
      hold(&c.model, 7);
    }
    cr_assert_eq(c.model.version, 7);
  }
  chain_close(&c);
}

Test(canonical, compressor_of_another_length_is_refused)
{
  chain c;
  cf_round other;
  chain_open(&c);
  cf_open_simple(&other, FL_CODEC_THC, FL_THC_DITHER, DIM + 1, 1);
  make_step(&c.r, &c.steps, 7, 1.0f);
  cr_expect_eq(fli_canonical_apply(&c.model, other.compressor, c.steps.data,
                                   c.steps.size),
               FL_E_DIM);
  cf_close(&other);
  chain_close(&c);
}

Test(canonical, every_field_of_a_record_is_required)
{
  chain c;
  chain_open(&c);
  make_step(&c.r, &c.steps, 7, 1.0f);
  size_t n = c.steps.size;
  uint8_t *record = cf_get(n);
  /* Map of 10; the last field, 10: 0, takes two bytes. */
  cr_assert_eq(c.steps.data[0], 0x8a);
  cr_assert_eq(c.steps.data[n - 2], 10);
  memcpy(record, c.steps.data, n - 2);
  record[0] = 0x89;
  cr_expect_eq(fli_canonical_apply(&c.model, c.r.compressor, record, n - 2),
               FL_E_FORMAT);
  /* The same with a field that nobody knows, 0: 0, in its place. */
  record[0] = 0x8a;
  record[1] = record[2] = 0;
  memcpy(record + 3, c.steps.data + 1, n - 3);
  cr_expect_eq(fli_canonical_apply(&c.model, c.r.compressor, record, n),
               FL_E_FORMAT);
  cr_expect_eq(c.model.version, 7);
  free(record);
  chain_close(&c);
}

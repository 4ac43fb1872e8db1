/* SPDX-License-Identifier: Apache-2.0 */
/* One encoded update, sum or chain of step records from a peer, behind the two
 * bytes that choose the round (sums.h). What is accepted decodes to finite
 * values, whichever way it is decoded; what is refused says why and leaves the
 * model alone. */
#include "sums.h"

#include "compress/canonical.h"

/* What is accepted is what we would have written. */
static void check_accepted(const sums_round *s, const fl_partial *partial,
                           cf_bytes message, int is_sum)
{
  sums_are_possible(s, partial);
  if (is_sum) {
    sums_is_still(partial, message);
    return;
  }
  uint8_t front[FLI_UPDATE_HEADER + 128];
  fli_update update;
  cf_must(
      fli_update_read(&partial->agreed, message.data, message.size, &update));
  size_t n = fli_update_write(&partial->agreed, update.slot, update.samples,
                              update.mask, front);
  FUZZ_CHECK(memcmp(front, message.data, n) == 0);
  FUZZ_CHECK(message.size == fli_update_size(&partial->agreed, update.mask));
  FUZZ_CHECK(fl_partial_has_slot(partial, update.slot));
}

/* Some units at a time, as a client does that has no room for a segment: the
 * same values, or as little. */
static void decode_by_units(const sums_round *s, const fl_partial *partial,
                            fl_status want, const float *whole)
{
  enum { AT_ONCE = 3 };
  static float out[SUMS_DIM_MAX];
  static uint16_t offsets[SUMS_SLOTS_MAX / 2 + 1];
  const fli_layout *layout = &s->r.compressor->layout;
  fl_status st = FL_OK;
  memset(out, 0, sizeof out);
  for (uint32_t i = 0; i < layout->n_segments && st == FL_OK; i++) {
    const fli_segment *segment = &layout->segments[i];
    fli_mean mean = {.agreed = &partial->agreed,
                     .tally = &partial->tallies[i],
                     .segment = i,
                     .lanes = partial->lanes[i].data,
                     .width = partial->lanes[i].width,
                     .out = out,
                     .offsets = partial->agreed.offsets ? offsets : NULL};
    if (mean.tally->count == 0) continue;
    st = fli_mean_begin(&mean);
    const uint64_t end = segment->first_unit + fli_segment_units(segment);
    for (uint64_t u = segment->first_unit; u < end && st == FL_OK; u += AT_ONCE)
      st = fli_mean_units(&mean, u, u + AT_ONCE < end ? u + AT_ONCE : end);
  }
  sums_has_text(st);
  FUZZ_CHECK(st == want);
  FUZZ_CHECK(st != FL_OK || memcmp(out, whole, (size_t)s->r.n * 4) == 0);
}

/* Bytes are decoded as the sum that they make. */
static void decode(const sums_round *s, cf_bytes message)
{
  static float direct[SUMS_DIM_MAX], by_sum[SUMS_DIM_MAX];
  fl_partial *partial = cf_partial(&s->r);
  fl_status st = fl_compressor_decode(
      s->r.compressor, &s->r.scale, message.data, message.size, direct, s->r.n);
  sums_has_text(st);
  int is_sum = message.size >= 4 && fli_load_u32(message.data) == FLI_SUM_MAGIC;
  fl_status added =
      is_sum ? fl_partial_merge_bytes(partial, message.data, message.size)
             : fl_partial_add(partial, message.data, message.size);
  sums_has_text(added);
  if (added != FL_OK) {
    FUZZ_CHECK(added == st);
    FUZZ_CHECK(fl_partial_count(partial) == 0);
    sums_are_equal(partial, s->empty);
  } else {
    check_accepted(s, partial, message, is_sum);
  }
  if (fl_partial_count(partial) > 0) {
    FUZZ_CHECK(sums_decode(s, partial, by_sum) == st);
    FUZZ_CHECK(st != FL_OK || memcmp(direct, by_sum, (size_t)s->r.n * 4) == 0);
    decode_by_units(s, partial, st, direct);
  }
  fl_partial_free(partial);
}

static void apply_steps(const sums_round *s, cf_bytes steps)
{
  static const uint8_t zeros[4 * SUMS_DIM_MAX];
  fli_canonical model;
  cf_must(fli_canonical_init(&model, NULL, s->r.n));
  cf_must(fli_canonical_set(&model, 0, zeros, 4 * (size_t)s->r.n));
  fl_status st =
      fli_canonical_apply(&model, s->r.compressor, steps.data, steps.size);
  sums_has_text(st);
  FUZZ_CHECK(st != FL_OK || model.is_valid);
  FUZZ_CHECK(model.is_valid || model.version > 0);
  for (uint64_t i = 0; i < s->r.n; i++)
    FUZZ_CHECK(isfinite(model.weights[i]));
  fli_canonical_free(&model);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  if (n < 2) return 0;
  sums_round s;
  sums_input input = {data, data + n};
  sums_open(&s, &input);
  cf_bytes message = {fuzz_exact_copy(data + 2, n - 2), n - 2};
  apply_steps(&s, message);
  sums_mend(&s, &message);
  decode(&s, message);
  free(message.data);
  sums_close(&s);
  return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Encoded updates that peers send, added one by one, in a batch with lane
 * weights and backwards (sums.h says how the input holds them). All ways accept
 * the same ones and give the same bytes, lanes are what 64-bit additions make
 * of the same indices, what is refused changes nothing and says why. */
#include "sums.h"

typedef struct messages {
  sums_message list[SUMS_MESSAGES];
  fl_status status[SUMS_MESSAGES];
  uint32_t n;
} messages;

static fl_status add_one(fl_partial *partial, const sums_message *message)
{
  fl_status result = FL_OK;
  const uint8_t *data = message->bytes.data;
  cf_must(fl_partial_add_batch(partial, &data, &message->bytes.size,
                               &message->weight, 1, &result));
  sums_has_text(result);
  return result;
}

/* Samples that one update adds. */
static uint64_t counted(const sums_round *s, uint64_t samples)
{
  uint64_t cap = s->r.scale.weight_cap;
  return cap == 0 ? 1 : samples < cap ? samples : cap;
}

/* One by one, by way of peek: statuses are noted. */
static fl_partial *add_each(const sums_round *s, messages *all)
{
  fl_partial *partial = cf_partial(&s->r);
  for (uint32_t i = 0; i < all->n; i++) {
    const sums_message *one = &all->list[i];
    uint32_t slot = 0;
    uint64_t samples = 0, had_samples = fl_partial_samples(partial);
    uint64_t had_weight = fl_partial_weight(partial);
    uint32_t had = fl_partial_count(partial);
    cf_bytes before = cf_sum(partial);
    fl_status peeked = fl_partial_peek(partial, one->bytes.data,
                                       one->bytes.size, &slot, &samples);
    sums_has_text(peeked);
    int was_there = peeked == FL_OK && fl_partial_has_slot(partial, slot);
    fl_status st = all->status[i] = add_one(partial, one);
    FUZZ_CHECK(peeked == FL_OK || st == peeked);
    FUZZ_CHECK(!was_there || st == FL_E_DUPLICATE);
    if (st == FL_OK) {
      FUZZ_CHECK(fl_partial_has_slot(partial, slot));
      FUZZ_CHECK(fl_partial_count(partial) == had + 1);
      FUZZ_CHECK(fl_partial_weight(partial) == had_weight + one->weight);
      FUZZ_CHECK(fl_partial_samples(partial) ==
                 had_samples + one->weight * counted(s, samples));
    } else {
      sums_is_still(partial, before);
    }
    free(before.data);
  }
  return partial;
}

static void add_batch(const sums_round *s, const messages *all,
                      const fl_partial *want)
{
  const uint8_t *data[SUMS_MESSAGES];
  size_t sizes[SUMS_MESSAGES];
  uint32_t weights[SUMS_MESSAGES];
  fl_status results[SUMS_MESSAGES];
  fl_partial *partial = cf_partial(&s->r);
  for (uint32_t i = 0; i < all->n; i++) {
    data[i] = all->list[i].bytes.data;
    sizes[i] = all->list[i].bytes.size;
    weights[i] = all->list[i].weight;
  }
  cf_must(fl_partial_add_batch(partial, data, sizes, weights, all->n, results));
  for (uint32_t i = 0; i < all->n; i++)
    FUZZ_CHECK(results[i] == all->status[i]);
  sums_are_equal(partial, want);
  fl_partial_free(partial);
}

static void add_backwards(const sums_round *s, const messages *all,
                          const fl_partial *want)
{
  fl_partial *partial = cf_partial(&s->r);
  for (uint32_t i = all->n; i-- > 0;) {
    if (all->status[i] == FL_OK) cf_must(add_one(partial, &all->list[i]));
  }
  sums_are_equal(partial, want);
  fl_partial_free(partial);
}

/* Index i of packed ones. */
static uint32_t index_at(const uint8_t *packed, uint32_t bits, size_t i)
{
  uint32_t index = 0;
  for (uint32_t b = 0; b < bits; b++) {
    size_t at = i * bits + b;
    index |= (uint32_t)(packed[at / 8] >> (at % 8) & 1) << b;
  }
  return index;
}

/* Sums of THC's grid values, once more, where nothing can wrap. */
static void check_lanes(const sums_round *s, const messages *all,
                        const fl_partial *partial)
{
  static uint64_t want[SUMS_DIM_MAX * 2];
  uint8_t table[256];
  const fli_agreed *agreed = &partial->agreed;
  uint32_t bits = s->kind->bits;
  size_t offset[SUMS_MESSAGES] = {0};
  if (s->kind->codec != FL_CODEC_THC) return;
  cf_must(fl_compressor_copy_table(s->r.compressor, table, 1u << bits));
  for (uint32_t segment = 0; segment < s->n_segments; segment++) {
    size_t n = (size_t)fli_agreed_count(agreed, segment);
    memset(want, 0, n * sizeof *want);
    for (uint32_t i = 0; i < all->n; i++) {
      const uint8_t *update = all->list[i].bytes.data;
      if (all->status[i] != FL_OK || !update[FLI_UPDATE_HEADER + segment])
        continue;
      const uint8_t *packed =
          update + fli_update_front(s->n_segments) + offset[i];
      for (size_t k = 0; k < n; k++)
        want[k] +=
            (uint64_t)all->list[i].weight * table[index_at(packed, bits, k)];
      offset[i] += fli_payload_size(agreed, n);
    }
    const fli_lanes *lanes = &partial->lanes[segment];
    for (size_t k = 0; lanes->data && k < n; k++)
      FUZZ_CHECK(sums_lane_at(lanes, k) == want[k]);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  static float out[SUMS_DIM_MAX];
  static messages all;
  sums_round s;
  sums_input input = {data, data + n};
  sums_open(&s, &input);
  for (all.n = 0; all.n < SUMS_MESSAGES; all.n++) {
    if (!sums_next(&s, &input, &all.list[all.n])) break;
  }
  fl_partial *partial = add_each(&s, &all);
  add_batch(&s, &all, partial);
  add_backwards(&s, &all, partial);
  check_lanes(&s, &all, partial);
  sums_are_possible(&s, partial);
  sums_decode(&s, partial, out);
  for (uint32_t i = 0; i < all.n; i++)
    free(all.list[i].bytes.data);
  fl_partial_free(partial);
  sums_close(&s);
  return 0;
}

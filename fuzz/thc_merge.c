/* SPDX-License-Identifier: Apache-2.0 */
/* Sums that lower aggregators send, merged as bytes and as objects, in any
 * order (sums.h says how the input holds them; honest updates become sums of
 * one). What is accepted is written again as the same bytes, what is refused
 * changes nothing and says why, and all ways give the same sum. */
#include "sums.h"

/* The sum of one honest update; anything else as it is. */
static void make_sum(const sums_round *s, sums_message *message)
{
  fl_partial *partial = cf_partial(&s->r);
  fl_status result = FL_OK;
  const uint8_t *data = message->bytes.data;
  cf_must(fl_partial_add_batch(partial, &data, &message->bytes.size,
                               &message->weight, 1, &result));
  if (result == FL_OK) {
    free(message->bytes.data);
    message->bytes = cf_sum(partial);
  }
  fl_partial_free(partial);
}

/* The sum alone, or NULL when the bytes are none. */
static fl_partial *read_sum(const sums_round *s, cf_bytes bytes, fl_status *st)
{
  fl_partial *partial = cf_partial(&s->r);
  *st = fl_partial_merge_bytes(partial, bytes.data, bytes.size);
  sums_has_text(*st);
  if (*st == FL_OK) {
    sums_is_still(partial, bytes);
    sums_are_possible(s, partial);
    return partial;
  }
  sums_are_equal(partial, s->empty);
  fl_partial_free(partial);
  return NULL;
}

/* Merge bytes; 1 when they were added. `alone` is the same sum, if it is one,
 * `twin` what objects make of all so far. */
static int merge(fl_partial *to, fl_partial *twin, cf_bytes bytes,
                 const fl_partial *alone, fl_status alone_status)
{
  cf_bytes before = cf_sum(to);
  /* An edge without slots has nothing to say. */
  if (alone && fl_partial_count(alone) > 0) {
    FUZZ_CHECK(fl_partial_merge_edge(to, bytes.data, bytes.size, 0, 0) ==
               FL_E_CONFLICT);
    sums_is_still(to, before);
  }
  fl_status st = fl_partial_merge_bytes(to, bytes.data, bytes.size);
  sums_has_text(st);
  if (alone) {
    FUZZ_CHECK(st == FL_OK || st == FL_E_DUPLICATE || st == FL_E_RANGE);
    FUZZ_CHECK(fl_partial_merge(twin, alone) == st);
  } else {
    FUZZ_CHECK(st == alone_status);
  }
  if (st != FL_OK) {
    sums_is_still(to, before);
  } else if (fl_partial_count(alone) > 0) {
    FUZZ_CHECK(fl_partial_merge_bytes(to, bytes.data, bytes.size) ==
               FL_E_DUPLICATE);
  }
  sums_are_equal(twin, to);
  free(before.data);
  return st == FL_OK;
}

/* The whole sum is read back from its bytes and decodes to the same. */
static void round_trip(const sums_round *s, const fl_partial *partial)
{
  static float out[SUMS_DIM_MAX], again[SUMS_DIM_MAX];
  cf_bytes bytes = cf_sum(partial);
  fl_status st;
  fl_partial *copy = read_sum(s, bytes, &st);
  FUZZ_CHECK(copy != NULL);
  FUZZ_CHECK(fl_partial_count(copy) == fl_partial_count(partial));
  FUZZ_CHECK(fl_partial_weight(copy) == fl_partial_weight(partial));
  FUZZ_CHECK(fl_partial_samples(copy) == fl_partial_samples(partial));
  st = sums_decode(s, partial, out);
  FUZZ_CHECK(sums_decode(s, copy, again) == st);
  FUZZ_CHECK(st != FL_OK || memcmp(out, again, (size_t)s->r.n * 4) == 0);
  fl_partial_free(copy);
  free(bytes.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fl_partial *added[SUMS_MESSAGES];
  sums_round s;
  sums_message message;
  uint32_t n_added = 0;
  sums_input input = {data, data + n};
  sums_open(&s, &input);
  fl_partial *all = cf_partial(&s.r), *twin = cf_partial(&s.r);
  fl_partial *backwards = cf_partial(&s.r);
  for (int i = 0; i < SUMS_MESSAGES; i++) {
    fl_status st;
    if (!sums_next(&s, &input, &message)) break;
    make_sum(&s, &message);
    fl_partial *alone = read_sum(&s, message.bytes, &st);
    if (merge(all, twin, message.bytes, alone, st)) {
      added[n_added++] = alone;
    } else {
      fl_partial_free(alone);
    }
    free(message.bytes.data);
  }
  while (n_added > 0) {
    cf_must(fl_partial_merge(backwards, added[--n_added]));
    fl_partial_free(added[n_added]);
  }
  sums_are_equal(all, backwards);
  sums_are_possible(&s, all);
  round_trip(&s, all);
  fl_partial_free(all);
  fl_partial_free(twin);
  fl_partial_free(backwards);
  sums_close(&s);
  return 0;
}

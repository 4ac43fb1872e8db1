/* SPDX-License-Identifier: Apache-2.0 */
/* What a strategy has saved. The first byte chooses the strategy, the rest is
 * the payload inside the container, which servers' snapshots have without one.
 * What is accepted is the same when saved again, and goes on: a step gives
 * finite weights, or fails and changes nothing; what is refused says why and
 * changes nothing. */
#include "strategy_job.h"

static int is_equal(const fli_bytes *a, const fli_bytes *b)
{
  return a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

static void write(const fl_strategy *strategy, fli_bytes *out)
{
  fli_bytes_clear(out);
  FUZZ_CHECK(fli_strategy_write(strategy, out) == FL_OK);
}

static void go_on(fl_strategy *strategy, fli_bytes *before, fli_bytes *after)
{
  float weights[JOB_N] = {0};
  write(strategy, before);
  const fl_status st = job_step(strategy, weights);
  for (size_t i = 0; i < JOB_N; i++)
    FUZZ_CHECK(isfinite(weights[i]) && (st == FL_OK || weights[i] == 0.0f));
  write(strategy, after);
  FUZZ_CHECK(st == FL_OK || is_equal(before, after));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fli_bytes before, after;
  if (n < 1) return 0;
  fl_strategy *strategy = job_strategy(data[0]);
  fli_bytes_init(&before, NULL);
  fli_bytes_init(&after, NULL);
  write(strategy, &before);
  if (fli_strategy_read(strategy, data + 1, n - 1) == FL_OK) {
    write(strategy, &before);
    FUZZ_CHECK(fli_strategy_read(strategy, before.data, before.size) == FL_OK);
    write(strategy, &after);
    FUZZ_CHECK(is_equal(&before, &after));
    go_on(strategy, &before, &after);
  } else {
    FUZZ_CHECK(strlen(fl_last_error()) > 0);
    write(strategy, &after);
    FUZZ_CHECK(is_equal(&before, &after));
  }
  fli_bytes_free(&before);
  fli_bytes_free(&after);
  fl_strategy_free(strategy);
  return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of slice and sparse_update: what honest sides say, and lies. */
#include "seeds.h"

#include "slice_job.h"

enum { LONGEST = 1 << 16 };

static void put_with_lies(const char *folder, const char *target,
                          const char *name, const uint8_t *data, size_t n)
{
  static const size_t at[] = {0, 2, 4, 12, 14, 16, 20, 28, 32, 44};
  static uint8_t bytes[LONGEST];
  char text[64];
  FUZZ_CHECK(n <= sizeof bytes);
  seeds_put(folder, target, name, data, n);
  for (size_t i = 0; i < sizeof at / sizeof *at && at[i] < n; i++) {
    memcpy(bytes, data, n);
    bytes[at[i]] ^= 0x81;
    (void)snprintf(text, sizeof text, "%s-bad-%zu", name, at[i]);
    seeds_put(folder, target, text, bytes, n);
  }
  (void)snprintf(text, sizeof text, "%s-cut", name);
  seeds_put(folder, target, text, data, n - 1);
}

static void put_million(const char *folder)
{
  /* Format, kind, one table, layout 0; table 0, a million ids, no clamps. */
  uint8_t bytes[34 + 400] = {1, 'U', 1};
  bytes[14] = 0x40;
  bytes[15] = 0x42;
  bytes[16] = 0x0f;
  seeds_put(folder, "sparse_update", "a-million-ids", bytes, sizeof bytes);
}

void seeds_put_slices(const char *folder)
{
  slice_job job = slice_job_make();
  uint8_t plan[4096];
  const uint8_t *data;
  size_t n = slice_job_plan(&job, plan);
  fl_buffer *answer = NULL;
  put_with_lies(folder, "slice", "plan", plan, n);
  slice_job_begin(&job);
  FUZZ_CHECK(fl_buffer_new(&answer, NULL) == FL_OK);
  FUZZ_CHECK(fl_slice_client_request(job.client, job.bytes) == FL_OK);
  FUZZ_CHECK(fl_buffer_get(job.bytes, &data, &n) == FL_OK);
  put_with_lies(folder, "slice", "request", data, n);
  FUZZ_CHECK(fl_slice_server_answer(job.server, data, n, answer) == FL_OK);
  FUZZ_CHECK(fl_buffer_get(answer, &data, &n) == FL_OK);
  put_with_lies(folder, "slice", "answer", data, n);
  slice_job_fetch(&job);
  slice_job_update(&job, 0);
  FUZZ_CHECK(fl_buffer_get(job.bytes, &data, &n) == FL_OK);
  put_with_lies(folder, "sparse_update", "update", data, n);
  put_million(folder);
  fl_buffer_free(answer);
  slice_job_free(&job);
}

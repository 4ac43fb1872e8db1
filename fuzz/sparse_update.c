/* SPDX-License-Identifier: Apache-2.0 */
/* An update from a device, twice, beside an honest one. What is refused says
 * why and counts for nothing; whatever comes, the round ends, the store obeys
 * its rules, its rows are finite, and the next plan can be used. */
#include "slice_job.h"

#include <math.h>

static void check_rows(const fl_embedding *e)
{
  static uint64_t ids[4096];
  float values[JOB_DIM_MAX];
  for (uint32_t t = 0; t < 2; t++) {
    uint64_t n = 0;
    FUZZ_CHECK(fl_embedding_copy_ids(e, t, ids, 4096, &n) == FL_OK);
    for (uint64_t i = 0; i < n; i++) {
      FUZZ_CHECK(fl_embedding_copy_row(e, t, ids[i], values, NULL) == FL_OK);
      for (uint32_t k = 0; k < (t == 0 ? 16u : 8u); k++)
        FUZZ_CHECK(isfinite(values[k]));
    }
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  slice_job job = slice_job_make();
  fl_slice_report report;
  uint8_t *copy = fuzz_exact_copy(data, n);
  const uint8_t *honest;
  size_t size;
  uint32_t counted = 1;
  slice_job_begin(&job);
  slice_job_fetch(&job);
  slice_job_update(&job, 2);
  FUZZ_CHECK(fl_buffer_get(job.bytes, &honest, &size) == FL_OK);
  for (int i = 0; i < 2; i++) {
    const fl_status st = fl_slice_server_add(job.server, copy, n);
    FUZZ_CHECK(st == FL_OK || fl_last_error()[0] != '\0');
    counted += st == FL_OK;
    if (i == 0)
      FUZZ_CHECK(fl_slice_server_add(job.server, honest, size) == FL_OK);
  }
  FUZZ_CHECK(fl_slice_report_init(&report, sizeof report) == FL_OK);
  FUZZ_CHECK(fl_slice_server_step(job.server, &report) == FL_OK);
  FUZZ_CHECK(report.clients == counted && report.ids <= 1500);
  job_is_good(job.global);
  check_rows(job.global);
  slice_job_begin(&job);
  slice_job_fetch(&job);
  free(copy);
  slice_job_free(&job);
  return 0;
}

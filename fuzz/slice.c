/* SPDX-License-Identifier: Apache-2.0 */
/* A plan and an answer for a device, and a request for a server, by the kind
 * that the bytes say. What is refused says why; whatever comes, the stores obey
 * their rules, a request is answered within a bound, and an honest round works
 * afterwards. */
#include "slice_job.h"

enum { ANSWER_MAX = (256 << 10) + (64 << 10) };

static void check_said(fl_status st)
{
  FUZZ_CHECK(st == FL_OK || fl_last_error()[0] != '\0');
}

static void try_request(slice_job *job, const uint8_t *data, size_t n)
{
  const uint8_t *answer;
  size_t size;
  fl_buffer_clear(job->bytes);
  const fl_status st = fl_slice_server_answer(job->server, data, n, job->bytes);
  check_said(st);
  FUZZ_CHECK(fl_buffer_get(job->bytes, &answer, &size) == FL_OK);
  FUZZ_CHECK(st == FL_OK ? size > 0 && size <= ANSWER_MAX : size == 0);
}

static void try_answer(slice_job *job, const uint8_t *data, size_t n)
{
  slice_job_begin(job);
  fl_buffer_clear(job->bytes);
  FUZZ_CHECK(fl_slice_client_request(job->client, job->bytes) == FL_OK);
  check_said(fl_slice_client_take(job->client, data, n));
  job_is_good(job->local);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  slice_job job = slice_job_make();
  uint8_t *copy = fuzz_exact_copy(data, n);
  check_said(fl_slice_client_begin(job.client, copy, n));
  try_request(&job, copy, n);
  try_answer(&job, copy, n);
  slice_job_begin(&job);
  slice_job_fetch(&job);
  slice_job_update(&job, 2);
  job_is_good(job.local);
  job_is_good(job.global);
  free(copy);
  slice_job_free(&job);
  return 0;
}

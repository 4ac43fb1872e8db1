/* SPDX-License-Identifier: Apache-2.0 */
/* A served store and a device, for slice, sparse_update and their seeds. */
#ifndef FUZZ_SLICE_JOB_H
#define FUZZ_SLICE_JOB_H

#include "embedding_job.h"

#include <fl/slices.h>

typedef struct slice_job {
  fl_embedding *global, *local;
  fl_slice_server *server;
  fl_slice_client *client;
  fl_buffer *bytes;
} slice_job;

static inline slice_job slice_job_make(void)
{
  static const uint64_t ids[] = {0, 13 << 20, 26 << 20, 5, UINT64_MAX};
  fl_slice_server_options options;
  slice_job job = {.global = job_make(), .local = job_make()};
  job_step(job.global, 0);
  job_step(job.global, 1);
  FUZZ_CHECK(fl_slice_server_options_init(&options, sizeof options) == FL_OK);
  options.max_ids = 1000;
  options.max_sum_ids = 1500;
  FUZZ_CHECK(fl_slice_server_new(&job.server, NULL, job.global, &options) ==
             FL_OK);
  FUZZ_CHECK(fl_slice_client_new(&job.client, NULL, job.local, NULL) == FL_OK);
  for (uint32_t t = 0; t < 2; t++)
    FUZZ_CHECK(fl_slice_client_set_ids(job.client, t, ids, 5 - t) == FL_OK);
  FUZZ_CHECK(fl_buffer_new(&job.bytes, NULL) == FL_OK);
  return job;
}

static inline void slice_job_free(slice_job *job)
{
  fl_buffer_free(job->bytes);
  fl_slice_server_free(job->server);
  fl_slice_client_free(job->client);
  fl_embedding_free(job->global);
  fl_embedding_free(job->local);
}

static inline size_t slice_job_plan(const slice_job *job, uint8_t plan[4096])
{
  size_t n;
  FUZZ_CHECK(fl_slice_server_copy_plan(job->server, plan, 4096, &n) == FL_OK);
  return n;
}

static inline void slice_job_begin(slice_job *job)
{
  uint8_t plan[4096];
  const size_t n = slice_job_plan(job, plan);
  FUZZ_CHECK(fl_slice_client_begin(job->client, plan, n) == FL_OK);
}

/* Honest answers to all that is still to be asked. */
static inline void slice_job_fetch(slice_job *job)
{
  const uint8_t *data;
  size_t n;
  for (;;) {
    fl_buffer_clear(job->bytes);
    if (fl_slice_client_request(job->client, job->bytes) != FL_OK) return;
    fl_buffer *answer = NULL;
    FUZZ_CHECK(fl_buffer_new(&answer, NULL) == FL_OK);
    FUZZ_CHECK(fl_buffer_get(job->bytes, &data, &n) == FL_OK);
    FUZZ_CHECK(fl_slice_server_answer(job->server, data, n, answer) == FL_OK);
    FUZZ_CHECK(fl_buffer_get(answer, &data, &n) == FL_OK);
    FUZZ_CHECK(fl_slice_client_take(job->client, data, n) == FL_OK);
    fl_buffer_free(answer);
  }
}

/* The update of a device that has trained; in job->bytes. */
static inline void slice_job_update(slice_job *job, uint64_t seed)
{
  job_step(job->local, (uint32_t)seed);
  fl_buffer_clear(job->bytes);
  FUZZ_CHECK(fl_slice_client_update(job->client, seed, job->bytes) == FL_OK);
}

#endif

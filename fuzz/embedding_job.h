/* SPDX-License-Identifier: Apache-2.0 */
/* A small embedding store for embedding_load, embedding_delta and their
 * seeds. */
#ifndef FUZZ_EMBEDDING_JOB_H
#define FUZZ_EMBEDDING_JOB_H

#include "fuzz.h"

#include <fl/embedding.h>
#include "embedding_invariants.h"
#include "wire/writer.h"

enum { JOB_BUDGET = 48 * 1024, JOB_IDS = 300, JOB_BAGS = 60, JOB_DIM_MAX = 16 };
/* Magic, kind, format; and the hash at the end. */
enum { JOB_HEAD = 12, JOB_TAIL = 32 };

/* Tables of both kinds: chunks of float32 and one of bytes. */
static inline fl_embedding *job_make(void)
{
  static const uint8_t secret[16] = "a fuzzed secret";
  uint32_t t;
  fl_embedding *e = NULL;
  fl_embedding_options options;
  fl_embedding_table_options table;
  FUZZ_CHECK(fl_embedding_options_init(&options, sizeof options) == FL_OK);
  options.byte_budget = JOB_BUDGET;
  options.secret = secret;
  options.tombstones = 64;
  FUZZ_CHECK(fl_embedding_new(&e, NULL, &options) == FL_OK);
  FUZZ_CHECK(fl_embedding_table_options_init(&table, sizeof table) == FL_OK);
  table.dim = 16;
  table.prune_from = 0;
  table.keep_for = 1;
  table.sketch_counters = 64;
  FUZZ_CHECK(fl_embedding_add_table(e, &table, &t) == FL_OK);
  table.dim = 8;
  table.precision = FL_EMBEDDING_I8;
  table.admit_after = 2;
  FUZZ_CHECK(fl_embedding_add_table(e, &table, &t) == FL_OK);
  return e;
}

/* One batch for every table; which ids depends on `step`. */
static inline void job_step(fl_embedding *e, uint32_t step)
{
  static uint64_t ids[JOB_IDS];
  static float out[JOB_BAGS * 1024], gradient[JOB_BAGS * 1024];
  fl_embedding_bags bags;
  FUZZ_CHECK(fl_embedding_bags_init(&bags, sizeof bags) == FL_OK);
  for (uint32_t i = 0; i < JOB_IDS; i++)
    ids[i] = (uint64_t)(i * i % 97 + step * 13) << 20;
  for (uint32_t i = 0; i < JOB_BAGS * 1024; i++)
    gradient[i] = (float)((i * 7 + step) % 11) - 5.0f;
  bags.ids = ids;
  bags.n_ids = JOB_IDS;
  bags.n_bags = JOB_BAGS;
  for (uint32_t t = 0; t < e->n_tables; t++) {
    FUZZ_CHECK(fl_embedding_forward(e, t, &bags, out) == FL_OK);
    FUZZ_CHECK(fl_embedding_backward(e, t, &bags, gradient, .01f) == FL_OK);
  }
  if (step % 3 == 2) FUZZ_CHECK(fl_embedding_adjust(e, NULL) == FL_OK);
}

typedef struct job_source {
  const uint8_t *at;
  size_t left;
} job_source;

static inline fl_status job_read(void *user, void *buf, size_t n, size_t *got)
{
  job_source *s = user;
  *got = n < s->left ? n : s->left;
  if (*got > 0) memcpy(buf, s->at, *got);
  s->at += *got;
  s->left -= *got;
  return FL_OK;
}

static inline fl_status job_append(void *user, const void *buf, size_t n)
{
  return fli_bytes_append(user, buf, n);
}

static inline void job_save(fl_embedding *e, fli_bytes *out)
{
  const fl_writer writer = {job_append, out};
  fli_bytes_clear(out);
  FUZZ_CHECK(fl_embedding_save(e, &writer) == FL_OK);
}

static inline void job_is_good(const fl_embedding *e)
{
  const char *problem = embedding_problem(e);
  if (problem) fprintf(stderr, "%s\n", problem);
  FUZZ_CHECK(problem == NULL);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Every allocation of the compress module fails once: no leak, no crash, and
 * a sum is what it was before the call that failed. */
#include "oom/oom.h"

#include <fl/feedback.h>

#include "base/error.h"
#include "compress/canonical.h"
#include "compress_fixture.h"

enum { DIM = 5000, WORKERS = 18 };

typedef struct scene {
  uint32_t codec;
  cf_round r;
  float *x;
  cf_bytes update[WORKERS];
  cf_bytes sum;
  fli_bytes step;
} scene;

static void scene_open(scene *s, uint32_t codec)
{
  s->codec = codec;
  cf_open_simple(&s->r, codec, FL_THC_DITHER, DIM, WORKERS);
  s->x = cf_normal(DIM, 2);
  cf_agree(&s->r, s->x, 1);
  fl_partial *partial = cf_partial(&s->r);
  for (uint32_t i = 0; i < WORKERS; i++) {
    s->update[i] = cf_encode(&s->r, i, s->x);
    if (i > 0) {
      cf_must(fl_partial_add(partial, s->update[i].data, s->update[i].size));
    }
  }
  s->sum = cf_sum(partial);
  fl_partial_free(partial);
  fli_bytes_init(&s->step, NULL);
  cf_must(fli_step_write(&s->step, 0, 1.0f, &s->r.scale, s->update[0].data,
                         s->update[0].size));
}

static void scene_close(scene *s)
{
  fli_bytes_free(&s->step);
  free(s->sum.data);
  for (uint32_t i = 0; i < WORKERS; i++)
    free(s->update[i].data);
  free(s->x);
  cf_close(&s->r);
}

static fl_status make(const scene *s, fl_context *context,
                      fl_compressor **compressor)
{
  fl_compressor_options options;
  uint64_t n = DIM;
  cf_options(&options, s->codec, FL_THC_DITHER, 4);
  return fl_compressor_new(compressor, context, &options, &n, 1);
}

static fl_status measure_and_encode(fl_context *context, void *arg)
{
  scene *s = arg;
  fl_status st = FL_OK;
  fl_compressor *compressor = NULL;
  float norms[2];
  size_t size = s->update[0].size;
  uint8_t *buffer = cf_get(size);
  FLI_TRY(make(s, context, &compressor));
  FLI_TRY(fl_compressor_measure(compressor, &s->r.scale, 1, s->x, DIM, norms,
                                s->r.scale.n_norms));
  FLI_TRY(fl_compressor_encode(compressor, &s->r.scale, NULL, s->x, DIM, buffer,
                               size, &size, NULL));
  CHECK_EQ_MEM(buffer, s->update[0].data, size);
out:
  free(buffer);
  fl_compressor_free(compressor);
  return st;
}

static fl_status add_and_decode(fl_context *context, void *arg)
{
  scene *s = arg;
  fl_status st = FL_OK;
  fl_compressor *compressor = NULL;
  fl_partial *partial = NULL;
  float *out = cf_get(DIM * sizeof(float));
  FLI_TRY(make(s, context, &compressor));
  FLI_TRY(fl_partial_new(&partial, compressor, &s->r.scale));
  for (uint32_t i = 0; i < WORKERS; i++) {
    uint32_t count = fl_partial_count(partial);
    st = fl_partial_add(partial, s->update[i].data, s->update[i].size);
    if (st == FL_OK) continue;
    CHECK_EQ_U64(fl_partial_count(partial), count);
    goto out;
  }
  FLI_TRY(fl_partial_decode(partial, out, DIM));
out:
  free(out);
  fl_partial_free(partial);
  fl_compressor_free(compressor);
  return st;
}

static fl_status add_batches(fl_context *context, void *arg)
{
  scene *s = arg;
  fl_status st = FL_OK;
  fl_compressor *compressor = NULL;
  fl_partial *partial = NULL;
  const uint8_t *data[WORKERS];
  size_t size[WORKERS];
  fl_status results[WORKERS];
  for (uint32_t i = 0; i < WORKERS; i++) {
    data[i] = s->update[i].data;
    size[i] = s->update[i].size;
  }
  FLI_TRY(make(s, context, &compressor));
  FLI_TRY(fl_partial_new(&partial, compressor, &s->r.scale));
  FLI_TRY(fl_partial_add_batch(partial, data, size, NULL, 3, results));
  st = fl_partial_add_batch(partial, data, size, NULL, WORKERS, results);
  CHECK_EQ_U64(fl_partial_count(partial), st == FL_OK ? WORKERS : 3);
  for (uint32_t i = 0; i < WORKERS; i++)
    CHECK_STATUS(results[i], st != FL_OK ? st : i < 3 ? FL_E_DUPLICATE : FL_OK);
out:
  fl_partial_free(partial);
  fl_compressor_free(compressor);
  return st;
}

static fl_status merge_bytes(fl_context *context, void *arg)
{
  scene *s = arg;
  fl_status st = FL_OK;
  fl_compressor *compressor = NULL;
  fl_partial *partial = NULL;
  float *out = cf_get(DIM * sizeof(float));
  FLI_TRY(make(s, context, &compressor));
  FLI_TRY(fl_compressor_decode(compressor, &s->r.scale, s->sum.data,
                               s->sum.size, out, DIM));
  FLI_TRY(fl_partial_new(&partial, compressor, &s->r.scale));
  FLI_TRY(fl_partial_add(partial, s->update[0].data, s->update[0].size));
  st = fl_partial_merge_bytes(partial, s->sum.data, s->sum.size);
  CHECK_EQ_U64(fl_partial_count(partial), st == FL_OK ? WORKERS : 1);
out:
  free(out);
  fl_partial_free(partial);
  fl_compressor_free(compressor);
  return st;
}

/* A value that is found while the batch is added: all is done once more. */
static fl_status add_a_bad_batch(fl_context *context, void *arg)
{
  scene *s = arg;
  fl_status st = FL_OK;
  fl_compressor *compressor = NULL;
  fl_partial *partial = NULL;
  fl_status results[WORKERS];
  const uint8_t *data[WORKERS];
  size_t size[WORKERS];
  cf_bytes bad = {cf_get(s->update[1].size), s->update[1].size};
  memcpy(bad.data, s->update[1].data, bad.size);
  memset(bad.data + bad.size - 4, 0xff, 4);
  for (uint32_t i = 0; i < WORKERS; i++) {
    data[i] = i == 1 ? bad.data : s->update[i].data;
    size[i] = s->update[i].size;
  }
  FLI_TRY(make(s, context, &compressor));
  FLI_TRY(fl_partial_new(&partial, compressor, &s->r.scale));
  st = fl_partial_add_batch(partial, data, size, NULL, WORKERS, results);
  CHECK_EQ_U64(fl_partial_count(partial), st == FL_OK ? WORKERS - 1 : 0);
  for (uint32_t i = 0; i < WORKERS; i++)
    CHECK_STATUS(results[i], st != FL_OK ? st : i == 1 ? FL_E_RANGE : FL_OK);
out:
  free(bad.data);
  fl_partial_free(partial);
  fl_compressor_free(compressor);
  return st;
}

/* An edge's, of all slots but the first. */
static fl_status merge_edge(fl_context *context, void *arg)
{
  scene *s = arg;
  fl_status st = FL_OK;
  fl_compressor *compressor = NULL;
  fl_partial *edge = NULL, *root = NULL;
  cf_bytes sum = {NULL, 0};
  FLI_TRY(make(s, context, &compressor));
  FLI_TRY(fl_partial_new(&edge, compressor, &s->r.scale));
  for (uint32_t i = 1; i < WORKERS; i++)
    FLI_TRY(fl_partial_add(edge, s->update[i].data, s->update[i].size));
  sum = cf_sum(edge);
  FLI_TRY(fl_partial_new(&root, compressor, &s->r.scale));
  FLI_TRY(fl_partial_add(root, s->update[0].data, s->update[0].size));
  st = fl_partial_merge_edge(root, sum.data, sum.size, 1, WORKERS - 1);
  CHECK_EQ_U64(fl_partial_count(root), st == FL_OK ? WORKERS : 1);
out:
  free(sum.data);
  fl_partial_free(edge);
  fl_partial_free(root);
  fl_compressor_free(compressor);
  return st;
}

static fl_status apply_step(fl_context *context, void *arg)
{
  scene *s = arg;
  fl_status st = FL_OK;
  fl_compressor *compressor = NULL;
  fli_canonical model;
  fli_bytes bytes;
  uint8_t *zeros = cf_get(4 * DIM);
  fli_bytes_init(&bytes, context);
  FLI_TRY(fli_canonical_init(&model, context, DIM));
  FLI_TRY(make(s, context, &compressor));
  FLI_TRY(fli_canonical_set(&model, 0, zeros, 4 * DIM));
  st = fli_canonical_apply(&model, compressor, s->step.data, s->step.size);
  CHECK_EQ_I64(model.is_valid, 1);
  CHECK_EQ_U64(model.version, st == FL_OK);
  if (st != FL_OK) goto out;
  FLI_TRY(fli_canonical_write(&model, &bytes));
  FLI_TRY(fli_step_write(&bytes, 1, 1.0f, &s->r.scale, s->update[0].data,
                         s->update[0].size));
out:
  free(zeros);
  fli_bytes_free(&bytes);
  fli_canonical_free(&model);
  fl_compressor_free(compressor);
  return st;
}

static fl_status reload(fl_feedback **feedback, const fl_compressor *compressor,
                        fl_context *context)
{
  fl_status st = FL_OK;
  fl_buffer *buffer = NULL;
  fl_feedback *other = NULL;
  fl_writer writer;
  fl_reader reader;
  FLI_TRY(fl_buffer_new(&buffer, context));
  FLI_TRY(fl_buffer_as_writer(buffer, &writer));
  FLI_TRY(fl_feedback_save(*feedback, &writer));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  FLI_TRY(fl_feedback_restore(&other, compressor, NULL, &reader));
  fl_feedback_free(*feedback);
  *feedback = other;
out:
  fl_buffer_free(buffer);
  return st;
}

/* A call that fails leaves the phase, and so the memory, where it was. */
static fl_status feed_back(fl_context *context, void *arg)
{
  scene *s = arg;
  fl_status st = FL_OK;
  fl_compressor *compressor = NULL;
  fl_feedback *feedback = NULL;
  float norms[2];
  size_t size = s->update[0].size;
  uint8_t *buffer = cf_get(size);
  FLI_TRY(make(s, context, &compressor));
  FLI_TRY(fl_feedback_new(&feedback, compressor, NULL));
  st = fl_feedback_measure(feedback, &s->r.scale, 1, s->x, DIM, norms,
                           s->r.scale.n_norms);
  CHECK_EQ_U64(fl_feedback_phase(feedback), st == FL_OK);
  if (st != FL_OK) goto out;
  FLI_TRY(fl_feedback_copy_norms(feedback, norms, s->r.scale.n_norms));
  st = fl_feedback_encode(feedback, &s->r.scale, NULL, buffer, size, &size,
                          NULL);
  CHECK_EQ_U64(fl_feedback_phase(feedback),
               st == FL_OK ? FL_FEEDBACK_ENCODED : FL_FEEDBACK_MEASURED);
  if (st != FL_OK) goto out;
  CHECK_EQ_MEM(buffer, s->update[0].data, size);
  FLI_TRY(reload(&feedback, compressor, context));
  FLI_TRY(fl_feedback_settle(feedback, 1, NULL, 0));
out:
  free(buffer);
  fl_feedback_free(feedback);
  fl_compressor_free(compressor);
  return st;
}

typedef struct table_case {
  uint32_t bits;
  float clip; /* 0: solved too */
} table_case;

/* Chosen granularity, solved table. */
static fl_status solve_table(fl_context *context, void *arg)
{
  const table_case *wanted = arg;
  fl_compressor_options options;
  fl_compressor *compressor = NULL;
  uint64_t n = 10;
  cf_options(&options, FL_CODEC_THC, FL_THC_TABLE, wanted->bits);
  options.clip = wanted->clip;
  fl_status st = fl_compressor_new(&compressor, context, &options, &n, 1);
  fl_compressor_free(compressor);
  return st;
}

static void tables_survive_failing_allocations(void)
{
  for (uint32_t bits = 1; bits <= 4; bits++) {
    table_case solved = {bits, 0.0f}, given = {bits, 2.25f};
    oom_loop(solve_table, &solved);
    oom_loop(solve_table, &given);
  }
}

static void run_all(uint32_t codec)
{
  scene s;
  scene_open(&s, codec);
  oom_loop(measure_and_encode, &s);
  oom_loop(add_and_decode, &s);
  oom_loop(add_batches, &s);
  oom_loop(merge_bytes, &s);
  oom_loop(merge_edge, &s);
  if (codec != FL_CODEC_THC) oom_loop(add_a_bad_batch, &s);
  oom_loop(feed_back, &s);
  oom_loop(apply_step, &s);
  scene_close(&s);
}

static void thc_survives_failing_allocations(void)
{
  run_all(FL_CODEC_THC);
}

static void f32_survives_failing_allocations(void)
{
  run_all(FL_CODEC_F32);
}

int main(void)
{
  CHECK_CASE(thc_survives_failing_allocations);
  CHECK_CASE(f32_survives_failing_allocations);
  CHECK_CASE(tables_survive_failing_allocations);
  return check_report();
}

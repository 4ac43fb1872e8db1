/* SPDX-License-Identifier: Apache-2.0 */
/* A weight file for a small model. The first byte says in which steps the
 * stream gives its bytes, and whether missing and extra tensors may pass; its
 * top bit asks for a right size of the header, which mutations seldom find.
 * What is accepted is finite and comes back when it is saved and loaded; what
 * is refused changes nothing; memory follows what arrived. */
#include "fuzz.h"

#include <fl/weights.h>
#include <math.h>

#include "base/bytes.h"
#include "wire/writer.h"

enum { VALUES = 12, FIXED = 256 * 1024, FOR_EACH_BYTE = 40 };

typedef struct source {
  const uint8_t *at;
  size_t left;
  size_t step;
} source;

static fl_status source_read(void *user, void *buf, size_t n, size_t *got)
{
  source *s = user;
  if (n > s->step) n = s->step;
  if (n > s->left) n = s->left;
  if (n > 0) memcpy(buf, s->at, n);
  s->at += n;
  s->left -= n;
  *got = n;
  return FL_OK;
}

static fl_status sink_write(void *user, const void *buf, size_t n)
{
  return fli_bytes_append(user, buf, n);
}

/* w [2, 3], fixed mean [2], b [3] and a scalar; values 1, 2, ... */
static fl_model *new_model(fl_context *context)
{
  const uint64_t w[2] = {2, 3};
  const uint64_t mean = 2;
  const uint64_t b = 3;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  FUZZ_CHECK(fl_model_builder_new(&builder, context) == FL_OK);
  (void)fl_model_builder_tensor(builder, "w", w, 2, 1);
  (void)fl_model_builder_tensor(builder, "mean", &mean, 1, 0);
  (void)fl_model_builder_tensor(builder, "b", &b, 1, 1);
  (void)fl_model_builder_tensor(builder, "s", NULL, 0, 1);
  FUZZ_CHECK(fl_model_builder_build(builder, &model) == FL_OK);
  fl_model_builder_free(builder);
  return model;
}

static void get_values(const fl_model *model, float values[VALUES])
{
  FUZZ_CHECK(fl_model_copy_tensor(model, 0, values, 6) == FL_OK);
  FUZZ_CHECK(fl_model_copy_tensor(model, 1, values + 6, 2) == FL_OK);
  FUZZ_CHECK(fl_model_copy_tensor(model, 2, values + 8, 3) == FL_OK);
  FUZZ_CHECK(fl_model_copy_tensor(model, 3, values + 11, 1) == FL_OK);
}

static void set_values(fl_model *model, const float values[VALUES])
{
  FUZZ_CHECK(fl_model_set_tensor(model, 0, values, 6) == FL_OK);
  FUZZ_CHECK(fl_model_set_tensor(model, 1, values + 6, 2) == FL_OK);
  FUZZ_CHECK(fl_model_set_tensor(model, 2, values + 8, 3) == FL_OK);
  FUZZ_CHECK(fl_model_set_tensor(model, 3, values + 11, 1) == FL_OK);
}

static void check_comes_back(const fl_model *model)
{
  float want[VALUES], got[VALUES];
  fli_bytes out;
  fli_bytes_init(&out, NULL);
  fl_writer writer = {sink_write, &out};
  fl_model *other = new_model(NULL);
  FUZZ_CHECK(fl_model_save_weights(model, &writer) == FL_OK);
  source s = {out.data, out.size, SIZE_MAX};
  fl_reader reader = {source_read, &s};
  FUZZ_CHECK(fl_model_load_weights(other, &reader, 0, NULL) == FL_OK);
  get_values(model, want);
  get_values(other, got);
  FUZZ_CHECK(memcmp(want, got, sizeof want) == 0);
  fl_model_free(other);
  fli_bytes_free(&out);
}

static void load(const uint8_t *data, size_t n, uint8_t mode)
{
  static const float before[VALUES] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  float after[VALUES];
  uint64_t own, peak;
  fl_context *context = NULL;
  fl_load_report report;
  FUZZ_CHECK(fl_context_new(&context, NULL) == FL_OK);
  FUZZ_CHECK(fl_load_report_init(&report, sizeof report) == FL_OK);
  fl_model *model = new_model(context);
  set_values(model, before);
  FUZZ_CHECK(fl_context_get_memory(context, &own, NULL) == FL_OK);
  source s = {data, n, 1 + (size_t)(mode & 0x1f)};
  fl_reader reader = {source_read, &s};
  uint32_t flags = (mode >> 5) & 3;
  fl_status st = fl_model_load_weights(model, &reader, flags, &report);
  FUZZ_CHECK(fl_context_get_memory(context, NULL, &peak) == FL_OK);
  FUZZ_CHECK(peak <= own + FIXED + FOR_EACH_BYTE * (uint64_t)n);
  get_values(model, after);
  for (size_t i = 0; i < VALUES; i++)
    FUZZ_CHECK(isfinite(after[i]));
  if (st == FL_OK) {
    FUZZ_CHECK(s.left == 0);
    FUZZ_CHECK(report.n_loaded + report.n_missing == 4);
    FUZZ_CHECK(report.n_missing == 0 || (flags & FL_LOAD_ALLOW_MISSING));
    FUZZ_CHECK(report.n_extra == 0 || (flags & FL_LOAD_ALLOW_EXTRA));
    check_comes_back(model);
  } else {
    FUZZ_CHECK(memcmp(before, after, sizeof before) == 0);
  }
  fl_model_free(model);
  fl_context_free(context);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  if (n == 0) return 0;
  uint8_t *copy = fuzz_exact_copy(data + 1, n - 1);
  /* The last brace ends the header. */
  if ((data[0] & 0x80) && n > 9) {
    size_t end = n - 1;
    while (end > 8 && copy[end - 1] != '}')
      end--;
    fli_store_u64(copy, end - 8);
  }
  load(copy, n - 1, data[0]);
  free(copy);
  return 0;
}

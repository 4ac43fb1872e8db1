/* SPDX-License-Identifier: Apache-2.0 */
/* A checkpoint from anywhere. The first byte says what the others are: 0 a
 * whole checkpoint, else its payload, whose hash is made right. What is
 * accepted is finite, is written and read again as the same bytes, and survives
 * a resumed fit; what is refused changes nothing. */
#include "fuzz.h"

#include "model/model.h"
#include "small_model.h"
#include "wire/container.h"

static fl_status append(void *user, const void *data, size_t n)
{
  return fli_bytes_append(user, data, n);
}

static fli_bytes save(const fl_model *model)
{
  fli_bytes out;
  fl_writer writer = {append, &out};
  fli_bytes_init(&out, NULL);
  FUZZ_CHECK(fl_model_save_checkpoint(model, &writer) == FL_OK);
  return out;
}

/* Bytes to be read from the front. */
typedef struct source {
  const uint8_t *data;
  size_t n;
} source;

static fl_status take(void *user, void *data, size_t n, size_t *got)
{
  source *s = user;
  *got = n < s->n ? n : s->n;
  if (*got > 0) memcpy(data, s->data, *got);
  s->data += *got;
  s->n -= *got;
  return FL_OK;
}

static fl_status load(fl_model *model, const uint8_t *data, size_t n)
{
  source s = {data, n};
  fl_reader reader = {take, &s};
  return fl_model_load_checkpoint(model, &reader);
}

static void check_same(const fl_model *model, const fli_bytes *want)
{
  fli_bytes now = save(model);
  FUZZ_CHECK(now.size == want->size);
  FUZZ_CHECK(memcmp(now.data, want->data, now.size) == 0);
  fli_bytes_free(&now);
}

static void check_accepted(fl_model *model)
{
  fl_model *copy = small_model(FL_OPTIMISER_SGD, 1);
  fli_bytes saved = save(model);
  fl_dataset data = small_data();
  fl_fit_options options;
  FUZZ_CHECK(fl_model_self_test(model) == FL_OK);
  FUZZ_CHECK(load(copy, saved.data, saved.size) == FL_OK);
  check_same(copy, &saved);
  FUZZ_CHECK(fl_fit_options_init(&options, sizeof options) == FL_OK);
  options.batch_size = 2;
  options.epochs = 2;
  options.resume = 1;
  options.seed = model->place.seed; /* another one is refused */
  fl_status st = fl_model_fit(model, &data, &options, NULL);
  FUZZ_CHECK(st == FL_OK || st == FL_E_NOT_FINITE);
  FUZZ_CHECK(fl_model_fit(copy, &data, &options, NULL) == st);
  size_t bytes = (size_t)model->n_weights * sizeof(float);
  FUZZ_CHECK(memcmp(copy->values, model->values, bytes) == 0);
  fli_bytes_free(&saved);
  fl_model_free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  if (n == 0) return 0;
  fl_model *model = small_model(FL_OPTIMISER_ADAM, 1);
  fli_bytes before = save(model);
  fli_bytes whole;
  fl_writer writer = {append, &whole};
  fli_bytes_init(&whole, NULL);
  if (data[0] == 0) {
    FUZZ_CHECK(fli_bytes_append(&whole, data + 1, n - 1) == FL_OK);
  } else {
    fli_bytes payload;
    fli_bytes_init(&payload, NULL);
    FUZZ_CHECK(fli_bytes_append(&payload, data + 1, n - 1) == FL_OK);
    FUZZ_CHECK(fli_container_write(&writer, FLI_STATE_MODEL, 1, &payload) ==
               FL_OK);
    fli_bytes_free(&payload);
  }
  uint8_t *copy = fuzz_exact_copy(whole.data, whole.size);
  if (load(model, copy, whole.size) == FL_OK) {
    check_accepted(model);
  } else {
    check_same(model, &before);
  }
  free(copy);
  fli_bytes_free(&whole);
  fli_bytes_free(&before);
  fl_model_free(model);
  return 0;
}

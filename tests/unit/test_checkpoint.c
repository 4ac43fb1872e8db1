/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: what is written is read; what is torn, of another model or made
 * up is refused, and the model is as before. (That a fit goes on to the same
 * bits is test_training.c's.) */
#include <fl/train.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/model.h"
#include "model_fixture.h"
#include "wire/container.h"

typedef struct bytes {
  fl_buffer *buffer;
  const uint8_t *data;
  size_t n;
} bytes;

static bytes save(const fl_model *model)
{
  bytes b = {0};
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(&b.buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(b.buffer, &writer), FL_OK);
  cr_assert_eq(fl_model_save_checkpoint(model, &writer), FL_OK, "%s",
               fl_last_error());
  cr_assert_eq(fl_buffer_get(b.buffer, &b.data, &b.n), FL_OK);
  return b;
}

static fl_status load(fl_model *model, const void *data, size_t n)
{
  fl_buffer *buffer = NULL;
  fl_reader reader;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_append(buffer, data, n), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  fl_status st = fl_model_load_checkpoint(model, &reader);
  cr_assert((st == FL_OK) == (fl_last_error()[0] == '\0'));
  fl_buffer_free(buffer);
  return st;
}

/* A model in the middle of things: Adam, an update done, a batch gathered. */
static fl_model *new_model(uint32_t kind)
{
  sample_set set;
  fl_optimiser_options o;
  fl_model *model = fixture_small_mlp();
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, 9);
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.kind = kind;
  o.momentum = 0.5f;
  o.accumulate = 2;
  o.schedule = FL_SCHEDULE_STEP;
  o.period = 3;
  cr_assert_eq(fl_model_set_optimiser(model, &o), FL_OK);
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(fl_model_step(model, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
  }
  return model;
}

static void step(fl_model *model)
{
  sample_set set;
  fixture_samples(&set, SEED + 1);
  fl_dataset data = fixture_data(set.x, set.y, 9);
  cr_assert_eq(fl_model_step(model, &data, FL_RATE_SCHEDULED, NULL), FL_OK);
}

static void assert_same(const fl_model *a, const fl_model *b)
{
  bytes x = save(a);
  bytes y = save(b);
  cr_assert_eq(x.n, y.n);
  cr_assert_arr_eq(x.data, y.data, x.n);
  fl_buffer_free(x.buffer);
  fl_buffer_free(y.buffer);
}

Test(checkpoint, model_that_was_read_goes_on_with_the_same_bits)
{
  for (uint32_t kind = 0; kind <= FL_OPTIMISER_ADAGRAD; kind++) {
    fl_model *model = new_model(kind);
    fl_model *copy = fixture_small_mlp();
    bytes saved = save(model);
    cr_assert_eq(load(copy, saved.data, saved.n), FL_OK, "%s", fl_last_error());
    assert_same(copy, model);
    for (int i = 0; i < 5; i++) {
      step(model);
      step(copy);
      cr_assert_arr_eq(copy->values, model->values, WEIGHTS * sizeof(float));
    }
    assert_same(copy, model);
    fl_buffer_free(saved.buffer);
    fl_model_free(model);
    fl_model_free(copy);
  }
}

Test(checkpoint, frozen_modules_are_frozen_again)
{
  fl_model *model = new_model(FL_OPTIMISER_ADAM);
  fl_model *copy = fixture_small_mlp();
  cr_assert_eq(fl_model_set_first_active(model, 1), FL_OK);
  step(model);
  bytes saved = save(model);
  cr_assert_eq(load(copy, saved.data, saved.n), FL_OK, "%s", fl_last_error());
  cr_assert_eq(fl_model_first_active(copy), 1);
  assert_same(copy, model);
  step(model);
  step(copy);
  assert_same(copy, model);
  fl_buffer_free(saved.buffer);
  fl_model_free(model);
  fl_model_free(copy);
}

Test(checkpoint, borrowed_weights_stay_where_they_are)
{
  fl_model *model = new_model(FL_OPTIMISER_ADAM);
  fl_model *copy = fixture_small_mlp();
  float *before = NULL;
  float *after = NULL;
  bytes saved = save(model);
  cr_assert_eq(fl_model_get_weights(copy, &before, NULL), FL_OK);
  cr_assert_eq(load(copy, saved.data, saved.n), FL_OK);
  cr_assert_eq(fl_model_get_weights(copy, &after, NULL), FL_OK);
  cr_assert_eq(before, after);
  fl_buffer_free(saved.buffer);
  fl_model_free(model);
  fl_model_free(copy);
}

Test(checkpoint, torn_at_any_byte_it_is_refused)
{
  fl_model *model = new_model(FL_OPTIMISER_ADAM);
  fl_model *target = fixture_small_mlp();
  fl_model *twin = fixture_small_mlp();
  bytes saved = save(model);
  for (size_t n = 0; n < saved.n; n++) {
    fl_status st = load(target, saved.data, n);
    cr_assert_eq(st, FL_E_TRUNCATED, "%zu of %zu bytes: %s", n, saved.n,
                 fl_status_name(st));
    assert_same(target, twin);
  }
  fl_buffer_free(saved.buffer);
  fl_model_free(model);
  fl_model_free(target);
  fl_model_free(twin);
}

Test(checkpoint, any_byte_that_is_another_is_refused)
{
  fl_model *model = new_model(FL_OPTIMISER_SGD);
  fl_model *target = fixture_small_mlp();
  fl_model *twin = fixture_small_mlp();
  bytes saved = save(model);
  uint8_t *copy = malloc(saved.n);
  cr_assert_not_null(copy);
  memcpy(copy, saved.data, saved.n);
  for (size_t i = 0; i < saved.n; i++) {
    copy[i] ^= 0x41;
    cr_assert_neq(load(target, copy, saved.n), FL_OK, "byte %zu", i);
    assert_same(target, twin);
    copy[i] ^= 0x41;
  }
  cr_assert_eq(load(target, copy, saved.n), FL_OK);
  free(copy);
  fl_buffer_free(saved.buffer);
  fl_model_free(model);
  fl_model_free(target);
  fl_model_free(twin);
}

Test(checkpoint, another_models_is_refused)
{
  fl_model *model = new_model(FL_OPTIMISER_ADAM);
  fl_model *others[2] = {fixture_mlp(NULL, INPUTS, HIDDEN + 1, CLASSES),
                         fixture_mlp(NULL, HIDDEN, INPUTS, CLASSES)};
  bytes saved = save(model);
  for (size_t i = 0; i < 2; i++) {
    cr_assert_eq(load(others[i], saved.data, saved.n), FL_E_SCHEMA);
    fl_model_free(others[i]);
  }
  fl_buffer_free(saved.buffer);
  fl_model_free(model);
}

static fl_status refuse(void *user, const void *data, size_t n)
{
  (void)user;
  (void)data;
  (void)n;
  return FL_E_IO;
}

static fl_status refuse_to_read(void *user, void *data, size_t n, size_t *got)
{
  (void)user;
  (void)data;
  (void)n;
  *got = 0;
  return FL_E_IO;
}

Test(checkpoint, streams_that_fail_are_reported)
{
  fl_model *model = new_model(FL_OPTIMISER_ADAM);
  fl_model *twin = new_model(FL_OPTIMISER_ADAM);
  fl_writer writer = {refuse, NULL};
  fl_reader reader = {refuse_to_read, NULL};
  cr_assert_eq(fl_model_save_checkpoint(model, &writer), FL_E_IO);
  cr_assert_eq(fl_model_load_checkpoint(model, &reader), FL_E_IO);
  assert_same(model, twin);
  cr_assert_eq(fl_model_save_checkpoint(NULL, &writer), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_save_checkpoint(model, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_load_checkpoint(NULL, &reader), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_load_checkpoint(model, NULL), FL_E_ARGUMENT);
  fl_model_free(model);
  fl_model_free(twin);
}

/* A forged one, whose hash is right: the first float at `at` in the payload
 * becomes `value`. */
static fl_status load_forged(fl_model *model, const bytes *saved, float from,
                             float value)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  fl_buffer *buffer = NULL;
  fl_reader reader;
  fl_writer writer;
  uint32_t version = 0;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_append(buffer, saved->data, saved->n), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  fli_bytes_init(&payload, NULL);
  cr_assert_eq(fli_container_read(&reader, FLI_STATE_MODEL, 1, saved->n,
                                  &version, &payload),
               FL_OK);
  size_t i = 0;
  while (memcmp(payload.data + i, &from, sizeof from) != 0) {
    cr_assert_leq(++i, payload.size - sizeof from);
  }
  memcpy(payload.data + i, &value, sizeof value);
  fl_buffer_clear(buffer);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fli_container_write(&writer, FLI_STATE_MODEL, 1, &payload),
               FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  st = fl_model_load_checkpoint(model, &reader);
  fli_bytes_free(&payload);
  fl_buffer_free(buffer);
  return st;
}

Test(checkpoint, values_that_cannot_be_are_refused)
{
  fl_model *model = new_model(FL_OPTIMISER_ADAM);
  fl_model *target = fixture_small_mlp();
  fl_model *twin = fixture_small_mlp();
  bytes saved = save(model);
  enum { LAST = WEIGHTS - 1 }; /* an output's bias */
  float weight = model->values[LAST];
  float first = model->optimiser.state[0][LAST];
  float second = model->optimiser.state[1][LAST];
  float gradient = model->workspace.gradient[LAST];
  cr_assert(weight != 0.0f && first != 0.0f && second > 0.0f &&
            gradient != 0.0f);
  cr_assert_eq(load_forged(target, &saved, weight, NAN), FL_E_FORMAT);
  cr_assert_eq(load_forged(target, &saved, first, INFINITY), FL_E_FORMAT);
  cr_assert_eq(load_forged(target, &saved, gradient, NAN), FL_E_FORMAT);
  cr_assert_eq(load_forged(target, &saved, second, NAN), FL_E_FORMAT);
  cr_assert_eq(load_forged(target, &saved, second, -1.0f), FL_E_FORMAT,
               "its root would be NaN");
  assert_same(target, twin);
  cr_assert_eq(load_forged(target, &saved, second, 1.0f), FL_OK);
  fl_buffer_free(saved.buffer);
  fl_model_free(model);
  fl_model_free(target);
  fl_model_free(twin);
}

/* It might replace a good one. */
Test(checkpoint, what_no_load_would_take_is_not_written)
{
  fl_model *model = new_model(FL_OPTIMISER_ADAM);
  fl_buffer *buffer = NULL;
  fl_writer writer;
  const uint8_t *data = NULL;
  size_t n = 0;
  float *weights = NULL;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_model_get_weights(model, &weights, NULL), FL_OK);
  float kept = weights[3];
  weights[3] = INFINITY;
  cr_assert_eq(fl_model_save_checkpoint(model, &writer), FL_E_NOT_FINITE);
  cr_assert_str_eq(fl_last_error(),
                   "checkpoint: weights: value 3 is not finite");
  weights[3] = kept;
  model->optimiser.state[1][0] = NAN;
  cr_assert_eq(fl_model_save_checkpoint(model, &writer), FL_E_NOT_FINITE);
  cr_assert_eq(fl_buffer_get(buffer, &data, &n), FL_OK);
  cr_assert_eq(n, 0);
  fl_buffer_free(buffer);
  fl_model_free(model);
}

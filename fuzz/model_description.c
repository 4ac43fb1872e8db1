/* SPDX-License-Identifier: Apache-2.0 */
/* A model's description from a peer. What is accepted is described by canonical
 * bytes, which give the same model and the same bytes again; its set/get
 * self-test passes; and a small one survives a training step. */
#include "fuzz.h"

#include "model/model.h"

enum { MAX_ELEMENTS = 1 << 16, MAX_SAMPLE = 1 << 12 };

static void check_canonical(const fl_model *model)
{
  fl_model *again = NULL;
  const fli_bytes *first = &model->description;
  FUZZ_CHECK(fl_model_from_description(&again, NULL, first->data,
                                       first->size) == FL_OK);
  FUZZ_CHECK(again->description.size == first->size);
  FUZZ_CHECK(memcmp(again->description.data, first->data, first->size) == 0);
  FUZZ_CHECK(memcmp(again->schema, model->schema, FL_HASH_BYTES) == 0);
  FUZZ_CHECK(fl_model_weight_count(again) == fl_model_weight_count(model));
  fl_model_free(again);
}

static void check_step(fl_model *model)
{
  if (model->n_chain == 0) return;
  uint64_t size = model->nodes[model->chain[0]].output.count;
  if (size > MAX_SAMPLE || fl_model_output_count(model) > MAX_SAMPLE) return;
  int32_t label = 0;
  uint8_t *x = calloc((size_t)size, 1);
  fl_dataset data;
  FUZZ_CHECK(x != NULL);
  FUZZ_CHECK(fl_dataset_init(&data, sizeof data) == FL_OK);
  data.x_dtype = FL_DTYPE_U8;
  data.x = x;
  data.y = &label;
  data.n = 1;
  fl_status st = fl_model_step(model, &data, 0.01f, NULL);
  FUZZ_CHECK(st == FL_OK || st == FL_E_NOT_FINITE);
  free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fl_model *model = NULL;
  uint8_t *copy = fuzz_exact_copy(data, n);
  fl_status st =
      fli_model_from_description_capped(&model, NULL, copy, n, MAX_ELEMENTS);
  free(copy);
  FUZZ_CHECK((st == FL_OK) == (model != NULL));
  if (!model) return 0;
  FUZZ_CHECK(model->n_weights + model->n_fixed <= MAX_ELEMENTS);
  check_canonical(model);
  FUZZ_CHECK(fl_model_self_test(model) == FL_OK);
  check_step(model);
  fl_model_free(model);
  return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures in building, reading, testing and training a model. */
#include <fl/embedding.h>
#include <fl/layers.h>
#include <fl/train.h>

#include "array_rows.h"
#include "base/error.h"
#include "oom.h"

enum { INPUTS = 6, N = 20 };

static fl_status build(fl_context *context, fl_model **out)
{
  const uint64_t dims[2] = {2, 3};
  const uint64_t fixed = 4;
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  FLI_TRY(fl_model_builder_new(&builder, context));
  FLI_TRY(fl_model_builder_tensor(builder, "fixed", &fixed, 1, 0));
  FLI_TRY(fl_model_builder_input(builder, dims, 2, 1.0f, 0.0f));
  FLI_TRY(fl_model_builder_flatten(builder, "f"));
  FLI_TRY(fl_model_builder_dense(builder, "a", 5));
  FLI_TRY(fl_model_builder_relu(builder, "r"));
  FLI_TRY(fl_model_builder_dense(builder, "b", 3));
  FLI_TRY(fl_model_builder_softmax_cross_entropy(builder, "l"));
  FLI_TRY(fl_model_builder_build(builder, out));
out:
  fl_model_builder_free(builder);
  return st;
}

static fl_status build_and_read(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fl_model *model = NULL;
  fl_model *copy = NULL;
  uint8_t bytes[512];
  size_t n = 0;
  (void)arg;
  FLI_TRY(build(context, &model));
  FLI_TRY(fl_model_copy_description(model, bytes, sizeof bytes, &n));
  FLI_TRY(fl_model_from_description(&copy, context, bytes, n));
out:
  fl_model_free(copy);
  fl_model_free(model);
  return st;
}

/* A failed call leaves the model usable: its weights are as they were. */
static fl_status use(fl_context *context, void *arg)
{
  static float x[N * INPUTS];
  static int32_t y[N];
  fl_status st = FL_OK;
  fl_model *model = NULL;
  float *weights = NULL;
  float logits[N * 3];
  fl_dataset data;
  fl_fit_options options;
  fl_evaluation evaluation;
  (void)arg;
  CHECK_OK(fl_dataset_init(&data, sizeof data));
  CHECK_OK(fl_fit_options_init(&options, sizeof options));
  CHECK_OK(fl_evaluation_init(&evaluation, sizeof evaluation));
  data.x = x;
  data.y = y;
  data.n = N;
  options.batch_size = 8;
  FLI_TRY(build(context, &model));
  FLI_TRY(fl_model_init_weights(model, 1));
  FLI_TRY(fl_model_get_weights(model, &weights, NULL));
  float first = weights[0];
  st = fl_model_self_test(model);
  CHECK(weights[0] == first);
  if (st != FL_OK) goto out;
  data.n = 4;
  FLI_TRY(fl_model_step(model, &data, 0.1f, NULL));
  data.n = N;
  FLI_TRY(fl_model_fit(model, &data, &options, NULL));
  FLI_TRY(fl_model_evaluate(model, &data, &evaluation));
  FLI_TRY(fl_model_predict(model, &data, logits, N * 3));
out:
  fl_model_free(model);
  return st;
}

/* Convolution, pool and norm, or embedding and attention. */
static fl_status build_deep(fl_context *context, int is_sequence,
                            fl_model **out)
{
  const uint64_t image[3] = {2, 6, 6};
  const uint64_t ids = 4;
  fl_conv2d_options conv;
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  CHECK_OK(fl_conv2d_options_init(&conv, sizeof conv));
  conv.filters = 3;
  conv.padding = 1;
  FLI_TRY(fl_model_builder_new(&builder, context));
  if (is_sequence) {
    FLI_TRY(fl_model_builder_input(builder, &ids, 1, 1.0f, 0.0f));
    FLI_TRY(fl_model_builder_embedding(builder, "e", 5, 4));
    FLI_TRY(fl_model_builder_attention(builder, "a", 2, 1));
    FLI_TRY(fl_model_builder_add(builder, "s", "e"));
    FLI_TRY(fl_model_builder_layer_norm(builder, "n", 1e-5f));
  } else {
    FLI_TRY(fl_model_builder_input(builder, image, 3, 1.0f, 0.0f));
    FLI_TRY(fl_model_builder_conv2d(builder, "c", &conv));
    FLI_TRY(fl_model_builder_relu(builder, "r"));
    FLI_TRY(fl_model_builder_pool2d(builder, "p", NULL));
    FLI_TRY(fl_model_builder_group_norm(builder, "n", 3, 1e-5f));
  }
  FLI_TRY(fl_model_builder_mean(builder, "m"));
  FLI_TRY(fl_model_builder_dropout(builder, "d", 0.2f));
  FLI_TRY(fl_model_builder_dense(builder, "f", 3));
  FLI_TRY(fl_model_builder_cross_entropy(builder, "l", NULL));
  FLI_TRY(fl_model_builder_build(builder, out));
out:
  fl_model_builder_free(builder);
  return st;
}

typedef struct deep {
  int is_sequence;
  fl_dataset data;
  uint8_t pixels[N * 72];
  int32_t ids[N * 4];
  int32_t labels[N];
} deep;

static void deep_begin(deep *d, int is_sequence)
{
  *d = (deep){.is_sequence = is_sequence};
  CHECK_OK(fl_dataset_init(&d->data, sizeof d->data));
  d->data.x_dtype = is_sequence ? FL_DTYPE_I32 : FL_DTYPE_U8;
  d->data.x = is_sequence ? (const void *)d->ids : d->pixels;
  d->data.y = d->labels;
  d->data.n = N;
  for (size_t i = 0; i < sizeof d->pixels; i++) {
    d->pixels[i] = (uint8_t)(i * 31);
  }
}

/* Whatever fails, weights, the optimiser and what is frozen stay as they
 * were. */
static fl_status try_call(fl_model *model,
                          fl_status (*call)(fl_model *, deep *), deep *d)
{
  float before[128];
  fl_optimiser_options options[2];
  uint64_t n = fl_model_weight_count(model);
  uint64_t updates[2] = {0};
  float *weights = NULL;
  uint32_t first = fl_model_first_active(model);
  CHECK(n <= 128);
  CHECK_OK(fl_optimiser_options_init(&options[0], sizeof options[0]));
  CHECK_OK(fl_optimiser_options_init(&options[1], sizeof options[1]));
  CHECK_OK(fl_model_copy_weights(model, before, n));
  CHECK_OK(fl_model_get_optimiser(model, &options[0]));
  CHECK_OK(fl_model_get_progress(model, &updates[0], NULL));
  fl_status st = call(model, d);
  if (st == FL_OK) return st;
  char text[256];
  (void)snprintf(text, sizeof text, "%s", fl_last_error());
  CHECK_OK(fl_model_get_weights(model, &weights, NULL));
  CHECK_OK(fl_model_get_optimiser(model, &options[1]));
  CHECK_OK(fl_model_get_progress(model, &updates[1], NULL));
  CHECK_EQ_MEM(weights, before, (size_t)n * sizeof *before);
  CHECK_EQ_MEM(&options[0], &options[1], sizeof options[0]);
  CHECK_EQ_U64(updates[0], updates[1]);
  CHECK_EQ_U64(fl_model_first_active(model), first);
  return fli_error(st, "%s", text);
}

static fl_status call_plan(fl_model *model, deep *d)
{
  fl_memory_plan plan;
  (void)d;
  CHECK_OK(fl_memory_plan_init(&plan, sizeof plan));
  return fl_model_plan_memory(model, N, 1, &plan);
}

static fl_status call_step(fl_model *model, deep *d)
{
  return fl_model_step(model, &d->data, FL_RATE_SCHEDULED, NULL);
}

static fl_status call_adam(fl_model *model, deep *d)
{
  fl_optimiser_options o;
  (void)d;
  CHECK_OK(fl_optimiser_options_init(&o, sizeof o));
  o.kind = FL_OPTIMISER_ADAM;
  return fl_model_set_optimiser(model, &o);
}

static fl_status call_freeze(fl_model *model, deep *d)
{
  (void)d;
  return fl_model_set_first_active(model, 1);
}

static fl_status call_accumulate(fl_model *model, deep *d)
{
  return fl_model_accumulate(model, &d->data, NULL);
}

static fl_status call_limit(fl_model *model, deep *d)
{
  CHECK_OK(fl_model_set_memory_limit(model, 16));
  fl_status st = fl_model_step(model, &d->data, FL_RATE_SCHEDULED, NULL);
  CHECK_OK(fl_model_set_memory_limit(model, 0));
  CHECK(st == FL_E_LIMIT || st == FL_E_NOMEM);
  if (st == FL_E_LIMIT) return FL_OK;
  return fli_error(st, "memory: none to look for a batch that fits");
}

static fl_status use_deep(fl_context *context, void *arg)
{
  static fl_status (*const calls[])(fl_model *, deep *) = {
      call_plan,  call_step,   call_adam,       call_step,
      call_limit, call_freeze, call_accumulate, call_step};
  fl_status st = FL_OK;
  fl_model *model = NULL;
  fl_model *changed = NULL;
  fl_lora_options lora;
  deep d;
  deep_begin(&d, *(int *)arg);
  CHECK_OK(fl_lora_options_init(&lora, sizeof lora));
  lora.layers = d.is_sequence ? "proj" : "f";
  lora.trained = "";
  FLI_TRY(build_deep(context, d.is_sequence, &model));
  FLI_TRY(fl_model_init_weights(model, 1));
  for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
    FLI_TRY(try_call(model, calls[i], &d));
  }
  FLI_TRY(fl_model_with_lora(&changed, model, &lora, 1));
  FLI_TRY(fl_model_step(changed, &d.data, 0.1f, NULL));
out:
  fl_model_free(changed);
  fl_model_free(model);
  return st;
}

static fl_status save_and_load(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fl_model *model = NULL;
  fl_model *copy = NULL;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  deep d;
  deep_begin(&d, *(int *)arg);
  FLI_TRY(build_deep(context, d.is_sequence, &model));
  FLI_TRY(build_deep(context, d.is_sequence, &copy));
  FLI_TRY(call_adam(model, &d));
  FLI_TRY(call_accumulate(model, &d));
  FLI_TRY(fl_buffer_new(&buffer, NULL));
  FLI_TRY(fl_buffer_as_writer(buffer, &writer));
  FLI_TRY(fl_model_save_checkpoint(model, &writer));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  FLI_TRY(fl_model_load_checkpoint(copy, &reader));
out:
  fl_buffer_free(buffer);
  fl_model_free(copy);
  fl_model_free(model);
  return st;
}

static fl_status build_fields(fl_context *context, fl_model **out)
{
  const uint64_t fields = 2;
  fl_status st = FL_OK;
  fl_model_builder *builder = NULL;
  FLI_TRY(fl_model_builder_new(&builder, context));
  FLI_TRY(fl_model_builder_input(builder, &fields, 1, 1.0f, 0.0f));
  FLI_TRY(fl_model_builder_sparse_embedding(builder, "v", 4));
  FLI_TRY(fl_model_builder_factorisation_machine(builder, "fm"));
  FLI_TRY(fl_model_builder_dense(builder, "d", 1));
  FLI_TRY(fl_model_builder_binary_cross_entropy(builder, "loss"));
  FLI_TRY(fl_model_builder_build(builder, out));
out:
  fl_model_builder_free(builder);
  return st;
}

/* A model whose rows are somebody else's: they are as the weights are. */
static fl_status use_fields(fl_context *context, void *arg)
{
  static uint64_t ids[N * 2];
  static float clicks[N];
  fl_status st = FL_OK;
  fl_model *model = NULL;
  fl_dataset data;
  float scores[N];
  array_rows *rows = array_rows_new(5, 4, NULL);
  float before[20];
  (void)arg;
  CHECK(rows);
  CHECK_OK(fl_dataset_init(&data, sizeof data));
  data.x_dtype = FL_DTYPE_U64;
  data.x = ids;
  data.targets = clicks;
  data.n = N;
  memcpy(before, rows->values, sizeof before);
  FLI_TRY(build_fields(context, &model));
  FLI_TRY(fl_model_init_weights(model, 1));
  fli_model_set_provider(model, &array_rows_provider, rows);
  st = fl_model_step(model, &data, 0.1f, NULL);
  CHECK((st == FL_OK) == (memcmp(before, rows->values, sizeof before) != 0));
  if (st == FL_OK) st = fl_model_predict(model, &data, scores, N);
out:
  fl_model_free(model);
  array_rows_free(rows);
  return st;
}

/* The same with a store, a table for each field: known rows and the model stay
 * as they were. */
static fl_status attach(fl_context *context, fl_embedding **out,
                        fl_model *model)
{
  static const uint8_t secret[16] = {1};
  static const uint32_t tables[2] = {1, 0};
  fl_status st = FL_OK;
  fl_embedding_options o;
  fl_embedding_table_options t;
  fl_embedding_attach_options a;
  uint32_t table = 0;
  CHECK_OK(fl_embedding_options_init(&o, sizeof o));
  CHECK_OK(fl_embedding_table_options_init(&t, sizeof t));
  CHECK_OK(fl_embedding_attach_options_init(&a, sizeof a));
  o.secret = secret;
  t.dim = 4;
  a.tables = tables;
  a.n_tables = 2;
  FLI_TRY(fl_embedding_new(out, context, &o));
  FLI_TRY(fl_embedding_add_table(*out, &t, &table));
  FLI_TRY(fl_embedding_add_table(*out, &t, &table));
  FLI_TRY(fl_embedding_attach(*out, model, &a));
out:
  return st;
}

static fl_status use_store(fl_context *context, void *arg)
{
  static uint64_t ids[N * 2];
  static float clicks[N];
  fl_status st = FL_OK;
  fl_model *model = NULL;
  fl_embedding *store = NULL;
  fl_dataset data;
  float scores[2][N];
  (void)arg;
  CHECK_OK(fl_dataset_init(&data, sizeof data));
  data.x_dtype = FL_DTYPE_U64;
  data.x = ids;
  data.targets = clicks;
  data.n = N / 2;
  for (uint64_t i = 0; i < N * 2; i++) {
    ids[i] = i / 2 * UINT64_C(0x9e3779b97f4a7c15);
  }
  FLI_TRY(build_fields(context, &model));
  FLI_TRY(fl_model_init_weights(model, 1));
  FLI_TRY(attach(context, &store, model));
  FLI_TRY(fl_model_step(model, &data, 0.1f, NULL));
  FLI_TRY(fl_model_predict(model, &data, scores[0], N / 2));
  data.n = N; /* a larger batch, with new ids */
  st = fl_model_step(model, &data, 0.1f, NULL);
  if (st != FL_OK) {
    char text[256];
    (void)snprintf(text, sizeof text, "%s", fl_last_error());
    data.n = N / 2;
    if (fl_model_predict(model, &data, scores[1], N / 2) == FL_OK) {
      CHECK_EQ_MEM(scores[0], scores[1], N / 2 * sizeof(float));
    }
    st = fli_error(st, "%s", text);
  }
out:
  fl_embedding_free(store);
  fl_model_free(model);
  return st;
}

static int kinds[2] = {0, 1};

static void deep_models_are_as_before(void)
{
  oom_loop(use_deep, &kinds[0]);
  oom_loop(use_deep, &kinds[1]);
}

static void rows_are_as_before(void)
{
  oom_loop(use_fields, NULL);
  oom_loop(use_store, NULL);
}

static void checkpoints(void)
{
  oom_loop(save_and_load, &kinds[0]);
  oom_loop(save_and_load, &kinds[1]);
}

static void building_and_reading(void)
{
  oom_loop(build_and_read, NULL);
}

static void testing_and_training(void)
{
  oom_loop(use, NULL);
}

int main(void)
{
  CHECK_CASE(building_and_reading);
  CHECK_CASE(testing_and_training);
  CHECK_CASE(deep_models_are_as_before);
  CHECK_CASE(rows_are_as_before);
  CHECK_CASE(checkpoints);
  return check_report();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of model_description and checkpoint: a model with each kind of layer,
 * those of tests/hostile_models.h, and checkpoints in the middle of things. */
#include "fuzz.h"

#include "hostile_models.h"
#include "model/model.h"
#include "seeds.h"
#include "small_model.h"

typedef void (*build_fn)(fl_model_builder *builder);

static void image(fl_model_builder *builder)
{
  const uint64_t dims[3] = {2, 6, 5};
  (void)fl_model_builder_input(builder, dims, 3, 1.0f / 255.0f, -0.5f);
}

static void tokens(fl_model_builder *builder)
{
  const uint64_t dims[2] = {4, 6};
  (void)fl_model_builder_input(builder, dims, 2, 1.0f / 255.0f, -0.5f);
}

static void conv(fl_model_builder *builder, const char *name, uint32_t filters,
                 uint32_t stride, uint32_t groups)
{
  fl_conv2d_options o;
  (void)fl_conv2d_options_init(&o, sizeof o);
  o.filters = filters;
  o.stride = stride;
  o.groups = groups;
  o.padding = 1;
  (void)fl_model_builder_conv2d(builder, name, &o);
}

static void classes(fl_model_builder *builder)
{
  (void)fl_model_builder_dense(builder, "out", 3);
  (void)fl_model_builder_cross_entropy(builder, "loss", NULL);
}

static void build_images(fl_model_builder *builder)
{
  fl_pool2d_options o;
  image(builder);
  conv(builder, "c1", 4, 1, 1);
  (void)fl_model_builder_relu(builder, "r1");
  (void)fl_model_builder_pool2d(builder, "p1", NULL);
  conv(builder, "c2", 4, 1, 4);
  (void)fl_model_builder_add(builder, "s", "p1");
  (void)fl_model_builder_group_norm(builder, "n", 2, 1e-5f);
  (void)fl_pool2d_options_init(&o, sizeof o);
  o.kind = FL_POOL_AVERAGE;
  o.size = 3;
  o.stride = 2;
  o.padding = 1;
  (void)fl_model_builder_pool2d(builder, "p2", &o);
  (void)fl_model_builder_mean(builder, "m");
  classes(builder);
}

static void build_flat(fl_model_builder *builder)
{
  image(builder);
  conv(builder, "c1", 3, 2, 1);
  (void)fl_model_builder_activation(builder, "g", FL_ACTIVATION_GELU);
  (void)fl_model_builder_dropout(builder, "d", 0.25f);
  (void)fl_model_builder_flatten(builder, "f");
  (void)fl_model_builder_layer_norm(builder, "n", 1e-5f);
  (void)fl_model_builder_dense(builder, "out", 2);
  (void)fl_model_builder_binary_cross_entropy(builder, "loss");
}

static void build_tokens(fl_model_builder *builder)
{
  tokens(builder);
  (void)fl_model_builder_positions(builder, "p");
  (void)fl_model_builder_layer_norm(builder, "n", 1e-5f);
  (void)fl_model_builder_attention(builder, "a", 2, 0);
  (void)fl_model_builder_add(builder, "s", "p");
  (void)fl_model_builder_mean(builder, "m");
  (void)fl_model_builder_softmax(builder, "soft");
  (void)fl_model_builder_dense(builder, "out", 2);
  (void)fl_model_builder_mean_squared_error(builder, "loss");
}

static void build_ids(fl_model_builder *builder)
{
  const uint64_t dims = 5;
  (void)fl_model_builder_input(builder, &dims, 1, 1.0f, 0.0f);
  (void)fl_model_builder_embedding(builder, "e", 7, 4);
  (void)fl_model_builder_trainable(builder, 0);
  (void)fl_model_builder_attention(builder, "a", 2, 1);
  (void)fl_model_builder_trainable(builder, 1);
  (void)fl_model_builder_activation(builder, "silu", FL_ACTIVATION_SILU);
  classes(builder);
}

static void build_fields(fl_model_builder *builder)
{
  const uint64_t dims = 4;
  (void)fl_model_builder_input(builder, &dims, 1, 1.0f, 0.0f);
  (void)fl_model_builder_sparse_embedding(builder, "v", 6);
  (void)fl_model_builder_pairwise_dots(builder, "pairs");
  (void)fl_model_builder_dense(builder, "deep", 1);
  (void)fl_model_builder_from(builder, "v");
  (void)fl_model_builder_factorisation_machine(builder, "fm");
  (void)fl_model_builder_add(builder, "s", "deep");
  (void)fl_model_builder_binary_cross_entropy(builder, "loss");
}

static void build_fixed_fields(fl_model_builder *builder)
{
  (void)fl_model_builder_trainable(builder, 0);
  build_fields(builder);
}

static void build_twice(fl_model_builder *builder)
{
  tokens(builder);
  (void)fl_model_builder_dense(builder, "a", 6);
  (void)fl_model_builder_add(builder, "twice", "a");
  (void)fl_model_builder_from(builder, "a");
  (void)fl_model_builder_activation(builder, "t", FL_ACTIVATION_TANH);
  (void)fl_model_builder_add(builder, "s", "twice");
  (void)fl_model_builder_add(builder, "s2", "input");
  classes(builder);
}

static const struct {
  const char *name;
  build_fn build;
  int has_lora;
} models[] = {
    {"layers-of-images", build_images, 0},
    {"layers-to-numbers", build_flat, 0},
    {"layers-of-tokens", build_tokens, 0},
    {"layers-of-ids", build_ids, 0},
    {"layers-of-fields", build_fields, 0},
    {"layers-of-fixed-fields", build_fixed_fields, 0},
    {"layers-used-twice", build_twice, 0},
    {"layers-with-lora", build_twice, 1},
};

static fl_model *new_model(build_fn build, int has_lora)
{
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  FUZZ_CHECK(fl_model_builder_new(&builder, NULL) == FL_OK);
  build(builder);
  FUZZ_CHECK(fl_model_builder_build(builder, &model) == FL_OK);
  fl_model_builder_free(builder);
  if (!has_lora) return model;
  fl_lora_options o;
  fl_model *changed = NULL;
  FUZZ_CHECK(fl_lora_options_init(&o, sizeof o) == FL_OK);
  o.rank = 2;
  o.layers = "a";
  FUZZ_CHECK(fl_model_with_lora(&changed, model, &o, 1) == FL_OK);
  fl_model_free(model);
  return changed;
}

static void put_description(const char *folder, const char *name,
                            const fl_model *model)
{
  uint8_t bytes[2048];
  size_t n = 0;
  FUZZ_CHECK(fl_model_copy_description(model, bytes, sizeof bytes, &n) ==
             FL_OK);
  seeds_put(folder, "model_description", name, bytes, n);
}

static void put_hostile(const char *folder)
{
  for (size_t i = 0; i < HOSTILE_MODELS; i++) {
    fli_bytes bytes;
    char name[64];
    fli_bytes_init(&bytes, NULL);
    FUZZ_CHECK(hostile_write(&hostile_models[i], &bytes) == FL_OK);
    (void)snprintf(name, sizeof name, "not-%s", hostile_models[i].name);
    seeds_put(folder, "model_description", name, bytes.data, bytes.size);
    fli_bytes_free(&bytes);
  }
}

static fl_status append(void *user, const void *data, size_t n)
{
  return fli_bytes_append(user, data, n);
}

/* A whole checkpoint and, behind another first byte, its payload. */
static void put_checkpoint(const char *folder, const char *name,
                           const fl_model *model)
{
  enum { HEADER = 20, HASH = 32 }; /* of the container */
  char path[64];
  fli_bytes bytes;
  fl_writer writer = {append, &bytes};
  fli_bytes_init(&bytes, NULL);
  FUZZ_CHECK(fli_bytes_append(&bytes, "", 1) == FL_OK);
  FUZZ_CHECK(fl_model_save_checkpoint(model, &writer) == FL_OK);
  (void)snprintf(path, sizeof path, "%s-whole", name);
  seeds_put(folder, "checkpoint", path, bytes.data, bytes.size);
  bytes.data[HEADER] = 1;
  seeds_put(folder, "checkpoint", name, bytes.data + HEADER,
            bytes.size - HEADER - HASH);
  fli_bytes_free(&bytes);
}

/* As if it had been trained, without results that differ from machine to
 * machine. */
static void pretend(fl_model *model, uint32_t n_batches)
{
  fli_optimiser *optimiser = &model->optimiser;
  for (uint64_t i = 0; i < optimiser->n; i++) {
    for (int a = 0; a < 2; a++) {
      if (optimiser->state[a]) optimiser->state[a][i] = 0.125f * (float)(i + 1);
    }
  }
  optimiser->updates = 4;
  model->place = (fli_fit_place){.epoch = 1, .step_in_epoch = 1, .seed = 77};
  if (n_batches == 0) return;
  model->workspace.wants_gradient = 1;
  FUZZ_CHECK(fli_workspace_reserve(model, 1, 1) == FL_OK);
  model->workspace.wants_gradient = 0;
  model->workspace.n_batches = n_batches;
  for (uint64_t i = 0; i < model->workspace.n_gradient; i++) {
    model->workspace.gradient[i] = 0.5f - 0.0625f * (float)i;
  }
}

static void put_checkpoints(const char *folder)
{
  static const char *const names[] = {"sgd", "adam", "adamw", "adagrad"};
  for (uint32_t kind = 0; kind < 4; kind++) {
    fl_model *model = small_model(kind, kind == 2 ? 2 : 1);
    if (kind == 3) FUZZ_CHECK(fl_model_set_first_active(model, 1) == FL_OK);
    pretend(model, kind == 2 ? 1 : 0);
    put_checkpoint(folder, names[kind], model);
    fl_model_free(model);
  }
}

void seeds_put_models(const char *folder)
{
  for (size_t i = 0; i < sizeof models / sizeof models[0]; i++) {
    fl_model *model = new_model(models[i].build, models[i].has_lora);
    put_description(folder, models[i].name, model);
    fl_model_free(model);
  }
  put_hostile(folder);
  put_checkpoints(folder);
}

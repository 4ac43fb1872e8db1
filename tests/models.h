/* SPDX-License-Identifier: Apache-2.0 */
/* The four app-sized models that tests and benchmarks train: a perceptron,
 * LeNet, a small transformer over the rows of an image, and a VGG of eight
 * convolutions; with the recipe each is trained by. */
#ifndef TESTS_MODELS_H
#define TESTS_MODELS_H

#include <fl/layers.h>
#include <fl/train.h>

#include <stdio.h>
#include <string.h>

typedef struct model_recipe {
  const char *name;
  uint32_t batch;
  fl_optimiser_options optimiser;
} model_recipe;

enum { MODELS = 4 };

/* (pixel / 255 - .286) / .353 */
#define MODELS_SCALE (1.0f / 255.0f / 0.3530f)
#define MODELS_SHIFT (-0.2860f / 0.3530f)

static inline model_recipe models_recipe(uint32_t index)
{
  static const char *const names[MODELS] = {"mlp", "lenet", "transformer",
                                            "vgg8"};
  model_recipe recipe = {.name = names[index % MODELS]};
  (void)fl_optimiser_options_init(&recipe.optimiser, sizeof recipe.optimiser);
  recipe.batch = index < 2 ? 32 : 64;
  if (index == 1) {
    recipe.optimiser.learning_rate = 0.02f;
    recipe.optimiser.momentum = 0.9f;
  } else if (index == 2) {
    recipe.optimiser.kind = FL_OPTIMISER_ADAM;
    recipe.optimiser.learning_rate = 1e-3f;
  } else if (index == 3) {
    recipe.optimiser.momentum = 0.9f;
    recipe.optimiser.weight_decay = 5e-4f;
  }
  return recipe;
}

static inline void models_conv(fl_model_builder *builder, const char *name,
                               uint32_t filters, uint32_t kernel,
                               uint32_t padding)
{
  fl_conv2d_options conv;
  char relu[32];
  (void)fl_conv2d_options_init(&conv, sizeof conv);
  conv.filters = filters;
  conv.height = conv.width = kernel;
  conv.padding = padding;
  (void)snprintf(relu, sizeof relu, "%s.relu", name);
  (void)fl_model_builder_conv2d(builder, name, &conv);
  (void)fl_model_builder_relu(builder, relu);
}

static inline void models_input(fl_model_builder *builder, uint32_t n_dims)
{
  const uint64_t image[3] = {1, 28, 28};
  (void)fl_model_builder_input(builder, image + (3 - n_dims), n_dims,
                               MODELS_SCALE, MODELS_SHIFT);
}

static inline void models_mlp(fl_model_builder *builder)
{
  models_input(builder, 3);
  (void)fl_model_builder_flatten(builder, "flat");
  (void)fl_model_builder_dense(builder, "a", 128);
  (void)fl_model_builder_relu(builder, "a.relu");
  (void)fl_model_builder_dense(builder, "b", 10);
}

static inline void models_lenet(fl_model_builder *builder)
{
  models_input(builder, 3);
  models_conv(builder, "c1", 6, 5, 2);
  (void)fl_model_builder_pool2d(builder, "p1", NULL);
  models_conv(builder, "c2", 16, 5, 0);
  (void)fl_model_builder_pool2d(builder, "p2", NULL);
  (void)fl_model_builder_flatten(builder, "flat");
  (void)fl_model_builder_dense(builder, "f1", 120);
  (void)fl_model_builder_relu(builder, "f1.relu");
  (void)fl_model_builder_dense(builder, "f2", 84);
  (void)fl_model_builder_relu(builder, "f2.relu");
  (void)fl_model_builder_dense(builder, "f3", 10);
}

/* Pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)). */
static inline void models_block(fl_model_builder *builder, const char *block,
                                const char *x, char out[64])
{
  char name[8][64];
  static const char *const parts[8] = {"n1", "att", "r1",     "n2",
                                       "u",  "v",   "u.relu", "r2"};
  for (size_t i = 0; i < 8; i++) {
    (void)snprintf(name[i], sizeof name[i], "%s.%s", block, parts[i]);
  }
  (void)fl_model_builder_layer_norm(builder, name[0], 1e-5f);
  (void)fl_model_builder_attention(builder, name[1], 4, 0);
  (void)fl_model_builder_add(builder, name[2], x);
  (void)fl_model_builder_layer_norm(builder, name[3], 1e-5f);
  (void)fl_model_builder_dense(builder, name[4], 128);
  (void)fl_model_builder_relu(builder, name[6]);
  (void)fl_model_builder_dense(builder, name[5], 64);
  (void)fl_model_builder_add(builder, name[7], name[2]);
  (void)snprintf(out, 64, "%s", name[7]);
}

static inline void models_transformer(fl_model_builder *builder)
{
  char x[64] = "p";
  char y[64];
  models_input(builder, 2);
  (void)fl_model_builder_dense(builder, "e", 64);
  (void)fl_model_builder_positions(builder, "p");
  models_block(builder, "b0", x, y);
  models_block(builder, "b1", y, x);
  (void)fl_model_builder_layer_norm(builder, "n", 1e-5f);
  (void)fl_model_builder_mean(builder, "mean");
  (void)fl_model_builder_dense(builder, "fc", 10);
}

static inline void models_vgg8(fl_model_builder *builder)
{
  static const uint32_t filters[8] = {16, 16, 32, 32, 64, 64, 64, 64};
  char name[8];
  models_input(builder, 3);
  for (uint32_t i = 0; i < 8; i++) {
    (void)snprintf(name, sizeof name, "c%u", i);
    (void)fl_model_builder_module(builder, i / 2);
    models_conv(builder, name, filters[i], 3, 1);
    (void)snprintf(name, sizeof name, "p%u", i);
    if (i == 1 || i == 3) (void)fl_model_builder_pool2d(builder, name, NULL);
  }
  (void)fl_model_builder_mean(builder, "mean");
  (void)fl_model_builder_module(builder, 4);
  (void)fl_model_builder_dense(builder, "fc", 10);
}

/* Model `index`, weights drawn, optimiser set; NULL on failure. */
static inline fl_model *models_new(uint32_t index, fl_context *context)
{
  static void (*const builds[MODELS])(fl_model_builder *) = {
      models_mlp, models_lenet, models_transformer, models_vgg8};
  model_recipe recipe = models_recipe(index);
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  if (fl_model_builder_new(&builder, context) != FL_OK) return NULL;
  builds[index % MODELS](builder);
  (void)fl_model_builder_softmax_cross_entropy(builder, "loss");
  fl_status st = fl_model_builder_build(builder, &model);
  fl_model_builder_free(builder);
  if (st == FL_OK) st = fl_model_init_weights(model, 1);
  if (st == FL_OK) st = fl_model_set_optimiser(model, &recipe.optimiser);
  if (st == FL_OK) return model;
  fl_model_free(model);
  return NULL;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The exact bytes of descriptions and schema hashes, version 1, and the bits of
 * initial weights: what clients and servers of different machines have to
 * agree on. Another byte here needs a new version, not new golden bytes. */
#include <fl/layers.h>

#include "base/bytes.h"
#include "check.h"
#include "crypto/crypto.h"

static const char mlp_description[] =
    "82010102968501a5696e70757402a5696e7075741093011c1c11ca3b80808112"
    "cabe8000008201a7666c617474656e02a4666c61748401a564656e736502a366"
    "6331030010cc808201a472656c7502a472656c758401a564656e736502a36663"
    "320301100a8201b5736f66746d61785f63726f73735f656e74726f707902a46c"
    "6f7373";
static const char mlp_schema[] =
    "a4cae9d8edbe7e6988955f876c16e478d50ad4082ca05f549a630375572da81d";
static const char mlp_weights[] =
    "c0a4fb3d478d31181efc3a8733821e37eaac0acb51b7875e918804416bada098";
static const char tensors_description[] =
    "82010102938501a674656e736f7202a1770300109203cd012c11c38501a67465"
    "6e736f7202a46d65616e030010910311c28501a674656e736f7202a57363616c"
    "6503ce00011170109011c3";
static const char tensors_schema[] =
    "196e5b05697715c251d6eeb5baa25b5d84c907566eca61e52c4fb17170ee8e9a";

static const char images_description[] =
    "820101029b8501a5696e70757402a5696e707574109302090811ca3f00000012"
    "ca000000008901a6636f6e76326402a163030010061105120313021401150285"
    "01aa67726f75705f6e6f726d02a1670301100311ca3727c5ac8301aa61637469"
    "766174696f6e02a17310028601a6706f6f6c326402a170100111031201130183"
    "01a361646402a172cc809204018601a6706f6f6c326402a17110001102120213"
    "008201a46d65616e02a16d8301a764726f706f757402a16410ca3e8000008401"
    "a564656e736502a166030210048201b462696e6172795f63726f73735f656e74"
    "726f707902a46c6f7373";
static const char images_schema[] =
    "3655c27f0f2f00629fa3369fd9a0a2fb08fe9e8e129daadfcfa91139ac77ad08";
static const char images_weights[] =
    "b3604757412e5f1c3e65efe02afe061f2e7a4f3f4510033fdcd1d12917daa006";
static const char tokens_description[] =
    "820101029b8501a5696e70757402a5696e70757410910511ca3f80000012ca00"
    "0000008501a9656d62656464696e6702a165030010cd012c11088301a9706f73"
    "6974696f6e7302a17003018401aa6c617965725f6e6f726d02a16e030210ca37"
    "27c5ac8501a564656e736502a9612e696e5f70726f6a03031018cc81c38401a9"
    "617474656e74696f6e02a7612e6865616473100211c38501a564656e736502aa"
    "612e6f75745f70726f6a03031008cc81c38301a361646402a172cc8092060282"
    "01a7736f66746d617802a1738401a564656e736502a166030410038401ad6372"
    "6f73735f656e74726f707902a46c6f737310f911ca3e000000";
static const char tokens_schema[] =
    "7c55a7b0c5f0b2c4d59f545bcbdcf249142e67fa2a60d0da7478af63be1521b0";
static const char tokens_weights[] =
    "156c56a712e7141414aee037f9465ed200cce2ca1290013bb631533ed3177686";
static const char numbers_description[] =
    "82010102968501a5696e70757402a5696e7075741092020311ca3f80000012ca"
    "000000008401a564656e736502a175030010048301aa61637469766174696f6e"
    "02a16710018201a7666c617474656e02a4666c61748401a564656e736502a176"
    "030110018201b26d65616e5f737175617265645f6572726f7202a46c6f7373";
static const char numbers_schema[] =
    "fcdd4e433a3feffe1b4d12278bd9e3be275f316968bcdb9d538c29899ccb0633";
static const char lora_description[] =
    "82010102968501a5696e70757402a5696e7075741092020311ca3f80000012ca"
    "000000008601aa64656e73655f6c6f726102a17503001004110212ca41800000"
    "8301aa61637469766174696f6e02a16710018201a7666c617474656e02a4666c"
    "61748401a564656e736502a176030110018201b26d65616e5f73717561726564"
    "5f6572726f7202a46c6f7373";
static const char lora_schema[] =
    "fbd7699c729a8cff824559bd92e6f7ef2741f010f2e6f6a43410b7ae975874cf";

static const char fields_description[] =
    "82010102978501a5696e70757402a5696e70757410910311ca3f80000012ca00"
    "0000008301b07370617273655f656d62656464696e6702a16510108201ad7061"
    "6972776973655f646f747302a1708401a564656e736502a164030010018301b5"
    "666163746f7269736174696f6e5f6d616368696e6502a16dcc8091018301a361"
    "646402a173cc809204038201b462696e6172795f63726f73735f656e74726f70"
    "7902a46c6f7373";
static const char fields_schema[] =
    "271e86a9ba77e51967ae1c5f1c1162a7642ee774c14f8912bba84f84f5b63a5a";

static void to_hex(char *out, const uint8_t *bytes, size_t n)
{
  for (size_t i = 0; i < n; i++) {
    (void)snprintf(out + 2 * i, 3, "%02x", bytes[i]);
  }
}

/* The quick start's network. */
static fl_model *new_mlp(void)
{
  const uint64_t dims[3] = {1, 28, 28};
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  CHECK_OK(fl_model_builder_new(&builder, NULL));
  CHECK_OK(fl_model_builder_input(builder, dims, 3, 1.0f / 255.0f, -0.25f));
  CHECK_OK(fl_model_builder_flatten(builder, "flat"));
  CHECK_OK(fl_model_builder_dense(builder, "fc1", 128));
  CHECK_OK(fl_model_builder_relu(builder, "relu"));
  CHECK_OK(fl_model_builder_dense(builder, "fc2", 10));
  CHECK_OK(fl_model_builder_softmax_cross_entropy(builder, "loss"));
  CHECK_OK(fl_model_builder_build(builder, &model));
  fl_model_builder_free(builder);
  return model;
}

/* Convolution, pools, group norm, a sum, activations. */
static void add_images(fl_model_builder *builder)
{
  const uint64_t dims[3] = {2, 9, 8};
  fl_conv2d_options conv;
  fl_pool2d_options pool;
  CHECK_OK(fl_conv2d_options_init(&conv, sizeof conv));
  CHECK_OK(fl_pool2d_options_init(&pool, sizeof pool));
  conv.filters = 6;
  conv.height = 5;
  conv.stride = 2;
  conv.padding = 1;
  conv.groups = 2;
  pool.kind = FL_POOL_AVERAGE;
  pool.size = 3;
  pool.stride = 1;
  pool.padding = 1;
  CHECK_OK(fl_model_builder_input(builder, dims, 3, 0.5f, 0.0f));
  CHECK_OK(fl_model_builder_conv2d(builder, "c", &conv));
  CHECK_OK(fl_model_builder_group_norm(builder, "g", 3, 1e-5f));
  CHECK_OK(fl_model_builder_activation(builder, "s", FL_ACTIVATION_SILU));
  CHECK_OK(fl_model_builder_pool2d(builder, "p", &pool));
  CHECK_OK(fl_model_builder_add(builder, "r", "c"));
  CHECK_OK(fl_model_builder_pool2d(builder, "q", NULL));
  CHECK_OK(fl_model_builder_mean(builder, "m"));
  CHECK_OK(fl_model_builder_dropout(builder, "d", 0.25f));
  CHECK_OK(fl_model_builder_dense(builder, "f", 4));
  CHECK_OK(fl_model_builder_binary_cross_entropy(builder, "loss"));
}

/* Embedding, positions, norm, attention with fixed tensors, a loss with
 * options. */
static void add_tokens(fl_model_builder *builder)
{
  const uint64_t tokens = 5;
  fl_cross_entropy_options loss;
  CHECK_OK(fl_cross_entropy_options_init(&loss, sizeof loss));
  loss.label_smoothing = 0.125f;
  loss.ignore_index = -7;
  CHECK_OK(fl_model_builder_input(builder, &tokens, 1, 1.0f, 0.0f));
  CHECK_OK(fl_model_builder_embedding(builder, "e", 300, 8));
  CHECK_OK(fl_model_builder_positions(builder, "p"));
  CHECK_OK(fl_model_builder_layer_norm(builder, "n", 1e-5f));
  CHECK_OK(fl_model_builder_trainable(builder, 0));
  CHECK_OK(fl_model_builder_attention(builder, "a", 2, 1));
  CHECK_OK(fl_model_builder_trainable(builder, 1));
  CHECK_OK(fl_model_builder_add(builder, "r", "p"));
  CHECK_OK(fl_model_builder_softmax(builder, "s"));
  CHECK_OK(fl_model_builder_dense(builder, "f", 3));
  CHECK_OK(fl_model_builder_cross_entropy(builder, "loss", &loss));
}

static void add_numbers(fl_model_builder *builder)
{
  const uint64_t dims[2] = {2, 3};
  CHECK_OK(fl_model_builder_input(builder, dims, 2, 1.0f, 0.0f));
  CHECK_OK(fl_model_builder_dense(builder, "u", 4));
  CHECK_OK(fl_model_builder_activation(builder, "g", FL_ACTIVATION_GELU));
  CHECK_OK(fl_model_builder_flatten(builder, "flat"));
  CHECK_OK(fl_model_builder_dense(builder, "v", 1));
  CHECK_OK(fl_model_builder_mean_squared_error(builder, "loss"));
}

/* Ids whose rows are not the model's, and what is made of them. */
static void add_fields(fl_model_builder *builder)
{
  const uint64_t fields = 3;
  CHECK_OK(fl_model_builder_input(builder, &fields, 1, 1.0f, 0.0f));
  CHECK_OK(fl_model_builder_sparse_embedding(builder, "e", 16));
  CHECK_OK(fl_model_builder_pairwise_dots(builder, "p"));
  CHECK_OK(fl_model_builder_dense(builder, "d", 1));
  CHECK_OK(fl_model_builder_from(builder, "e"));
  CHECK_OK(fl_model_builder_factorisation_machine(builder, "m"));
  CHECK_OK(fl_model_builder_add(builder, "s", "d"));
  CHECK_OK(fl_model_builder_binary_cross_entropy(builder, "loss"));
}

static fl_model *build(void (*add)(fl_model_builder *))
{
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  CHECK_OK(fl_model_builder_new(&builder, NULL));
  add(builder);
  CHECK_OK(fl_model_builder_build(builder, &model));
  fl_model_builder_free(builder);
  return model;
}

static fl_model *new_tensors(void)
{
  const uint64_t dims[2] = {3, 300};
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  CHECK_OK(fl_model_builder_new(&builder, NULL));
  CHECK_OK(fl_model_builder_tensor(builder, "w", dims, 2, 1));
  CHECK_OK(fl_model_builder_tensor(builder, "mean", dims, 1, 0));
  CHECK_OK(fl_model_builder_module(builder, 70000));
  CHECK_OK(fl_model_builder_tensor(builder, "scale", NULL, 0, 1));
  CHECK_OK(fl_model_builder_build(builder, &model));
  fl_model_builder_free(builder);
  return model;
}

static void check_bytes(const fl_model *model, const char *description,
                        const char *schema)
{
  uint8_t bytes[1024];
  uint8_t hash[FL_HASH_BYTES];
  char hex[2 * sizeof bytes + 1];
  size_t n = 0;
  CHECK_OK(fl_model_copy_description(model, bytes, sizeof bytes, &n));
  to_hex(hex, bytes, n);
  CHECK_EQ_STR(hex, description);
  CHECK_OK(fl_model_copy_schema(model, hash));
  to_hex(hex, hash, sizeof hash);
  CHECK_EQ_STR(hex, schema);
}

static void mlp_has_its_bytes(void)
{
  fl_model *model = new_mlp();
  check_bytes(model, mlp_description, mlp_schema);
  fl_model_free(model);
}

static void loose_tensors_have_their_bytes(void)
{
  fl_model *model = new_tensors();
  check_bytes(model, tensors_description, tensors_schema);
  fl_model_free(model);
}

static void check_built(void (*add)(fl_model_builder *),
                        const char *description, const char *schema)
{
  fl_model *model = build(add);
  check_bytes(model, description, schema);
  fl_model_free(model);
}

static void layers_of_images_have_their_bytes(void)
{
  check_built(add_images, images_description, images_schema);
}

static void layers_of_tokens_have_their_bytes(void)
{
  check_built(add_tokens, tokens_description, tokens_schema);
}

static void layers_to_numbers_have_their_bytes(void)
{
  check_built(add_numbers, numbers_description, numbers_schema);
}

static void layers_of_fields_have_their_bytes(void)
{
  check_built(add_fields, fields_description, fields_schema);
}

/* A dense layer with LoRA is a kind of its own. */
static void lora_has_its_bytes(void)
{
  fl_model *base = build(add_numbers);
  fl_model *model = NULL;
  fl_lora_options lora;
  CHECK_OK(fl_lora_options_init(&lora, sizeof lora));
  lora.rank = 2;
  CHECK_OK(fl_model_with_lora(&model, base, &lora, 1));
  check_bytes(model, lora_description, lora_schema);
  fl_model_free(model);
  fl_model_free(base);
}

/* BLAKE2b of all weights as little-endian float32. */
static void check_weights(fl_model *model, const char *want)
{
  uint64_t n = fl_model_weight_count(model);
  float *weights = NULL;
  uint8_t hash[FLI_HASH_BYTES];
  char hex[2 * sizeof hash + 1];
  fli_hasher hasher;
  CHECK_OK(fl_model_init_weights(model, UINT64_C(0x0123456789abcdef)));
  CHECK_OK(fl_model_get_weights(model, &weights, NULL));
  fli_hasher_init(&hasher);
  for (uint64_t i = 0; i < n; i++) {
    uint8_t bytes[4];
    fli_store_f32(bytes, weights[i]);
    fli_hasher_update(&hasher, bytes, sizeof bytes);
  }
  fli_hasher_final(&hasher, hash);
  to_hex(hex, hash, sizeof hash);
  CHECK_EQ_STR(hex, want);
}

/* Bounds by fan-in, fixed bounds, ones and zeros. */
static void initial_weights_have_their_bits(void)
{
  fl_model *models[3] = {new_mlp(), build(add_images), build(add_tokens)};
  check_weights(models[0], mlp_weights);
  check_weights(models[1], images_weights);
  check_weights(models[2], tokens_weights);
  for (int i = 0; i < 3; i++) {
    fl_model_free(models[i]);
  }
}

int main(void)
{
  CHECK_CASE(mlp_has_its_bytes);
  CHECK_CASE(loose_tensors_have_their_bytes);
  CHECK_CASE(layers_of_images_have_their_bytes);
  CHECK_CASE(layers_of_tokens_have_their_bytes);
  CHECK_CASE(layers_to_numbers_have_their_bytes);
  CHECK_CASE(layers_of_fields_have_their_bytes);
  CHECK_CASE(lora_has_its_bytes);
  CHECK_CASE(initial_weights_have_their_bits);
  return check_report();
}

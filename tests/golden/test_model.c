/* SPDX-License-Identifier: Apache-2.0 */
/* The exact bytes of descriptions and schema hashes, version 1, and the bits of
 * initial weights: what clients and servers of different machines have to
 * agree on. Another byte here needs a new version, not new golden bytes. */
#include <fl/model.h>

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
  uint8_t bytes[256];
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

/* BLAKE2b of all weights as little-endian float32. */
static void initial_weights_have_their_bits(void)
{
  fl_model *model = new_mlp();
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
  CHECK_EQ_STR(hex, mlp_weights);
  fl_model_free(model);
}

int main(void)
{
  CHECK_CASE(mlp_has_its_bytes);
  CHECK_CASE(loose_tensors_have_their_bytes);
  CHECK_CASE(initial_weights_have_their_bits);
  return check_report();
}

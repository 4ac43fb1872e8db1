/* SPDX-License-Identifier: Apache-2.0 */
/* The exact bytes of a weight file: header, padding and values. Other programs
 * read them. */
#include <fl/weights.h>

#include "check.h"
#include "weight_file.h"

static const char header[] =
    "{\"__metadata__\":{\"format\":\"pt\",\"libfl_schema\":"
    "\"9545ca4b1108150c4b17b497d6f32a853ce88709a9ff44aef041007072d0be7d\"},"
    "\"w\":{\"dtype\":\"F32\",\"shape\":[2,3],\"data_offsets\":[0,24]},"
    "\"mean\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[24,28]},"
    "\"a \\\"b\\\" \\\\\":{\"dtype\":\"F32\",\"shape\":[],"
    "\"data_offsets\":[28,32]}}";

static weight_file file;

/* Trainable, fixed, trainable: values follow the declaration, not the arena. */
static fl_model *new_model(void)
{
  static const float values[8] = {1.0f,  -2.5f, 1e-45f, -0.0f,
                                  3e38f, 0.1f,  7.0f,   -1.0f};
  const uint64_t dims[2] = {2, 3};
  const uint64_t one = 1;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  CHECK_OK(fl_model_builder_new(&builder, NULL));
  CHECK_OK(fl_model_builder_tensor(builder, "w", dims, 2, 1));
  CHECK_OK(fl_model_builder_tensor(builder, "mean", &one, 1, 0));
  CHECK_OK(fl_model_builder_tensor(builder, "a \"b\" \\", NULL, 0, 1));
  CHECK_OK(fl_model_builder_build(builder, &model));
  CHECK_OK(fl_model_set_tensor(model, 0, values, 6));
  CHECK_OK(fl_model_set_tensor(model, 1, values + 6, 1));
  CHECK_OK(fl_model_set_tensor(model, 2, values + 7, 1));
  fl_model_builder_free(builder);
  return model;
}

static void file_has_its_bytes(void)
{
  fl_model *model = new_model();
  weight_file_clear(&file);
  CHECK_OK(weight_file_save(&file, model));
  CHECK_EQ_U64(file.n, 8 + fli_load_u64(file.bytes) + 32);
  CHECK_EQ_U64(fli_load_u64(file.bytes), (sizeof header - 1 + 7) / 8 * 8);
  CHECK_EQ_MEM(file.bytes + 8, header, sizeof header - 1);
  for (size_t i = 8 + sizeof header - 1; i < file.n - 32; i++)
    CHECK_EQ_U64(file.bytes[i], ' ');
  static const uint8_t values[32] = {
      0x00, 0x00, 0x80, 0x3f, 0x00, 0x00, 0x20, 0xc0, 0x01, 0x00, 0x00,
      0x00, 0x00, 0x00, 0x00, 0x80, 0xe6, 0xb1, 0x61, 0x7f, 0xcd, 0xcc,
      0xcc, 0x3d, 0x00, 0x00, 0xe0, 0x40, 0x00, 0x00, 0x80, 0xbf};
  CHECK_EQ_MEM(file.bytes + file.n - 32, values, 32);
  fl_model_free(model);
}

int main(void)
{
  CHECK_CASE(file_has_its_bytes);
  return check_report();
}

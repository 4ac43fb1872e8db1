/* SPDX-License-Identifier: Apache-2.0 */
/* Descriptions of models by somebody who means harm: an input, one layer that
 * cannot be, a dense layer and a loss. For unit tests, which know what is said
 * of each, and as seeds for the fuzzer. */
#ifndef TESTS_HOSTILE_MODELS_H
#define TESTS_HOSTILE_MODELS_H

#include <fl/model.h>

#include <math.h>

#include "wire/writer.h"

typedef struct hostile_value {
  char type; /* u64, f32, bool */
  uint64_t u;
  float f;
} hostile_value;

#define HOSTILE_U(x) \
  {                  \
    'u', (x), 0.0f   \
  }
#define HOSTILE_F(x) \
  {                  \
    'f', 0, (x)      \
  }
#define HOSTILE_B(x) \
  {                  \
    'b', (x), 0.0f   \
  }
#define HOSTILE_NO_INPUTS \
  {                       \
    0                     \
  }

typedef struct hostile_model {
  const char *name;
  const char *kind;
  uint32_t n_dims;     /* of the input: [12], [4, 6] or [6, 8, 8] */
  uint32_t has_module; /* 0 or 1 */
  hostile_value values[6];
  fl_status want;
  const char *text;  /* in the error, beside the layer's name */
  uint32_t n_inputs; /* that are written; 0 = none */
  uint32_t inputs[3];
} hostile_model;

#define HOSTILE_CONV(name, a, b, c, d, e, f, want, text)              \
  {                                                                   \
    name, "conv2d", 3, 1, {HOSTILE_U(a), HOSTILE_U(b), HOSTILE_U(c),  \
                           HOSTILE_U(d), HOSTILE_U(e), HOSTILE_U(f)}, \
        want, text, 0, HOSTILE_NO_INPUTS                              \
  }
#define HOSTILE_POOL(name, a, b, c, d, want, text)                            \
  {                                                                           \
    name, "pool2d", 3, 0,                                                     \
        {HOSTILE_U(a), HOSTILE_U(b), HOSTILE_U(c), HOSTILE_U(d)}, want, text, \
        0, HOSTILE_NO_INPUTS                                                  \
  }
#define HOSTILE_ONE(name, kind, n_dims, has_module, value, want, text)        \
  {                                                                           \
    name, kind, n_dims, has_module, {value}, want, text, 0, HOSTILE_NO_INPUTS \
  }
#define HOSTILE_TWO(name, kind, n_dims, has_module, a, b, want, text)        \
  {                                                                          \
    name, kind, n_dims, has_module, {a, b}, want, text, 0, HOSTILE_NO_INPUTS \
  }
#define HOSTILE_LORA(name, units, rank, alpha, want, text)                    \
  {                                                                           \
    name, "dense_lora", 1, 1,                                                 \
        {HOSTILE_U(units), HOSTILE_U(rank), HOSTILE_F(alpha)}, want, text, 0, \
        HOSTILE_NO_INPUTS                                                     \
  }
/* A kind without attributes, of the wrong shape. */
#define HOSTILE_BARE(name, kind, n_dims)                             \
  {                                                                  \
    name, kind, n_dims, 0, {{0}}, FL_E_FORMAT, "[fields, width]", 0, \
        HOSTILE_NO_INPUTS                                            \
  }
#define HOSTILE_GRAPH(name, kind, n, a, b, c)                  \
  {                                                            \
    name, kind, 1, 0, {{0, 0, 0.0f}}, FL_E_FORMAT, "input", n, \
    {                                                          \
      a, b, c                                                  \
    }                                                          \
  }

#define HOSTILE_2_60 (UINT64_C(1) << 60)
#define HOSTILE_2_32 UINT64_C(0xffffffff)

static const hostile_model hostile_models[] = {
    HOSTILE_CONV("conv-no-filters", 0, 3, 3, 1, 1, 1, FL_E_FORMAT, "filters"),
    HOSTILE_CONV("conv-no-kernel", 8, 0, 3, 1, 0, 1, FL_E_FORMAT, "kernel"),
    HOSTILE_CONV("conv-stride-0", 8, 3, 3, 0, 1, 1, FL_E_FORMAT, "stride"),
    HOSTILE_CONV("conv-padding-3", 8, 3, 3, 1, 3, 1, FL_E_FORMAT, "padding"),
    HOSTILE_CONV("conv-padding-2-32", 8, 3, 3, 1, HOSTILE_2_32, 1, FL_E_FORMAT,
                 "padding"),
    HOSTILE_CONV("conv-kernel-9", 8, 9, 3, 1, 0, 1, FL_E_FORMAT, "kernel"),
    HOSTILE_CONV("conv-kernel-2-32", 8, HOSTILE_2_32, HOSTILE_2_32, 1,
                 HOSTILE_2_32 - 1, 1, FL_E_FORMAT, "kernel"),
    HOSTILE_CONV("conv-weights-2-64", 8, HOSTILE_2_32, HOSTILE_2_32,
                 HOSTILE_2_32, HOSTILE_2_32 - 1, 1, FL_E_FORMAT, "kernel"),
    HOSTILE_CONV("conv-groups-0", 6, 3, 3, 1, 1, 0, FL_E_FORMAT, "groups"),
    HOSTILE_CONV("conv-groups-4", 8, 3, 3, 1, 1, 4, FL_E_FORMAT, "groups"),
    HOSTILE_CONV("conv-groups-2-32", 8, 3, 3, 1, 1, HOSTILE_2_32, FL_E_FORMAT,
                 "groups"),
    HOSTILE_CONV("conv-filters-2-32", HOSTILE_2_32, 3, 3, 1, 1, 1,
                 FL_E_TOO_LARGE, "elements"),
    HOSTILE_POOL("pool-kind-2", 2, 2, 2, 0, FL_E_FORMAT, "kind"),
    HOSTILE_POOL("pool-size-0", 0, 0, 2, 0, FL_E_FORMAT, "size"),
    HOSTILE_POOL("pool-size-16", 0, 16, 2, 8, FL_E_FORMAT, "size"),
    HOSTILE_POOL("pool-size-2-32", 0, HOSTILE_2_32, 2, 0, FL_E_FORMAT, "size"),
    HOSTILE_POOL("pool-stride-0", 0, 2, 0, 0, FL_E_FORMAT, "stride"),
    HOSTILE_POOL("pool-padding-2", 0, 3, 1, 2, FL_E_FORMAT, "padding"),
    HOSTILE_POOL("pool-padding-2-32", 0, 3, 1, HOSTILE_2_32, FL_E_FORMAT,
                 "padding"),
    HOSTILE_POOL("pool-beyond", 1, 9, 1, 0, FL_E_FORMAT, "size"),
    HOSTILE_TWO("attention-heads-0", "attention", 2, 0, HOSTILE_U(0),
                HOSTILE_B(0), FL_E_FORMAT, "heads"),
    HOSTILE_TWO("attention-heads-4", "attention", 2, 0, HOSTILE_U(4),
                HOSTILE_B(1), FL_E_FORMAT, "heads"),
    HOSTILE_TWO("attention-heads-2-32", "attention", 2, 0,
                HOSTILE_U(HOSTILE_2_32), HOSTILE_B(1), FL_E_FORMAT, "heads"),
    HOSTILE_TWO("attention-on-image", "attention", 3, 0, HOSTILE_U(1),
                HOSTILE_B(1), FL_E_FORMAT, "sequence"),
    HOSTILE_ONE("dense-units-0", "dense", 1, 1, HOSTILE_U(0), FL_E_FORMAT,
                "units"),
    HOSTILE_ONE("dense-units-2-60", "dense", 1, 1, HOSTILE_U(HOSTILE_2_60),
                FL_E_TOO_LARGE, "elements"),
    HOSTILE_ONE("dense-units-2-31", "dense", 1, 1, HOSTILE_U(UINT64_C(1) << 31),
                FL_E_TOO_LARGE, "elements"),
    HOSTILE_LORA("lora-rank-0", 3, 0, 1.0f, FL_E_FORMAT, "rank"),
    HOSTILE_LORA("lora-rank-2-60", 3, HOSTILE_2_60, 1.0f, FL_E_FORMAT, "rank"),
    HOSTILE_LORA("lora-rank-2-31", 3, UINT64_C(1) << 31, 1.0f, FL_E_TOO_LARGE,
                 "elements"),
    HOSTILE_LORA("lora-alpha-0", 3, 2, 0.0f, FL_E_FORMAT, "alpha"),
    HOSTILE_LORA("lora-alpha-nan", 3, 2, NAN, FL_E_FORMAT, "field 18"),
    HOSTILE_LORA("lora-alpha-infinite", 3, 2, INFINITY, FL_E_FORMAT,
                 "field 18"),
    HOSTILE_TWO("embedding-rows-0", "embedding", 1, 1, HOSTILE_U(0),
                HOSTILE_U(4), FL_E_FORMAT, "rows"),
    HOSTILE_TWO("embedding-rows-2-60", "embedding", 1, 1,
                HOSTILE_U(HOSTILE_2_60), HOSTILE_U(4), FL_E_FORMAT, "rows"),
    HOSTILE_TWO("embedding-width-0", "embedding", 1, 1, HOSTILE_U(4),
                HOSTILE_U(0), FL_E_FORMAT, "rows"),
    HOSTILE_TWO("embedding-width-2-60", "embedding", 1, 1, HOSTILE_U(4),
                HOSTILE_U(HOSTILE_2_60), FL_E_TOO_LARGE, "elements"),
    HOSTILE_TWO("embedding-2-56", "embedding", 1, 1, HOSTILE_U(1 << 24),
                HOSTILE_U(1 << 28), FL_E_TOO_LARGE, "elements"),
    HOSTILE_TWO("embedding-on-image", "embedding", 3, 1, HOSTILE_U(4),
                HOSTILE_U(4), FL_E_FORMAT, "dimensions"),
    HOSTILE_ONE("sparse-width-0", "sparse_embedding", 1, 0, HOSTILE_U(0),
                FL_E_FORMAT, "width"),
    HOSTILE_ONE("sparse-width-2-60", "sparse_embedding", 1, 0,
                HOSTILE_U(HOSTILE_2_60), FL_E_TOO_LARGE, "elements"),
    HOSTILE_ONE("sparse-on-image", "sparse_embedding", 3, 0, HOSTILE_U(4),
                FL_E_FORMAT, "dimensions"),
    HOSTILE_BARE("machine-of-one", "factorisation_machine", 1),
    HOSTILE_BARE("machine-of-image", "factorisation_machine", 3),
    HOSTILE_BARE("pairs-of-one", "pairwise_dots", 1),
    HOSTILE_BARE("pairs-of-image", "pairwise_dots", 3),
    HOSTILE_ONE("layer-norm-epsilon-0", "layer_norm", 1, 1, HOSTILE_F(0.0f),
                FL_E_FORMAT, "epsilon"),
    HOSTILE_ONE("layer-norm-epsilon-nan", "layer_norm", 1, 1, HOSTILE_F(NAN),
                FL_E_FORMAT, "field 16"),
    HOSTILE_ONE("layer-norm-on-image", "layer_norm", 3, 1, HOSTILE_F(0.1f),
                FL_E_FORMAT, "dimensions"),
    HOSTILE_TWO("group-norm-groups-0", "group_norm", 3, 1, HOSTILE_U(0),
                HOSTILE_F(0.1f), FL_E_FORMAT, "groups"),
    HOSTILE_TWO("group-norm-groups-4", "group_norm", 3, 1, HOSTILE_U(4),
                HOSTILE_F(0.1f), FL_E_FORMAT, "groups"),
    HOSTILE_TWO("group-norm-epsilon-1", "group_norm", 3, 1, HOSTILE_U(2),
                HOSTILE_F(1.0f), FL_E_FORMAT, "epsilon"),
    HOSTILE_ONE("dropout-1", "dropout", 1, 0, HOSTILE_F(1.0f), FL_E_FORMAT,
                "rate"),
    HOSTILE_ONE("dropout-nan", "dropout", 1, 0, HOSTILE_F(NAN), FL_E_FORMAT,
                "field 16"),
    HOSTILE_ONE("activation-5", "activation", 1, 0, HOSTILE_U(5), FL_E_FORMAT,
                "activation"),
    HOSTILE_ONE("softmax-on-image", "softmax", 3, 0, HOSTILE_U(0), FL_E_FORMAT,
                "dimensions"),
    HOSTILE_GRAPH("relu-of-itself", "relu", 1, 1, 0, 0),
    HOSTILE_GRAPH("relu-of-a-later-layer", "relu", 1, 2, 0, 0),
    HOSTILE_GRAPH("relu-of-nothing", "relu", 1, UINT32_MAX, 0, 0),
    HOSTILE_GRAPH("relu-of-two", "relu", 2, 0, 0, 0),
    HOSTILE_GRAPH("add-of-itself", "add", 2, 0, 1, 0),
    HOSTILE_GRAPH("add-of-a-later-layer", "add", 2, 0, 3, 0),
    HOSTILE_GRAPH("add-of-three", "add", 3, 0, 0, 0),
    HOSTILE_GRAPH("add-of-nothing", "add", 0, 0, 0, 0),
};
enum { HOSTILE_MODELS = sizeof hostile_models / sizeof hostile_models[0] };

static inline void hostile_begin(fli_msg_writer *writer, fli_bytes *bytes,
                                 uint32_t n_nodes)
{
  fli_writer_init(writer, bytes);
  fli_writer_map(writer, 2);
  fli_field_u64(writer, 1, 1);
  fli_writer_u64(writer, 2);
  fli_writer_array(writer, n_nodes);
}

static inline void hostile_input(fli_msg_writer *writer, uint32_t n_dims)
{
  static const uint64_t dims[4][3] = {{0}, {12}, {4, 6}, {6, 8, 8}};
  fli_writer_map(writer, 5);
  fli_field_str(writer, 1, "input");
  fli_field_str(writer, 2, "input");
  fli_writer_u64(writer, 16);
  fli_writer_array(writer, n_dims);
  for (uint32_t i = 0; i < n_dims; i++) {
    fli_writer_u64(writer, dims[n_dims][i]);
  }
  fli_field_f32(writer, 17, 1.0f);
  fli_field_f32(writer, 18, 0.0f);
}

static inline void hostile_layer(fli_msg_writer *writer, const char *kind,
                                 const char *name)
{
  fli_writer_map(writer, 2);
  fli_field_str(writer, 1, kind);
  fli_field_str(writer, 2, name);
}

static inline void hostile_dense(fli_msg_writer *writer, const char *name,
                                 uint64_t units)
{
  fli_writer_map(writer, 4);
  fli_field_str(writer, 1, "dense");
  fli_field_str(writer, 2, name);
  fli_field_u64(writer, 3, 0);
  fli_field_u64(writer, 16, units);
}

/* The layer is called "culprit". */
static inline void hostile_culprit(fli_msg_writer *writer,
                                   const hostile_model *model)
{
  uint32_t n = 0;
  while (n < 6 && model->values[n].type != 0) {
    n++;
  }
  fli_writer_map(writer,
                 2 + model->has_module + n + (model->n_inputs ? 1u : 0u));
  fli_field_str(writer, 1, model->kind);
  fli_field_str(writer, 2, "culprit");
  if (model->has_module) fli_field_u64(writer, 3, 0);
  for (uint32_t i = 0; i < n; i++) {
    fli_writer_u64(writer, 16 + i);
    switch (model->values[i].type) {
    case 'u': fli_writer_u64(writer, model->values[i].u); break;
    case 'f': fli_writer_f32(writer, model->values[i].f); break;
    default: fli_writer_bool(writer, (int32_t)model->values[i].u); break;
    }
  }
  if (model->n_inputs == 0) return;
  fli_writer_u64(writer, 128);
  fli_writer_array(writer, model->n_inputs);
  for (uint32_t i = 0; i < model->n_inputs; i++) {
    fli_writer_u64(writer, model->inputs[i]);
  }
}

static inline fl_status hostile_write(const hostile_model *model,
                                      fli_bytes *bytes)
{
  fli_msg_writer writer;
  hostile_begin(&writer, bytes, 4);
  hostile_input(&writer, model->n_dims);
  hostile_culprit(&writer, model);
  hostile_dense(&writer, "out", 3);
  hostile_layer(&writer, "softmax_cross_entropy", "loss");
  return fli_writer_status(&writer);
}

#endif

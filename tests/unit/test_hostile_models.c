/* SPDX-License-Identifier: Apache-2.0 */
/* Models described by strangers, and data that do not fit: the error names the
 * layer and the field, memory stays below a bound, and nothing changes. */
#include <fl/train.h>

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "hostile_models.h"
#include "net_check.h"

/* What a description may cost that is refused: its nodes, tensors and text. */
enum { CAP = 64 * 1024, DESCRIPTION_CAP = 16 * 1024 * 1024 };

static fl_context *capped(uint64_t bytes)
{
  fl_context *context = NULL;
  fl_context_options options;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.memory_cap = bytes;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  return context;
}

static char error_text[512];

static fl_status read_capped(const fli_bytes *bytes, uint64_t cap,
                             fl_model **out)
{
  fl_context *context = capped(cap);
  uint64_t now = 0;
  fl_status st =
      fl_model_from_description(out, context, bytes->data, bytes->size);
  (void)snprintf(error_text, sizeof error_text, "%s", fl_last_error());
  if (st != FL_OK) {
    cr_assert_null(*out);
    cr_assert_eq(fl_context_get_memory(context, &now, NULL), FL_OK);
    cr_assert_eq(now, 0);
  }
  fl_context_free(context);
  return st;
}

Test(hostile_models, layer_that_cannot_be_is_named_with_its_field)
{
  for (size_t i = 0; i < HOSTILE_MODELS; i++) {
    const hostile_model *h = &hostile_models[i];
    fl_model *model = NULL;
    fli_bytes bytes;
    fli_bytes_init(&bytes, NULL);
    cr_assert_eq(hostile_write(h, &bytes), FL_OK);
    fl_status st = read_capped(&bytes, CAP, &model);
    cr_assert_eq(st, h->want, "%s: %s (%s)", h->name, fl_status_name(st),
                 error_text);
    cr_assert_not_null(strstr(error_text, h->text), "%s: \"%s\"", h->name,
                       error_text);
    cr_assert_not_null(strstr(error_text, "culprit"), "%s: \"%s\"", h->name,
                       error_text);
    fli_bytes_free(&bytes);
  }
}

Test(hostile_models, attributes_beyond_their_type_are_refused)
{
  static const char *const kinds[] = {"conv2d", "pool2d", "attention",
                                      "activation"};
  for (size_t i = 0; i < FLI_COUNT_OF(kinds); i++) {
    hostile_model h = {.kind = kinds[i], .n_dims = i < 2 ? 3 : 2};
    fl_model *model = NULL;
    fli_bytes bytes;
    h.has_module = i == 0;
    h.values[0] = (hostile_value)HOSTILE_U(HOSTILE_2_60);
    fli_bytes_init(&bytes, NULL);
    cr_assert_eq(hostile_write(&h, &bytes), FL_OK);
    fl_status st = read_capped(&bytes, CAP, &model);
    cr_assert(st == FL_E_RANGE || st == FL_E_FORMAT, "%s: %s", kinds[i],
              fl_status_name(st));
    fli_bytes_free(&bytes);
  }
}

/* ---- graphs ---------------------------------------------------------------
 */

/* Built by calls, as a host would: the status and a text of the error. */
static void graph_refused(fl_model_builder *builder, fl_status want,
                          const char *text)
{
  fl_model *model = NULL;
  fl_status st = fl_model_builder_build(builder, &model);
  cr_assert_eq(st, want, "%s: %s", fl_status_name(st), fl_last_error());
  cr_assert_not_null(strstr(fl_last_error(), text), "\"%s\"", fl_last_error());
  cr_assert_null(model);
  fl_model_builder_free(builder);
}

static fl_model_builder *begin_graph(uint32_t n_dims)
{
  static const uint64_t dims[3][3] = {{6}, {4, 6}, {3, 8, 8}};
  fl_model_builder *builder = NULL;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  (void)fl_model_builder_input(builder, dims[n_dims - 1], n_dims, 1.0f, 0.0f);
  return builder;
}

Test(hostile_models, layer_that_nobody_uses_is_named)
{
  fl_model_builder *builder = begin_graph(1);
  (void)fl_model_builder_dense(builder, "a", 4);
  (void)fl_model_builder_dense(builder, "dangling", 4);
  (void)fl_model_builder_from(builder, "a");
  (void)fl_model_builder_softmax_cross_entropy(builder, "l");
  graph_refused(builder, FL_E_STATE, "dangling");
  builder = begin_graph(1);
  (void)fl_model_builder_dense(builder, "a", 4);
  graph_refused(builder, FL_E_STATE, "want a loss");
}

Test(hostile_models, sums_of_different_shapes_are_refused)
{
  fl_model_builder *builder = begin_graph(1);
  (void)fl_model_builder_dense(builder, "a", 4);
  (void)fl_model_builder_add(builder, "culprit", "input");
  graph_refused(builder, FL_E_DIM, "culprit");
  builder = begin_graph(2);
  (void)fl_model_builder_flatten(builder, "flat");
  (void)fl_model_builder_add(builder, "culprit", "input");
  graph_refused(builder, FL_E_DIM, "culprit");
  builder = begin_graph(1);
  (void)fl_model_builder_add(builder, "culprit", "nobody");
  graph_refused(builder, FL_E_NOT_FOUND, "nobody");
  builder = begin_graph(1);
  (void)fl_model_builder_from(builder, "nobody");
  graph_refused(builder, FL_E_NOT_FOUND, "nobody");
}

Test(hostile_models, ids_go_to_embeddings_and_nowhere_else)
{
  fl_model_builder *builder = begin_graph(1);
  (void)fl_model_builder_relu(builder, "r");
  (void)fl_model_builder_embedding(builder, "culprit", 9, 6);
  (void)fl_model_builder_softmax_cross_entropy(builder, "l");
  graph_refused(builder, FL_E_STATE, "culprit");
  builder = begin_graph(1);
  (void)fl_model_builder_embedding(builder, "e", 9, 1);
  (void)fl_model_builder_flatten(builder, "f");
  (void)fl_model_builder_add(builder, "s", "input");
  (void)fl_model_builder_softmax_cross_entropy(builder, "l");
  graph_refused(builder, FL_E_STATE, "ids");
}

Test(hostile_models, layers_of_another_shape_are_refused)
{
  fl_conv2d_options o = net_conv_options(4, 3, 1);
  fl_model_builder *builder = begin_graph(2);
  (void)fl_model_builder_conv2d(builder, "culprit", &o);
  graph_refused(builder, FL_E_DIM, "culprit");
  builder = begin_graph(3);
  (void)fl_model_builder_dense(builder, "culprit", 4);
  graph_refused(builder, FL_E_DIM, "culprit");
  builder = begin_graph(1);
  (void)fl_model_builder_attention(builder, "culprit", 2, 0);
  graph_refused(builder, FL_E_DIM, "culprit");
  builder = begin_graph(1);
  (void)fl_model_builder_mean(builder, "culprit");
  graph_refused(builder, FL_E_DIM, "culprit");
  builder = begin_graph(1);
  (void)fl_model_builder_positions(builder, "culprit");
  graph_refused(builder, FL_E_DIM, "culprit");
  builder = begin_graph(3);
  (void)fl_model_builder_mean_squared_error(builder, "culprit");
  graph_refused(builder, FL_E_DIM, "culprit");
  builder = begin_graph(3);
  (void)fl_model_builder_softmax_cross_entropy(builder, "culprit");
  graph_refused(builder, FL_E_DIM, "culprit");
}

/* `n` nodes are announced, `given` of them come. */
static fl_status read_many(uint32_t n, uint32_t given, const char *kind)
{
  fl_model *model = NULL;
  fli_bytes bytes;
  fli_msg_writer writer;
  fli_bytes_init(&bytes, NULL);
  hostile_begin(&writer, &bytes, n);
  hostile_input(&writer, 1);
  for (uint32_t i = 0; i + 3 < given; i++) {
    char name[16];
    (void)snprintf(name, sizeof name, "n%u", i);
    hostile_layer(&writer, kind, name);
  }
  hostile_dense(&writer, "out", 2);
  hostile_layer(&writer, "softmax_cross_entropy", "loss");
  cr_assert_eq(fli_writer_status(&writer), FL_OK);
  fl_status st = read_capped(&bytes, DESCRIPTION_CAP, &model);
  fl_model_free(model);
  fli_bytes_free(&bytes);
  return st;
}

Test(hostile_models, a_million_nodes_are_too_many)
{
  cr_assert_eq(read_many(1000000, 4, "relu"), FL_E_TRUNCATED);
  cr_assert_neq(read_many(UINT32_MAX, 4, "relu"), FL_OK);
  cr_assert_eq(read_many(4097, 4097, "relu"), FL_E_TOO_LARGE);
  cr_assert_not_null(strstr(error_text, "nodes"), "%s", error_text);
  cr_assert_eq(read_many(4096, 4096, "relu"), FL_OK, "%s", fl_last_error());
}

/* As many layers as there may be, in a row and each with two users, are
 * planned and trained in little time. */
Test(hostile_models, largest_graph_is_planned_and_trained)
{
  const uint64_t dims[1] = {3};
  for (int is_shared = 0; is_shared <= 1; is_shared++) {
    fl_model_builder *builder = NULL;
    fl_model *model = NULL;
    char name[16];
    float x[3] = {0.1f, 0.2f, 0.3f};
    int32_t y = 1;
    fl_dataset data;
    fl_memory_plan plan;
    cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
    (void)fl_model_builder_input(builder, dims, 1, 1.0f, 0.0f);
    (void)fl_model_builder_dense(builder, "n2", 3);
    for (uint32_t i = 3; i < FLI_MAX_NODES; i++) {
      char before[16];
      (void)snprintf(before, sizeof before, "n%u", i - 1);
      (void)snprintf(name, sizeof name, "n%u", i);
      if (is_shared && i % 2) {
        (void)fl_model_builder_activation(builder, name, FL_ACTIVATION_TANH);
      } else if (is_shared && i > 4) {
        (void)snprintf(before, sizeof before, "n%u", i - 2);
        (void)fl_model_builder_add(builder, name, before);
      } else {
        (void)fl_model_builder_relu(builder, name);
      }
    }
    (void)fl_model_builder_softmax_cross_entropy(builder, "loss");
    cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK, "%s",
                 fl_last_error());
    fl_model_builder_free(builder);
    cr_assert_eq(fl_model_init_weights(model, 1), FL_OK);
    cr_assert_eq(fl_dataset_init(&data, sizeof data), FL_OK);
    data.x = x;
    data.y = &y;
    data.n = 1;
    clock_t begin = clock();
    cr_assert_eq(fl_memory_plan_init(&plan, sizeof plan), FL_OK);
    cr_assert_eq(fl_model_plan_memory(model, UINT32_MAX, 1, &plan), FL_OK);
    cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
    cr_assert_lt(seconds, 20.0, "it took %g s", seconds);
    fl_model_free(model);
  }
}

Test(hostile_models, arrays_within_arrays_are_not_followed)
{
  for (size_t depth = 1; depth <= 100000; depth *= 10) {
    fl_model *model = NULL;
    fli_bytes bytes;
    fli_msg_writer writer;
    fli_bytes_init(&bytes, NULL);
    fli_writer_init(&writer, &bytes);
    fli_writer_map(&writer, 3);
    fli_field_u64(&writer, 1, 1);
    fli_writer_u64(&writer, 2);
    fli_writer_array(&writer, 0);
    fli_writer_u64(&writer, 9);
    for (size_t i = 0; i < depth; i++) {
      fli_writer_array(&writer, 1);
    }
    fli_writer_u64(&writer, 0);
    cr_assert_neq(read_capped(&bytes, CAP, &model), FL_OK);
    fli_bytes_free(&bytes);
  }
}

/* Shapes that may be, weights that are few, and activations that are huge: the
 * cap holds, and the error says what a batch would take. */
Test(hostile_models, huge_activations_cost_nothing_before_they_are_refused)
{
  fl_context *context = capped(1 << 20);
  const uint64_t dims[3] = {1, 1, 1};
  fl_conv2d_options o = net_conv_options(1, 20000, 19999);
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  float x = 1.0f;
  int32_t y = 0;
  fl_dataset data;
  fl_memory_plan plan;
  o.width = 1;
  o.padding = 0;
  cr_assert_eq(fl_model_builder_new(&builder, context), FL_OK);
  (void)fl_model_builder_input(builder, dims, 3, 1.0f, 0.0f);
  o = net_conv_options(1, 300, 299);
  (void)fl_model_builder_conv2d(builder, "grow", &o);
  (void)fl_model_builder_mean(builder, "m");
  (void)fl_model_builder_softmax_cross_entropy(builder, "l");
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK, "%s",
               fl_last_error());
  fl_model_builder_free(builder);
  cr_assert_eq(fl_dataset_init(&data, sizeof data), FL_OK);
  data.x = &x;
  data.y = &y;
  data.n = 1;
  cr_assert_eq(fl_memory_plan_init(&plan, sizeof plan), FL_OK);
  cr_assert_eq(fl_model_plan_memory(model, 1, 1, &plan), FL_OK);
  cr_assert_gt(plan.activations, 300 * 300 * 8 * sizeof(float));
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_NOMEM);
  cr_assert_not_null(strstr(fl_last_error(), "bytes"), "%s", fl_last_error());
  fl_model_free(model);
  fl_context_free(context);
}

/* ---- a step's data --------------------------------------------------------
 */

static void refused(net *t, const fl_dataset *data, fl_status want,
                    const char *text)
{
  size_t bytes = (size_t)t->model->n_weights * sizeof(float);
  float *before = malloc(bytes);
  fl_evaluation e;
  cr_assert_not_null(before);
  memcpy(before, t->model->values, bytes);
  fl_status st = fl_model_step(t->model, data, 0.1f, NULL);
  cr_assert_eq(st, want, "%s: %s", fl_status_name(st), fl_last_error());
  cr_assert_not_null(strstr(fl_last_error(), text), "\"%s\"", fl_last_error());
  cr_assert_eq(fl_model_accumulate(t->model, data, NULL), want);
  cr_assert_eq(fl_model_fit(t->model, data, NULL, NULL), want);
  cr_assert_eq(fl_evaluation_init(&e, sizeof e), FL_OK);
  cr_assert_eq(fl_model_evaluate(t->model, data, &e), want);
  cr_assert_arr_eq(before, t->model->values, bytes);
  free(before);
}

Test(hostile_models, labels_out_of_range_are_named)
{
  static const int32_t bad[] = {3, -1, -101, INT32_MAX, INT32_MIN};
  net *t = net_sequence(4, 3);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, 5, NET_SEED);
  fl_dataset data = net_data(t);
  for (size_t i = 0; i < FLI_COUNT_OF(bad); i++) {
    int32_t kept = t->labels[19];
    char text[32];
    t->labels[19] = bad[i];
    (void)snprintf(text, sizeof text, "sample 4 is %d", bad[i]);
    refused(t, &data, FL_E_RANGE, text);
    t->labels[19] = kept;
  }
  data.y = NULL;
  refused(t, &data, FL_E_ARGUMENT, "y is NULL");
  data = net_data(t);
  data.n = 0;
  refused(t, &data, FL_E_EMPTY, "no samples");
  data = net_data(t);
  data.x = NULL;
  refused(t, &data, FL_E_ARGUMENT, "x is NULL");
  net_free(t);
}

Test(hostile_models, targets_out_of_range_are_named)
{
  static const float bad[] = {-0.1f, 1.1f, NAN, INFINITY, -INFINITY};
  for (net_loss loss = NET_SQUARES; loss <= NET_BINARY; loss++) {
    net *t = net_vector(4);
    (void)net_dense(t, 3);
    (void)net_numbers(t, loss);
    net_draw(t, 5, NET_SEED);
    fl_dataset data = net_data(t);
    for (size_t i = 0; i < FLI_COUNT_OF(bad); i++) {
      int is_finite = isfinite(bad[i]);
      float kept = t->targets[14];
      if (is_finite && loss == NET_SQUARES) continue;
      t->targets[14] = bad[i];
      refused(t, &data, is_finite ? FL_E_RANGE : FL_E_NOT_FINITE,
              "target 2 of sample 4");
      t->targets[14] = kept;
    }
    data.targets = NULL;
    refused(t, &data, FL_E_ARGUMENT, "targets is NULL");
    net_free(t);
  }
}

Test(hostile_models, ids_out_of_range_are_named)
{
  static const int32_t bad[] = {7, -1, INT32_MAX, INT32_MIN};
  const uint64_t dims[1] = {3};
  net *t = net_begin(NULL, dims, 1);
  (void)net_embedding(t, 7, 2);
  (void)net_flatten(t);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, 5, NET_SEED);
  fl_dataset data = net_data(t);
  for (size_t i = 0; i < FLI_COUNT_OF(bad); i++) {
    int32_t kept = t->ids[11];
    float y[5 * 3];
    t->ids[11] = bad[i];
    refused(t, &data, FL_E_RANGE, "id 2 of sample 3");
    cr_assert_eq(fl_model_predict(t->model, &data, y, 15), FL_E_RANGE);
    t->ids[11] = kept;
  }
  data.x_dtype = FL_DTYPE_F32;
  data.x = t->x;
  refused(t, &data, FL_E_ARGUMENT, "ids");
  net_free(t);
  t = net_vector(4);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, 5, NET_SEED);
  data = net_data(t);
  data.x_dtype = FL_DTYPE_I32;
  refused(t, &data, FL_E_ARGUMENT, "I32");
  data.x_dtype = 9;
  refused(t, &data, FL_E_ARGUMENT, "x_dtype");
  net_free(t);
}

Test(hostile_models, nan_anywhere_in_the_input_reaches_the_loss)
{
  for (int kind = 0; kind < 3; kind++) {
    net *t = kind == 0 ? net_sequence(4, 6) : net_image(3, 4, 4);
    if (kind == 0) {
      (void)net_attention(t, 2, 1);
      (void)net_layer_norm(t, 1e-5f);
      (void)net_softmax(t);
    } else {
      (void)net_activation(t, FL_ACTIVATION_RELU);
      (void)net_pool(t, kind == 1 ? FL_POOL_MAX : FL_POOL_AVERAGE, 2, 2, 0);
      (void)net_group_norm(t, 3, 1e-5f);
      (void)net_activation(t, FL_ACTIVATION_SILU);
    }
    (void)net_flatten(t);
    (void)net_dense(t, 3);
    (void)net_classes(t, 0.0f);
    net_draw(t, 3, NET_SEED);
    fl_dataset data = net_data(t);
    for (size_t i = 0; i < oracle_count(&t->layers[0].out); i++) {
      float kept = t->x[i];
      t->x[i] = NAN;
      refused(t, &data, FL_E_NOT_FINITE, "finite");
      t->x[i] = kept;
    }
    net_free(t);
  }
}

/* The pool's windows end before the last row and column, so that the loss knows
 * nothing of the last pixel; the gradient of the weights would. */
Test(hostile_models, nan_that_no_loss_tells_of_is_named_with_its_sample)
{
  net *t = net_image(3, 5, 5);
  fl_conv2d_options conv = net_conv_options(2, 3, 0);
  (void)net_conv(t, &conv);
  (void)net_pool(t, FL_POOL_MAX, 2, 2, 0);
  (void)net_flatten(t);
  (void)net_dense(t, 3);
  (void)net_classes(t, 0.0f);
  net_draw(t, 3, NET_SEED);
  fl_dataset data = net_data(t);
  size_t size = oracle_count(&t->layers[0].out);
  size_t bytes = (size_t)t->model->n_weights * sizeof(float);
  float *before = malloc(bytes);
  fl_evaluation e;
  cr_assert_not_null(before);
  memcpy(before, t->model->values, bytes);
  t->x[2 * size - 1] = NAN;
  cr_assert_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_E_NOT_FINITE);
  cr_assert_not_null(strstr(fl_last_error(), "sample 1 "), "%s",
                     fl_last_error());
  cr_assert_eq(fl_model_accumulate(t->model, &data, NULL), FL_E_NOT_FINITE);
  cr_assert_eq(fl_model_fit(t->model, &data, NULL, NULL), FL_E_NOT_FINITE);
  cr_assert_arr_eq(before, t->model->values, bytes);
  cr_assert_eq(fl_evaluation_init(&e, sizeof e), FL_OK);
  cr_assert_eq(fl_model_evaluate(t->model, &data, &e), FL_OK);
  free(before);
  net_free(t);
}

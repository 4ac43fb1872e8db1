/* SPDX-License-Identifier: Apache-2.0 */
/* Attaching the store to models: tables of fields, rates, steps that fail, and
 * which of the two is freed first. */
#include "store.h"

/* ---- fields and tables -------------------------------------------------- */

/* v [3, 4] to sum(w v): squared error, whose gradient is known. */
static fl_model *linear_new(fl_context *context)
{
  const uint64_t fields = 3;
  float w[12];
  float zero = 0.0f;
  fl_model_builder *b = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&b, context), FL_OK);
  (void)fl_model_builder_input(b, &fields, 1, 1.0f, 0.0f);
  (void)fl_model_builder_sparse_embedding(b, "v", 4);
  (void)fl_model_builder_flatten(b, "flat");
  (void)fl_model_builder_dense(b, "w", 1);
  (void)fl_model_builder_mean_squared_error(b, "loss");
  cr_assert_eq(fl_model_builder_build(b, &model), FL_OK);
  fl_model_builder_free(b);
  for (size_t i = 0; i < 12; i++) {
    w[i] = (float)(i + 1) / 8.0f;
  }
  cr_assert_eq(fl_model_set_tensor(model, 0, w, 12), FL_OK);
  cr_assert_eq(fl_model_set_tensor(model, 1, &zero, 1), FL_OK);
  return model;
}

static fl_dataset ids_of(const uint64_t *ids, const float *targets, uint64_t n)
{
  fl_dataset data;
  cr_assert_eq(fl_dataset_init(&data, sizeof data), FL_OK);
  data.x_dtype = FL_DTYPE_U64;
  data.x = ids;
  data.targets = targets;
  data.n = n;
  return data;
}

/* Fields 0 and 2 have table 1, field 1 has table 0; all ids are 1. A row's
 * gradient is the sum over the fields that have it. */
Test(embedding_attach, fields_have_tables_of_their_own_or_share_one)
{
  static const uint32_t tables[3] = {1, 0, 1};
  static const uint64_t ids[3] = {1, 1, 1};
  const float target = 3.0f;
  fl_embedding *e = store_new(NULL, FL_EMBEDDING_SGD, 2, 4);
  fl_model *model = linear_new(NULL);
  fl_dataset data = ids_of(ids, &target, 1);
  fl_embedding_attach_options o;
  float before[2][8];
  float after[2][8];
  float y = 0.0f;
  cr_assert_eq(fl_embedding_attach_options_init(&o, sizeof o), FL_OK);
  o.tables = tables;
  o.n_tables = 3;
  cr_assert_eq(fl_embedding_attach(e, model, &o), FL_OK, "%s", fl_last_error());
  cr_assert_eq(fl_model_step(model, &data, 0.0f, NULL), FL_OK);
  read_rows(e, 0, 2, before[0]);
  read_rows(e, 1, 2, before[1]);
  cr_assert_neq(memcmp(before[0] + 4, before[1] + 4, 4 * sizeof(float)), 0);
  cr_assert_eq(fl_model_predict(model, &data, &y, 1), FL_OK);
  float want = 0.0f;
  for (size_t f = 0; f < 3; f++) {
    for (size_t d = 0; d < 4; d++) {
      want += (float)(f * 4 + d + 1) / 8.0f * before[tables[f]][4 + d];
    }
  }
  cr_assert_float_eq(y, want, 1e-5f);
  cr_assert_eq(fl_model_step(model, &data, 0.25f, NULL), FL_OK);
  read_rows(e, 0, 2, after[0]);
  read_rows(e, 1, 2, after[1]);
  float g = 2.0f * (y - target);
  for (size_t d = 0; d < 4; d++) {
    float w0 = (float)(d + 1) / 8.0f, w1 = (float)(d + 5) / 8.0f,
          w2 = (float)(d + 9) / 8.0f;
    cr_assert_float_eq(after[0][4 + d], before[0][4 + d] - 0.25f * g * w1,
                       1e-5f);
    cr_assert_float_eq(after[1][4 + d],
                       before[1][4 + d] - 0.25f * g * (w0 + w2), 1e-5f);
  }
  fl_embedding_free(e);
  fl_model_free(model);
}

Test(embedding_attach, all_fields_may_have_another_table_than_the_first)
{
  static const uint64_t ids[3] = {0, 1, 1};
  const float target = 3.0f;
  fl_embedding *e = store_new(NULL, FL_EMBEDDING_SGD, 2, 4);
  fl_model *model = linear_new(NULL);
  fl_dataset data = ids_of(ids, &target, 1);
  fl_embedding_attach_options o;
  float rows[2][8];
  static const float zeros[8];
  cr_assert_eq(fl_embedding_attach_options_init(&o, sizeof o), FL_OK);
  o.table = 1;
  cr_assert_eq(fl_embedding_attach(e, model, &o), FL_OK);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
  read_rows(e, 0, 2, rows[0]);
  read_rows(e, 1, 2, rows[1]);
  cr_assert_arr_eq(rows[0], zeros, sizeof zeros);
  cr_assert_neq(memcmp(rows[1], zeros, sizeof zeros), 0);
  fl_embedding_free(e);
  fl_model_free(model);
}

/* Tables of their own with batches of different sizes: the same as one table
 * whose ids tell the fields apart, but for first values, which are 0 here. */
Test(embedding_attach, tables_of_fields_learn_as_one_table_does)
{
  clicks *c = clicks_new(1);
  double losses[2];
  for (int is_split = 0; is_split <= 1; is_split++) {
    static const uint32_t tables[FIELDS] = {2, 0, 3, 1};
    fl_embedding *e = NULL;
    fl_embedding_options options;
    fl_embedding_table_options t;
    fl_embedding_attach_options o;
    fl_model *model = recommender_new(NULL, DLRM, 1);
    cr_assert_eq(fl_embedding_options_init(&options, sizeof options), FL_OK);
    cr_assert_eq(fl_embedding_table_options_init(&t, sizeof t), FL_OK);
    cr_assert_eq(fl_embedding_attach_options_init(&o, sizeof o), FL_OK);
    options.secret = secret;
    t.dim = WIDTH;
    t.init_scale = 0.0f;
    cr_assert_eq(fl_embedding_new(&e, NULL, &options), FL_OK);
    for (uint32_t i = 0; i < FIELDS; i++) {
      uint32_t table = 0;
      cr_assert_eq(fl_embedding_add_table(e, &t, &table), FL_OK);
    }
    if (is_split) {
      o.tables = tables;
      o.n_tables = FIELDS;
    }
    cr_assert_eq(fl_embedding_attach(e, model, &o), FL_OK);
    c->data.n = 10;
    cr_assert_eq(fl_model_step(model, &c->data, 0.1f, NULL), FL_OK);
    c->data.n = CLICKS;
    (void)fit(model, &c->data, 2, 0.1f);
    losses[is_split] = fit(model, &c->data, 1, 0.1f);
    fl_embedding_free(e);
    fl_model_free(model);
  }
  cr_assert_eq(losses[0], losses[1]);
  free(c);
}

/* ---- rates, other models ------------------------------------------------ */

Test(embedding_attach, rows_may_have_a_rate_of_their_own)
{
  static const uint64_t ids[3] = {0, 1, 1};
  const float target = 3.0f;
  static const float rates[3] = {FL_RATE_SCHEDULED, 0.0f, 0.5f};
  float moved[3];
  for (size_t i = 0; i < 3; i++) {
    fl_embedding *e = store_new(NULL, FL_EMBEDDING_SGD, 1, 4);
    fl_model *model = linear_new(NULL);
    fl_dataset data = ids_of(ids, &target, 1);
    fl_embedding_attach_options o;
    float rows[2][8];
    cr_assert_eq(fl_embedding_attach_options_init(&o, sizeof o), FL_OK);
    cr_assert_eq(o.rate, FL_RATE_SCHEDULED);
    cr_assert_eq(fl_embedding_attach(e, model, &o), FL_OK);
    cr_assert_eq(fl_model_step(model, &data, 0.0f, NULL), FL_OK);
    cr_assert_eq(fl_embedding_detach(e, model), FL_OK);
    o.rate = rates[i];
    cr_assert_eq(fl_embedding_attach(e, model, &o), FL_OK);
    read_rows(e, 0, 2, rows[0]);
    cr_assert_eq(fl_model_step(model, &data, 0.25f, NULL), FL_OK);
    read_rows(e, 0, 2, rows[1]);
    moved[i] = rows[1][0] - rows[0][0];
    fl_embedding_free(e);
    fl_model_free(model);
  }
  cr_assert_neq(moved[0], 0.0f);
  cr_assert_eq(moved[1], 0.0f);
  cr_assert_float_eq(moved[2], 2.0f * moved[0], 1e-5f);
}

Test(embedding_attach, two_models_train_the_same_rows)
{
  static const uint64_t ids[3] = {0, 1, 1};
  const float target = 3.0f;
  fl_embedding *e = store_new(NULL, FL_EMBEDDING_SGD, 1, 4);
  fl_model *models[2] = {linear_new(NULL), linear_new(NULL)};
  fl_dataset data = ids_of(ids, &target, 1);
  double losses[3];
  cr_assert_eq(fl_embedding_attach(e, models[0], NULL), FL_OK);
  cr_assert_eq(fl_embedding_attach(e, models[1], NULL), FL_OK);
  cr_assert_eq(fl_model_step(models[0], &data, 0.01f, &losses[0]), FL_OK);
  cr_assert_eq(fl_model_step(models[1], &data, 0.0f, &losses[1]), FL_OK);
  cr_assert_lt(losses[1], losses[0]);
  fl_model_free(models[0]);
  cr_assert_eq(fl_model_step(models[1], &data, 0.0f, &losses[2]), FL_OK);
  cr_assert_eq(losses[1], losses[2]);
  fl_embedding_free(e);
  cr_assert_eq(fl_model_step(models[1], &data, 0.1f, NULL), FL_E_STATE);
  fl_model_free(models[1]);
}

/* ---- steps that fail ---------------------------------------------------- */

typedef struct attached {
  fl_embedding *e;
  fl_model *model;
  fl_status code;
} attached;

static fl_status end_step(float *gradient, const float *weights, uint64_t count,
                          void *user)
{
  attached *a = user;
  (void)gradient;
  (void)weights;
  (void)count;
  cr_assert_eq(fl_embedding_detach(a->e, a->model), FL_E_STATE);
  cr_assert_eq(fl_embedding_attach(a->e, a->model, NULL), FL_E_STATE);
  return a->code;
}

Test(embedding_attach, step_that_is_ended_changes_no_row)
{
  static float rows[3][IDS * WIDTH];
  clicks *c = clicks_new(1);
  attached a = {.e = store_new(NULL, FL_EMBEDDING_ROW_ADAGRAD, 1, WIDTH),
                .model = recommender_new(NULL, DEEP_FM, 1)};
  cr_assert_eq(fl_embedding_attach(a.e, a.model, NULL), FL_OK);
  cr_assert_eq(fl_model_set_gradient_hook(a.model, end_step, &a), FL_OK);
  cr_assert_eq(fl_model_step(a.model, &c->data, 0.1f, NULL), FL_OK);
  read_rows(a.e, 0, IDS, rows[0]);
  a.code = FL_E_CANCELLED;
  cr_assert_eq(fl_model_step(a.model, &c->data, 0.1f, NULL), FL_E_CANCELLED);
  read_rows(a.e, 0, IDS, rows[1]);
  cr_assert_arr_eq(rows[0], rows[1], sizeof rows[0]);
  a.code = FL_OK;
  cr_assert_eq(fl_model_step(a.model, &c->data, 0.1f, NULL), FL_OK);
  read_rows(a.e, 0, IDS, rows[2]);
  cr_assert_neq(memcmp(rows[0], rows[2], sizeof rows[0]), 0);
  fl_model_free(a.model);
  fl_embedding_free(a.e);
  free(c);
}

static fl_status free_store(float *gradient, const float *weights,
                            uint64_t count, void *user)
{
  attached *a = user;
  (void)gradient;
  (void)weights;
  (void)count;
  fl_embedding_free(a->e);
  a->e = NULL;
  return FL_OK;
}

/* The step goes on without the rows, and is the last one. */
Test(embedding_attach, store_may_go_in_the_middle_of_a_step)
{
  clicks *c = clicks_new(1);
  attached a = {.e = store_new(NULL, FL_EMBEDDING_ROW_ADAGRAD, 1, WIDTH),
                .model = recommender_new(NULL, DEEP_FM, 1)};
  cr_assert_eq(fl_embedding_attach(a.e, a.model, NULL), FL_OK);
  cr_assert_eq(fl_model_set_gradient_hook(a.model, free_store, &a), FL_OK);
  cr_assert_eq(fl_model_step(a.model, &c->data, 0.1f, NULL), FL_OK);
  cr_assert_null(a.e);
  cr_assert_eq(fl_model_step(a.model, &c->data, 0.1f, NULL), FL_E_STATE);
  fl_model_free(a.model);
  free(c);
}

/* ---- who is freed first ------------------------------------------------- */

Test(embedding_attach, either_may_be_freed_first)
{
  for (int is_store_first = 0; is_store_first <= 1; is_store_first++) {
    fl_context *context = NULL;
    uint64_t left = 1;
    cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
    fl_embedding *e = store_new(context, FL_EMBEDDING_SGD, 3, 4);
    fl_model *model = linear_new(context);
    static const uint32_t tables[3] = {2, 1, 0};
    fl_embedding_attach_options o;
    static const uint64_t ids[3] = {0, 1, 1};
    const float target = 3.0f;
    fl_dataset data = ids_of(ids, &target, 1);
    cr_assert_eq(fl_embedding_attach_options_init(&o, sizeof o), FL_OK);
    o.tables = tables;
    o.n_tables = 3;
    cr_assert_eq(fl_embedding_attach(e, model, &o), FL_OK);
    cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
    if (is_store_first) {
      fl_embedding_free(e);
      cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_STATE);
      fl_model_free(model);
    } else {
      fl_model_free(model);
      fl_embedding_free(e);
    }
    cr_assert_eq(fl_context_get_memory(context, &left, NULL), FL_OK);
    cr_assert_eq(left, 0);
    fl_context_free(context);
  }
}

/* ---- what does not fit -------------------------------------------------- */

static void refused(fl_embedding *e, fl_model *model,
                    const fl_embedding_attach_options *o, fl_status want,
                    const char *text)
{
  fl_status st = fl_embedding_attach(e, model, o);
  cr_assert_eq(st, want, "%s: %s", fl_status_name(st), fl_last_error());
  cr_assert_not_null(strstr(fl_last_error(), text), "\"%s\"", fl_last_error());
}

Test(embedding_attach, what_does_not_fit_is_refused)
{
  static const uint32_t tables[4] = {0, 1, 2, 3};
  static const float rates[] = {NAN, INFINITY, -0.5f};
  fl_embedding *e = store_new(NULL, FL_EMBEDDING_SGD, 3, 4);
  fl_embedding *wide = store_new(NULL, FL_EMBEDDING_SGD, 1, 8);
  fl_model *model = linear_new(NULL);
  fl_model *dense = recommender_new(NULL, DEEP_FM, 0);
  fl_embedding_attach_options o;
  refused(NULL, model, NULL, FL_E_ARGUMENT, "NULL");
  refused(e, NULL, NULL, FL_E_ARGUMENT, "NULL");
  refused(e, dense, NULL, FL_E_NOT_FOUND, "no sparse embedding");
  refused(wide, model, NULL, FL_E_DIM, "dim 8");
  cr_assert_eq(fl_embedding_attach_options_init(&o, sizeof o), FL_OK);
  o.table = 3;
  refused(e, model, &o, FL_E_NOT_FOUND, "got 3");
  o.table = 0;
  o.n_tables = 3;
  refused(e, model, &o, FL_E_DIM, "n_tables");
  o.tables = tables;
  o.n_tables = 4;
  refused(e, model, &o, FL_E_DIM, "n_tables, got 4");
  o.n_tables = 3;
  o.tables = tables + 1;
  refused(e, model, &o, FL_E_NOT_FOUND, "field 2, got 3");
  o.tables = tables;
  for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
    o.rate = rates[i];
    refused(e, model, &o, FL_E_OPTIONS, "rate");
  }
  o.rate = 0.0f;
  o.struct_size = 3;
  refused(e, model, &o, FL_E_OPTIONS, "struct_size");
  o.struct_size = sizeof o;
  cr_assert_eq(fl_embedding_detach(e, model), FL_E_STATE);
  cr_assert_eq(fl_embedding_detach(NULL, model), FL_E_ARGUMENT);
  cr_assert_eq(fl_embedding_detach(e, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_embedding_attach(e, model, &o), FL_OK);
  refused(e, model, &o, FL_E_STATE, "already");
  cr_assert_eq(fl_embedding_detach(wide, model), FL_E_STATE);
  cr_assert_eq(fl_embedding_detach(e, model), FL_OK);
  cr_assert_eq(fl_embedding_attach(e, model, &o), FL_OK);
  fl_model_free(dense);
  fl_model_free(model);
  fl_embedding_free(wide);
  fl_embedding_free(e);
}

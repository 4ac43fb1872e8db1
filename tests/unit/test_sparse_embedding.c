/* SPDX-License-Identifier: Apache-2.0 */
/* A sparse embedding: what it takes, what is asked of its provider and when,
 * and that a step which fails leaves rows and weights as they were. */
#include "recommender.h"

#include <fl/freeze.h>

#include "model/builder.h"

typedef struct setting {
  fl_model *model;
  array_rows *rows;
  clicks *clicks;
  fl_dataset batch; /* of them */
  float *weights;   /* and rows, as they were */
  float *values;
} setting;

static void remember(setting *s)
{
  uint64_t n = fl_model_weight_count(s->model);
  cr_assert_eq(fl_model_copy_weights(s->model, s->weights, n), FL_OK);
  memcpy(s->values, s->rows->values, IDS * WIDTH * sizeof *s->values);
}

static setting setting_new(fl_context *context)
{
  setting s = {.model = recommender_new(context, DEEP_FM, 1),
               .rows = array_rows_new(IDS, WIDTH, NULL),
               .clicks = clicks_new(7)};
  cr_assert_not_null(s.rows);
  fli_model_set_provider(s.model, &array_rows_provider, s.rows);
  s.batch = s.clicks->data;
  s.batch.n = 32;
  s.weights = malloc((size_t)fl_model_weight_count(s.model) * sizeof(float));
  s.values = malloc(IDS * WIDTH * sizeof *s.values);
  cr_assert(s.weights && s.values);
  remember(&s);
  return s;
}

static void setting_free(setting *s)
{
  fl_model_free(s->model);
  array_rows_free(s->rows);
  free(s->clicks);
  free(s->weights);
  free(s->values);
}

static int rows_are_as_before(const setting *s)
{
  return memcmp(s->values, s->rows->values, IDS * WIDTH * sizeof(float)) == 0;
}

static int weights_are_as_before(const setting *s)
{
  size_t n = (size_t)fl_model_weight_count(s->model);
  return memcmp(s->weights, s->model->values, n * sizeof(float)) == 0;
}

static fl_status step(const setting *s)
{
  return fl_model_step(s->model, &s->batch, 0.1f, NULL);
}

static fl_status evaluate(const setting *s)
{
  fl_evaluation e;
  cr_assert_eq(fl_evaluation_init(&e, sizeof e), FL_OK);
  return fl_model_evaluate(s->model, &s->batch, &e);
}

static fl_status predict(const setting *s)
{
  static float y[CLICKS];
  return fl_model_predict(s->model, &s->batch, y, s->batch.n);
}

/* A step that fails: neither rows nor weights have changed, and the next one
 * is none the worse. */
static void refused(setting *s, fl_status want, const char *text)
{
  fl_status st = step(s);
  cr_assert_eq(st, want, "%s: %s", fl_status_name(st), fl_last_error());
  cr_assert_not_null(strstr(fl_last_error(), text), "\"%s\"", fl_last_error());
  cr_assert(rows_are_as_before(s));
  cr_assert(weights_are_as_before(s));
}

/* ---- the provider ------------------------------------------------------- */

Test(sparse_embedding, without_rows_nothing_is_computed)
{
  setting s = setting_new(NULL);
  fli_model_set_provider(s.model, NULL, NULL);
  refused(&s, FL_E_STATE, "has no rows");
  cr_assert_eq(evaluate(&s), FL_E_STATE);
  cr_assert_eq(predict(&s), FL_E_STATE);
  cr_assert_eq(fl_model_accumulate(s.model, &s.batch, NULL), FL_E_STATE);
  cr_assert_eq(fl_model_fit(s.model, &s.batch, NULL, NULL), FL_E_STATE);
  cr_assert_not_null(strstr(fl_last_error(), "sparse_embedding v"));
  cr_assert_eq(s.rows->gone, 0);
  setting_free(&s);
}

Test(sparse_embedding, scores_read_and_steps_train)
{
  setting s = setting_new(NULL);
  cr_assert_eq(evaluate(&s), FL_OK);
  cr_assert_eq(predict(&s), FL_OK);
  cr_assert_eq(s.rows->calls[0], 2);
  cr_assert_eq(s.rows->calls[1] + s.rows->calls[2], 0);
  cr_assert(rows_are_as_before(&s));
  cr_assert_eq(step(&s), FL_OK);
  cr_assert_eq(s.rows->calls[0], 2);
  cr_assert_eq(s.rows->calls[1], 1);
  cr_assert_eq(s.rows->calls[2], 1);
  cr_assert_eq(s.rows->rate, 0.1f);
  cr_assert(!rows_are_as_before(&s));
  cr_assert(!weights_are_as_before(&s));
  fl_model_free(s.model);
  s.model = NULL;
  cr_assert_eq(s.rows->gone, 1);
  setting_free(&s);
}

Test(sparse_embedding, rate_is_the_schedules_where_the_step_has_none)
{
  setting s = setting_new(NULL);
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.learning_rate = 0.5f;
  o.warmup = 4;
  cr_assert_eq(fl_model_set_optimiser(s.model, &o), FL_OK);
  cr_assert_eq(fl_model_step(s.model, &s.batch, FL_RATE_SCHEDULED, NULL),
               FL_OK);
  cr_assert_eq(s.rows->rate, 0.125f);
  setting_free(&s);
}

Test(sparse_embedding, every_id_of_64_bits_comes_as_it_is)
{
  static const uint64_t ids[] = {0, 1, (UINT64_C(1) << 24) + 1,
                                 UINT64_C(0x8000000000000001), UINT64_MAX};
  setting s = setting_new(NULL);
  for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
    s.clicks->ids[s.batch.n * FIELDS - 1] = ids[i];
    cr_assert_eq(step(&s), FL_OK);
    cr_assert_eq(s.rows->last_id, ids[i]);
    s.rows->last_id = 17;
    cr_assert_eq(predict(&s), FL_OK);
    cr_assert_eq(s.rows->last_id, ids[i]);
  }
  setting_free(&s);
}

/* ---- steps that fail ---------------------------------------------------- */

Test(sparse_embedding, provider_that_fails_fails_the_step)
{
  static const fl_status codes[] = {FL_E_NOMEM, FL_E_LIMIT, FL_E_NOT_FINITE};
  setting s = setting_new(NULL);
  for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
    for (size_t call = 1; call < 3; call++) {
      s.rows->fails[call] = codes[i];
      refused(&s, codes[i], "");
      s.rows->fails[call] = FL_OK;
    }
    s.rows->fails[0] = codes[i];
    cr_assert_eq(evaluate(&s), codes[i]);
    cr_assert_eq(predict(&s), codes[i]);
    s.rows->fails[0] = FL_OK;
  }
  cr_assert_eq(step(&s), FL_OK);
  setting_free(&s);
}

Test(sparse_embedding, loss_that_is_not_finite_changes_no_row)
{
  setting s = setting_new(NULL);
  s.rows->values[s.clicks->ids[3] * WIDTH] = NAN;
  remember(&s);
  refused(&s, FL_E_NOT_FINITE, "loss");
  cr_assert_eq(s.rows->calls[2], 0);
  setting_free(&s);
}

/* Weights of the last layer and of the one before it are 1e20 each: the loss is
 * finite, for the units are at 0, and the gradient of the rows is not. */
Test(sparse_embedding, gradient_that_is_not_finite_changes_nothing)
{
  setting s = setting_new(NULL);
  const char *const big[] = {"a.weight", "deep.weight"};
  for (size_t i = 0; i < 2; i++) {
    uint32_t index = 0;
    cr_assert_eq(fl_model_find_tensor(s.model, big[i], &index), FL_OK);
    fli_tensor *t = &s.model->tensors[index];
    for (size_t j = 0; j < (size_t)t->shape.count; j++) {
      /* units agree in pairs, and their outputs cancel out */
      size_t row = i == 0 ? j / (FIELDS * WIDTH) : j;
      float sign = i == 1 && row % 2 ? -1.0f : 1.0f;
      fli_tensor_values(s.model, t)[j] = sign * (i == 0 ? 1e25f : 1e20f);
    }
  }
  for (size_t i = 0; i < IDS * WIDTH; i++) {
    s.rows->values[i] = 1e-20f;
  }
  remember(&s);
  refused(&s, FL_E_NOT_FINITE, "sparse_embedding v: gradient");
  cr_assert_eq(s.rows->calls[2], 0);
  setting_free(&s);
}

static fl_status refuse(float *gradient, const float *weights, uint64_t count,
                        void *user)
{
  (void)gradient;
  (void)weights;
  (void)count;
  return *(fl_status *)user;
}

Test(sparse_embedding, hook_that_ends_the_step_ends_it_for_the_rows)
{
  setting s = setting_new(NULL);
  fl_status code = FL_E_CANCELLED;
  cr_assert_eq(fl_model_set_gradient_hook(s.model, refuse, &code), FL_OK);
  refused(&s, FL_E_CANCELLED, "hook");
  code = FL_OK;
  cr_assert_eq(step(&s), FL_OK);
  cr_assert(!rows_are_as_before(&s));
  setting_free(&s);
}

static fl_status score(float *gradient, const float *weights, uint64_t count,
                       void *user)
{
  const setting *s = user;
  (void)weights;
  cr_assert_eq(evaluate(s), FL_E_STATE);
  cr_assert_eq(predict(s), FL_E_STATE);
  memset(gradient, 0, (size_t)count * sizeof *gradient);
  return FL_OK;
}

/* What the hook makes of the gradient is for the model's own weights. */
Test(sparse_embedding, hook_sees_weights_only_and_may_not_score)
{
  setting s = setting_new(NULL);
  setting plain = setting_new(NULL);
  cr_assert_eq(fl_model_set_gradient_hook(s.model, score, &s), FL_OK);
  cr_assert_eq(step(&s), FL_OK);
  cr_assert_eq(step(&plain), FL_OK);
  cr_assert(weights_are_as_before(&s));
  cr_assert_arr_eq(s.rows->values, plain.rows->values,
                   IDS * WIDTH * sizeof(float));
  cr_assert_eq(evaluate(&s), FL_OK);
  setting_free(&plain);
  setting_free(&s);
}

Test(sparse_embedding, clipping_neither_sees_nor_scales_rows)
{
  setting s = setting_new(NULL);
  setting plain = setting_new(NULL);
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.clip_norm = 1e-6f;
  cr_assert_eq(fl_model_set_optimiser(s.model, &o), FL_OK);
  cr_assert_eq(step(&s), FL_OK);
  cr_assert_eq(step(&plain), FL_OK);
  cr_assert_arr_eq(s.rows->values, plain.rows->values,
                   IDS * WIDTH * sizeof(float));
  cr_assert_neq(memcmp(s.model->values, plain.model->values,
                       (size_t)s.model->n_weights * sizeof(float)),
                0);
  setting_free(&plain);
  setting_free(&s);
}

Test(sparse_embedding, batches_are_not_gathered)
{
  setting s = setting_new(NULL);
  fl_optimiser_options o;
  cr_assert_eq(fl_model_accumulate(s.model, &s.batch, NULL), FL_E_CONFLICT);
  cr_assert_not_null(strstr(fl_last_error(), "batch by batch"));
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.accumulate = 2;
  cr_assert_eq(fl_model_set_optimiser(s.model, &o), FL_OK);
  refused(&s, FL_E_CONFLICT, "batch by batch");
  cr_assert_eq(fl_model_fit(s.model, &s.batch, NULL, NULL), FL_E_CONFLICT);
  cr_assert_eq(s.rows->calls[1], 0);
  cr_assert_eq(evaluate(&s), FL_OK);
  cr_assert_eq(fl_model_set_optimiser(s.model, NULL), FL_OK);
  cr_assert_eq(step(&s), FL_OK);
  setting_free(&s);
}

/* ---- fixed rows --------------------------------------------------------- */

static int is_shown_as_trained(const fl_model *model)
{
  fl_layer_info info;
  cr_assert_eq(fl_layer_info_init(&info, sizeof info), FL_OK);
  cr_assert_eq(fl_model_get_layer(model, 1, &info), FL_OK);
  cr_assert_str_eq(info.kind, "sparse_embedding");
  cr_assert_eq(info.n_tensors, 0);
  cr_assert_eq(info.n_parameters, 0);
  return info.is_trained == 1;
}

static fl_model *three_modules(int32_t is_trained)
{
  const uint64_t fields = FIELDS;
  fl_model_builder *b = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&b, NULL), FL_OK);
  (void)fl_model_builder_input(b, &fields, 1, 1.0f, 0.0f);
  (void)fl_model_builder_trainable(b, is_trained);
  (void)fl_model_builder_sparse_embedding(b, "v", WIDTH);
  (void)fl_model_builder_trainable(b, 1);
  (void)fl_model_builder_flatten(b, "flat");
  (void)fl_model_builder_dense(b, "first", 6);
  (void)fl_model_builder_dense(b, "second", 5);
  (void)fl_model_builder_dense(b, "third", 1);
  (void)fl_model_builder_binary_cross_entropy(b, "loss");
  cr_assert_eq(fl_model_builder_build(b, &model), FL_OK, "%s", fl_last_error());
  fl_model_builder_free(b);
  cr_assert_eq(fl_model_init_weights(model, 5), FL_OK);
  return model;
}

static void use_three_modules(setting *s, int32_t is_trained)
{
  fl_model_free(s->model);
  s->model = three_modules(is_trained);
  fli_model_set_provider(s->model, &array_rows_provider, s->rows);
  remember(s);
}

Test(sparse_embedding, rows_are_frozen_with_the_first_module)
{
  static const uint8_t frozen[][2] = {{1, 0}, {0, 1}};
  setting s = setting_new(NULL);
  use_three_modules(&s, 1);
  cr_assert(is_shown_as_trained(s.model));
  cr_assert_eq(fl_model_set_first_active(s.model, 1), FL_OK);
  cr_assert(!is_shown_as_trained(s.model));
  cr_assert_eq(step(&s), FL_OK);
  cr_assert(rows_are_as_before(&s));
  cr_assert_eq(s.rows->calls[0], 1); /* read, not made */
  cr_assert_eq(fl_model_accumulate(s.model, &s.batch, NULL), FL_OK);
  cr_assert_eq(fl_model_set_first_active(s.model, 0), FL_OK);
  cr_assert_eq(step(&s), FL_OK);
  cr_assert(!rows_are_as_before(&s));
  remember(&s);
  cr_assert_eq(fl_model_set_frozen(s.model, frozen[0], 2), FL_OK);
  cr_assert_eq(step(&s), FL_OK);
  cr_assert(rows_are_as_before(&s));
  cr_assert_eq(fl_model_set_frozen(s.model, frozen[1], 2), FL_OK);
  cr_assert_eq(step(&s), FL_OK);
  cr_assert(!rows_are_as_before(&s));
  setting_free(&s);
}

Test(sparse_embedding, rows_declared_fixed_stay_so)
{
  setting s = setting_new(NULL);
  uint8_t bytes[2][512];
  size_t n[2];
  fl_model *copy = NULL;
  use_three_modules(&s, 0);
  cr_assert(!is_shown_as_trained(s.model));
  cr_assert_eq(step(&s), FL_OK);
  cr_assert(rows_are_as_before(&s));
  cr_assert(!weights_are_as_before(&s));
  cr_assert_eq(fl_model_copy_description(s.model, bytes[0], 512, &n[0]), FL_OK);
  cr_assert_eq(fl_model_from_description(&copy, NULL, bytes[0], n[0]), FL_OK);
  cr_assert_eq(fl_model_copy_description(copy, bytes[1], 512, &n[1]), FL_OK);
  cr_assert_eq(n[0], n[1]);
  cr_assert_arr_eq(bytes[0], bytes[1], n[0]);
  fl_model_free(s.model);
  s.model = copy;
  fli_model_set_provider(s.model, &array_rows_provider, s.rows);
  cr_assert_eq(fl_model_init_weights(s.model, 5), FL_OK);
  cr_assert_eq(step(&s), FL_OK);
  cr_assert(rows_are_as_before(&s));
  setting_free(&s);
}

/* Layer freezing freezes rows with the first module, and keeps no outputs of
 * frozen modules, which rows would change behind its back. */
Test(sparse_embedding, freezing_controller_freezes_rows_and_keeps_no_outputs)
{
  const fl_freeze_fixed fixed = {.step = 4, .first_active = 1};
  setting s = setting_new(NULL);
  fl_freeze_options o;
  fl_freeze_attach_options attach;
  fl_freeze *freeze = NULL;
  fl_cache_status status;
  use_three_modules(&s, 1);
  cr_assert_eq(fl_freeze_options_init(&o, sizeof o), FL_OK);
  cr_assert_eq(fl_freeze_attach_options_init(&attach, sizeof attach), FL_OK);
  cr_assert_eq(fl_cache_status_init(&status, sizeof status), FL_OK);
  o.criterion = FL_FREEZE_FIXED;
  o.steps_per_epoch = 4;
  o.fixed = &fixed;
  o.n_fixed = 1;
  cr_assert_eq(fl_cache_new(&attach.cache, NULL, NULL), FL_OK);
  cr_assert_eq(fl_freeze_new(&freeze, NULL, 3, &o), FL_OK, "%s",
               fl_last_error());
  cr_assert_eq(fl_freeze_attach(freeze, s.model, &attach), FL_OK);
  cr_assert_eq(fl_model_fit(s.model, &s.batch, NULL, NULL), FL_OK);
  cr_assert(!rows_are_as_before(&s));
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(step(&s), FL_OK);
  }
  remember(&s);
  fl_fit_options fit;
  cr_assert_eq(fl_fit_options_init(&fit, sizeof fit), FL_OK);
  fit.epochs = 3;
  cr_assert_eq(fl_model_fit(s.model, &s.batch, &fit, NULL), FL_OK);
  cr_assert_eq(fl_model_first_active(s.model), 1);
  cr_assert(rows_are_as_before(&s));
  cr_assert(!weights_are_as_before(&s));
  cr_assert_eq(fl_cache_get_status(attach.cache, &status), FL_OK);
  cr_assert_eq(status.rows + status.hits, 0);
  fl_freeze_free(freeze);
  fl_cache_free(attach.cache);
  setting_free(&s);
}

/* Where the model has no weight to train, its rows still have. */
Test(sparse_embedding, rows_are_trained_alone)
{
  const uint64_t fields = FIELDS;
  setting s = setting_new(NULL);
  fl_model_builder *b = NULL;
  fl_model_free(s.model);
  cr_assert_eq(fl_model_builder_new(&b, NULL), FL_OK);
  (void)fl_model_builder_input(b, &fields, 1, 1.0f, 0.0f);
  (void)fl_model_builder_sparse_embedding(b, "v", WIDTH);
  (void)fl_model_builder_factorisation_machine(b, "fm");
  (void)fl_model_builder_trainable(b, 0);
  (void)fl_model_builder_dense(b, "d", 1);
  (void)fl_model_builder_binary_cross_entropy(b, "loss");
  cr_assert_eq(fl_model_builder_build(b, &s.model), FL_OK);
  fl_model_builder_free(b);
  cr_assert_eq(fl_model_weight_count(s.model), 0);
  cr_assert_eq(fl_model_init_weights(s.model, 5), FL_OK);
  fli_model_set_provider(s.model, &array_rows_provider, s.rows);
  cr_assert_eq(step(&s), FL_OK, "%s", fl_last_error());
  cr_assert(!rows_are_as_before(&s));
  setting_free(&s);
}

/* LoRA's model has its base's rows, fixed, from whoever is asked for them. */
Test(sparse_embedding, lora_fixes_rows_and_merging_frees_them)
{
  setting s = setting_new(NULL);
  fl_model *lora = NULL;
  fl_model *merged = NULL;
  use_three_modules(&s, 1);
  cr_assert_eq(fl_model_with_lora(&lora, s.model, NULL, 1), FL_OK);
  cr_assert_eq(fl_model_step(lora, &s.batch, 0.1f, NULL), FL_E_STATE);
  fli_model_set_provider(lora, &array_rows_provider, s.rows);
  cr_assert_eq(fl_model_step(lora, &s.batch, 0.1f, NULL), FL_OK);
  cr_assert(rows_are_as_before(&s));
  cr_assert_eq(fl_model_merge_lora(&merged, lora), FL_OK);
  fli_model_set_provider(merged, &array_rows_provider, s.rows);
  cr_assert(is_shown_as_trained(merged));
  cr_assert_eq(fl_model_step(merged, &s.batch, 0.1f, NULL), FL_OK);
  cr_assert(!rows_are_as_before(&s));
  fl_model_free(merged);
  fl_model_free(lora);
  setting_free(&s);
}

/* ---- what does not fit -------------------------------------------------- */

Test(sparse_embedding, takes_ids_and_nothing_else)
{
  setting s = setting_new(NULL);
  fl_model *dense = recommender_new(NULL, DEEP_FM, 0);
  s.batch.x_dtype = FL_DTYPE_F32;
  refused(&s, FL_E_ARGUMENT, "sparse_embedding v wants ids");
  s.batch.x_dtype = FL_DTYPE_U8;
  refused(&s, FL_E_ARGUMENT, "sparse_embedding v wants ids");
  s.batch.x_dtype = 9;
  refused(&s, FL_E_ARGUMENT, "x_dtype is 9");
  s.batch.x_dtype = FL_DTYPE_I32;
  s.batch.x = s.clicks->small;
  s.clicks->small[6] = -1;
  refused(&s, FL_E_RANGE, "id 2 of sample 1 is -1");
  s.batch = s.clicks->data;
  cr_assert_eq(fl_model_step(dense, &s.batch, 0.1f, NULL), FL_E_ARGUMENT);
  cr_assert_not_null(strstr(fl_last_error(), "U64"), "%s", fl_last_error());
  fl_model_free(dense);
  setting_free(&s);
}

static fl_model_builder *begin(void)
{
  const uint64_t dims = 6;
  fl_model_builder *b = NULL;
  cr_assert_eq(fl_model_builder_new(&b, NULL), FL_OK);
  (void)fl_model_builder_input(b, &dims, 1, 1.0f, 0.0f);
  return b;
}

static void not_built(fl_model_builder *b, fl_status want, const char *text)
{
  fl_model *model = NULL;
  (void)fl_model_builder_dense(b, "out", 3);
  (void)fl_model_builder_softmax_cross_entropy(b, "loss");
  fl_status st = fl_model_builder_build(b, &model);
  cr_assert_eq(st, want, "%s: %s", fl_status_name(st), fl_last_error());
  cr_assert_not_null(strstr(fl_last_error(), text), "\"%s\"", fl_last_error());
  fl_model_builder_free(b);
}

Test(sparse_embedding, its_ids_are_nobody_elses)
{
  fl_model_builder *b = begin();
  (void)fl_model_builder_relu(b, "r");
  (void)fl_model_builder_sparse_embedding(b, "culprit", 6);
  not_built(b, FL_E_STATE, "culprit");
  for (int is_sparse = 0; is_sparse <= 1; is_sparse++) {
    b = begin();
    (void)fl_model_builder_sparse_embedding(b, "v", 6);
    (void)fl_model_builder_from(b, "input");
    if (is_sparse) {
      (void)fl_model_builder_sparse_embedding(b, "w", 6);
    } else {
      (void)fl_model_builder_embedding(b, "w", 9, 6);
    }
    (void)fl_model_builder_add(b, "sum", "v");
    not_built(b, FL_E_STATE, "sparse embedding");
  }
  b = begin();
  (void)fl_model_builder_sparse_embedding(b, "v", 1);
  (void)fl_model_builder_flatten(b, "f");
  (void)fl_model_builder_add(b, "sum", "input");
  not_built(b, FL_E_STATE, "ids");
}

Test(sparse_embedding, attributes_out_of_range_are_refused)
{
  const uint64_t image[3] = {2, 3, 4};
  fl_model_builder *b = begin();
  cr_assert_eq(fl_model_builder_sparse_embedding(b, "v", 0), FL_E_ARGUMENT);
  not_built(b, FL_E_ARGUMENT, "width");
  b = begin();
  cr_assert_eq(fl_model_builder_sparse_embedding(b, "v", UINT64_MAX),
               FL_E_TOO_LARGE);
  fl_model_builder_free(b);
  cr_assert_eq(fl_model_builder_new(&b, NULL), FL_OK);
  (void)fl_model_builder_input(b, image, 3, 1.0f, 0.0f);
  cr_assert_eq(fl_model_builder_sparse_embedding(b, "v", 4), FL_E_DIM);
  fl_model_builder_free(b);
}

/* ---- memory ------------------------------------------------------------- */

/* Planned before, and taken once: a step allocates nothing. */
Test(sparse_embedding, memory_is_what_was_planned)
{
  fl_context *context = NULL;
  fl_context_options o;
  fl_memory_plan plan;
  uint64_t before = 0;
  uint64_t after = 0;
  cr_assert_eq(fl_context_options_init(&o, sizeof o), FL_OK);
  cr_assert_eq(fl_context_new(&context, &o), FL_OK);
  setting s = setting_new(context);
  cr_assert_eq(fl_memory_plan_init(&plan, sizeof plan), FL_OK);
  cr_assert_eq(fl_model_plan_memory(s.model, 32, 1, &plan), FL_OK);
  cr_assert_eq(plan.gradients, s.model->n_weights * sizeof(float));
  cr_assert_eq(fl_context_get_memory(context, &before, NULL), FL_OK);
  cr_assert_eq(step(&s), FL_OK);
  cr_assert_eq(fl_context_get_memory(context, &after, NULL), FL_OK);
  cr_assert_eq(after - before, plan.peak - plan.weights - plan.optimiser);
  cr_assert_eq(step(&s), FL_OK);
  cr_assert_eq(fl_context_get_memory(context, &before, NULL), FL_OK);
  cr_assert_eq(before, after);
  cr_assert_eq(fl_model_plan_memory(s.model, UINT32_MAX, 1, &plan), FL_OK);
  setting_free(&s);
  fl_context_free(context);
}

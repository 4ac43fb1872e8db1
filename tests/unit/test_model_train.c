/* SPDX-License-Identifier: Apache-2.0 */
/* Steps, fits, evaluation and prediction: what they learn, what they refuse. */
#include <fl/model.h>

#include <float.h>
#include <math.h>
#include <string.h>

#include "model/model.h"
#include "model_fixture.h"

Test(model_train, bytes_and_floats_give_the_same_training)
{
  const uint64_t dims[3] = {1, 4, 5};
  float weights[2][20 * 3 + 3];
  uint8_t bytes[16 * 20];
  float floats[16 * 20];
  int32_t y[16];
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 2, 0);
  for (size_t i = 0; i < sizeof bytes; i++) {
    bytes[i] = (uint8_t)fli_rng_below(&rng, 256);
    floats[i] = (float)bytes[i];
  }
  for (size_t i = 0; i < 16; i++) {
    y[i] = (int32_t)(i % 3);
  }
  for (size_t k = 0; k < 2; k++) {
    fl_model_builder *builder = NULL;
    fl_model *model = NULL;
    cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
    (void)fl_model_builder_input(builder, dims, 3, 1.0f / 255.0f, -0.5f);
    (void)fl_model_builder_flatten(builder, "f");
    (void)fl_model_builder_dense(builder, "d", 3);
    (void)fl_model_builder_softmax_cross_entropy(builder, "l");
    cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
    fl_model_builder_free(builder);
    fl_dataset data =
        fixture_data(k ? (const float *)(const void *)bytes : floats, y, 16);
    if (k) data.x_dtype = FL_DTYPE_U8;
    cr_assert_eq(fl_model_init_weights(model, SEED), FL_OK);
    cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
    cr_assert_eq(fl_model_copy_weights(model, weights[k], 63), FL_OK);
    fl_model_free(model);
  }
  cr_assert_arr_eq(weights[0], weights[1], sizeof weights[0]);
}

/* Classes by quadrant, with a gap between them. */
static void draw_quadrants(float *x, int32_t *y, size_t n)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 3, 0);
  for (size_t i = 0; i < n; i++) {
    uint32_t quadrant = fli_rng_below(&rng, 4);
    y[i] = (int32_t)quadrant;
    for (size_t j = 0; j < 2; j++) {
      float v = 0.15f + fli_rng_f32(&rng);
      x[2 * i + j] = quadrant >> j & 1 ? v : -v;
    }
  }
}

Test(model_train, learns_a_separable_problem)
{
  enum { N = 600 };
  static float x[N * 2];
  static int32_t y[N];
  fl_model *model = fixture_mlp(NULL, 2, 16, 4);
  fl_fit_options options;
  fl_fit_result result;
  fl_evaluation evaluation;
  uint64_t counts[4];
  uint64_t hits[4];
  draw_quadrants(x, y, N);
  fl_dataset data = fixture_data(x, y, N);
  cr_assert_eq(fl_model_init_weights(model, SEED), FL_OK);
  cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
  cr_assert_eq(fl_fit_result_init(&result, sizeof result), FL_OK);
  options.epochs = 30;
  options.learning_rate = 0.1f;
  cr_assert_eq(fl_model_fit(model, &data, &options, &result), FL_OK);
  cr_assert_eq(result.steps, 30 * 19);
  cr_assert_eq(result.samples, 30 * N);
  cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
  evaluation.class_count = counts;
  evaluation.class_correct = hits;
  evaluation.class_capacity = 4;
  cr_assert_eq(fl_model_evaluate(model, &data, &evaluation), FL_OK);
  cr_assert_eq(evaluation.count, N);
  cr_assert_eq(evaluation.n_classes, 4);
  cr_assert(evaluation.correct > N * 99 / 100, "seed %d: %d of %d", SEED,
            (int)evaluation.correct, N);
  cr_assert(evaluation.loss < 0.1);
  cr_assert_eq(counts[0] + counts[1] + counts[2] + counts[3], N);
  cr_assert_eq(hits[0] + hits[1] + hits[2] + hits[3], evaluation.correct);
  fl_model_free(model);
}

Test(model_train, same_seed_gives_the_same_weights_and_another_does_not)
{
  float weights[3][WEIGHTS];
  sample_set set;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  for (size_t i = 0; i < 3; i++) {
    fl_model *model = fixture_small_mlp();
    fl_fit_options options;
    cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
    options.epochs = 3;
    options.batch_size = 7;
    options.seed = i == 2 ? 2 : 1;
    cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_OK);
    cr_assert_eq(fl_model_copy_weights(model, weights[i], WEIGHTS), FL_OK);
    fl_model_free(model);
  }
  cr_assert_arr_eq(weights[0], weights[1], sizeof weights[0]);
  cr_assert(memcmp(weights[0], weights[2], sizeof weights[0]) != 0);
}

Test(model_train, fit_without_shuffle_is_the_steps_in_order)
{
  fl_model *fitted = fixture_small_mlp();
  fl_model *stepped = fixture_small_mlp();
  sample_set set;
  float a[WEIGHTS];
  float b[WEIGHTS];
  fl_fit_options options;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
  options.shuffle = 0;
  options.batch_size = 16;
  cr_assert_eq(fl_model_fit(fitted, &data, &options, NULL), FL_OK);
  for (size_t first = 0; first < MAX_N; first += 16) {
    uint64_t n = MAX_N - first < 16 ? MAX_N - first : 16;
    fl_dataset part = fixture_data(set.x + first * INPUTS, set.y + first, n);
    cr_assert_eq(fl_model_step(stepped, &part, 0.05f, NULL), FL_OK);
  }
  cr_assert_eq(fl_model_copy_weights(fitted, a, WEIGHTS), FL_OK);
  cr_assert_eq(fl_model_copy_weights(stepped, b, WEIGHTS), FL_OK);
  cr_assert_arr_eq(a, b, sizeof a);
  fl_model_free(fitted);
  fl_model_free(stepped);
}

Test(model_train, indices_choose_the_samples)
{
  fl_model *chosen = fixture_small_mlp();
  fl_model *plain = fixture_small_mlp();
  const uint32_t indices[3] = {30, 2, 7};
  sample_set set;
  float x[3 * INPUTS];
  int32_t y[3];
  double losses[2];
  fixture_samples(&set, SEED);
  for (size_t i = 0; i < 3; i++) {
    memcpy(x + i * INPUTS, set.x + indices[i] * INPUTS, INPUTS * sizeof *x);
    y[i] = set.y[indices[i]];
  }
  fl_dataset some = fixture_data(set.x, set.y, MAX_N);
  some.indices = indices;
  some.n_indices = 3;
  fl_dataset same = fixture_data(x, y, 3);
  cr_assert_eq(fl_model_step(chosen, &some, 0.1f, &losses[0]), FL_OK);
  cr_assert_eq(fl_model_step(plain, &same, 0.1f, &losses[1]), FL_OK);
  cr_assert(losses[0] == losses[1]);
  some.n_indices = 0;
  cr_assert_eq(fl_model_step(chosen, &some, 0.1f, NULL), FL_E_EMPTY);
  fl_model_free(chosen);
  fl_model_free(plain);
}

Test(model_train, bad_labels_and_indices_are_refused_before_any_step)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  float before[WEIGHTS];
  float after[WEIGHTS];
  uint32_t indices[2] = {0, MAX_N};
  fl_evaluation evaluation;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
  cr_assert_eq(fl_model_copy_weights(model, before, WEIGHTS), FL_OK);
  for (int32_t bad = -1; bad <= CLASSES; bad += CLASSES + 1) {
    set.y[MAX_N - 1] = bad;
    cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_RANGE);
    cr_assert_eq(fl_model_fit(model, &data, NULL, NULL), FL_E_RANGE);
    cr_assert_eq(fl_model_evaluate(model, &data, &evaluation), FL_E_RANGE);
  }
  data.indices = indices;
  data.n_indices = 2;
  cr_assert_eq(fl_model_fit(model, &data, NULL, NULL), FL_E_RANGE);
  indices[1] = MAX_N - 1;
  cr_assert_eq(fl_model_fit(model, &data, NULL, NULL), FL_E_RANGE);
  indices[1] = 1;
  cr_assert_eq(fl_model_copy_weights(model, after, WEIGHTS), FL_OK);
  cr_assert_arr_eq(after, before, sizeof before);
  cr_assert_eq(fl_model_fit(model, &data, NULL, NULL), FL_OK);
  fl_model_free(model);
}

Test(model_train, loss_that_is_not_finite_stops_the_step_unharmed)
{
  static const float bad[3] = {NAN, INFINITY, FLT_MAX};
  sample_set set;
  for (size_t i = 0; i < 3; i++) {
    fl_model *model = fixture_small_mlp();
    float before[WEIGHTS];
    float after[WEIGHTS];
    double loss = -1.0;
    fixture_samples(&set, SEED);
    for (size_t j = 0; j < INPUTS; j++) {
      set.x[j] = bad[i];
    }
    fl_dataset data = fixture_data(set.x, set.y, 8);
    /* Huge weights, so that FLT_MAX overflows. */
    for (size_t j = 0; j < WEIGHTS; j++) {
      before[j] = 100.0f;
    }
    cr_assert_eq(fl_model_set_weights(model, NULL, before, WEIGHTS), FL_OK);
    cr_assert_eq(fl_model_step(model, &data, 0.1f, &loss), FL_E_NOT_FINITE);
    cr_assert_eq(fl_model_fit(model, &data, NULL, NULL), FL_E_NOT_FINITE);
    fl_evaluation evaluation;
    cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
    cr_assert_eq(fl_model_evaluate(model, &data, &evaluation), FL_E_NOT_FINITE);
    cr_assert(loss == -1.0);
    cr_assert_eq(fl_model_copy_weights(model, after, WEIGHTS), FL_OK);
    cr_assert_arr_eq(after, before, sizeof before);
    fl_model_free(model);
  }
}

/* ---- progress and cancelling --------------------------------------------- */

typedef struct reports {
  uint32_t n;
  uint64_t last_step;
  uint64_t steps;
  uint32_t last_epoch;
  uint32_t cancel_after; /* reports; 0 = never */
  fl_cancel *cancel;
  fl_status answer;
} reports;

static fl_status on_progress(const fl_fit_progress *progress, void *user)
{
  reports *r = user;
  cr_assert_gt(progress->step, r->last_step);
  cr_assert(isfinite(progress->loss));
  r->n++;
  r->last_step = progress->step;
  r->last_epoch = progress->epoch;
  r->steps = progress->steps;
  if (r->cancel_after == r->n) fl_cancel_request(r->cancel);
  return r->answer;
}

Test(model_train, progress_comes_as_often_as_asked_and_at_the_end)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  reports seen = {0};
  fl_fit_options options;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
  options.epochs = 2;
  options.batch_size = 3; /* 14 steps an epoch, the last with 1 sample */
  options.progress_every = 10;
  options.progress = on_progress;
  options.user = &seen;
  cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_OK);
  cr_assert_eq(seen.n, 3);
  cr_assert_eq(seen.last_step, 28);
  cr_assert_eq(seen.steps, 28);
  cr_assert_eq(seen.last_epoch, 1);
  fl_model_free(model);
}

typedef struct scorer {
  fl_model *model;
  const fl_dataset *data;
  double loss;
} scorer;

/* More samples than a batch: the model has to get more memory meanwhile. */
static fl_status score_now(const fl_fit_progress *progress, void *user)
{
  scorer *s = user;
  fl_evaluation evaluation;
  cr_assert_gt(progress->step, 0);
  cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
  cr_assert_eq(fl_model_evaluate(s->model, s->data, &evaluation), FL_OK);
  s->loss = evaluation.loss;
  return FL_OK;
}

Test(model_train, progress_may_score_the_model_and_changes_nothing)
{
  float weights[2][WEIGHTS];
  sample_set set;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  for (int k = 0; k < 2; k++) {
    fl_fit_options options;
    fl_evaluation after;
    fl_model *model = fixture_small_mlp();
    scorer s = {.model = model, .data = &data};
    cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
    options.batch_size = 3;
    options.progress_every = 1;
    options.progress = k ? score_now : NULL;
    options.user = &s;
    cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_OK);
    cr_assert_eq(fl_evaluation_init(&after, sizeof after), FL_OK);
    cr_assert_eq(fl_model_evaluate(model, &data, &after), FL_OK);
    if (k) cr_assert_eq(s.loss, after.loss);
    cr_assert_eq(fl_model_copy_weights(model, weights[k], WEIGHTS), FL_OK);
    fl_model_free(model);
  }
  cr_assert_arr_eq(weights[0], weights[1], sizeof weights[0]);
}

Test(model_train, cancelled_fit_keeps_whole_steps_and_says_how_many)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  reports seen = {.cancel_after = 5};
  fl_fit_options options;
  fl_fit_result result;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_cancel_new(&seen.cancel), FL_OK);
  cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
  cr_assert_eq(fl_fit_result_init(&result, sizeof result), FL_OK);
  options.batch_size = 4;
  options.progress_every = 1;
  options.progress = on_progress;
  options.user = &seen;
  options.cancel = seen.cancel;
  cr_assert_eq(fl_model_fit(model, &data, &options, &result), FL_E_CANCELLED);
  cr_assert_eq(result.steps, 5);
  cr_assert_eq(result.samples, 20);
  cr_assert(result.mean_loss > 0.0);
  seen = (reports){.cancel = seen.cancel};
  cr_assert_eq(fl_model_fit(model, &data, &options, &result), FL_E_CANCELLED);
  cr_assert_eq(seen.n, 0);
  cr_assert_eq(result.steps, 0);
  cr_assert(result.mean_loss == 0.0);
  fl_cancel_free(seen.cancel);
  fl_model_free(model);
}

Test(model_train, largest_epochs_and_batches_can_be_cancelled)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  reports seen = {.cancel_after = 3};
  fl_fit_options options;
  fl_fit_result result;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_cancel_new(&seen.cancel), FL_OK);
  cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
  cr_assert_eq(fl_fit_result_init(&result, sizeof result), FL_OK);
  options.epochs = UINT32_MAX;
  options.batch_size = UINT32_MAX; /* one step an epoch */
  options.progress_every = 1;
  options.progress = on_progress;
  options.user = &seen;
  options.cancel = seen.cancel;
  cr_assert_eq(fl_model_fit(model, &data, &options, &result), FL_E_CANCELLED);
  cr_assert_eq(seen.steps, UINT32_MAX);
  cr_assert_eq(seen.last_epoch, 2);
  cr_assert_eq(result.steps, 3);
  cr_assert_eq(result.samples, 3 * MAX_N);
  fl_cancel_free(seen.cancel);
  fl_model_free(model);
}

Test(model_train, unusable_result_is_refused_before_any_step)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  float before[WEIGHTS];
  float after[WEIGHTS];
  fl_fit_result result = {.struct_size = 0};
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_model_copy_weights(model, before, WEIGHTS), FL_OK);
  cr_assert_eq(fl_model_fit(model, &data, NULL, &result), FL_E_OPTIONS);
  cr_assert_eq(fl_model_copy_weights(model, after, WEIGHTS), FL_OK);
  cr_assert_arr_eq(after, before, sizeof before);
  fl_model_free(model);
}

Test(model_train, progress_callback_stops_with_its_status)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  reports seen = {.answer = FL_E_IO};
  fl_fit_options options;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_fit_options_init(&options, sizeof options), FL_OK);
  options.progress_every = 1;
  options.progress = on_progress;
  options.user = &seen;
  cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_E_IO);
  cr_assert_eq(seen.n, 1);
  seen = (reports){.answer = 1};
  cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_E_CALLBACK);
  fl_model_free(model);
}

Test(model_train, options_out_of_range_are_refused)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  static const float rates[3] = {-0.1f, NAN, INFINITY};
  fl_fit_options good;
  cr_assert_eq(fl_fit_options_init(&good, sizeof good), FL_OK);
  for (size_t i = 0; i < 3; i++) {
    fl_fit_options options = good;
    options.learning_rate = rates[i];
    cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_E_ARGUMENT);
    cr_assert_eq(fl_model_step(model, &data, rates[i], NULL), FL_E_ARGUMENT);
  }
  fl_fit_options options = good;
  options.epochs = 0;
  cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_E_OPTIONS);
  options = good;
  options.batch_size = 0;
  cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_E_OPTIONS);
  options = good;
  options.progress_every = 0;
  cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_E_OPTIONS);
  options = good;
  options.shuffle = 2;
  cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_E_OPTIONS);
  options = good;
  options.struct_size = 3;
  cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_E_OPTIONS);
  options = good;
  options.struct_size = offsetof(fl_fit_options, shuffle); /* older host */
  options.batch_size = 7;
  cr_assert_eq(fl_model_fit(model, &data, &options, NULL), FL_OK);
  fl_model_free(model);
}

Test(model_train, data_sets_that_make_no_sense_are_refused)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  float out[CLASSES];
  fixture_samples(&set, SEED);
  fl_dataset good = fixture_data(set.x, set.y, 1);
  fl_dataset data = good;
  data.x = NULL;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_ARGUMENT);
  data = good;
  data.y = NULL;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_predict(model, &data, out, CLASSES), FL_OK);
  data = good;
  data.x_dtype = FL_DTYPE_I32;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_ARGUMENT);
  data = good;
  data.n = 0;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_EMPTY);
  data.x = NULL;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_EMPTY);
  data = good;
  data.struct_size = 0;
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_OPTIONS);
  cr_assert_eq(fl_model_step(model, NULL, 0.1f, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_model_step(NULL, &good, 0.1f, NULL), FL_E_ARGUMENT);
  fl_model_free(model);
}

Test(model_train, model_without_layers_cannot_be_trained)
{
  fl_model *model = fixture_tensors(NULL);
  sample_set set;
  float out[1];
  fl_evaluation evaluation;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, 1);
  cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_STATE);
  cr_assert_eq(fl_model_fit(model, &data, NULL, NULL), FL_E_STATE);
  cr_assert_eq(fl_model_evaluate(model, &data, &evaluation), FL_E_STATE);
  cr_assert_eq(fl_model_predict(model, &data, out, 1), FL_E_STATE);
  fl_model_free(model);
}

/* ---- forward only ---------------------------------------------------------
 */

Test(model_train, predictions_and_scores_do_not_depend_on_the_batches)
{
  enum { N = 600 };
  static float x[N * 2];
  static int32_t y[N];
  static float logits[N * 4];
  fl_model *model = fixture_mlp(NULL, 2, 16, 4);
  fl_evaluation all;
  uint64_t correct = 0;
  double loss = 0.0;
  draw_quadrants(x, y, N);
  fl_dataset data = fixture_data(x, y, N);
  cr_assert_eq(fl_model_init_weights(model, SEED), FL_OK);
  cr_assert_eq(fl_model_predict(model, &data, logits, N * 4), FL_OK);
  cr_assert_eq(fl_model_predict(model, &data, logits, N * 4 - 1), FL_E_DIM);
  cr_assert_eq(fl_model_predict(model, &data, logits, N * 4 - 4), FL_E_DIM);
  for (size_t i = 0; i < N; i++) {
    float one[4];
    fl_evaluation evaluation;
    fl_dataset single = fixture_data(x + 2 * i, y + i, 1);
    cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
    cr_assert_eq(fl_model_predict(model, &single, one, 4), FL_OK);
    for (size_t j = 0; j < 4; j++) {
      cr_assert(fabsf(one[j] - logits[4 * i + j]) < 1e-5f);
    }
    cr_assert_eq(fl_model_evaluate(model, &single, &evaluation), FL_OK);
    correct += evaluation.correct;
    loss += evaluation.loss;
  }
  cr_assert_eq(fl_evaluation_init(&all, sizeof all), FL_OK);
  cr_assert_eq(fl_model_evaluate(model, &data, &all), FL_OK);
  cr_assert_eq(all.correct, correct);
  cr_assert(fabs(all.loss - loss / N) < 1e-6);
  fl_model_free(model);
}

Test(model_train, zero_weights_score_like_guessing)
{
  fl_model *model = fixture_mlp(NULL, INPUTS, HIDDEN, CLASSES);
  sample_set set;
  fl_evaluation evaluation;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
  cr_assert_eq(fl_model_evaluate(model, &data, &evaluation), FL_OK);
  cr_assert(fabs(evaluation.loss - log(CLASSES)) < 1e-12);
  fl_model_free(model);
}

Test(model_train, class_counts_need_room_for_all_classes)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  uint64_t counts[CLASSES];
  fl_evaluation evaluation;
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, MAX_N);
  cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
  evaluation.class_count = counts;
  evaluation.class_capacity = CLASSES - 1;
  cr_assert_eq(fl_model_evaluate(model, &data, &evaluation), FL_E_SIZE);
  evaluation.class_capacity = CLASSES;
  cr_assert_eq(fl_model_evaluate(model, &data, &evaluation), FL_OK);
  cr_assert_eq(fl_model_evaluate(model, &data, NULL), FL_E_ARGUMENT);
  fl_model_free(model);
}

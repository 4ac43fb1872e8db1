/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fl-participant follows freeze plans: a round is trained as it trains one,
 * on plans that an aggregator's controller makes.
 */
#include "fl_participant/freezing.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { INPUTS = 6, SAMPLES = 64, BATCH = 8, FRONT = INPUTS * 8 + 8 };

static const uint8_t job[FL_HASH_BYTES] = {1};
static const uint8_t other_job[FL_HASH_BYTES] = {2};

struct run {
  fl_model *model;
  struct freezing freezing;
  float x[SAMPLES * INPUTS];
  int32_t y[SAMPLES];
  const uint64_t *ids; /* NULL: none */
  uint8_t plan[256];
  fl_train_task task;
  fl_train_result result;
};

static fl_model *make_model(void)
{
  const uint64_t dims[1] = {INPUTS};
  fl_model *model = NULL;
  fl_model_builder *builder = NULL;
  CHECK_OK(fl_model_builder_new(&builder, NULL));
  CHECK_OK(fl_model_builder_input(builder, dims, 1, 1, 0));
  CHECK_OK(fl_model_builder_dense(builder, "a", 8));
  CHECK_OK(fl_model_builder_relu(builder, "a_out"));
  CHECK_OK(fl_model_builder_dense(builder, "b", 8));
  CHECK_OK(fl_model_builder_relu(builder, "b_out"));
  CHECK_OK(fl_model_builder_dense(builder, "c", 3));
  CHECK_OK(fl_model_builder_softmax_cross_entropy(builder, "loss"));
  CHECK_OK(fl_model_builder_build(builder, &model));
  CHECK_OK(fl_model_init_weights(model, 5));
  fl_model_builder_free(builder);
  return model;
}

static void begin(struct run *run, uint32_t reports)
{
  memset(run, 0, sizeof *run);
  run->model = make_model();
  for (int i = 0; i < SAMPLES * INPUTS; i++)
    run->x[i] = (float)(i * 37 % 101) / 50 - 1;
  for (int i = 0; i < SAMPLES; i++)
    run->y[i] = i % 3;
  run->task = (fl_train_task){.struct_size = sizeof run->task,
                              .epochs = 1,
                              .batch_size = BATCH,
                              .learning_rate = .05f,
                              .freeze_reports = reports,
                              .freeze_plan = run->plan};
}

static void end(struct run *run)
{
  freezing_close(&run->freezing);
  fl_model_free(run->model);
}

/* The next round's plan: that of a schedule which froze `first_active` modules
 * one by one, so that its version is as high. */
static void plan(struct run *run, const uint8_t *name, uint32_t first_active)
{
  const fl_freeze_fixed fixed[2] = {{.step = 1, .first_active = 1},
                                    {.step = 2, .first_active = 2}};
  fl_freeze *controller = NULL;
  fl_freeze_options options;
  fl_freeze_request request;
  CHECK_OK(fl_freeze_options_init(&options, sizeof options));
  CHECK_OK(fl_freeze_request_init(&request, sizeof request));
  options.criterion = FL_FREEZE_FIXED;
  options.steps_per_epoch = 1;
  options.max_frozen = 2;
  options.fixed = fixed;
  options.n_fixed = 2;
  options.job = name;
  CHECK_OK(fl_freeze_new(&controller, NULL, 3, &options));
  for (uint32_t step = 0; step <= first_active; step++) {
    CHECK_OK(fl_freeze_begin_step(controller, .05f, &request));
    CHECK_OK(fl_freeze_end_step(controller, 1));
  }
  CHECK_OK(fl_freeze_copy_plan(controller, run->plan, sizeof run->plan,
                               &run->task.freeze_plan_size));
  fl_freeze_free(controller);
  run->task.freeze_job = name;
  run->task.first_active = first_active;
}

static void train(struct run *run)
{
  fl_dataset data;
  fl_fit_options options;
  CHECK_OK(fl_train_result_init(&run->result, sizeof run->result));
  CHECK_OK(freezing_begin(&run->freezing, run->model, &run->task, SAMPLES));
  CHECK_OK(fl_dataset_init(&data, sizeof data));
  CHECK_OK(fl_fit_options_init(&options, sizeof options));
  data.x = run->x;
  data.y = run->y;
  data.ids = run->ids;
  data.n = SAMPLES;
  options.epochs = run->task.epochs;
  options.batch_size = run->task.batch_size;
  options.learning_rate = run->task.learning_rate;
  CHECK_OK(fl_model_fit(run->model, &data, &options, NULL));
  CHECK_EQ_U64(fl_model_first_active(run->model), run->task.first_active);
  freezing_end(&run->freezing, &run->result);
}

static void expect_report(const struct run *run, uint32_t module)
{
  CHECK(isfinite(run->result.report_value));
  CHECK(run->result.report_value > 0);
  CHECK_EQ_U64(run->result.report_module, module);
}

static void follow(uint32_t reports)
{
  struct run run;
  begin(&run, reports);
  for (int round = 0; round < 6; round++) {
    plan(&run, job, round < 3 ? 0 : 1);
    train(&run);
    expect_report(&run, round < 3 ? 0 : 1);
  }
  end(&run);
}

static void what_the_job_asks_for_is_reported(void)
{
  follow(FL_FREEZE_GRADNORM);
  follow(FL_FREEZE_PLASTICITY);
}

static void what_cannot_be_measured_is_not_reported(void)
{
  struct run run;
  begin(&run, 0);
  for (uint32_t reports = 0; reports < 200; reports += 99) {
    run.task.freeze_reports = reports;
    plan(&run, job, 1);
    train(&run);
    CHECK(isnan(run.result.report_value));
  }
  end(&run);
}

/* And goes on reporting when its part is the whole again. */
static void who_trains_less_than_the_plan_reports_nothing(void)
{
  struct run run;
  float *weights = NULL, before[FRONT];
  begin(&run, FL_FREEZE_GRADNORM);
  CHECK_OK(fl_model_get_weights(run.model, &weights, &run.task.n_weights));
  for (int round = 0; round < 6; round++) {
    const int is_whole = round % 2 == 0;
    plan(&run, job, 0);
    if (!is_whole) run.task.first_active = 1;
    memcpy(before, weights, sizeof before);
    train(&run);
    CHECK((memcmp(before, weights, sizeof before) != 0) == is_whole);
    if (is_whole) expect_report(&run, 0);
    if (!is_whole) CHECK(isnan(run.result.report_value));
  }
  end(&run);
}

static void job_begun_afresh_is_followed(void)
{
  struct run run;
  begin(&run, FL_FREEZE_GRADNORM);
  plan(&run, job, 1);
  train(&run);
  plan(&run, job, 0);
  train(&run);
  expect_report(&run, 0);
  plan(&run, job, 1);
  train(&run);
  expect_report(&run, 1);
  end(&run);
}

/* Every round brings other weights for what is trained, and the same for what
 * is frozen. Gives the weights of the last one. */
static void train_rounds(fl_cache *cache, float *weights, uint64_t n)
{
  struct run run;
  uint64_t ids[SAMPLES];
  float *lent = NULL;
  begin(&run, FL_FREEZE_GRADNORM);
  run.freezing.cache = cache;
  for (uint64_t i = 0; i < SAMPLES; i++)
    ids[i] = SAMPLES - 1 - i;
  run.ids = ids;
  for (int round = 0; round < 6; round++) {
    fl_cache_status status;
    plan(&run, job, round < 2 ? 0 : round < 5 ? 1 : 2);
    CHECK_OK(fl_model_get_weights(run.model, &lent, &run.task.n_weights));
    CHECK_EQ_U64(run.task.n_weights, n);
    for (uint64_t i = n - 10; i < n; i++)
      lent[i] *= .9f;
    train(&run);
    if (!cache) continue;
    static const uint64_t hits[] = {0, 0, 0, 1, 2, 2};
    CHECK_OK(fl_cache_status_init(&status, sizeof status));
    CHECK_OK(fl_cache_get_status(cache, &status));
    CHECK_EQ_U64(status.hits, hits[round] * SAMPLES);
  }
  CHECK_OK(fl_model_copy_weights(run.model, weights, n));
  end(&run);
}

static void rows_of_a_frozen_prefix_stay_from_round_to_round(void)
{
  enum { N = FRONT + 8 * 8 + 8 + 8 * 3 + 3 };
  float plain[N], cached[N];
  fl_cache *cache = NULL;
  CHECK_OK(fl_cache_new(&cache, NULL, NULL));
  train_rounds(NULL, plain, N);
  train_rounds(cache, cached, N);
  CHECK(memcmp(plain, cached, sizeof plain) == 0);
  fl_cache_free(cache);
}

static void another_job_is_followed(void)
{
  struct run run;
  begin(&run, FL_FREEZE_GRADNORM);
  plan(&run, job, 1);
  train(&run);
  plan(&run, other_job, 1);
  train(&run);
  expect_report(&run, 1);
  /* This one freezes nothing. */
  run.task.freeze_plan = NULL;
  run.task.freeze_plan_size = 0;
  run.task.first_active = 0;
  train(&run);
  CHECK(isnan(run.result.report_value));
  end(&run);
}

static void plan_that_is_none_is_refused(void)
{
  struct run run;
  begin(&run, FL_FREEZE_GRADNORM);
  plan(&run, job, 1);
  run.task.freeze_plan_size--;
  CHECK(freezing_begin(&run.freezing, run.model, &run.task, SAMPLES) != FL_OK);
  run.task.freeze_plan_size++;
  train(&run);
  expect_report(&run, 1);
  end(&run);
}

int main(void)
{
  CHECK_CASE(what_the_job_asks_for_is_reported);
  CHECK_CASE(what_cannot_be_measured_is_not_reported);
  CHECK_CASE(who_trains_less_than_the_plan_reports_nothing);
  CHECK_CASE(job_begun_afresh_is_followed);
  CHECK_CASE(rows_of_a_frozen_prefix_stay_from_round_to_round);
  CHECK_CASE(another_job_is_followed);
  CHECK_CASE(plan_that_is_none_is_refused);
  return check_report();
}

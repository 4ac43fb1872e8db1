/* SPDX-License-Identifier: Apache-2.0 */
/* A client that does not train all: what the plan asks of the trainer, what
 * comes back to the server, and what becomes of the rest. */
#include "client_fixture.h"

#include <fl/freeze.h>
#include "client/client.h"
#include "compress/feedback.h"

/* The first of the two tensors, which module 0 is. */
enum { FX_FROZEN = 204 * 6 };

static const uint8_t plan_bytes[5] = {0x81, 1, 2, 3, 4};

/* A client whose plans freeze module 0. */
static void begin(fixture *fx, uint32_t codec)
{
  fx_begin(fx, codec);
  fx->plan.first_active = 1;
  fx->plan.freeze_plan = plan_bytes;
  fx->plan.freeze_plan_size = sizeof plan_bytes;
  fx->plan.freeze_reports = 2;
}

static void submit(fixture *fx, const float *update, uint32_t module,
                   double value)
{
  fl_train_result result;
  cr_assert_eq(fl_train_result_init(&result, sizeof result), FL_OK);
  cr_assert(isnan(result.report_value));
  result.update = update;
  result.n = FX_WEIGHTS;
  result.report_module = module;
  result.report_value = value;
  cr_assert_eq(fl_client_submit(fx->client, &result), FL_OK, "%s",
               fl_last_error());
}

/* Bytes of an update of segments of `n` values in all, as f32. */
static uint64_t f32_size(size_t n)
{
  return 128 + 4 * (uint64_t)n;
}

Test(client_freeze, trainer_is_told_what_the_plan_says)
{
  fixture fx;
  begin(&fx, FL_CODEC_F32);
  fx_new(&fx);
  fx_to_train(&fx);
  cr_expect_eq(fx.event.task.first_active, 1u);
  cr_expect_eq(fx.event.task.freeze_reports, 2u);
  cr_assert_eq(fx.event.task.freeze_plan_size, sizeof plan_bytes);
  cr_expect_arr_eq(fx.event.task.freeze_plan, plan_bytes, sizeof plan_bytes);
  fx_free(&fx);
}

/* A plan of that job, in `bytes`; its size. */
static size_t write_freeze_plan(const uint8_t *job, uint8_t *bytes,
                                size_t capacity)
{
  size_t size = 0;
  fl_freeze *controller = NULL;
  fl_freeze_options options;
  cr_assert_eq(fl_freeze_options_init(&options, sizeof options), FL_OK);
  options.max_frozen = 1;
  options.job = job;
  cr_assert_eq(fl_freeze_new(&controller, NULL, 2, &options), FL_OK);
  cr_assert_eq(fl_freeze_copy_plan(controller, bytes, capacity, &size), FL_OK);
  fl_freeze_free(controller);
  return size;
}

Test(client_freeze, trainer_is_told_whose_plan_it_is)
{
  fixture fx;
  uint8_t job[FL_HASH_BYTES], bytes[256];
  begin(&fx, FL_CODEC_F32);
  memset(job, 0x5a, sizeof job);
  fx.plan.freeze_plan_size = write_freeze_plan(job, bytes, sizeof bytes);
  fx.plan.freeze_plan = bytes;
  fx_new(&fx);
  fx_to_train(&fx);
  cr_assert_not_null(fx.event.task.freeze_job);
  cr_expect_arr_eq(fx.event.task.freeze_job, job, sizeof job);
  fx_free(&fx);
}

/* Cut, and with a byte too many. */
Test(client_freeze, plan_that_is_none_names_no_job)
{
  const uint8_t job[FL_HASH_BYTES] = {1};
  uint8_t bytes[256];
  const size_t size = write_freeze_plan(job, bytes, sizeof bytes);
  bytes[size] = 0;
  for (size_t n = 1; n <= size + 1; n++) {
    fixture fx;
    begin(&fx, FL_CODEC_F32);
    fx.plan.freeze_plan = bytes;
    fx.plan.freeze_plan_size = n;
    fx_new(&fx);
    fx_to_train(&fx);
    cr_expect_eq(fx.event.task.freeze_job != NULL, n == size, "%zu bytes", n);
    cr_expect_eq(fx.event.task.freeze_plan_size, n);
    fx_free(&fx);
  }
}

Test(client_freeze, nothing_is_frozen_by_plans_without_the_keys)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  cr_expect_eq(fx.event.task.first_active, 0u);
  cr_expect_eq(fx.event.task.freeze_reports, 0u);
  cr_expect_null(fx.event.task.freeze_plan);
  cr_expect_eq(fx.event.task.freeze_plan_size, 0u);
  cr_expect_null(fx.event.task.freeze_job);
  fx_submit(&fx, 1.f);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, 100.f, 1);
  fli_manifest manifest = fx_take_upload(&fx, NULL);
  cr_expect_eq(manifest.total, f32_size(FX_WEIGHTS));
  cr_expect_not(manifest.has_report);
  fx_free(&fx);
}

/* Evaluation is of the whole model. */
Test(client_freeze, evaluation_knows_nothing_of_it)
{
  fixture fx;
  begin(&fx, FL_CODEC_F32);
  fx_new(&fx);
  fx_to_update(&fx);
  fx_ack(&fx, FL_REJECT_NONE);
  fx_evaluate(&fx, 1);
  FX_EVENT(&fx, FL_CLIENT_ACCEPTED);
  FX_EVENT(&fx, FL_CLIENT_NEED_EVALUATE);
  cr_expect_eq(fx.event.task.first_active, 0u);
  cr_expect_null(fx.event.task.freeze_plan);
  fx_free(&fx);
}

static void expect_norms(fixture *fx, int is_first_silent)
{
  fli_norm norm;
  fx_frame frame = fx_take(fx, FLI_MSG_NORM);
  float norms[32];
  cr_assert_eq(fli_parse_norm(&norm, frame.body, frame.size), FL_OK);
  cr_assert_eq(
      fli_norms_from_bf16(norms, fx->n_norms, norm.norms, norm.norms_size),
      FL_OK);
  free(frame.body);
  for (uint64_t i = 0; i + 1 < fx->n_norms; i++)
    cr_expect_eq(norms[i] == 0.f, is_first_silent != 0);
  cr_expect(norms[fx->n_norms - 1] > 0.f);
}

/* What the trainer says of frozen modules does not matter, not even when it is
 * no number. */
static void check_codec(uint32_t codec)
{
  fixture fx;
  float update[FX_WEIGHTS], got[FX_WEIGHTS];
  uint8_t *data;
  begin(&fx, codec);
  fx_new(&fx);
  fx_to_train(&fx);
  fx_update(update, 1.f);
  update[3] = (float)NAN;
  submit(&fx, update, 1, .5);
  expect_norms(&fx, 1);
  fx_scale(&fx, 100.f, 1);
  fli_manifest manifest = fx_take_upload(&fx, &data);
  fx_decode(&fx, 100.f, 1, data, (size_t)manifest.total, got);
  for (size_t i = 0; i < FX_FROZEN; i++)
    cr_assert_eq(fli_f32_bits(got[i]), 0u);
  if (codec == FL_CODEC_F32) {
    cr_expect_eq(manifest.total, f32_size(FX_WEIGHTS - FX_FROZEN));
    for (size_t i = FX_FROZEN; i < FX_WEIGHTS; i++)
      cr_assert_float_eq(got[i], update[i], 1e-6);
  } else {
    /* 16 weights are padded to 256 coordinates of 4 bits. */
    cr_expect_eq(manifest.total, 128u + 256u / 2);
  }
  free(data);
  fx_free(&fx);
}

Test(client_freeze, f32_updates_lack_frozen_segments)
{
  check_codec(FL_CODEC_F32);
}

Test(client_freeze, thc_updates_lack_frozen_segments)
{
  check_codec(FL_CODEC_THC);
}

Test(client_freeze, active_part_has_to_be_finite)
{
  fixture fx;
  float update[FX_WEIGHTS];
  fl_train_result result;
  begin(&fx, FL_CODEC_F32);
  fx_new(&fx);
  fx_to_train(&fx);
  fx_update(update, 1.f);
  update[FX_FROZEN] = (float)INFINITY;
  cr_assert_eq(fl_train_result_init(&result, sizeof result), FL_OK);
  result.update = update;
  result.n = FX_WEIGHTS;
  cr_expect_eq(fl_client_submit(fx.client, &result), FL_E_NOT_FINITE);
  fx_free(&fx);
}

Test(client_freeze, plan_without_anything_to_train_is_no_servers)
{
  fixture fx;
  begin(&fx, FL_CODEC_F32);
  fx.plan.first_active = 2;
  fx_new(&fx);
  fx_join(&fx);
  fx_send_model(&fx);
  cr_assert_eq(fli_write_plan(&fx.out, &fx.plan), FL_OK);
  cr_expect_eq(fx_flush(&fx), FL_E_RANGE);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_free(&fx);
}

static fli_manifest upload_with_report(double value)
{
  fixture fx;
  float update[FX_WEIGHTS];
  begin(&fx, FL_CODEC_F32);
  fx_new(&fx);
  fx_to_train(&fx);
  fx_update(update, 1.f);
  submit(&fx, update, 1, value);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, 100.f, 1);
  fli_manifest manifest = fx_take_upload(&fx, NULL);
  fx_free(&fx);
  return manifest;
}

Test(client_freeze, report_goes_with_the_update)
{
  const fli_manifest manifest = upload_with_report(.375);
  cr_expect(manifest.has_report);
  cr_expect_eq(manifest.report_module, 1u);
  cr_expect_eq(manifest.report_value, .375);
}

Test(client_freeze, report_that_says_nothing_is_not_sent)
{
  cr_expect(upload_with_report(0.).has_report);
  cr_expect_not(upload_with_report((double)NAN).has_report);
  cr_expect_not(upload_with_report((double)INFINITY).has_report);
  cr_expect_not(upload_with_report(-1.).has_report);
}

/* Another attempt of the round that trains more is another task. */
Test(client_freeze, more_to_train_is_another_task)
{
  fixture fx;
  begin(&fx, FL_CODEC_F32);
  fx_new(&fx);
  fx_to_update(&fx);
  fx.plan.attempt = 1;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_NORM);
  fx.plan.attempt = 2;
  fx.plan.first_active = 0;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  cr_expect_eq(fx.event.task.first_active, 0u);
  fx_free(&fx);
}

Test(client_freeze, hello_says_the_depth)
{
  fixture fx;
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.max_depth = 1;
  fx_new(&fx);
  cr_expect_eq(fx_take_hello(&fx).depth, 1u);
  fx_free(&fx);
  fx_init(&fx, FL_CODEC_F32);
  cr_expect_eq(fx_take_hello(&fx).depth, 0u);
  fx_free(&fx);
}

static void restart(fixture *fx)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_client_save(fx->client, &writer), FL_OK);
  fl_client_free(fx->client);
  fx->client = NULL;
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(
      fl_client_restore(&fx->client, fx->context, &fx->options, &reader), FL_OK,
      "%s", fl_last_error());
  fl_buffer_free(buffer);
  fx_drop_frames(fx);
}

/* The bytes and the report are those of before. */
Test(client_freeze, restored_client_sends_the_same_part)
{
  fixture fx;
  float update[FX_WEIGHTS];
  uint8_t *first, *again;
  begin(&fx, FL_CODEC_THC);
  fx_new(&fx);
  fx_to_train(&fx);
  fx_update(update, 1.f);
  submit(&fx, update, 1, .25);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, 100.f, 1);
  fli_manifest before = fx_take_upload(&fx, &first);
  restart(&fx);
  fx_join(&fx);
  fx_plan(&fx);
  fx_drain(&fx);
  expect_norms(&fx, 1);
  fx_scale(&fx, 100.f, 1);
  fli_manifest after = fx_take_upload(&fx, &again);
  cr_assert_eq(after.total, before.total);
  cr_expect_arr_eq(first, again, (size_t)before.total);
  cr_expect(after.has_report);
  cr_expect_eq(after.report_module, 1u);
  cr_expect_eq(after.report_value, .25);
  free(first);
  free(again);
  fx_free(&fx);
}

/* Restored before the scale came: the encoding is made afresh. */
Test(client_freeze, restored_client_encodes_the_same_part)
{
  fixture fx;
  begin(&fx, FL_CODEC_F32);
  fx_new(&fx);
  fx_to_norm(&fx);
  restart(&fx);
  fx_join(&fx);
  fx_plan(&fx);
  fx_drain(&fx);
  expect_norms(&fx, 1);
  fx_scale(&fx, 100.f, 1);
  cr_expect_eq(fx_take_upload(&fx, NULL).total,
               f32_size(FX_WEIGHTS - FX_FROZEN));
  fx_free(&fx);
}

/* Round 1 trains all; from round 2 on module 0 is frozen. */
static void play_feedback(fixture *fx, float *lost)
{
  fx_begin(fx, FL_CODEC_BF16);
  fx->has_feedback = 1;
  fx->decay = .5f;
  fx->plan.has_counted = 1;
  fx_new(fx);
  fx_to_train(fx);
  fx_submit(fx, 1.003f);
  expect_norms(fx, 0);
  fx_scale(fx, 100.f, 1);
  fx_take_upload(fx, NULL);
  fx_set_model(fx, fx->version + 1);
  fx_send_model(fx);
  fx->plan.round = 2;
  fx->plan.counted_round = 1;
  fx->plan.first_active = 1;
  fx_plan(fx);
  fx_drain(fx);
  memcpy(lost, fx->client->feedback->held, FX_WEIGHTS * sizeof *lost);
  fx_submit(fx, 1.003f);
  expect_norms(fx, 1);
  fx_scale(fx, 100.f, 2);
}

Test(client_freeze, memory_of_a_frozen_segment_is_not_sent_and_fades)
{
  fixture fx;
  float lost[FX_WEIGHTS], decoded[FX_WEIGHTS], update[FX_WEIGHTS];
  uint8_t *data;
  play_feedback(&fx, lost);
  cr_assert_neq(lost[0], 0.f);
  fli_manifest manifest = fx_take_upload(&fx, &data);
  cr_expect_eq(manifest.total, 128 + 2 * (uint64_t)(FX_WEIGHTS - FX_FROZEN));
  fx_decode(&fx, 100.f, 2, data, (size_t)manifest.total, decoded);
  fx_update(update, 1.003f);
  fx.plan.round = 3;
  fx.plan.counted_round = 2;
  fx_set_model(&fx, fx.version + 1);
  fx_send_model(&fx);
  fx_plan(&fx);
  fx_drain(&fx);
  const float *held = fx.client->feedback->held;
  for (size_t i = 0; i < FX_FROZEN; i++)
    cr_assert_eq(held[i], lost[i] * .5f);
  for (size_t i = FX_FROZEN; i < FX_WEIGHTS; i++)
    cr_assert_float_eq(held[i], update[i] + lost[i] - decoded[i], 1e-6);
  free(data);
  fx_free(&fx);
}

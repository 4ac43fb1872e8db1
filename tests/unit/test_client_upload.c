/* SPDX-License-Identifier: Apache-2.0 */
/* From a plan to an accepted upload, by events and by callbacks, on exchanged
 * and on announced norms. */
#include "client_fixture.h"

/* ---- a round ------------------------------------------------------------ */

Test(client_upload, need_train_says_what_to_train)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  const fl_train_task *task = &fx.event.task;
  cr_assert_eq(fx.event.round, 1);
  cr_assert_eq(fx.event.model_version, 3);
  cr_assert_eq(task->struct_size, sizeof *task);
  cr_assert_eq(task->epochs, 1);
  cr_assert_eq(task->batch_size, 32);
  cr_assert_eq(task->learning_rate, .5f);
  cr_assert_eq(task->seed, 7);
  cr_assert_eq(task->round, 1);
  cr_assert_eq(task->model_version, 3);
  cr_assert_eq(task->n_weights, FX_WEIGHTS);
  cr_assert_arr_eq(task->weights, fx.weights, sizeof fx.weights);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_free(&fx);
}

Test(client_upload, copy_weights_gives_the_model_held)
{
  fixture fx;
  float weights[FX_WEIGHTS];
  uint64_t version = 0;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  cr_assert_eq(fl_client_copy_weights(fx.client, weights, FX_WEIGHTS, NULL),
               FL_E_EMPTY);
  fx_send_model(&fx);
  cr_assert_eq(fl_client_copy_weights(fx.client, weights, 1, NULL), FL_E_DIM);
  cr_assert_eq(fl_client_copy_weights(fx.client, weights, FX_WEIGHTS, &version),
               FL_OK);
  cr_assert_eq(version, 3);
  cr_assert_arr_eq(weights, fx.weights, sizeof weights);
  cr_assert_eq(fl_client_copy_weights(fx.client, NULL, 0, &version), FL_OK);
  fx_free(&fx);
}

Test(client_upload, norm_reports_the_update)
{
  fixture fx;
  fli_norm norm;
  float update[FX_WEIGHTS], want[2], got[2];
  fl_scale scale;
  fx_init(&fx, FL_CODEC_F32);
  fx.plan.weight_cap = 20;
  fx_to_train(&fx);
  fx_submit(&fx, 1.f);
  fx_frame frame = fx_take(&fx, FLI_MSG_NORM);
  cr_assert_eq(fli_parse_norm(&norm, frame.body, frame.size), FL_OK);
  cr_assert_eq(norm.round, 1);
  cr_assert_eq(norm.samples, 10);
  cr_assert_eq(norm.norms_size, 4);
  cr_assert_eq(fli_norms_from_bf16(got, 2, norm.norms, norm.norms_size), FL_OK);
  fx_update(update, 1.f);
  cr_assert_eq(fl_scale_init(&scale, sizeof scale), FL_OK);
  scale.slots = fx.plan.slots;
  scale.round = 1;
  scale.weight_cap = 20;
  cr_assert_eq(fl_compressor_measure(fx.compressor, &scale, 10, update,
                                     FX_WEIGHTS, want, 2),
               FL_OK);
  cr_assert_arr_eq(got, want, sizeof want);
  free(frame.body);
  fx_free(&fx);
}

Test(client_upload, upload_carries_the_update)
{
  fixture fx;
  uint8_t *data;
  float got[FX_WEIGHTS], want[FX_WEIGHTS];
  fx_init(&fx, FL_CODEC_F32);
  fx.plan.slot = 2;
  fx_to_norm(&fx);
  fx_scale(&fx, 100.f, 1);
  fli_manifest manifest = fx_take_upload(&fx, &data);
  cr_assert_eq(manifest.kind, FLI_TRANSFER_UPDATE);
  cr_assert_eq(manifest.round, 1);
  cr_assert_eq(manifest.attempt, 0);
  cr_assert_float_eq(manifest.loss, .75, 0);
  fx_decode(&fx, 100.f, 1, data, (size_t)manifest.total, got);
  fx_update(want, 1.f);
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    cr_assert_float_eq(got[i], want[i], 1e-4);
  free(data);
  fx_ack(&fx, FL_REJECT_NONE);
  FX_EVENT(&fx, FL_CLIENT_ACCEPTED);
  cr_assert_eq(fx.event.round, 1);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

Test(client_upload, trained_weights_and_update_give_the_same_upload)
{
  fixture fx[2];
  uint8_t *data[2];
  float update[FX_WEIGHTS], weights[FX_WEIGHTS];
  uint64_t total[2];
  fx_update(update, 1.f); /* exact in binary, and so is the sum below */
  for (int i = 0; i < 2; i++) {
    fl_train_result result;
    fx_init(&fx[i], FL_CODEC_THC);
    fx_to_train(&fx[i]);
    for (size_t j = 0; j < FX_WEIGHTS; j++)
      weights[j] = fx[i].weights[j] + update[j];
    cr_assert_eq(fl_train_result_init(&result, sizeof result), FL_OK);
    if (i == 0)
      result.weights = weights;
    else
      result.update = update;
    result.n = FX_WEIGHTS;
    cr_assert_eq(fl_client_submit(fx[i].client, &result), FL_OK);
    fx_skip(&fx[i], FLI_MSG_NORM);
    fx_scale(&fx[i], 100.f, 1);
    total[i] = fx_take_upload(&fx[i], &data[i]).total;
  }
  cr_assert_eq(total[0], total[1]);
  cr_assert_arr_eq(data[0], data[1], (size_t)total[0]);
  for (int i = 0; i < 2; i++) {
    free(data[i]);
    fx_free(&fx[i]);
  }
}

Test(client_upload, an_upload_goes_out_in_chunks_and_calls)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_norm(&fx);
  fx_scale(&fx, 100.f, 1);
  const uint8_t *data;
  size_t n, calls = 0, total = 0;
  for (;;) {
    cr_assert_eq(fl_client_send(fx.client, &data, &n), FL_OK);
    if (n == 0) break;
    cr_assert_lt(n, FX_CHUNK + 256);
    total += n;
    calls++;
  }
  cr_assert_geq(calls, 2);
  cr_assert_gt(total, sizeof(float) * FX_WEIGHTS);
  fx_free(&fx);
}

Test(client_upload, submit_refuses_what_cannot_be_used)
{
  fixture fx;
  float update[FX_WEIGHTS];
  fl_train_result result;
  fx_update(update, 1.f);
  cr_assert_eq(fl_train_result_init(&result, sizeof result), FL_OK);
  result.update = update;
  result.n = FX_WEIGHTS;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_E_STATE);
  fx_send_model(&fx);
  fx_plan(&fx);
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_E_STATE,
               "NEED_TRAIN was not given out yet");
  fx_drain(&fx);
  result.n = FX_WEIGHTS - 1;
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_E_DIM);
  result.n = FX_WEIGHTS;
  result.weights = update;
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_E_ARGUMENT);
  result.weights = NULL;
  result.update = NULL;
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_E_ARGUMENT);
  result.update = update;
  result.samples = UINT64_MAX;
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_E_ARGUMENT);
  result.samples = 0;
  update[7] = NAN;
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_E_NOT_FINITE);
  update[7] = INFINITY;
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_E_NOT_FINITE);
  update[7] = 0;
  fx_nothing_sent(&fx);
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_OK);
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_E_STATE);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

Test(client_upload, an_unknown_loss_is_not_sent)
{
  fixture fx;
  float update[FX_WEIGHTS];
  fl_train_result result;
  fx_update(update, 1.f);
  cr_assert_eq(fl_train_result_init(&result, sizeof result), FL_OK);
  cr_assert(isnan(result.loss));
  result.update = update;
  result.n = FX_WEIGHTS;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  cr_assert_eq(fl_client_submit(fx.client, &result), FL_OK);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, 100.f, 1);
  cr_assert(isnan(fx_take_upload(&fx, NULL).loss));
  fx_free(&fx);
}

Test(client_upload, decline_is_said_and_kept)
{
  fixture fx;
  fli_decline decline;
  fx_init(&fx, FL_CODEC_F32);
  cr_assert_eq(fl_client_decline(fx.client), FL_E_STATE);
  fx_to_train(&fx);
  cr_assert_eq(fl_client_decline(fx.client), FL_OK);
  fx_frame frame = fx_take(&fx, FLI_MSG_DECLINE);
  cr_assert_eq(fli_parse_decline(&decline, frame.body, frame.size), FL_OK);
  cr_assert_eq(decline.round, 1);
  free(frame.body);
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_DECLINE);
  fx.plan.attempt = 1;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  fx_free(&fx);
}

/* ---- callbacks ---------------------------------------------------------- */

typedef struct trainer {
  int calls;
  int scored;
  fl_status status;
  uint64_t n;
  float update[FX_WEIGHTS];
} trainer;

static fl_status train(const fl_train_task *task, fl_train_result *result,
                       void *user)
{
  trainer *t = user;
  t->calls++;
  cr_assert_eq(task->n_weights, FX_WEIGHTS);
  fx_update(t->update, 1.f);
  result->update = t->update;
  result->n = t->n;
  return t->status;
}

static fl_status score(const float *weights, uint64_t n, fl_score *out,
                       void *user)
{
  trainer *t = user;
  cr_assert_not_null(weights);
  cr_assert_eq(n, FX_WEIGHTS);
  t->scored++;
  out->loss = .5;
  out->correct = 3;
  out->count = 4;
  return t->status;
}

static void init_with_trainer(fixture *fx, trainer *t)
{
  *t = (trainer){.n = FX_WEIGHTS};
  fx_begin(fx, FL_CODEC_F32);
  fx->options.train = train;
  fx->options.evaluate = score;
  fx->options.user = t;
  fx_new(fx);
  fx_join(fx);
  fx_send_model(fx);
  fx_plan(fx);
  FX_EVENT(fx, FL_CLIENT_JOINED);
  FX_EVENT(fx, FL_CLIENT_MODEL_READY);
}

Test(client_upload, poll_trains_by_callback)
{
  fixture fx;
  trainer t;
  init_with_trainer(&fx, &t);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  cr_assert_eq(t.calls, 1);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

Test(client_upload, a_trainer_that_fails_declines)
{
  fixture fx;
  trainer t;
  init_with_trainer(&fx, &t);
  t.status = FL_E_CALLBACK;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_DECLINE);
  fx_free(&fx);
}

Test(client_upload, an_unusable_result_is_an_error_and_declines)
{
  fixture fx;
  trainer t;
  init_with_trainer(&fx, &t);
  t.n = 1;
  cr_assert_eq(fl_client_poll(fx.client, 0, &fx.event), FL_E_DIM);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_DECLINE);
  fx_free(&fx);
}

Test(client_upload, an_evaluator_that_fails_says_nothing_was_counted)
{
  fixture fx;
  trainer t;
  fli_metrics metrics;
  init_with_trainer(&fx, &t);
  t.status = FL_E_CALLBACK;
  fx_evaluate(&fx, 1);
  FX_EVENT(&fx, FL_CLIENT_STALE);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_frame frame = fx_take(&fx, FLI_MSG_METRICS);
  cr_assert_eq(fli_parse_metrics(&metrics, frame.body, frame.size), FL_OK);
  cr_assert_eq(metrics.count, 0);
  free(frame.body);
  fx_free(&fx);
}

Test(client_upload, poll_scores_by_callback)
{
  fixture fx;
  trainer t;
  fli_metrics metrics;
  init_with_trainer(&fx, &t);
  fx_evaluate(&fx, 1);
  FX_EVENT(&fx, FL_CLIENT_STALE);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  cr_assert_eq(t.calls, 0);
  cr_assert_eq(t.scored, 1);
  fx_frame frame = fx_take(&fx, FLI_MSG_METRICS);
  cr_assert_eq(fli_parse_metrics(&metrics, frame.body, frame.size), FL_OK);
  cr_assert_eq(metrics.round, 1);
  cr_assert_eq(metrics.model_version, 3);
  cr_assert_eq(metrics.correct, 3);
  cr_assert_eq(metrics.count, 4);
  free(frame.body);
  fx_free(&fx);
}

/* ---- public scale ------------------------------------------------------- */

Test(client_upload, a_public_plan_is_answered_with_the_update)
{
  fixture fx;
  uint8_t norms[64], seed[FLI_KEY_BYTES];
  float values[32], got[FX_WEIGHTS];
  fli_manifest manifest;
  uint8_t *data;
  fx_init(&fx, FL_CODEC_THC);
  for (uint64_t i = 0; i < fx.n_norms; i++)
    values[i] = 2.f;
  fli_norms_to_bf16(norms, values, fx.n_norms);
  memset(seed, 5, sizeof seed);
  fx.plan.scale_mode = FL_SCALE_PUBLIC;
  fx.plan.noise_seed = seed;
  fx.plan.norms = norms;
  fx.plan.norms_size = 2 * (size_t)fx.n_norms;
  fx.plan.clip = fl_compressor_clip(fx.compressor);
  fx_to_train(&fx);
  fx_submit(&fx, 1.f);
  fx_frame frame = fx_take(&fx, FLI_MSG_MANIFEST);
  cr_assert_eq(fli_parse_manifest(&manifest, frame.body, frame.size), FL_OK);
  cr_assert_eq(manifest.clamped_size, 2 * fx.n_norms);
  free(frame.body);
  fx_skip(&fx, FLI_MSG_CHUNK);
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  manifest = fx_take_upload(&fx, &data);
  fx_decode(&fx, 2.f, 5, data, (size_t)manifest.total, got);
  free(data);
  fx_free(&fx);
}

Test(client_upload, a_public_plan_without_norms_is_an_error)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_THC);
  fx_join(&fx);
  fx.plan.scale_mode = FL_SCALE_PUBLIC;
  cr_assert_eq(fli_write_plan(&fx.out, &fx.plan), FL_OK);
  cr_assert_eq(fx_flush(&fx), FL_E_FORMAT);
  fx_free(&fx);
}

Test(client_upload, norms_of_a_wrong_count_are_an_error)
{
  fixture fx;
  uint8_t norms[6] = {0}, seed[FLI_KEY_BYTES] = {0};
  fx_init(&fx, FL_CODEC_F32);
  fx_to_norm(&fx);
  fli_scale_msg scale = {.round = 1,
                         .noise_seed = seed,
                         .norms = norms,
                         .norms_size = sizeof norms};
  cr_assert_eq(fli_write_scale(&fx.out, &scale), FL_OK);
  cr_assert_eq(fx_flush(&fx), FL_E_DIM);
  fx_free(&fx);
}

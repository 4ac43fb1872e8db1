/* SPDX-License-Identifier: Apache-2.0 */
/* Messages that are repeated, late, out of turn or refused, and the ends of
 * rounds, evaluations and jobs. */
#include "client_fixture.h"

/* ---- repeats, retries of a round --------------------------------------- */

Test(client_session, a_repeated_plan_does_not_train_again)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_submit(&fx, 1.f);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

Test(client_session, a_repeated_scale_sends_the_same_upload_again)
{
  fixture fx;
  uint8_t *first, *second;
  fx_init(&fx, FL_CODEC_THC);
  fx_to_norm(&fx);
  fx_scale(&fx, 100.f, 1);
  fli_manifest a = fx_take_upload(&fx, &first);
  fx_scale(&fx, 100.f, 1);
  fli_manifest b = fx_take_upload(&fx, &second);
  cr_assert_eq(a.total, b.total);
  cr_assert_neq(a.transfer, b.transfer);
  cr_assert_arr_eq(first, second, (size_t)a.total);
  free(first);
  free(second);
  fx_free(&fx);
}

Test(client_session, another_scale_of_the_same_attempt_encodes_anew)
{
  fixture fx;
  uint8_t *data;
  float got[FX_WEIGHTS];
  fx_init(&fx, FL_CODEC_THC);
  fx_to_norm(&fx);
  fx_scale(&fx, 100.f, 1);
  fx_take_upload(&fx, NULL);
  fx_scale(&fx, 50.f, 9);
  fli_manifest manifest = fx_take_upload(&fx, &data);
  fx_decode(&fx, 50.f, 9, data, (size_t)manifest.total, got);
  free(data);
  fx_free(&fx);
}

Test(client_session, the_next_attempt_uses_what_was_trained)
{
  fixture fx;
  uint8_t *data;
  float got[FX_WEIGHTS];
  fx_init(&fx, FL_CODEC_THC);
  fx_to_update(&fx);
  fx.plan.attempt = 1;
  fx.plan.slot = 3;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, 100.f, 2);
  fli_manifest manifest = fx_take_upload(&fx, &data);
  cr_assert_eq(manifest.attempt, 1);
  fx_decode(&fx, 100.f, 2, data, (size_t)manifest.total, got);
  free(data);
  fx_free(&fx);
}

Test(client_session, the_next_attempt_works_after_an_accepted_update)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_THC);
  fx_to_update(&fx);
  fx_ack(&fx, FL_REJECT_NONE);
  FX_EVENT(&fx, FL_CLIENT_ACCEPTED);
  fx.plan.attempt = 1;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

Test(client_session, another_recipe_trains_again)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_norm(&fx);
  fx.plan.attempt = 1;
  fx.plan.epochs = 2;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  cr_assert_eq(fx.event.task.epochs, 2);
  fx_free(&fx);
}

Test(client_session, an_older_plan_is_ignored)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx.plan.round = 4;
  fx_to_train(&fx);
  fx.plan.round = 3;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_submit(&fx, 1.f);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

Test(client_session, an_older_plan_counts_after_a_new_welcome)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx.plan.round = 4;
  fx_to_norm(&fx);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx_join(&fx);
  fx.plan.round = 3;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_STALE);
  cr_assert_eq(fx.event.round, 4);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  cr_assert_eq(fx.event.round, 3);
  fx_free(&fx);
}

Test(client_session, scale_of_another_round_is_ignored)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_norm(&fx);
  fx.plan.round = 2;
  fx_scale(&fx, 100.f, 1);
  fx_nothing_sent(&fx);
  fx.plan.round = 1;
  fx.plan.attempt = 1;
  fx_scale(&fx, 100.f, 1);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

/* ---- answers ------------------------------------------------------------ */

Test(client_session, duplicate_counts_as_accepted)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_update(&fx);
  fx_ack(&fx, FL_REJECT_DUPLICATE);
  FX_EVENT(&fx, FL_CLIENT_ACCEPTED);
  fx_ack(&fx, FL_REJECT_NONE);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_free(&fx);
}

Test(client_session, a_stale_update_is_told)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_update(&fx);
  fx_ack(&fx, FL_REJECT_STALE);
  FX_EVENT(&fx, FL_CLIENT_STALE);
  cr_assert_eq(fx.event.reason, FL_REJECT_STALE);
  cr_assert_eq(fx.event.round, 1);
  cr_assert(fx.event.text[0] != 0);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_free(&fx);
}

Test(client_session, an_answer_to_another_round_is_ignored)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_update(&fx);
  fx.plan.round = 9;
  fx_ack(&fx, FL_REJECT_STALE);
  fx_ack(&fx, FL_REJECT_NONE);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_free(&fx);
}

Test(client_session, a_broken_upload_is_sent_again_after_hello)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_update(&fx);
  fx_ack(&fx, FL_REJECT_FORMAT);
  fx_drain(&fx);
  fx_nothing_sent(&fx);
  fx.now_ns += 10 * FX_SECOND;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_join(&fx);
  fx_plan(&fx);
  fx_scale(&fx, 100.f, 1);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_take_upload(&fx, NULL);
  fx_ack(&fx, FL_REJECT_NONE);
  FX_EVENT(&fx, FL_CLIENT_ACCEPTED);
  fx_free(&fx);
}

Test(client_session, an_answer_that_comes_after_the_next_plan_still_counts)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_update(&fx);
  fx_set_model(&fx, 4);
  fx_send_model(&fx);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  fx_ack(&fx, FL_REJECT_NONE);
  FX_EVENT(&fx, FL_CLIENT_ACCEPTED);
  cr_assert_eq(fx.event.round, 1);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_free(&fx);
}

Test(client_session, a_new_model_makes_unfinished_work_stale)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_norm(&fx);
  fx_set_model(&fx, 4);
  fx_send_model(&fx);
  FX_EVENT(&fx, FL_CLIENT_STALE);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  cr_assert_eq(fx.event.model_version, 4);
  fx_scale(&fx, 100.f, 1);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

/* ---- evaluation, end ---------------------------------------------------- */

Test(client_session, evaluation_is_asked_and_answered_once)
{
  fixture fx;
  fl_score value;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_drain(&fx);
  fx_evaluate(&fx, 2);
  FX_EVENT(&fx, FL_CLIENT_NEED_EVALUATE);
  cr_assert_eq(fx.event.round, 2);
  cr_assert_arr_eq(fx.event.task.weights, fx.weights, sizeof fx.weights);
  fx_evaluate(&fx, 2);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  cr_assert_eq(fl_score_init(&value, sizeof value), FL_OK);
  value.count = 2;
  value.correct = 3;
  cr_assert_eq(fl_client_submit_score(fx.client, &value), FL_E_ARGUMENT);
  value.correct = 1;
  value.loss = INFINITY;
  cr_assert_eq(fl_client_submit_score(fx.client, &value), FL_E_NOT_FINITE);
  value.loss = 1;
  cr_assert_eq(fl_client_submit_score(fx.client, &value), FL_OK);
  cr_assert_eq(fl_client_submit_score(fx.client, &value), FL_E_STATE);
  fx_skip(&fx, FLI_MSG_METRICS);
  fx_evaluate(&fx, 2);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_METRICS);
  fx_free(&fx);
}

Test(client_session, declined_evaluation_says_nothing_was_counted)
{
  fixture fx;
  fli_metrics metrics;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_evaluate(&fx, 1);
  fx_drain(&fx);
  cr_assert_eq(fl_client_decline(fx.client), FL_OK);
  fx_frame frame = fx_take(&fx, FLI_MSG_METRICS);
  cr_assert_eq(fli_parse_metrics(&metrics, frame.body, frame.size), FL_OK);
  cr_assert_eq(metrics.count, 0);
  free(frame.body);
  fx_free(&fx);
}

Test(client_session, done_comes_with_the_final_model)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_drain(&fx);
  fx_done(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_GET_MODEL);
  fx_send_model(&fx);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  FX_EVENT(&fx, FL_CLIENT_DONE);
  cr_assert_eq(fx.event.model_version, 3);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx_nothing_sent(&fx);
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_free(&fx);
}

Test(client_session, another_recipe_while_training_asks_again)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  fx.plan.attempt = 1;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx.plan.attempt = 2;
  fx.plan.seed++;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  cr_assert_eq(fx.event.task.seed, fx.plan.seed);
  fx_free(&fx);
}

Test(client_session, a_new_model_ends_an_evaluation)
{
  fixture fx;
  fl_score score;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_evaluate(&fx, 1);
  fx_drain(&fx);
  fx_set_model(&fx, 4);
  fx_send_model(&fx);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  cr_assert_eq(fl_score_init(&score, sizeof score), FL_OK);
  cr_assert_eq(fl_client_submit_score(fx.client, &score), FL_E_STATE);
  fx_free(&fx);
}

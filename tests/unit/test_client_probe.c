/* SPDX-License-Identifier: Apache-2.0 */
/* Probes at the client: models of other cohorts are scored, not kept. */
#include "client_fixture.h"

/* The model at hand as a probe of a cohort. */
static void write_probe(fixture *fx, uint32_t cohort)
{
  fli_manifest manifest = {
      .kind = FLI_TRANSFER_PROBE, .has_cohort = 1, .cohort = cohort};
  fx_write_transfer(fx, &manifest);
  fx_deliver(fx);
}

static void ask(fixture *fx, uint64_t round, uint32_t cohort)
{
  fli_evaluate evaluate = {.round = round,
                           .model_version = fx->version,
                           .is_probe = 1,
                           .cohort = cohort,
                           .attempt = 2};
  memcpy(evaluate.model_hash, fx->hash, sizeof fx->hash);
  cr_assert_eq(fli_write_evaluate(&fx->out, &evaluate), FL_OK);
  fx_deliver(fx);
}

static fli_metrics take_metrics(fixture *fx)
{
  fli_metrics metrics;
  fx_frame frame = fx_take(fx, FLI_MSG_METRICS);
  cr_assert_eq(fli_parse_metrics(&metrics, frame.body, frame.size), FL_OK);
  free(frame.body);
  return metrics;
}

static void submit_loss(fixture *fx, double loss)
{
  fl_score score;
  cr_assert_eq(fl_score_init(&score, sizeof score), FL_OK);
  score.loss = loss;
  score.count = 1;
  cr_assert_eq(fl_client_submit_score(fx->client, &score), FL_OK);
}

static void check_held(fixture *fx, uint64_t want_version)
{
  static float weights[FX_WEIGHTS];
  uint64_t version = 0;
  cr_assert_eq(
      fl_client_copy_weights(fx->client, weights, FX_WEIGHTS, &version), FL_OK);
  cr_assert_eq(version, want_version);
  cr_assert_float_eq(weights[0], .25f + (float)want_version, 1e-6);
}

/* Holds version 3, and scores version 9 of cohort 1. */
static void to_probe(fixture *fx)
{
  fx_init(fx, FL_CODEC_F32);
  fx_join(fx);
  fx_send_model(fx);
  fx_drain(fx);
  fx_set_model(fx, 9);
  write_probe(fx, 1);
  ask(fx, 1, 1);
  FX_EVENT(fx, FL_CLIENT_NEED_EVALUATE);
}

Test(client_probe, probe_is_scored_beside_the_own_model)
{
  static fixture fx;
  to_probe(&fx);
  cr_assert(fx.event.task.is_probe && fx.event.task.cohort == 1);
  cr_assert_eq(fx.event.task.model_version, 9u);
  cr_assert_float_eq(fx.event.task.weights[0], 9.25f, 1e-6);
  check_held(&fx, 3);
  submit_loss(&fx, .5);
  const fli_metrics metrics = take_metrics(&fx);
  cr_assert(metrics.is_probe && metrics.cohort == 1 && metrics.attempt == 2);
  cr_assert_eq(metrics.model_version, 9u);
  cr_assert_float_eq(metrics.loss, .5, 1e-12);
  fx_drain(&fx);
  check_held(&fx, 3);
  fx_free(&fx);
}

Test(client_probe, plan_makes_it_the_own_model_without_a_download)
{
  static fixture fx;
  to_probe(&fx);
  submit_loss(&fx, .5);
  fx_skip(&fx, FLI_MSG_METRICS);
  fx.plan.has_cohort = 1;
  fx.plan.cohort = 1;
  fx_plan(&fx);
  fx_nothing_sent(&fx);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  cr_assert(fx.event.task.cohort == 1 && !fx.event.task.is_probe);
  cr_assert_float_eq(fx.event.task.weights[0], 9.25f, 1e-6);
  check_held(&fx, 9);
  fx_free(&fx);
}

Test(client_probe, plan_of_the_own_cohort_forgets_it)
{
  static fixture fx;
  to_probe(&fx);
  submit_loss(&fx, .5);
  fx_skip(&fx, FLI_MSG_METRICS);
  fx_set_model(&fx, 3);
  fx.plan.has_cohort = 1;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  check_held(&fx, 3);
  /* It is not there any more: asked again, it has to come again. */
  fx_set_model(&fx, 9);
  fx.plan.round = 2;
  ask(&fx, 2, 1);
  fx_skip(&fx, FLI_MSG_GET_MODEL);
  fx_free(&fx);
}

Test(client_probe, probe_that_is_not_there_is_asked_for)
{
  static fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_drain(&fx);
  fx_set_model(&fx, 9);
  ask(&fx, 1, 1);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_GET_MODEL);
  write_probe(&fx, 1);
  FX_EVENT(&fx, FL_CLIENT_NEED_EVALUATE);
  fx_free(&fx);
}

Test(client_probe, declined_probe_is_a_decline_of_its_round)
{
  static fixture fx;
  fli_decline decline;
  to_probe(&fx);
  cr_assert_eq(fl_client_decline(fx.client), FL_OK);
  fx_frame frame = fx_take(&fx, FLI_MSG_DECLINE);
  cr_assert_eq(fli_parse_decline(&decline, frame.body, frame.size), FL_OK);
  cr_assert_eq(decline.round, 1u);
  cr_assert_eq(decline.attempt, 2u);
  free(frame.body);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

Test(client_probe, score_of_nothing_is_a_decline)
{
  static fixture fx;
  fl_score score;
  to_probe(&fx);
  cr_assert_eq(fl_score_init(&score, sizeof score), FL_OK);
  cr_assert_eq(fl_client_submit_score(fx.client, &score), FL_OK);
  fx_skip(&fx, FLI_MSG_DECLINE);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

/* As long as the model, and of numbers. */
Test(client_probe, probe_of_another_length_is_no_servers)
{
  static fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fli_manifest manifest = {.kind = FLI_TRANSFER_PROBE,
                           .total = 8,
                           .chunk_size = FX_CHUNK,
                           .model_version = 1,
                           .loss = (double)NAN};
  cr_assert_eq(fli_write_manifest(&fx.out, &manifest), FL_OK);
  cr_assert_eq(fx_flush(&fx), FL_E_DIM);
  fx_free(&fx);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a device has and what it may spend: rounds that do not fit are declined
 * or given up, and a day's bytes are counted wherever the client is saved. */
#include "client_fixture.h"

enum { ALL = FL_CONDITION_ALL, BUSY = ALL & ~FL_CONDITION_IDLE };

static void set(fixture *fx, uint32_t conditions)
{
  cr_assert_eq(fl_client_set_conditions(fx->client, conditions), FL_OK);
}

static void is_declined(fixture *fx)
{
  fli_decline decline;
  fx_frame frame = fx_take(fx, FLI_MSG_DECLINE);
  cr_assert_eq(fli_parse_decline(&decline, frame.body, frame.size), FL_OK);
  cr_assert_eq(decline.round, fx->plan.round);
  cr_assert_eq(decline.attempt, fx->plan.attempt);
  free(frame.body);
  fx_nothing_sent(fx);
}

static void is_told_declined(fixture *fx)
{
  while (fx_poll(fx) != FL_CLIENT_STALE)
    cr_assert_neq(fx->event.kind, (uint32_t)FL_CLIENT_IDLE);
  cr_assert_eq(fx->event.reason, (uint32_t)FL_REJECT_DECLINED);
  cr_assert_eq(fx->event.round, fx->plan.round);
}

/* ---- conditions ---- */

Test(client_conditions, hello_says_what_does_not_hold)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  cr_expect_eq(fx_take_hello(&fx).lacks, 0u);
  fx_free(&fx);
  fx_init(&fx, FL_CODEC_F32);
  set(&fx, FL_CONDITION_UNMETERED);
  cr_expect_eq(fx_take_hello(&fx).lacks,
               (uint32_t)(FL_CONDITION_CHARGING | FL_CONDITION_IDLE));
  fx_free(&fx);
}

Test(client_conditions, a_change_is_said_when_the_client_is_idle)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_drain(&fx);
  set(&fx, BUSY);
  fx_drain(&fx);
  cr_expect_eq(fx_take_hello(&fx).lacks, (uint32_t)FL_CONDITION_IDLE);
  fx_welcome(&fx);
  fx_drain(&fx);
  fx_nothing_sent(&fx);
  set(&fx, ALL);
  fx_drain(&fx);
  cr_expect_eq(fx_take_hello(&fx).lacks, 0u);
  fx_free(&fx);
}

Test(client_conditions, a_plan_that_demands_more_is_declined)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  set(&fx, BUSY);
  fx_join(&fx);
  fx_send_model(&fx);
  fx.plan.demands = FL_CONDITION_IDLE | FL_CONDITION_CHARGING;
  fx_plan(&fx);
  is_declined(&fx);
  is_told_declined(&fx);
  fx_drain(&fx);
  fx_plan(&fx); /* a repeat */
  is_declined(&fx);
  fx_free(&fx);
}

Test(client_conditions, a_plan_that_demands_what_holds_is_trained)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  set(&fx, BUSY);
  fx.plan.demands = FL_CONDITION_CHARGING | FL_CONDITION_UNMETERED;
  fx_to_train(&fx);
  fx_free(&fx);
}

/* In training, with norms sent, with half of the update sent. */
Test(client_conditions, work_is_given_up_when_they_cease_to_hold)
{
  for (int stage = 0; stage < 3; stage++) {
    fixture fx;
    fx_init(&fx, FL_CODEC_F32);
    fx.plan.demands = FL_CONDITION_CHARGING;
    fx_to_train(&fx);
    if (stage > 0) {
      fx_submit(&fx, 1.f);
      fx_skip(&fx, FLI_MSG_NORM);
    }
    if (stage > 1) {
      const uint8_t *data = NULL;
      size_t n = 0;
      fx_scale(&fx, 100.f, 1);
      cr_assert_eq(fl_client_send(fx.client, &data, &n), FL_OK);
    }
    set(&fx, FL_CONDITION_IDLE);
    is_declined(&fx);
    is_told_declined(&fx);
    fx_free(&fx);
  }
}

Test(client_conditions, what_is_not_demanded_disturbs_no_work)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx.plan.demands = FL_CONDITION_CHARGING;
  fx_to_train(&fx);
  set(&fx, FL_CONDITION_CHARGING);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_submit(&fx, 1.f);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

/* All of it is sent: giving up would save nothing. */
Test(client_conditions, an_update_that_is_sent_is_waited_for)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx.plan.demands = FL_CONDITION_CHARGING;
  fx_to_norm(&fx);
  fx_scale(&fx, 100.f, 1);
  fx_take_upload(&fx, NULL);
  set(&fx, 0);
  fx_nothing_sent(&fx);
  fx_ack(&fx, FL_REJECT_NONE);
  while (fx_poll(&fx) != FL_CLIENT_ACCEPTED)
    cr_assert_neq(fx.event.kind, (uint32_t)FL_CLIENT_STALE);
  fx_free(&fx);
}

Test(client_conditions, other_bits_and_no_client_are_refused)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  cr_expect_eq(fl_client_set_conditions(fx.client, 8), FL_E_ARGUMENT);
  cr_expect_eq(fl_client_set_conditions(NULL, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_client_set_budget(NULL, 1, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_client_get_spent(NULL), 0u);
  cr_expect_eq(fx_take_hello(&fx).lacks, 0u);
  fx_free(&fx);
}

/* ---- the day's bytes ---- */

Test(client_conditions, bytes_are_counted_both_ways)
{
  fixture fx;
  uint64_t want = 0;
  const uint8_t *data = NULL;
  size_t n = 0;
  fx_init(&fx, FL_CODEC_F32);
  cr_assert_eq(fl_client_set_budget(fx.client, 1 << 20, 7), FL_OK);
  cr_assert_eq(fl_client_send(fx.client, &data, &n), FL_OK);
  want = n;
  cr_expect_gt(n, 0u);
  fx_wait(&fx, 1000);
  cr_expect_gt(fl_client_get_spent(fx.client), want);
  cr_assert_eq(fl_client_set_budget(fx.client, 1 << 20, 7), FL_OK);
  cr_expect_gt(fl_client_get_spent(fx.client), want);
  cr_assert_eq(fl_client_set_budget(fx.client, 1 << 20, 8), FL_OK);
  cr_expect_eq(fl_client_get_spent(fx.client), 0u);
  fx_free(&fx);
}

Test(client_conditions, no_hello_is_said_when_nothing_is_left_today)
{
  fixture fx;
  uint64_t timeout = 0;
  fx_init(&fx, FL_CODEC_F32);
  cr_assert_eq(fl_client_set_budget(fx.client, 10, 7), FL_OK);
  fx_join(&fx); /* which is more than 10 bytes */
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx_drain(&fx);
  fx_nothing_sent(&fx);
  cr_assert_eq(fl_client_next_timeout(fx.client, &timeout), FL_OK);
  cr_expect_eq(timeout, UINT64_MAX);
  cr_assert_eq(fl_client_set_budget(fx.client, 10, 8), FL_OK);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_free(&fx);
}

/* A model and an update of 4 bytes a weight: enough for both, or declined. */
Test(client_conditions, a_round_that_may_cost_more_is_declined)
{
  for (int is_enough = 0; is_enough < 2; is_enough++) {
    fixture fx;
    fx_init(&fx, FL_CODEC_F32);
    fx_join(&fx);
    const uint64_t spent = fl_client_get_spent(fx.client);
    const uint64_t costs =
        4 * FX_WEIGHTS + fl_compressor_max_update_size(fx.compressor);
    cr_assert_eq(fl_client_set_budget(fx.client, 1, 0), FL_OK);
    fx.plan.demands = 0;
    /* Some hundred bytes more are the plan's own. */
    cr_assert_eq(fl_client_set_budget(
                     fx.client, spent + costs + (is_enough ? 1000 : 0), 0),
                 FL_OK);
    fx_plan(&fx);
    if (is_enough) {
      fx_skip(&fx, FLI_MSG_GET_MODEL);
    } else {
      is_declined(&fx);
      is_told_declined(&fx);
      fx_drain(&fx); /* and the server hears that there are no bytes */
      cr_expect_eq(fx_take_hello(&fx).lacks, (uint32_t)FLI_LACKS_BYTES);
      fx_welcome(&fx);
      cr_assert_eq(fl_client_set_budget(fx.client, 1 << 20, 1), FL_OK);
      fx_drain(&fx);
      cr_expect_eq(fx_take_hello(&fx).lacks, 0u);
    }
    fx_free(&fx);
  }
}

Test(client_conditions, what_was_counted_is_in_the_saved_state)
{
  fixture fx;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  fx_init(&fx, FL_CODEC_F32);
  cr_assert_eq(fl_client_set_budget(fx.client, 1 << 20, 7), FL_OK);
  fx_join(&fx);
  const uint64_t spent = fl_client_get_spent(fx.client);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_client_save(fx.client, &writer), FL_OK);
  fl_client_free(fx.client);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_client_restore(&fx.client, fx.context, &fx.options, &reader),
               FL_OK);
  cr_assert_eq(fl_client_set_budget(fx.client, 1 << 20, 7), FL_OK);
  cr_expect_gt(spent, 100u);
  cr_expect_eq(fl_client_get_spent(fx.client), spent);
  cr_assert_eq(fl_client_set_budget(fx.client, 1 << 20, 8), FL_OK);
  cr_expect_eq(fl_client_get_spent(fx.client), 0u);
  fl_buffer_free(buffer);
  fx_free(&fx);
}

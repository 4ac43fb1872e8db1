/* SPDX-License-Identifier: Apache-2.0 */
/* Where parts of the client meet: transfers that go on, models that are
 * probed, conditions that change, answers that are lost. */
#include <criterion/criterion.h>

#include "client/client.h"
#include "client_fixture.h"
#include "outgoing.h"

/* Begin to send the fixture's model as this kind of transfer. */
static void send_part(fixture *fx, fli_outgoing *outgoing, uint32_t kind,
                      int chunks)
{
  static uint8_t bytes[4 * FX_WEIGHTS];
  fli_manifest manifest = {
      .kind = kind, .model_version = fx->version, .loss = (double)NAN};
  fx_weight_bytes(fx, bytes);
  *outgoing = (fli_outgoing){.transfer = fx->next_transfer++};
  cr_assert_eq(outgoing_begin(outgoing, &fx->out, &manifest, bytes,
                              sizeof bytes, FX_CHUNK),
               FL_OK);
  while (chunks-- > 0 && outgoing->is_active)
    cr_assert_eq(fli_outgoing_next(outgoing, &fx->out), FL_OK);
  fx_deliver(fx);
}

static void begin(fixture *fx)
{
  fx_init(fx, FL_CODEC_F32);
  fx_join(fx);
  fx_send_model(fx);
  fx_drain(fx);
}

/* Up to the scale of the plan at hand: what is sent next is the update. */
static void train(fixture *fx, float value)
{
  fx_plan(fx);
  fx_drain(fx);
  fx_submit(fx, value);
  fx_skip(fx, FLI_MSG_NORM);
  fx_scale(fx, 9.0f, 1);
}

static void send_some(fixture *fx)
{
  const uint8_t *data;
  size_t n;
  cr_assert_eq(fl_client_send(fx->client, &data, &n), FL_OK);
  cr_assert_gt(n, 0u);
}

/* The copy was written to memory of the model that the probe takes over. */
Test(client_meetings, a_plan_for_the_probe_ends_a_copy_that_is_coming_in)
{
  fixture fx;
  fli_outgoing outgoing;
  begin(&fx);
  fx_set_model(&fx, 9);
  send_part(&fx, &outgoing, FLI_TRANSFER_PROBE, 99);
  fli_plan of_probe = fx.plan;
  fx_set_model(&fx, 10);
  send_part(&fx, &outgoing, FLI_TRANSFER_MODEL, 1);
  of_probe.has_cohort = 1;
  of_probe.cohort = 1;
  fx.plan = of_probe;
  fx_plan(&fx);
  cr_assert_eq(fli_outgoing_next(&outgoing, &fx.out), FL_OK);
  fx_deliver(&fx);
  fx_drain(&fx);
  cr_assert_eq(fx.client->canonical.version, 9u);
  cr_assert_arr_eq(fx.client->model_hash, of_probe.model_hash, FLI_HASH_BYTES);
  fx_free(&fx);
}

Test(client_meetings, status_of_an_upload_that_was_answered_sends_nothing)
{
  fixture fx;
  uint8_t range[16];
  begin(&fx);
  train(&fx, 1.0f);
  const fli_manifest manifest = fx_take_upload(&fx, NULL);
  fx_ack(&fx, FL_REJECT_NONE);
  fx_drain(&fx);
  fx_nothing_sent(&fx);
  const fli_missing missing = {manifest.transfer, range, sizeof range};
  fli_store_u64(range, 0);
  fli_store_u64(range + 8, manifest.total);
  cr_assert_eq(fli_write_missing(&fx.out, &missing), FL_OK);
  fx_deliver(&fx);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

/* The ACK of round 1 is lost: whether that was counted says nothing of 2. */
static void lose_an_ack(fixture *fx)
{
  begin(fx);
  fx->plan.demands = FL_CONDITION_CHARGING;
  train(fx, 1.0f);
  fx_take_upload(fx, NULL);
  fx->plan.round = 2;
  train(fx, 2.0f);
  send_some(fx);
}

Test(client_meetings, a_lost_answer_does_not_hide_that_a_round_was_given_up)
{
  fixture fx;
  lose_an_ack(&fx);
  fx.plan.round = 3;
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_STALE);
  fx_free(&fx);
}

Test(client_meetings, a_lost_answer_does_not_keep_an_upload_on_the_meter)
{
  fixture fx;
  lose_an_ack(&fx);
  cr_assert_eq(fl_client_set_conditions(fx.client, 0), FL_OK);
  FX_EVENT(&fx, FL_CLIENT_STALE);
  fx_pull(&fx);
  for (size_t i = 0; i < fx.n_frames; i++)
    cr_assert_neq(fx.frames[i].type, FLI_MSG_CHUNK);
  fx_free(&fx);
}

/* What a plan has lent is the message's, and gone with it. */
Test(client_meetings, a_restored_client_keeps_no_view_of_its_state)
{
  static uint8_t slices[300];
  fixture fx;
  fl_client *again = NULL;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  begin(&fx);
  fx_plan(&fx);
  fx_drain(&fx);
  fx_submit(&fx, 1.0f);
  fx.client->trained.plan.slices = slices;
  fx.client->trained.plan.slices_size = sizeof slices;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_client_save(fx.client, &writer), FL_OK);
  cr_assert_eq(fl_client_restore(&again, NULL, &fx.options, &reader), FL_OK);
  cr_assert_null(again->trained.plan.slices);
  cr_assert_eq(again->trained.plan.slices_size, 0u);
  cr_assert_eq(fl_client_save(again, &writer), FL_OK);
  fl_client_free(again);
  fl_buffer_free(buffer);
  fx_free(&fx);
}

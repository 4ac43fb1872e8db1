/* SPDX-License-Identifier: Apache-2.0 */
/* SCAFFOLD's controls at the client: what comes for a plan, what the trainer
 * sees of it, and what goes up behind the update. */
#include "client_fixture.h"
#include "outgoing.h"

static float control[FX_WEIGHTS], change[FX_WEIGHTS];

/* The server's control comes as a probe, and the plan names it. */
static void send_control(fixture *fx)
{
  uint8_t bytes[4 * FX_WEIGHTS];
  fli_outgoing outgoing = {.transfer = fx->next_transfer++};
  fli_manifest manifest = {.kind = FLI_TRANSFER_PROBE,
                           .model_version = fx->version};
  for (size_t i = 0; i < FX_WEIGHTS; i++) {
    control[i] = (float)(i % 11) - 5.0f;
    fli_store_f32(bytes + 4 * i, control[i]);
  }
  fli_hash(fx->plan.control_hash, bytes, sizeof bytes);
  fx->plan.has_control = 1;
  cr_assert_eq(outgoing_begin(&outgoing, &fx->out, &manifest, bytes,
                              sizeof bytes, FX_CHUNK),
               FL_OK);
  while (outgoing.is_active)
    cr_assert_eq(fli_outgoing_next(&outgoing, &fx->out), FL_OK);
  fx_deliver(fx);
}

static void to_train(fixture *fx)
{
  fx_join(fx);
  fx_send_model(fx);
  send_control(fx);
  fx_plan(fx);
  while (fx_poll(fx) != FL_CLIENT_NEED_TRAIN)
    cr_assert_neq(fx->event.kind, (uint32_t)FL_CLIENT_IDLE);
}

static fl_status submit(fixture *fx, const float *own)
{
  float update[FX_WEIGHTS];
  fl_train_result result;
  fx_update(update, 1.f);
  cr_assert_eq(fl_train_result_init(&result, sizeof result), FL_OK);
  result.update = update;
  result.n = FX_WEIGHTS;
  result.control_change = own;
  return fl_client_submit(fx->client, &result);
}

static void fill_change(void)
{
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    change[i] = (float)i * 0.5f;
}

Test(client_controls, trainers_see_it_and_its_change_goes_behind_the_update)
{
  fixture fx;
  uint8_t *data = NULL;
  fx_init(&fx, FL_CODEC_F32);
  fill_change();
  to_train(&fx);
  cr_assert_not_null(fx.event.task.control);
  cr_expect_arr_eq(fx.event.task.control, control, sizeof control);
  cr_assert_eq(submit(&fx, change), FL_OK);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, 100.f, 1);
  const fli_manifest manifest = fx_take_upload(&fx, &data);
  cr_assert_eq(manifest.slices_size, sizeof change);
  const uint8_t *tail = data + manifest.total - sizeof change;
  for (size_t i = 0; i < FX_WEIGHTS; i++)
    cr_assert_eq(fli_load_f32(tail + 4 * i), change[i]);
  free(data);
  fx_free(&fx);
}

Test(client_controls, without_one_the_trainer_sees_none)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  cr_expect_null(fx.event.task.control);
  fx_free(&fx);
}

Test(client_controls, a_plan_whose_control_is_not_there_asks_for_it)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fx.plan.has_control = 1;
  memset(fx.plan.control_hash, 7, sizeof fx.plan.control_hash);
  fx_plan(&fx);
  fx_skip(&fx, FLI_MSG_GET_MODEL);
  send_control(&fx);
  fx_plan(&fx);
  while (fx_poll(&fx) != FL_CLIENT_NEED_TRAIN)
    cr_assert_neq(fx.event.kind, (uint32_t)FL_CLIENT_IDLE);
  fx_free(&fx);
}

Test(client_controls, a_result_without_or_with_a_bad_one_is_asked_again)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fill_change();
  to_train(&fx);
  cr_expect_eq(submit(&fx, NULL), FL_E_ARGUMENT);
  change[7] = INFINITY;
  cr_expect_eq(submit(&fx, change), FL_E_NOT_FINITE);
  change[7] = 0.f;
  cr_expect_eq(submit(&fx, change), FL_OK);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

/* Another attempt, same control: what was trained is sent again. Another
 * control: it is trained anew. */
Test(client_controls, a_repeat_trains_again_only_with_another_control)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fill_change();
  to_train(&fx);
  cr_assert_eq(submit(&fx, change), FL_OK);
  fx_skip(&fx, FLI_MSG_NORM);
  fx.plan.attempt++;
  fx_plan(&fx);
  fx_drain(&fx);
  fx_skip(&fx, FLI_MSG_NORM);
  fx.plan.attempt++;
  send_control(&fx);
  fx.plan.control_hash[0] ^= 1;
  fx_plan(&fx);
  fx_skip(&fx, FLI_MSG_GET_MODEL);
  fx_free(&fx);
}

Test(client_controls, a_killed_client_sends_it_again)
{
  fixture fx;
  uint8_t *data = NULL;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  fx_init(&fx, FL_CODEC_F32);
  fill_change();
  to_train(&fx);
  cr_assert_eq(submit(&fx, change), FL_OK);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_client_save(fx.client, &writer), FL_OK);
  fl_client_free(fx.client);
  fx_drop_frames(&fx);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_client_restore(&fx.client, fx.context, &fx.options, &reader),
               FL_OK);
  fx_join(&fx);
  send_control(&fx);
  fx_plan(&fx);
  fx_drain(&fx);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, 100.f, 1);
  const fli_manifest manifest = fx_take_upload(&fx, &data);
  cr_assert_eq(manifest.slices_size, sizeof change);
  cr_expect_eq(fli_load_f32(data + manifest.total - 4), change[FX_WEIGHTS - 1]);
  free(data);
  fl_buffer_free(buffer);
  fx_free(&fx);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Timers, broken connections, WAIT and REJECT. */
#include "client_fixture.h"

/* ---- the connection ----------------------------------------------------- */

Test(client_poll, hello_is_repeated_with_growing_pauses_and_given_up)
{
  fixture fx;
  static const uint64_t pauses[] = {10, 20, 40, 80, 80};
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.max_retries = 4;
  fx_new(&fx);
  fx_skip(&fx, FLI_MSG_HELLO);
  for (size_t i = 0; i < 5; i++) {
    uint64_t deadline;
    FX_EVENT(&fx, FL_CLIENT_IDLE);
    cr_assert_eq(fl_client_next_timeout(fx.client, &deadline), FL_OK);
    cr_assert_eq(deadline, fx.now_ns + pauses[i] * FX_SECOND);
    fx.now_ns = deadline - 1;
    FX_EVENT(&fx, FL_CLIENT_IDLE);
    fx_nothing_sent(&fx);
    fx.now_ns++;
    if (i == 4) break;
    FX_EVENT(&fx, FL_CLIENT_IDLE);
    fx_skip(&fx, FLI_MSG_HELLO);
  }
  FX_EVENT(&fx, FL_CLIENT_ABORTED);
  cr_assert_eq(fx.event.reason, FL_REJECT_NO_ANSWER);
  fx_free(&fx);
}

Test(client_poll, max_retries_0_never_gives_up)
{
  fixture fx;
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.max_retries = 0;
  fx_new(&fx);
  for (size_t i = 0; i < 40; i++) {
    fx_skip(&fx, FLI_MSG_HELLO);
    FX_EVENT(&fx, FL_CLIENT_IDLE);
    fx.now_ns += 80 * FX_SECOND;
    FX_EVENT(&fx, FL_CLIENT_IDLE);
  }
  fx_free(&fx);
}

Test(client_poll, an_idle_client_has_no_timer)
{
  fixture fx;
  uint64_t deadline;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_drain(&fx);
  cr_assert_eq(fl_client_next_timeout(fx.client, &deadline), FL_OK);
  cr_assert_eq(deadline, UINT64_MAX);
  fx.now_ns += 1000 * FX_SECOND;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

Test(client_poll, a_missing_scale_is_asked_for)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_norm(&fx);
  fx.now_ns += 10 * FX_SECOND;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fli_hello hello = fx_take_hello(&fx);
  cr_assert(hello.has_token && hello.has_model && hello.has_schema);
  cr_assert_eq(hello.model_version, 3);
  cr_assert_arr_eq(hello.model_hash, fx.hash, sizeof fx.hash);
  fx_free(&fx);
}

Test(client_poll, a_training_host_is_not_hurried)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  fx.now_ns += 1000 * FX_SECOND;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

Test(client_poll, disconnected_says_hello_at_once)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_norm(&fx);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

Test(client_poll, training_may_end_while_disconnected)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx_submit(&fx, 1.f);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_nothing_sent(&fx);
  fx_welcome(&fx);
  fx_plan(&fx);
  fx_skip(&fx, FLI_MSG_NORM);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_free(&fx);
}

Test(client_poll, frames_come_in_any_cut)
{
  fixture fx;
  uint8_t description[1024];
  fx_init(&fx, FL_CODEC_F32);
  fx_skip(&fx, FLI_MSG_HELLO);
  fli_welcome welcome =
      fx_welcome_message(&fx, description, sizeof description);
  cr_assert_eq(fli_write_welcome(&fx.out, &welcome), FL_OK);
  fx_write_model(&fx);
  cr_assert_eq(fli_write_plan(&fx.out, &fx.plan), FL_OK);
  for (size_t i = 0; i < fx.out.size; i++)
    cr_assert_eq(fl_client_recv(fx.client, fx.out.data + i, 1), FL_OK);
  fli_bytes_clear(&fx.out);
  FX_EVENT(&fx, FL_CLIENT_JOINED);
  FX_EVENT(&fx, FL_CLIENT_MODEL_READY);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  fx_free(&fx);
}

Test(client_poll, half_a_frame_is_forgotten_with_its_connection)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_drain(&fx);
  cr_assert_eq(fli_write_plan(&fx.out, &fx.plan), FL_OK);
  fx.out.size /= 2;
  fx_deliver(&fx);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx_join(&fx);
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  fx_free(&fx);
}

Test(client_poll, no_server_of_ours_is_an_error)
{
  static const char http[] = "HTTP/1.1 502 Bad Gateway\r\n\r\n";
  static const uint8_t version[] = {0, 0, 0, 0, 9, 16, 0, 0};
  static const uint8_t large[] = {0xff, 0xff, 0xff, 0xff, 1, 17, 0, 0};
  static const uint8_t type[] = {1, 0, 0, 0, 1, 1, 0, 0, 0x80};
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  cr_assert_lt(fl_client_recv(fx.client, (const uint8_t *)http, sizeof http),
               FL_OK);
  cr_assert_eq(fl_client_recv(fx.client, version, sizeof version),
               FL_E_VERSION);
  cr_assert_eq(fl_client_recv(fx.client, large, sizeof large), FL_E_TOO_LARGE);
  cr_assert_eq(fl_client_recv(fx.client, type, sizeof type), FL_E_FORMAT);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_welcome(&fx);
  fx_send_model(&fx);
  fx_plan(&fx);
  fx_drain(&fx);
  fx_submit(&fx, 1.f);
  fx_free(&fx);
}

/* ---- WAIT, REJECT ------------------------------------------------------- */

Test(client_poll, wait_is_told_and_ends_with_hello)
{
  fixture fx;
  uint64_t deadline;
  fx_init(&fx, FL_CODEC_F32);
  fx.now_ns = 5 * FX_SECOND;
  fx_to_update(&fx);
  fx_wait(&fx, 3000);
  FX_EVENT(&fx, FL_CLIENT_WAIT);
  cr_assert_eq(fx.event.wait_until_ns, 8 * FX_SECOND);
  cr_assert_str_eq(fx.event.text, "later");
  cr_assert_eq(fl_client_next_timeout(fx.client, &deadline), FL_OK);
  cr_assert_eq(deadline, 8 * FX_SECOND);
  fx.now_ns = deadline - 1;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_nothing_sent(&fx);
  fx.now_ns = deadline;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_join(&fx);
  fx_plan(&fx);
  fx_scale(&fx, 100.f, 1);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_take_upload(&fx, NULL);
  fx_free(&fx);
}

Test(client_poll, wait_stops_the_upload_under_way)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_norm(&fx);
  fx_scale(&fx, 100.f, 1);
  fx_wait(&fx, 1000);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

Test(client_poll, an_endless_wait_is_cut)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  FX_EVENT(&fx, FL_CLIENT_JOINED);
  fx_wait(&fx, UINT64_MAX / 1000000);
  FX_EVENT(&fx, FL_CLIENT_WAIT);
  cr_assert_eq(fx.event.wait_until_ns, 24 * 3600 * FX_SECOND);
  fx_free(&fx);
}

Test(client_poll, refusals_that_are_final_abort)
{
  static const uint32_t reasons[] = {
      FL_REJECT_FORMAT,    FL_REJECT_VERSION,   FL_REJECT_SCHEMA,
      FL_REJECT_TOO_LARGE, FL_REJECT_ID_IN_USE, FL_REJECT_UNKNOWN_JOB};
  for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++) {
    fixture fx;
    fx_init(&fx, FL_CODEC_F32);
    fx_skip(&fx, FLI_MSG_HELLO);
    fx_reject(&fx, reasons[i]);
    FX_EVENT(&fx, FL_CLIENT_ABORTED);
    cr_assert_eq(fx.event.reason, reasons[i]);
    cr_assert_str_eq(fx.event.text, "no");
    FX_EVENT(&fx, FL_CLIENT_IDLE);
    fx_nothing_sent(&fx);
    fx_free(&fx);
  }
}

Test(client_poll, a_server_at_its_limit_is_tried_again)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_reject(&fx, FL_REJECT_LIMIT);
  FX_EVENT(&fx, FL_CLIENT_WAIT);
  cr_assert_eq(fx.event.reason, FL_REJECT_LIMIT);
  cr_assert_eq(fx.event.wait_until_ns, 10 * FX_SECOND);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx_nothing_sent(&fx);
  fx.now_ns = 10 * FX_SECOND;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_free(&fx);
}

Test(client_poll, refusals_without_end_abort)
{
  fixture fx;
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.max_retries = 3;
  fx_new(&fx);
  for (int i = 0; i < 3; i++) {
    fx_skip(&fx, FLI_MSG_HELLO);
    fx_reject(&fx, FL_REJECT_LIMIT);
    FX_EVENT(&fx, FL_CLIENT_WAIT);
    fx.now_ns = fx.event.wait_until_ns;
    FX_EVENT(&fx, FL_CLIENT_IDLE);
  }
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_reject(&fx, FL_REJECT_LIMIT);
  FX_EVENT(&fx, FL_CLIENT_ABORTED);
  cr_assert_eq(fx.event.reason, FL_REJECT_LIMIT);
  fx_free(&fx);
}

Test(client_poll, the_ghost_of_an_own_connection_is_waited_for)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_skip(&fx, FLI_MSG_HELLO);
  cr_assert_eq(fl_client_disconnected(fx.client), FL_OK);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_reject(&fx, FL_REJECT_ID_IN_USE);
  FX_EVENT(&fx, FL_CLIENT_WAIT);
  cr_assert_eq(fx.event.reason, FL_REJECT_ID_IN_USE);
  fx_free(&fx);
}

Test(client_poll, a_server_that_forgot_the_session_hears_hello)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_norm(&fx);
  fx_reject(&fx, FL_REJECT_STATE);
  FX_EVENT(&fx, FL_CLIENT_WAIT);
  fx.now_ns = fx.event.wait_until_ns;
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_join(&fx);
  fx_plan(&fx);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

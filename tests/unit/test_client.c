/* SPDX-License-Identifier: Apache-2.0 */
/* The client's handle and how it joins: options, HELLO, WELCOME. */
#include "client_fixture.h"

#include "client/client.h"
#include "compress/compressor.h"

/* ---- options, handle ---------------------------------------------------- */

Test(client, new_refuses_bad_options)
{
  fixture fx;
  fl_client *client = NULL;
  fx_begin(&fx, FL_CODEC_F32);
  const fl_client_options good = fx.options;
  char long_id[FL_CLIENT_ID_BYTES + 2];
  memset(long_id, 'x', sizeof long_id - 1);
  long_id[sizeof long_id - 1] = 0;
#define REFUSED(field, value, status)                         \
  do {                                                        \
    fl_client_options bad = good;                             \
    bad.field = value;                                        \
    cr_assert_eq(fl_client_new(&client, NULL, &bad), status); \
    cr_assert_null(client);                                   \
    cr_assert(fl_last_error()[0] != 0);                       \
  } while (0)
  REFUSED(client_id, NULL, FL_E_ARGUMENT);
  REFUSED(client_id, "", FL_E_ARGUMENT);
  REFUSED(client_id, long_id, FL_E_ARGUMENT);
  REFUSED(client_id, "tab\there", FL_E_ARGUMENT);
  REFUSED(job, long_id, FL_E_ARGUMENT);
  REFUSED(device_class, "\x80", FL_E_ARGUMENT);
  REFUSED(samples, 0, FL_E_OPTIONS);
  REFUSED(samples, UINT64_MAX, FL_E_OPTIONS);
  REFUSED(retry_ns, 0, FL_E_OPTIONS);
  REFUSED(chunk_size, 4095, FL_E_OPTIONS);
  REFUSED(chunk_size, (4 << 20) + 1, FL_E_OPTIONS);
  REFUSED(max_frame_size, 4095, FL_E_OPTIONS);
  REFUSED(max_weights, 0, FL_E_OPTIONS);
  REFUSED(max_weights, UINT64_MAX, FL_E_OPTIONS);
  REFUSED(struct_size, 2, FL_E_OPTIONS);
#undef REFUSED
  cr_assert_eq(fl_client_new(NULL, NULL, &good), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_new(&client, NULL, NULL), FL_E_ARGUMENT);
  fx_free(&fx);
}

Test(client, new_takes_ids_of_64_bytes)
{
  fixture fx;
  char id[FL_CLIENT_ID_BYTES + 1];
  memset(id, 'x', FL_CLIENT_ID_BYTES);
  id[FL_CLIENT_ID_BYTES] = 0;
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.client_id = id;
  fx_new(&fx);
  cr_assert_str_eq(fx_take_hello(&fx).client_id, id);
  fx_free(&fx);
}

Test(client, new_refuses_a_model_above_the_limit)
{
  fixture fx;
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.model = fx.model;
  fx.options.max_weights = FX_WEIGHTS - 1;
  cr_assert_eq(fl_client_new(&fx.client, NULL, &fx.options), FL_E_LIMIT);
  fx.options.max_weights = FX_WEIGHTS;
  fx_new(&fx);
  fx_free(&fx);
}

Test(client, functions_refuse_null)
{
  fixture fx;
  const uint8_t *data;
  size_t n;
  uint64_t deadline;
  fl_client_event event = {.struct_size = sizeof event};
  fl_train_result result = {.struct_size = sizeof result};
  fl_score score = {.struct_size = sizeof score};
  fx_init(&fx, FL_CODEC_F32);
  cr_assert_eq(fl_client_recv(NULL, NULL, 0), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_recv(fx.client, NULL, 1), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_recv(fx.client, NULL, 0), FL_OK);
  cr_assert_eq(fl_client_send(NULL, &data, &n), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_send(fx.client, NULL, &n), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_poll(NULL, 0, &event), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_poll(fx.client, 0, NULL), FL_E_ARGUMENT);
  event.struct_size = 0;
  cr_assert_eq(fl_client_poll(fx.client, 0, &event), FL_E_OPTIONS);
  cr_assert_eq(fl_client_next_timeout(NULL, &deadline), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_submit(NULL, &result), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_submit_score(NULL, &score), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_decline(NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_disconnected(NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_get_description(NULL, &data, &n), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_copy_weights(NULL, NULL, 0, NULL), FL_E_ARGUMENT);
  fl_client_free(NULL);
  fx_free(&fx);
}

/* ---- joining ------------------------------------------------------------ */

Test(client, hello_says_who_and_what)
{
  fixture fx;
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.job = "digits";
  fx.options.device_class = "pixel-8";
  fx.options.samples = 123;
  fx_new(&fx);
  fli_hello hello = fx_take_hello(&fx);
  cr_assert_str_eq(hello.client_id, "alice");
  cr_assert_str_eq(hello.job, "digits");
  cr_assert_str_eq(hello.device_class, "pixel-8");
  cr_assert_eq(hello.samples, 123);
  cr_assert_eq(hello.capabilities, FLI_CAP_TRAIN | FLI_CAP_EVALUATE |
                                       FLI_CAP_COHORTS | FLI_CAP_STATUS |
                                       FLI_CAP_CONTROLS);
  cr_assert(!hello.has_schema && !hello.has_token && !hello.has_model);
  fx_nothing_sent(&fx);
  fx_free(&fx);
}

Test(client, hello_names_the_schema_of_the_model_at_hand)
{
  fixture fx;
  uint8_t schema[FL_HASH_BYTES];
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.model = fx.model;
  fx_new(&fx);
  fli_hello hello = fx_take_hello(&fx);
  cr_assert_eq(fl_model_copy_schema(fx.model, schema), FL_OK);
  cr_assert(hello.has_schema);
  cr_assert_arr_eq(hello.schema, schema, sizeof schema);
  fx_free(&fx);
}

Test(client, joined_gives_the_description)
{
  fixture fx;
  const uint8_t *data;
  size_t n, want_n;
  uint8_t want[1024];
  fx_init(&fx, FL_CODEC_F32);
  cr_assert_eq(fl_client_get_description(fx.client, &data, &n), FL_E_EMPTY);
  fx_join(&fx);
  FX_EVENT(&fx, FL_CLIENT_JOINED);
  cr_assert_eq(fl_client_get_description(fx.client, &data, &n), FL_OK);
  cr_assert_eq(fl_model_copy_description(fx.model, want, sizeof want, &want_n),
               FL_OK);
  cr_assert_eq(n, want_n);
  cr_assert_arr_eq(data, want, n);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_free(&fx);
}

Test(client, another_schema_aborts)
{
  fixture fx;
  uint8_t description[1024];
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.model = fx.model;
  fx_new(&fx);
  fx_skip(&fx, FLI_MSG_HELLO);
  fli_welcome welcome =
      fx_welcome_message(&fx, description, sizeof description);
  welcome.schema[0] ^= 1;
  cr_assert_eq(fli_write_welcome(&fx.out, &welcome), FL_OK);
  fx_deliver(&fx);
  FX_EVENT(&fx, FL_CLIENT_ABORTED);
  cr_assert_eq(fx.event.reason, FL_REJECT_SCHEMA);
  cr_assert(fx.event.text[0] != 0);
  fx_free(&fx);
}

Test(client, a_model_above_max_weights_aborts)
{
  fixture fx;
  fx_begin(&fx, FL_CODEC_F32);
  fx.options.max_weights = FX_WEIGHTS - 1;
  fx_new(&fx);
  fx_join(&fx);
  FX_EVENT(&fx, FL_CLIENT_ABORTED);
  cr_assert_eq(fx.event.reason, FL_REJECT_TOO_LARGE);
  fx_free(&fx);
}

Test(client, a_broken_description_aborts)
{
  fixture fx;
  uint8_t description[1024];
  fx_init(&fx, FL_CODEC_F32);
  fx_skip(&fx, FLI_MSG_HELLO);
  fli_welcome welcome =
      fx_welcome_message(&fx, description, sizeof description);
  welcome.description_size /= 2;
  cr_assert_eq(fli_write_welcome(&fx.out, &welcome), FL_OK);
  fx_deliver(&fx);
  FX_EVENT(&fx, FL_CLIENT_ABORTED);
  cr_assert_eq(fx.event.reason, FL_REJECT_SCHEMA);
  fx_free(&fx);
}

Test(client, an_unknown_codec_aborts)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx.codec.codec = 99;
  fx_join(&fx);
  FX_EVENT(&fx, FL_CLIENT_ABORTED);
  cr_assert_eq(fx.event.reason, FL_REJECT_VERSION);
  fx_free(&fx);
}

static const uint8_t some_table[16] = {0,  3,  5,  7,  9,  11, 13, 14,
                                       15, 17, 19, 21, 23, 25, 27, 30};

Test(client, the_table_of_a_welcome_is_taken_and_not_solved)
{
  fixture fx;
  uint8_t other[16], got[16];
  memcpy(other, some_table, sizeof other);
  other[7] = 15;
  other[8] = 16;
  for (int i = 0; i < 2; i++) {
    const uint8_t *table = i == 0 ? some_table : other;
    fx_init(&fx, FL_CODEC_THC);
    fx_use_table(&fx, table);
    fx_join(&fx);
    FX_EVENT(&fx, FL_CLIENT_JOINED);
    cr_assert_eq(fl_compressor_copy_table(fx.client->compressor, got, 16),
                 FL_OK);
    cr_assert_arr_eq(got, table, 16);
    cr_assert_eq(fx.client->compressor->id, fx.compressor->id);
    fx_free(&fx);
  }
}

Test(client, a_table_that_does_not_rise_is_an_error)
{
  fixture fx;
  uint8_t description[1024], table[16];
  memcpy(table, some_table, sizeof table);
  fx_init(&fx, FL_CODEC_THC);
  fx_use_table(&fx, table);
  fx_skip(&fx, FLI_MSG_HELLO);
  table[4] = table[3];
  fli_welcome welcome =
      fx_welcome_message(&fx, description, sizeof description);
  cr_assert_eq(fli_write_welcome(&fx.out, &welcome), FL_OK);
  cr_assert_eq(fx_flush(&fx), FL_E_FORMAT);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_free(&fx);
}

/* What the clip is best is the server's to say. */
Test(client, a_welcome_without_a_clip_aborts)
{
  fixture fx;
  uint8_t description[1024];
  fx_init(&fx, FL_CODEC_THC);
  fx_skip(&fx, FLI_MSG_HELLO);
  fli_welcome welcome =
      fx_welcome_message(&fx, description, sizeof description);
  cr_assert_gt(welcome.clip, 0);
  welcome.clip = 0;
  cr_assert_eq(fli_write_welcome(&fx.out, &welcome), FL_OK);
  fx_deliver(&fx);
  FX_EVENT(&fx, FL_CLIENT_ABORTED);
  cr_assert_eq(fx.event.reason, FL_REJECT_VERSION);
  fx_free(&fx);
}

Test(client, a_table_comes_in_table_mode_and_only_there)
{
  for (int i = 0; i < 2; i++) {
    fixture fx;
    uint8_t description[1024];
    fx_init(&fx, FL_CODEC_THC);
    fx_use_table(&fx, some_table);
    fx_skip(&fx, FLI_MSG_HELLO);
    fli_welcome welcome =
        fx_welcome_message(&fx, description, sizeof description);
    if (i == 0) welcome.table = NULL;
    if (i == 1) welcome.thc_mode = FL_THC_DITHER;
    cr_assert_eq(fli_write_welcome(&fx.out, &welcome), FL_OK);
    cr_assert_eq(fx_flush(&fx), FL_E_FORMAT);
    fx_skip(&fx, FLI_MSG_HELLO);
    fx_free(&fx);
  }
}

Test(client, another_table_makes_what_was_trained_stale)
{
  fixture fx;
  uint8_t other[16], got[16];
  memcpy(other, some_table, sizeof other);
  other[15] = 31;
  fx_init(&fx, FL_CODEC_THC);
  fx_use_table(&fx, some_table);
  fx_to_norm(&fx);
  cr_assert(fx.client->trained.is_valid);
  fl_client_disconnected(fx.client);
  fx_join(&fx);
  cr_assert(fx.client->trained.is_valid);
  fl_client_disconnected(fx.client);
  fx_use_table(&fx, other);
  fx_join(&fx);
  cr_assert(!fx.client->trained.is_valid);
  cr_assert_eq(fl_compressor_copy_table(fx.client->compressor, got, 16), FL_OK);
  cr_assert_arr_eq(got, other, 16);
  fx_free(&fx);
}

Test(client, welcome_without_the_description_asked_for_is_an_error)
{
  fixture fx;
  uint8_t description[1024];
  fx_init(&fx, FL_CODEC_F32);
  fx_skip(&fx, FLI_MSG_HELLO);
  fli_welcome welcome =
      fx_welcome_message(&fx, description, sizeof description);
  welcome.description = NULL;
  cr_assert_eq(fli_write_welcome(&fx.out, &welcome), FL_OK);
  cr_assert_eq(fx_flush(&fx), FL_E_FORMAT);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_free(&fx);
}

Test(client, what_overtakes_welcome_is_asked_for_again)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_plan(&fx);
  fx_nothing_sent(&fx);
  fx_welcome(&fx);
  fx_skip(&fx, FLI_MSG_HELLO);
  fx_free(&fx);
}

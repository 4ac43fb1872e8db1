/* SPDX-License-Identifier: Apache-2.0 */
/* A client killed and restored: it says HELLO and goes on where it was without
 * training again; states that are torn, foreign or of another client are
 * refused. */
#include "client_fixture.h"

#include "client/client.h"
#include "compress/compressor.h"
#include "wire/container.h"

static void save(fixture *fx, fl_buffer **state)
{
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(state, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(*state, &writer), FL_OK);
  cr_assert_eq(fl_client_save(fx->client, &writer), FL_OK, "%s",
               fl_last_error());
}

static fl_status restore(fixture *fx, fl_buffer *state, fl_client **out)
{
  fl_reader reader;
  cr_assert_eq(fl_buffer_as_reader(state, &reader), FL_OK);
  return fl_client_restore(out, NULL, &fx->options, &reader);
}

/* Kill the client and bring it back. */
static void reincarnate(fixture *fx)
{
  fl_buffer *state = NULL;
  fl_client *client = NULL;
  save(fx, &state);
  fl_client_free(fx->client);
  fx->client = NULL;
  cr_assert_eq(restore(fx, state, &client), FL_OK, "%s", fl_last_error());
  fx->client = client;
  fl_buffer_free(state);
}

Test(client_state, a_new_client_can_be_saved)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  reincarnate(&fx);
  fli_hello hello = fx_take_hello(&fx);
  cr_assert(!hello.has_token && !hello.has_schema && !hello.has_model);
  fx_free(&fx);
}

Test(client_state, restored_hello_names_token_schema_and_model)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  reincarnate(&fx);
  fli_hello hello = fx_take_hello(&fx);
  cr_assert(hello.has_token && hello.has_schema && hello.has_model);
  cr_assert_eq(hello.token[0], 0x5a);
  cr_assert_eq(hello.model_version, 3);
  cr_assert_arr_eq(hello.model_hash, fx.hash, sizeof fx.hash);
  fx_free(&fx);
}

Test(client_state, training_asked_is_asked_again)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  reincarnate(&fx);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_join(&fx);
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_JOINED);
  FX_EVENT(&fx, FL_CLIENT_NEED_TRAIN);
  cr_assert_arr_eq(fx.event.task.weights, fx.weights, sizeof fx.weights);
  fx_free(&fx);
}

Test(client_state, what_was_trained_is_not_trained_again)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_THC);
  fx_to_norm(&fx);
  reincarnate(&fx);
  fx_join(&fx);
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_JOINED);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

Test(client_state, a_restored_client_uploads_the_same_bytes)
{
  fixture fx;
  uint8_t *before, *after;
  fx_init(&fx, FL_CODEC_THC);
  fx_to_norm(&fx);
  fx_scale(&fx, 100.f, 1);
  fli_manifest a = fx_take_upload(&fx, &before);
  reincarnate(&fx);
  fx_join(&fx);
  fx_plan(&fx);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_scale(&fx, 100.f, 1);
  fli_manifest b = fx_take_upload(&fx, &after);
  cr_assert_eq(a.total, b.total);
  cr_assert_arr_eq(before, after, (size_t)a.total);
  cr_assert_eq(b.loss, .75);
  fx_ack(&fx, FL_REJECT_NONE);
  FX_EVENT(&fx, FL_CLIENT_JOINED);
  FX_EVENT(&fx, FL_CLIENT_ACCEPTED);
  free(before);
  free(after);
  fx_free(&fx);
}

Test(client_state, a_restored_client_has_the_table_of_its_codec)
{
  static const uint8_t table[16] = {0,  3,  5,  7,  9,  11, 13, 15,
                                    16, 17, 19, 21, 23, 25, 27, 30};
  fixture fx;
  uint8_t got[16];
  fx_init(&fx, FL_CODEC_THC);
  fx_use_table(&fx, table);
  fx_to_norm(&fx);
  reincarnate(&fx);
  cr_assert_eq(fl_compressor_copy_table(fx.client->compressor, got, 16), FL_OK);
  cr_assert_arr_eq(got, table, 16);
  cr_assert_eq(fx.client->compressor->id, fx.compressor->id);
  fx_join(&fx);
  fx_plan(&fx);
  FX_EVENT(&fx, FL_CLIENT_JOINED);
  FX_EVENT(&fx, FL_CLIENT_IDLE);
  fx_skip(&fx, FLI_MSG_NORM);
  fx_free(&fx);
}

Test(client_state, an_answer_to_the_saved_upload_is_told)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_update(&fx);
  reincarnate(&fx);
  fx_join(&fx);
  fx_ack(&fx, FL_REJECT_NONE);
  FX_EVENT(&fx, FL_CLIENT_JOINED);
  FX_EVENT(&fx, FL_CLIENT_ACCEPTED);
  cr_assert_eq(fx.event.round, 1);
  fx_free(&fx);
}

Test(client_state, a_finished_client_stays_finished)
{
  fixture fx;
  float weights[FX_WEIGHTS];
  fx_init(&fx, FL_CODEC_F32);
  fx_join(&fx);
  fx_send_model(&fx);
  fx_done(&fx);
  fx_drain(&fx);
  reincarnate(&fx);
  FX_EVENT(&fx, FL_CLIENT_DONE);
  fx_nothing_sent(&fx);
  cr_assert_eq(fl_client_copy_weights(fx.client, weights, FX_WEIGHTS, NULL),
               FL_OK);
  cr_assert_arr_eq(weights, fx.weights, sizeof weights);
  fx_free(&fx);
}

Test(client_state, saving_twice_gives_the_same_bytes)
{
  fixture fx;
  fl_buffer *states[2] = {NULL, NULL};
  const uint8_t *data[2];
  size_t n[2];
  fx_init(&fx, FL_CODEC_THC);
  fx_to_update(&fx);
  save(&fx, &states[0]);
  reincarnate(&fx);
  save(&fx, &states[1]);
  for (int i = 0; i < 2; i++)
    cr_assert_eq(fl_buffer_get(states[i], &data[i], &n[i]), FL_OK);
  cr_assert_eq(n[0], n[1]);
  cr_assert_arr_eq(data[0], data[1], n[0]);
  fl_buffer_free(states[0]);
  fl_buffer_free(states[1]);
  fx_free(&fx);
}

/* ---- refused states ----------------------------------------------------- */

Test(client_state, the_state_of_another_client_is_refused)
{
  fixture fx;
  fl_buffer *state = NULL;
  fl_client *client = NULL;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  save(&fx, &state);
  fx.options.client_id = "bob";
  cr_assert_eq(restore(&fx, state, &client), FL_E_CONFLICT);
  fx.options.client_id = "alice";
  fx.options.job = "other";
  cr_assert_eq(restore(&fx, state, &client), FL_E_CONFLICT);
  cr_assert_null(client);
  fl_buffer_free(state);
  fx_free(&fx);
}

Test(client_state, the_state_of_another_model_is_refused)
{
  fixture fx;
  const uint64_t dims[1] = {FX_WEIGHTS};
  fl_model_builder *builder = NULL;
  fl_model *other = NULL;
  fl_buffer *state = NULL;
  fl_client *client = NULL;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  save(&fx, &state);
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  cr_assert_eq(fl_model_builder_tensor(builder, "a", dims, 1, 1), FL_OK);
  cr_assert_eq(fl_model_builder_build(builder, &other), FL_OK);
  fx.options.model = other;
  cr_assert_eq(restore(&fx, state, &client), FL_E_SCHEMA);
  fx.options.model = fx.model;
  cr_assert_eq(restore(&fx, state, &client), FL_OK);
  fl_client_free(client);
  fl_model_builder_free(builder);
  fl_model_free(other);
  fl_buffer_free(state);
  fx_free(&fx);
}

Test(client_state, a_state_above_max_weights_is_refused)
{
  fixture fx;
  fl_buffer *state = NULL;
  fl_client *client = NULL;
  fx_init(&fx, FL_CODEC_F32);
  fx_to_train(&fx);
  save(&fx, &state);
  fx.options.max_weights = FX_WEIGHTS - 1;
  cr_assert_lt(restore(&fx, state, &client), FL_OK);
  cr_assert_null(client);
  fl_buffer_free(state);
  fx_free(&fx);
}

Test(client_state, every_cut_and_every_flipped_byte_is_refused)
{
  fixture fx;
  fl_buffer *state = NULL;
  const uint8_t *data;
  size_t n;
  fx_init(&fx, FL_CODEC_THC);
  fx_to_update(&fx);
  save(&fx, &state);
  cr_assert_eq(fl_buffer_get(state, &data, &n), FL_OK);
  for (size_t i = 0; i < n; i++) {
    fl_buffer *bad = NULL;
    fl_client *client = NULL;
    uint8_t flipped = (uint8_t)(data[i] ^ 0x10);
    cr_assert_eq(fl_buffer_new(&bad, NULL), FL_OK);
    cr_assert_eq(fl_buffer_append(bad, data, i), FL_OK);
    cr_assert_lt(restore(&fx, bad, &client), FL_OK, "cut at %zu", i);
    cr_assert_eq(fl_buffer_append(bad, &flipped, 1), FL_OK);
    cr_assert_eq(fl_buffer_append(bad, data + i + 1, n - i - 1), FL_OK);
    cr_assert_lt(restore(&fx, bad, &client), FL_OK, "flipped at %zu", i);
    cr_assert_null(client);
    fl_buffer_free(bad);
  }
  fl_buffer_free(state);
  fx_free(&fx);
}

/* Of what is written now. */
enum { VERSION = 3, FIRST_VERSION = 2 };
static uint32_t version = VERSION;

/* A state whose hash is right: keys 1 and 2 are those of the client, the
 * others the test's. */
typedef void (*extra_fields)(fixture *fx, fli_msg_writer *writer);

static fl_status restore_fields(fixture *fx, uint32_t n_extra,
                                extra_fields extra)
{
  fl_buffer *state = NULL;
  fl_client *client = NULL;
  fl_writer stream;
  fli_bytes payload;
  fli_msg_writer writer;
  fli_bytes_init(&payload, NULL);
  fli_writer_init(&writer, &payload);
  fli_writer_map(&writer, 2 + n_extra);
  fli_field_str(&writer, 1, "alice");
  fli_field_str(&writer, 2, "");
  extra(fx, &writer);
  cr_assert_eq(fli_writer_status(&writer), FL_OK);
  cr_assert_eq(fl_buffer_new(&state, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(state, &stream), FL_OK);
  cr_assert_eq(
      fli_container_write(&stream, FLI_STATE_CLIENT, version, &payload), FL_OK);
  fl_status st = restore(fx, state, &client);
  cr_assert_eq(st == FL_OK, client != NULL);
  fl_client_free(client);
  fl_buffer_free(state);
  fli_bytes_free(&payload);
  return st;
}

static void add_nothing(fixture *fx, fli_msg_writer *writer)
{
  (void)fx;
  (void)writer;
}

static void add_unknown(fixture *fx, fli_msg_writer *writer)
{
  (void)fx;
  fli_field_u64(writer, 100, 1);
}

static void add_critical(fixture *fx, fli_msg_writer *writer)
{
  (void)fx;
  fli_field_u64(writer, 200, 1);
}

static void add_update_without_model(fixture *fx, fli_msg_writer *writer)
{
  fli_bytes plan;
  fli_bytes_init(&plan, NULL);
  cr_assert_eq(fli_write_plan(&plan, &fx->plan), FL_OK);
  fli_field_bin(writer, 13, plan.data + FLI_FRAME_HEADER,
                plan.size - FLI_FRAME_HEADER);
  fli_field_u64(writer, 14, 1);
  fli_field_bin(writer, 16, "", 0);
  fli_bytes_free(&plan);
}

static void add_broken_plan(fixture *fx, fli_msg_writer *writer)
{
  (void)fx;
  fli_field_bin(writer, 13, "\xc1", 1);
}

static void add_broken_description(fixture *fx, fli_msg_writer *writer)
{
  (void)fx;
  fli_field_bin(writer, 4, "\xc1", 1);
}

Test(client_state, a_state_is_not_believed_for_its_hash)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_F32);
  cr_assert_eq(restore_fields(&fx, 0, add_nothing), FL_OK);
  /* Its encoded update and norms are of another layout. */
  version = FIRST_VERSION - 1;
  cr_assert_eq(restore_fields(&fx, 0, add_nothing), FL_E_VERSION);
  version = VERSION;
  cr_assert_eq(restore_fields(&fx, 1, add_unknown), FL_OK);
  cr_assert_eq(restore_fields(&fx, 1, add_critical), FL_E_VERSION);
  cr_assert_eq(restore_fields(&fx, 3, add_update_without_model), FL_E_FORMAT);
  cr_assert_lt(restore_fields(&fx, 1, add_broken_plan), FL_OK);
  cr_assert_lt(restore_fields(&fx, 1, add_broken_description), FL_OK);
  fx_free(&fx);
}

static void add_codec_with_bad_table(fixture *fx, fli_msg_writer *writer)
{
  static const uint8_t table[4] = {0, 2, 2, 7};
  fli_field_bin(writer, 4, fx->client->description.data,
                fx->client->description.size);
  fli_field_u64(writer, 5, FL_CODEC_THC);
  fli_field_u64(writer, 6, FL_THC_TABLE);
  fli_field_u64(writer, 7, 2);
  fli_field_u64(writer, 8, 7);
  fli_field_f32(writer, 9, 2.0f);
  fli_field_bin(writer, 10, fx->codec.rotation_seed, FL_SEED_BYTES);
  fli_field_bin(writer, 25, table, sizeof table);
}

Test(client_state, a_table_that_does_not_rise_is_refused)
{
  fixture fx;
  fx_init(&fx, FL_CODEC_THC);
  fx_join(&fx);
  cr_assert_eq(restore_fields(&fx, 8, add_codec_with_bad_table), FL_E_OPTIONS);
  fx_free(&fx);
}

static fl_status fail_write(void *user, const void *buf, size_t n)
{
  (void)user;
  (void)buf;
  (void)n;
  return FL_E_CALLBACK;
}

static fl_status fail_read(void *user, void *buf, size_t n, size_t *got)
{
  (void)user;
  (void)buf;
  (void)n;
  *got = 0;
  return FL_E_CALLBACK;
}

Test(client_state, streams_that_fail_are_reported)
{
  fixture fx;
  fl_client *client = NULL;
  const fl_writer writer = {fail_write, NULL};
  const fl_reader reader = {fail_read, NULL};
  fx_init(&fx, FL_CODEC_F32);
  cr_assert_eq(fl_client_save(fx.client, &writer), FL_E_IO);
  cr_assert_eq(fl_client_restore(&client, NULL, &fx.options, &reader), FL_E_IO);
  cr_assert_eq(fl_client_save(fx.client, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_save(NULL, &writer), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_restore(&client, NULL, NULL, &reader), FL_E_ARGUMENT);
  cr_assert_eq(fl_client_restore(NULL, NULL, &fx.options, &reader),
               FL_E_ARGUMENT);
  fx_free(&fx);
}

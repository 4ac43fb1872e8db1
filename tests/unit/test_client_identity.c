/* SPDX-License-Identifier: Apache-2.0 */
/* The library's client with a key, against the library's server: it proves that
 * it has it, signs, is refused, leaves. */
#include <criterion/criterion.h>

#include "client_pair.h"
#include "crypto/keys.h"
#include "wire/messages.h"

typedef struct world {
  pair p;
  uint8_t secret[FL_SECRET_KEY_BYTES];
  uint8_t public_key[FL_PUBLIC_KEY_BYTES];
  uint32_t reason; /* of ABORTED */
} world;

static void make_key(uint8_t seed, uint8_t secret[FL_SECRET_KEY_BYTES],
                     uint8_t public_key[FL_PUBLIC_KEY_BYTES])
{
  uint8_t bytes[FLI_KEY_BYTES];
  memset(bytes, seed, sizeof bytes);
  fli_sign_keys(secret, public_key, bytes);
}

/* A client with a key, and a server that wants one. */
static void begin(world *w, const fl_server_options *options)
{
  memset(w, 0, sizeof *w);
  make_key(1, w->secret, w->public_key);
  cr_assert_eq(pair_begin(&w->p, NULL, FL_CODEC_F32, 2), FL_OK);
  if (options) {
    fl_server_free(w->p.server);
    cr_assert_eq(fl_server_new(&w->p.server, NULL, options), FL_OK);
    cr_assert_eq(pair_add_job(&w->p, FL_CODEC_F32, 2, "plain", 0), FL_OK);
  }
  cr_assert_eq(pair_connect(&w->p), FL_OK);
  cr_assert_eq(fl_client_set_key(w->p.client, w->secret, NULL), FL_OK);
}

static fl_server_options listed(void)
{
  fl_server_options options;
  cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
  options.enrolment = FL_ENROL_LISTED;
  return options;
}

/* One frame each way, one poll; 0 = nothing moved. */
static int step(world *w)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  int moved = 0;
  fl_client_event event;
  cr_assert_eq(fl_client_event_init(&event, sizeof event), FL_OK);
  cr_assert_eq(fl_client_send(w->p.client, &data, &n), FL_OK);
  if (n > 0)
    cr_assert_eq(fl_server_recv(w->p.server, w->p.peer, data, n), FL_OK);
  moved |= n > 0;
  cr_assert_eq(fl_server_tick(w->p.server, ++w->p.now_ns), FL_OK);
  cr_assert_eq(fl_server_send(w->p.server, w->p.peer, &data, &n), FL_OK);
  cr_assert_eq(fl_client_recv(w->p.client, data, n), FL_OK);
  moved |= n > 0;
  cr_assert_eq(fl_client_poll(w->p.client, w->p.now_ns, &event), FL_OK);
  w->p.last_kind = event.kind;
  if (event.kind == FL_CLIENT_DONE) w->p.is_done = 1;
  if (event.kind == FL_CLIENT_ABORTED) w->reason = event.reason;
  return moved || event.kind != FL_CLIENT_IDLE;
}

static void run(world *w)
{
  for (int i = 0; step(w); i++)
    cr_assert_lt(i, 1000);
}

static uint32_t count_events(world *w, uint32_t kind)
{
  fl_server_event event;
  uint32_t n = 0;
  cr_assert_eq(fl_server_event_init(&event, sizeof event), FL_OK);
  while (fl_server_poll(w->p.server, &event) == FL_OK)
    n += event.kind == kind;
  return n;
}

/* ---- keys ---- */

Test(client_identity, a_client_on_the_list_trains_to_the_end)
{
  world w;
  const fl_server_options options = listed();
  begin(&w, &options);
  cr_assert_eq(fl_server_allow(w.p.server, w.public_key, "one"), FL_OK);
  run(&w);
  cr_expect_eq(w.p.is_done, 1);
  cr_expect_eq(count_events(&w, FL_SERVER_UPDATE_ACCEPTED), 2u);
  pair_end(&w.p);
}

Test(client_identity, one_that_is_not_on_the_list_is_aborted)
{
  world w;
  const fl_server_options options = listed();
  begin(&w, &options);
  run(&w);
  cr_expect_eq(w.p.is_done, 0);
  cr_expect_eq(w.reason, (uint32_t)FL_REJECT_NOT_ENROLLED);
  pair_end(&w.p);
}

Test(client_identity, it_proves_itself_on_every_connection)
{
  world w;
  begin(&w, NULL);
  while (w.p.last_kind != FL_CLIENT_JOINED)
    step(&w);
  cr_assert_eq(fl_server_disconnected(w.p.server, w.p.peer), FL_OK);
  cr_assert_eq(fl_client_disconnected(w.p.client), FL_OK);
  w.p.peer++;
  run(&w);
  cr_expect_eq(w.p.is_done, 1);
  cr_expect_eq(count_events(&w, FL_SERVER_PEER_REJECTED), 0u);
  pair_end(&w.p);
}

Test(client_identity, a_pinned_server_takes_the_proof_and_another_does_not)
{
  uint8_t key[FL_PUBLIC_KEY_BYTES] = {1}, other[FL_PUBLIC_KEY_BYTES] = {2};
  fl_server_options options;
  cr_assert_eq(fl_server_options_init(&options, sizeof options), FL_OK);
  options.server_key = key;
  for (int i = 0; i < 2; i++) {
    world w;
    begin(&w, &options);
    cr_assert_eq(fl_client_set_key(w.p.client, w.secret, i ? other : key),
                 FL_OK);
    run(&w);
    cr_expect_eq(w.p.is_done, !i);
    cr_expect_eq(w.reason, i ? (uint32_t)FL_REJECT_KEY : 0u);
    pair_end(&w.p);
  }
}

Test(client_identity, a_lost_challenge_is_asked_for_again)
{
  world w;
  const uint8_t *data = NULL;
  size_t n = 0;
  begin(&w, NULL);
  cr_assert_eq(fl_client_send(w.p.client, &data, &n), FL_OK);
  cr_assert_eq(fl_server_recv(w.p.server, w.p.peer, data, n), FL_OK);
  cr_assert_eq(fl_server_send(w.p.server, w.p.peer, &data, &n), FL_OK);
  cr_assert_gt(n, 0u);
  run(&w);
  cr_expect_eq(w.p.is_done, 0);
  w.p.now_ns += w.p.options.retry_ns;
  cr_assert_eq(pair_poll(&w.p), FL_OK);
  run(&w);
  cr_expect_eq(w.p.is_done, 1);
  pair_end(&w.p);
}

Test(client_identity, a_server_that_challenges_for_ever_is_given_up)
{
  world w;
  fli_bytes frame;
  const fli_challenge challenge = {{0}};
  const uint8_t *data = NULL;
  size_t n = 0;
  int sent = 0;
  begin(&w, NULL);
  fli_bytes_init(&frame, NULL);
  cr_assert_eq(fli_write_challenge(&frame, &challenge), FL_OK);
  while (w.reason == 0 && sent < 100) {
    fl_client_event event;
    cr_assert_eq(fl_client_event_init(&event, sizeof event), FL_OK);
    cr_assert_eq(fl_client_send(w.p.client, &data, &n), FL_OK);
    sent += n > 0;
    cr_assert_eq(fl_client_recv(w.p.client, frame.data, frame.size), FL_OK);
    cr_assert_eq(fl_client_poll(w.p.client, 1, &event), FL_OK);
    if (event.kind == FL_CLIENT_ABORTED) w.reason = event.reason;
  }
  cr_expect_eq(w.reason, (uint32_t)FL_REJECT_NO_ANSWER);
  cr_expect_eq(sent, 1 + (int)w.p.options.max_retries);
  fli_bytes_free(&frame);
  pair_end(&w.p);
}

Test(client_identity, a_challenge_to_a_client_without_a_key_is_no_servers)
{
  world w;
  fli_bytes frame;
  const fli_challenge challenge = {{0}};
  memset(&w, 0, sizeof w);
  cr_assert_eq(pair_begin(&w.p, NULL, FL_CODEC_F32, 2), FL_OK);
  cr_assert_eq(pair_connect(&w.p), FL_OK);
  while (w.p.last_kind != FL_CLIENT_JOINED)
    step(&w);
  fli_bytes_init(&frame, NULL);
  cr_assert_eq(fli_write_challenge(&frame, &challenge), FL_OK);
  cr_expect_eq(fl_client_recv(w.p.client, frame.data, frame.size), FL_E_FORMAT);
  fli_bytes_free(&frame);
  pair_end(&w.p);
}

Test(client_identity, a_restored_client_goes_on_with_its_key)
{
  world w;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  const fl_server_options options = listed();
  begin(&w, &options);
  cr_assert_eq(fl_server_allow(w.p.server, w.public_key, NULL), FL_OK);
  while (w.p.last_kind != FL_CLIENT_ACCEPTED)
    step(&w);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_client_save(w.p.client, &writer), FL_OK);
  fl_client_free(w.p.client);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_client_restore(&w.p.client, NULL, &w.p.options, &reader),
               FL_OK);
  fl_buffer_free(buffer);
  cr_assert_eq(fl_client_set_key(w.p.client, w.secret, NULL), FL_OK);
  w.p.peer++; /* the old connection is not known to be gone */
  run(&w);
  cr_expect_eq(w.p.is_done, 1);
  cr_expect_eq(count_events(&w, FL_SERVER_PEER_REJECTED), 0u);
  pair_end(&w.p);
}

Test(client_identity, arguments_are_checked)
{
  world w;
  begin(&w, NULL);
  cr_expect_eq(fl_client_set_key(NULL, w.secret, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_client_set_key(w.p.client, NULL, NULL), FL_E_ARGUMENT);
  w.secret[63] ^= 1; /* not the public half of this seed */
  cr_expect_eq(fl_client_set_key(w.p.client, w.secret, NULL), FL_E_ARGUMENT);
  cr_expect_eq(fl_client_leave(NULL), FL_E_ARGUMENT);
  run(&w);
  cr_expect_eq(w.p.is_done, 1, "the key before holds");
  pair_end(&w.p);
}

/* ---- leaving ---- */

/* Leave once an event of this kind has come; 0 = before anything was said. */
static void check_leaving(uint32_t kind)
{
  world w;
  begin(&w, NULL);
  while (w.p.last_kind != kind)
    step(&w);
  cr_assert_eq(fl_client_leave(w.p.client), FL_OK);
  for (int i = 0; w.reason == 0; i++) {
    cr_assert_lt(i, 100);
    step(&w);
  }
  cr_expect_eq(w.reason, (uint32_t)FL_REJECT_FORGOTTEN);
  run(&w);
  cr_expect_eq(count_events(&w, FL_SERVER_CLIENT_LEFT), 1u, "%u", kind);
  cr_expect_eq(fl_server_forget(w.p.server, 0, "one"), FL_E_NOT_FOUND);
  cr_expect_eq(fl_client_leave(w.p.client), FL_E_STATE);
  pair_end(&w.p);
}

Test(client_identity, it_leaves_whatever_it_is_doing)
{
  check_leaving(FL_CLIENT_IDLE);
  check_leaving(FL_CLIENT_JOINED);
  check_leaving(FL_CLIENT_MODEL_READY);
  check_leaving(FL_CLIENT_ACCEPTED);
  check_leaving(FL_CLIENT_DONE);
}

Test(client_identity, a_lost_goodbye_is_said_again)
{
  world w;
  const uint8_t *data = NULL;
  size_t n = 0;
  begin(&w, NULL);
  while (w.p.last_kind != FL_CLIENT_JOINED)
    step(&w);
  cr_assert_eq(fl_client_leave(w.p.client), FL_OK);
  cr_assert_eq(fl_client_send(w.p.client, &data, &n), FL_OK);
  cr_assert_gt(n, 0u);
  cr_assert_eq(pair_poll(&w.p), FL_OK);
  w.p.now_ns += 2 * w.p.options.retry_ns;
  cr_assert_eq(pair_poll(&w.p), FL_OK);
  w.p.now_ns += 2 * w.p.options.retry_ns;
  cr_assert_eq(pair_poll(&w.p), FL_OK);
  for (int i = 0; w.reason == 0; i++) {
    cr_assert_lt(i, 100);
    step(&w);
  }
  cr_expect_eq(w.reason, (uint32_t)FL_REJECT_FORGOTTEN);
  pair_end(&w.p);
}

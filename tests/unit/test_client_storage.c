/* SPDX-License-Identifier: Apache-2.0 */
/* A paged client whose storage or memory keeps failing, or gives what was not
 * written: what the client says, how long it waits, and what it gives up. */
#include <criterion/criterion.h>

#include "base/bytes.h"
#include "client/paged.h"
#include "paged_world.h"
#include "wire/messages.h"

#define SECOND UINT64_C(1000000000)

typedef struct counts {
  uint64_t failed; /* fl_client_recv and fl_client_send */
  uint64_t waits;
  uint64_t trainings;
} counts;

/* `retry_ns`: short, where the job is to wait for the client. */
static void open_with(pw_world *w, pw_store *store, uint32_t codec,
                      uint64_t retry_ns)
{
  const pw_how how = {.codec = codec, .rounds = 2, .is_paged = 1};
  memset(store, 0, sizeof *store);
  pw_open(w, &how, store);
  w->options[0].retry_ns = retry_ns;
  pw_must(pw_start(w));
}

static void open_one(pw_world *w, pw_store *store, uint32_t codec)
{
  open_with(w, store, codec, 10 * SECOND);
}

static void poll_first(pw_world *w, counts *c)
{
  fl_client_event event;
  pw_must(fl_client_event_init(&event, sizeof event));
  pw_must(fl_client_poll(w->clients[0], w->now_ns, &event));
  switch (event.kind) {
  case FL_CLIENT_NEED_TRAIN:
    c->trainings++;
    pw_submit(w, 0, &event.task);
    break;
  case FL_CLIENT_WAIT: c->waits++; break;
  case FL_CLIENT_ACCEPTED: w->accepted[0] = event.round; break;
  case FL_CLIENT_DONE: w->is_done[0] = 1; break;
  case FL_CLIENT_ABORTED:
    w->is_done[0] = 1;
    w->aborted = event.reason;
    (void)snprintf(w->text, sizeof w->text, "%s", event.text);
    break;
  default: break;
  }
}

/* As a host does: whatever fails, it connects again. */
static void exchange_first(pw_world *w, counts *c)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  if (fl_client_send(w->clients[0], &data, &n) != FL_OK) {
    c->failed++;
    return;
  }
  pw_must(fl_server_recv(w->server, w->peers[0], data, n));
  pw_must(fl_server_send(w->server, w->peers[0], &data, &n));
  w->bytes_down += n;
  if (fl_client_recv(w->clients[0], data, n) == FL_OK) return;
  c->failed++;
  pw_lose(w, 0);
}

static void turn(pw_world *w, counts *c, uint64_t ns)
{
  poll_first(w, c);
  exchange_first(w, c);
  pw_poll(w, 1);
  pw_exchange(w, 1);
  pw_must(fl_server_tick(w->server, w->now_ns += ns));
}

static void run_to_the_end(pw_world *w, counts *c)
{
  for (int i = 0; i < 20000 && !w->is_done[0]; i++)
    turn(w, c, SECOND / 20);
  cr_assert(w->is_done[0]);
}

static void until_trained(pw_world *w, counts *c)
{
  for (int i = 0; i < 5000 && !w->clients[0]->trained.is_valid; i++)
    turn(w, c, SECOND / 1000);
  cr_assert(w->clients[0]->trained.is_valid);
}

static uint8_t *update_blob(pw_store *store)
{
  for (size_t i = 0; i < PW_BLOBS; i++)
    if (store->blobs[i].data && strstr(store->blobs[i].name, "-u-"))
      return store->blobs[i].data;
  cr_assert_fail("no blob of the update");
  return NULL;
}

/* ---- the storage ---- */

Test(client_storage, a_full_one_is_waited_for_and_then_given_up)
{
  pw_world w;
  pw_store store;
  counts c = {0};
  open_one(&w, &store, FL_CODEC_F32);
  store.is_full = 1;
  run_to_the_end(&w, &c);
  cr_expect_eq(w.aborted, (uint32_t)FL_REJECT_LIMIT);
  cr_expect_not_null(strstr(w.text, "write of blob model-b-"), "%s", w.text);
  cr_expect_eq(c.failed, 11u); /* max_retries, and the last one */
  cr_expect_eq(c.waits, 9u);   /* once is tried again at once */
  /* 10, 20, 40 and six times 80 s. */
  cr_expect_geq(w.now_ns, 550 * SECOND);
  cr_expect_leq(w.now_ns, 570 * SECOND);
  cr_expect_leq(w.bytes_down, 12 * 4 * w.n);
  pw_close_all(&w);
}

Test(client_storage, one_that_recovers_is_forgiven)
{
  pw_world w;
  pw_store store;
  counts c = {0};
  open_with(&w, &store, FL_CODEC_F32, SECOND / 1000);
  store.is_full = 1;
  while (c.failed < 8)
    turn(&w, &c, SECOND / 50);
  store.is_full = 0;
  run_to_the_end(&w, &c);
  cr_expect_eq(w.aborted, 0u, "%s", w.text);
  cr_expect_eq(w.accepted[0], 2u);
  cr_expect_eq(w.paged->failures, 0u);
  pw_close_all(&w);
}

Test(client_storage, an_update_that_cannot_be_read_is_trained_again)
{
  pw_world w;
  pw_store store;
  counts c = {0};
  open_with(&w, &store, FL_CODEC_F32, SECOND / 1000);
  until_trained(&w, &c);
  store.lost = "-u-";
  store.lost_for = 2;
  run_to_the_end(&w, &c);
  cr_expect_eq(w.aborted, 0u, "%s", w.text);
  cr_expect_eq(w.accepted[0], 2u);
  cr_expect_eq(c.failed, 2u);
  cr_expect_eq(c.trainings, 3u);
  pw_close_all(&w);
}

Test(client_storage, an_update_that_fails_once_is_not_trained_again)
{
  pw_world w;
  pw_store store;
  counts c = {0};
  open_one(&w, &store, FL_CODEC_F32);
  until_trained(&w, &c);
  store.lost = "-u-";
  store.lost_for = 1;
  run_to_the_end(&w, &c);
  cr_expect_eq(w.accepted[0], 2u);
  cr_expect_eq(c.failed, 1u);
  cr_expect_eq(c.waits, 0u);
  cr_expect_eq(c.trainings, 2u);
  pw_close_all(&w);
}

Test(client_storage, an_update_that_is_not_finite_is_trained_again)
{
  static const uint32_t codecs[] = {FL_CODEC_F32, FL_CODEC_THC};
  for (size_t i = 0; i < 2; i++) {
    pw_world w;
    pw_store store;
    counts c = {0};
    open_one(&w, &store, codecs[i]);
    until_trained(&w, &c);
    memset(update_blob(&store) + 4096, 0xff, 4);
    run_to_the_end(&w, &c);
    cr_expect_eq(w.aborted, 0u, "%s", w.text);
    cr_expect_eq(w.accepted[0], 2u);
    cr_expect_eq(c.trainings, 3u);
    cr_expect_eq(c.waits, 0u);
    pw_close_all(&w);
  }
}

Test(client_storage, an_update_that_changed_behind_its_hash_is_encoded_anew)
{
  pw_world w;
  pw_store store;
  counts c = {0};
  open_one(&w, &store, FL_CODEC_F32);
  until_trained(&w, &c);
  for (int i = 0; i < 5000 && !w.clients[0]->encoded.is_valid; i++)
    turn(&w, &c, SECOND / 1000);
  cr_assert(w.clients[0]->encoded.is_valid);
  update_blob(&store)[4096] ^= 1;
  const uint64_t before = w.clients[0]->outgoing.transfer;
  for (int i = 0; i < 2000 && w.accepted[0] == 0; i++)
    turn(&w, &c, SECOND / 50);
  cr_expect_eq(w.accepted[0], 1u);
  cr_expect_leq(w.clients[0]->outgoing.transfer, before + 2);
  pw_close_all(&w);
}

/* ---- sending ---- */

Test(client_storage, a_send_that_fails_is_timed_and_may_be_called_again)
{
  pw_world w;
  pw_store store;
  counts c = {0};
  uint64_t at = 0;
  open_one(&w, &store, FL_CODEC_F32);
  until_trained(&w, &c);
  for (int i = 0; i < 5000 && w.clients[0]->outgoing.offset < 600000; i++)
    turn(&w, &c, SECOND / 1000);
  cr_assert(w.clients[0]->outgoing.is_active);
  store.lost = "-u-";
  store.lost_for = 1;
  w.paged->has_window = 0;
  while (c.failed == 0)
    exchange_first(&w, &c);
  poll_first(&w, &c);
  pw_must(fl_client_next_timeout(w.clients[0], &at));
  cr_expect_eq(at, w.now_ns + 10 * SECOND);
  /* The host that calls it again goes on. */
  run_to_the_end(&w, &c);
  cr_expect_eq(c.failed, 1u);
  cr_expect_eq(c.trainings, 2u);
  cr_expect_eq(w.accepted[0], 2u);
  pw_close_all(&w);
}

Test(client_storage, a_hello_without_memory_is_timed)
{
  pw_world w;
  pw_store store;
  counts c = {0};
  uint64_t at = 0;
  const uint8_t *data = NULL;
  size_t n = 0;
  open_one(&w, &store, FL_CODEC_F32);
  store.fail_allocation = store.allocations + 1;
  cr_assert_eq(fl_client_send(w.clients[0], &data, &n), FL_E_NOMEM);
  poll_first(&w, &c);
  pw_must(fl_client_next_timeout(w.clients[0], &at));
  cr_expect_eq(at, w.now_ns + 10 * SECOND);
  pw_must(fl_client_send(w.clients[0], &data, &n));
  cr_expect_gt(n, 0u);
  pw_close_all(&w);
}

/* ---- memory ---- */

/* What a server may not say before WELCOME. */
static void feed_model(pw_world *w)
{
  static uint8_t junk[8192];
  fli_bytes out;
  fli_bytes_init(&out, NULL);
  const fli_manifest manifest = {.kind = FLI_TRANSFER_MODEL,
                                 .transfer = 1,
                                 .total = w->n * 4,
                                 .chunk_size = sizeof junk,
                                 .model_version = 1};
  const fli_chunk chunk = {.transfer = 1, .data = junk, .size = sizeof junk};
  pw_must(fli_write_manifest(&out, &manifest));
  pw_must(fli_write_chunk(&out, &chunk));
  pw_must(fl_client_recv(w->clients[0], out.data, out.size));
  fli_bytes_free(&out);
}

/* The first exchange, with an allocation that fails; 1 when none was left. */
static int join_without(uint64_t at)
{
  pw_world w;
  pw_store store;
  const uint8_t *data = NULL;
  size_t n = 0;
  int is_done = 0;
  open_one(&w, &store, FL_CODEC_F32);
  fl_client *client = w.clients[0];
  store.allocations = 0;
  store.fail_allocation = at;
  if (fl_client_send(client, &data, &n) == FL_OK) {
    pw_must(fl_server_recv(w.server, w.peers[0], data, n));
    pw_must(fl_server_send(w.server, w.peers[0], &data, &n));
    const fl_status st = fl_client_recv(client, data, n);
    is_done = st == FL_OK;
    if (st != FL_OK) {
      cr_expect_eq(st, FL_E_NOMEM);
      pw_lose(&w, 0);
      cr_expect_eq(client->compressor != NULL, w.paged->page != NULL);
      feed_model(&w);
    }
  }
  pw_close_all(&w);
  return is_done;
}

Test(client_storage, frames_before_welcome_find_no_half_open_model)
{
  uint64_t at = 1;
  while (!join_without(at))
    at++;
  cr_expect_gt(at, 10u);
}

/* STATUS of the transfer before, near its end. */
static void ask_for_the_end(fl_client *client, uint64_t transfer,
                            uint64_t total)
{
  uint8_t range[FLI_RANGE_BYTES];
  fli_bytes out;
  const fli_missing missing = {transfer, range, sizeof range};
  const fli_ack ack = {.round = client->plan.round,
                       .attempt = client->plan.attempt,
                       .reason = FL_REJECT_STATE};
  fli_store_u64(range, total - 100);
  fli_store_u64(range + 8, total);
  fli_bytes_init(&out, NULL);
  pw_must(fli_write_ack(&out, &ack));
  pw_must(fli_write_missing(&out, &missing));
  pw_must(fl_client_recv(client, out.data, out.size));
  fli_bytes_free(&out);
}

Test(client_storage, an_upload_that_cannot_begin_leaves_none_to_be_resent)
{
  pw_world w;
  pw_store store = {.calls = 0};
  /* Half of it is frozen in round 2. */
  const pw_how how = {.codec = FL_CODEC_F32, .rounds = 5, .has_modules = 1};
  const uint8_t *data = NULL;
  size_t n = 0;
  uint64_t transfer = 0, total = 0;
  pw_open(&w, &how, &store);
  pw_must(pw_start(&w));
  fl_client *client = w.clients[0];
  for (int i = 0; i < 20000; i++) {
    pw_poll(&w, 1);
    pw_exchange(&w, 1);
    pw_poll(&w, 0);
    if (client->plan.first_active > 0 && (client->due & FLI_DUE_UPDATE)) break;
    if (client->outgoing.total > 0) {
      transfer = client->outgoing.transfer;
      total = client->outgoing.total;
    }
    pw_exchange(&w, 0);
    pw_must(fl_server_tick(w.server, w.now_ns += 1000000));
  }
  cr_assert(client->due & FLI_DUE_UPDATE);
  cr_assert_gt(total, fli_encoder_size(client->encoded.encoder) + 100);
  fli_bytes_free(&client->sent); /* MANIFEST has to grow it */
  store.fail_allocation = store.allocations + 1;
  cr_assert_eq(fl_client_send(client, &data, &n), FL_E_NOMEM);
  ask_for_the_end(client, transfer, total);
  cr_expect_not(client->outgoing.is_active);
  pw_run(&w);
  cr_expect_eq(w.accepted[0], 5u);
  pw_close_all(&w);
}

/* ---- what it says, what it saves ---- */

Test(client_storage, controls_are_offered_by_models_in_memory_alone)
{
  for (int is_paged = 0; is_paged < 2; is_paged++) {
    pw_world w;
    pw_store store = {.calls = 0};
    const pw_how how = {
        .codec = FL_CODEC_F32, .rounds = 2, .is_paged = is_paged};
    const uint8_t *data = NULL;
    size_t n = 0;
    fli_hello hello;
    pw_open(&w, &how, &store);
    pw_must(pw_start(&w));
    pw_must(fl_client_send(w.clients[0], &data, &n));
    cr_assert_gt(n, (size_t)FLI_FRAME_HEADER);
    pw_must(
        fli_parse_hello(&hello, data + FLI_FRAME_HEADER, n - FLI_FRAME_HEADER));
    cr_expect_eq((hello.capabilities & FLI_CAP_CONTROLS) != 0, !is_paged);
    cr_expect_neq(hello.capabilities & FLI_CAP_STATUS, 0u);
    pw_close_all(&w);
  }
}

static fl_status save(const fl_client *client)
{
  fl_writer writer;
  fl_buffer *state = NULL;
  pw_must(fl_buffer_new(&state, NULL));
  pw_must(fl_buffer_as_writer(state, &writer));
  const fl_status st = fl_client_save(client, &writer);
  fl_buffer_free(state);
  return st;
}

Test(client_storage, a_model_of_any_size_is_saved)
{
  for (int is_paged = 0; is_paged < 2; is_paged++) {
    pw_world w;
    pw_store store = {.calls = 0};
    const pw_how how = {
        .codec = FL_CODEC_F32, .rounds = 2, .is_paged = is_paged};
    pw_open(&w, &how, &store);
    pw_must(pw_start(&w));
    for (int i = 0; i < 5000 && !w.clients[0]->canonical.is_valid; i++)
      pw_turn(&w);
    const uint64_t n = w.clients[0]->n_weights;
    w.clients[0]->n_weights =
        (UINT64_C(1) << 30) + 1; /* all that is looked at */
    cr_expect_eq(save(w.clients[0]), is_paged ? FL_OK : FL_E_TOO_LARGE);
    w.clients[0]->n_weights = n;
    pw_close_all(&w);
  }
}

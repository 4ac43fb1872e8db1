/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers of real clients and servers that are cut: what has arrived is not
 * sent again, in either direction, whoever of the two was away; a killed client
 * goes on with its upload, and an update is counted once however often it was
 * begun. */
#define MU_PEOPLE 2
#include "net/mu_world.h"

enum { CHUNK_FRAME = FLI_FRAME_HEADER + FLI_CHUNK_HEADER + 4096 };

static const mu_job job = {
    .name = "resume", .codec = FL_CODEC_F32, .n = 20000, .rounds = 1};

/* Bytes of chunks among frames. */
static size_t chunk_bytes(const mu_session *s)
{
  size_t n = 0;
  for (size_t i = 0; i < s->n; i++)
    if (mu_type(&s->frames[i]) == FLI_MSG_CHUNK)
      n += s->frames[i].n - FLI_FRAME_HEADER - FLI_CHUNK_HEADER;
  return n;
}

static size_t frames_of(const mu_session *s, int type)
{
  size_t n = 0;
  for (size_t i = 0; i < s->n; i++)
    n += mu_type(&s->frames[i]) == type;
  return n;
}

typedef struct pair {
  mu_world world;
  mu_session said[MU_PEOPLE];
  mu_session heard[MU_PEOPLE];
} pair;

static pair *begin(void)
{
  pair *p = calloc(1, sizeof *p);
  mu_begin(&p->world, &job);
  p->world.server->options.staging_cap = 1 << 20;
  p->world.tapes = p->said;
  p->world.heard = p->heard;
  return p;
}

static void end(pair *p)
{
  for (uint32_t i = 0; i < MU_PEOPLE; i++) {
    mu_clear(&p->said[i]);
    mu_clear(&p->heard[i]);
  }
  mu_end(&p->world);
  free(p);
}

/* A new connection; what was said before is forgotten. */
static void reconnect(pair *p, uint32_t i)
{
  mu_person *who = &p->world.people[i];
  mu_leave(who);
  mu_clear(&p->said[i]);
  mu_clear(&p->heard[i]);
  who->peer = p->world.next_peer++;
  who->is_on = 1;
}

/* One send of the server reaches the client. */
static size_t down_once(mu_person *who)
{
  const uint8_t *data = NULL;
  size_t n = 0;
  MU_MUST(fl_server_send(who->world->server, who->peer, &data, &n));
  if (n == 0) return 0;
  mu_record(&who->world->heard[who->index], data, n);
  MU_MUST(fl_client_recv(who->client, data, n));
  return n;
}

/* Both ends say one thing each in turn, as over a wire that is as fast as they
 * are. */
static void finish(pair *p)
{
  fl_job_status status;
  MU_MUST(fl_job_status_init(&status, sizeof status));
  for (int i = 0, idle = 0; idle < 300 && i < 10000; i++, idle++) {
    for (uint32_t k = 0; k < MU_PEOPLE; k++) {
      if (mu_up(&p->world.people[k], 1)) idle = 0;
      if (down_once(&p->world.people[k]) > 0) idle = 0;
    }
    mu_pass(&p->world, 10 * MU_MS); /* a WAIT is a second */
  }
  MU_MUST(fl_server_get_status(p->world.server, 0, &status));
  CHECK_EQ_U64(status.is_finished, 1);
  CHECK_EQ_U64(p->world.twice, 0);
  CHECK_EQ_U64(p->world.server->staged, 0);
}

static void a_download_goes_on_where_it_was_cut(void)
{
  pair *p = begin();
  mu_person *who = &p->world.people[0];
  const size_t total = (size_t)p->world.n_weights * sizeof(float);
  mu_connect(&p->world);
  while (chunk_bytes(&p->heard[0]) < total / 2)
    CHECK(down_once(who) > 0);
  const size_t before = chunk_bytes(&p->heard[0]);
  reconnect(p, 0);
  finish(p);
  /* The model of round 1; one chunk is under way when STATUS comes. */
  const size_t after = chunk_bytes(&p->heard[0]) - total;
  CHECK(frames_of(&p->said[0], FLI_MSG_STATUS) == 1);
  CHECK(before + after >= total);
  CHECK(before + after <= total + 2 * 4096);
  printf("download: %zu of %zu bytes, then %zu\n", before, total, after);
  end(p);
}

/* Up to the middle of the first client's upload. */
static size_t half_an_upload(pair *p)
{
  mu_person *who = &p->world.people[0];
  const size_t total = (size_t)p->world.n_weights * sizeof(float);
  mu_connect(&p->world);
  mu_run(&p->world, MU_PEOPLE, mu_is_updating);
  while (down_once(who) > 0)
    ;
  while (chunk_bytes(&p->said[0]) < total / 2)
    CHECK(mu_up(who, 1));
  return chunk_bytes(&p->said[0]);
}

static void check_upload(pair *p, size_t before)
{
  const size_t total = (size_t)p->world.n_weights * sizeof(float);
  finish(p);
  const size_t after = chunk_bytes(&p->said[0]);
  CHECK(before + after > total);
  CHECK(before + after <= total + 3 * 4096);
  CHECK(frames_of(&p->heard[0], FLI_MSG_STATUS) == 1);
  printf("upload: %zu bytes, then %zu\n", before, after);
}

static void an_upload_goes_on_where_it_was_cut(void)
{
  pair *p = begin();
  const size_t before = half_an_upload(p);
  reconnect(p, 0);
  check_upload(p, before);
  end(p);
}

static fl_status write_bytes(void *user, const void *data, size_t n)
{
  return fli_bytes_append(user, data, n);
}

static fl_status read_bytes(void *user, void *buf, size_t n, size_t *got)
{
  fli_bytes *from = user;
  *got = n < from->size ? n : from->size;
  if (*got > 0) memcpy(buf, from->data, *got);
  fli_bytes_consume(from, *got);
  return FL_OK;
}

static void a_killed_client_goes_on_with_its_upload(void)
{
  fli_bytes state;
  fl_client_options options;
  pair *p = begin();
  mu_person *who = &p->world.people[0];
  const size_t before = half_an_upload(p);
  fli_bytes_init(&state, NULL);
  const fl_writer writer = {.write = write_bytes, .user = &state};
  const fl_reader reader = {.read = read_bytes, .user = &state};
  MU_MUST(fl_client_save(who->client, &writer));
  reconnect(p, 0);
  fl_client_free(who->client);
  mu_person_options(who, &options);
  MU_MUST(fl_client_restore(&who->client, NULL, &options, &reader));
  check_upload(p, before);
  fli_bytes_free(&state);
  end(p);
}

/* What is parked counts as staged, and gives way to who moves. */
static void a_parked_upload_gives_its_room_to_one_that_moves(void)
{
  pair *p = begin();
  const size_t total = (size_t)p->world.n_weights * sizeof(float);
  (void)half_an_upload(p);
  mu_leave(&p->world.people[0]);
  CHECK(p->world.server->parked != NULL);
  CHECK(p->world.server->staged > total);
  p->world.server->options.staging_cap = total + 4096;
  mu_person *other = &p->world.people[1];
  while (mu_down(other) | mu_up(other, 0))
    ;
  CHECK(p->world.server->parked == NULL);
  CHECK_EQ_U64(p->world.server->jobs[0]->n_counted, 1);
  reconnect(p, 0);
  finish(p);
  CHECK(chunk_bytes(&p->said[0]) > total);
  end(p);
}

/* Another update than the one that was begun: nothing of it is used. */
static void what_is_parked_is_of_one_payload(void)
{
  pair *p = begin();
  (void)half_an_upload(p);
  mu_leave(&p->world.people[0]);
  fli_parked_drop_all(p->world.server);
  CHECK_EQ_U64(p->world.server->staged, 0);
  reconnect(p, 0);
  finish(p);
  CHECK(frames_of(&p->heard[0], FLI_MSG_STATUS) == 0);
  end(p);
}

/* Every n-th message of chunks is lost, and the connection stays. */
static void lost_chunks_alone_are_sent_again(void)
{
  pair *p = begin();
  mu_world *world = &p->world;
  const size_t total = (size_t)world->n_weights * sizeof(float);
  size_t n_down = 0, n_up = 0;
  mu_connect(world);
  world->wanted = 1;
  for (int i = 0; i < 4000 && !mu_is_finished(world); i++) {
    for (uint32_t k = 0; k < MU_PEOPLE; k++) {
      mu_person *who = &world->people[k];
      const uint8_t *data = NULL;
      size_t n = 0;
      mu_poll(who);
      MU_MUST(fl_client_send(who->client, &data, &n));
      n_up += n;
      if (n > 0 && (n != CHUNK_FRAME || i % 5))
        MU_MUST(fl_server_recv(world->server, who->peer, data, n));
      MU_MUST(fl_server_send(world->server, who->peer, &data, &n));
      n_down += n;
      if (n > 0 && (n != CHUNK_FRAME || i % 5))
        MU_MUST(fl_client_recv(who->client, data, n));
    }
    mu_pass(world, 1);
  }
  CHECK(mu_is_finished(world));
  printf("a fifth of the chunks lost: %zu bytes up and %zu down for %zu each\n",
         n_up, n_down, MU_PEOPLE * total);
  CHECK(n_up < 2 * MU_PEOPLE * total);
  end(p);
}

int main(void)
{
  CHECK_CASE(a_download_goes_on_where_it_was_cut);
  CHECK_CASE(an_upload_goes_on_where_it_was_cut);
  CHECK_CASE(a_killed_client_goes_on_with_its_upload);
  CHECK_CASE(a_parked_upload_gives_its_room_to_one_that_moves);
  CHECK_CASE(what_is_parked_is_of_one_payload);
  CHECK_CASE(lost_chunks_alone_are_sent_again);
  return check_report();
}

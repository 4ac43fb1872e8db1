/* SPDX-License-Identifier: Apache-2.0 */
/* A server's world whose rounds are buffered, with five clients. */
#ifndef SERVER_BUFFERING_H
#define SERVER_BUFFERING_H

#include <criterion/criterion.h>

#include "server_fixture.h"

enum { CLIENTS = 5, BUFFER = 2 };

static const char *const ids[CLIENTS] = {"abe", "bea", "cay", "dot", "eve"};

/* For a test to change, then people. */
static inline void prepare(sv_world *world, uint32_t rounds, uint32_t buffer)
{
  sv_init(world, NULL, FL_CODEC_THC);
  world->codec.thc_mode = FL_THC_UNIFORM;
  world->codec.bits = 8;
  world->codec.granularity = 255;
  world->job_options.rounds = rounds;
  world->job_options.min_clients = CLIENTS;
  world->job_options.scale_mode = FL_SCALE_PUBLIC;
  world->job_options.buffer = buffer;
  world->job_options.steps_kept = 32;
}

static inline void people(sv_world *world)
{
  sv_start(world);
  for (size_t i = 0; i < CLIENTS; i++)
    sv_add(world, ids[i], 10 * (i + 1));
  sv_join(world);
  sv_tick(world, SV_SECOND_NS);
}

/* Everybody takes what there is for it. */
static inline void pull_all(sv_world *world)
{
  for (size_t i = 0; i < CLIENTS; i++)
    sv_pull(&world->clients[i]);
  sv_drain(world);
}

/* The exchanged round: who was asked reports, the first `n` of those send what
 * they trained. */
static inline void first_round(sv_world *world, size_t n)
{
  pull_all(world);
  for (size_t i = 0; i < CLIENTS; i++)
    if (world->clients[i].has_plan) sv_norm(&world->clients[i]);
  pull_all(world);
  for (size_t i = 0; i < CLIENTS; i++) {
    sv_client *client = &world->clients[i];
    const int is_first = client->has_scale && n > 0;
    client->has_plan = client->has_scale = 0;
    if (!is_first) continue;
    sv_update(client);
    n--;
  }
  cr_assert_eq(n, 0u);
}

/* A client sends what it is at work on; takes its answer and what follows. */
static inline void send_update(sv_client *client)
{
  cr_assert(client->has_scale, "%s has nothing to do", client->id);
  client->has_plan = client->has_scale = 0;
  sv_update(client);
  sv_pull(client);
}

#endif

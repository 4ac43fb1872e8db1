/* SPDX-License-Identifier: Apache-2.0 */
/* Clients with keys, and what a server answers to who comes. */
#ifndef SERVER_TRUST_H
#define SERVER_TRUST_H

#include <criterion/criterion.h>

#include "server_fixture.h"

enum { KEY_A = 7, KEY_B = 9, KEY_C = 11, NO_ANSWER = 1000 };

static inline sv_client *add_keyed(sv_world *world, const char *id, uint8_t key)
{
  sv_client *client = sv_add(world, id, 1);
  sv_give_key(client, key);
  return client;
}

/* A server, and abe, who has KEY_A. */
static inline sv_client *begin_one(sv_world *world)
{
  sv_init(world, NULL, FL_CODEC_F32);
  sv_start(world);
  return add_keyed(world, "abe", KEY_A);
}

/* What comes next: FL_REJECT_NONE is WELCOME, others are reasons. */
static inline uint32_t answer(sv_client *client)
{
  const uint32_t welcomes = client->got[FLI_MSG_WELCOME];
  const uint32_t rejects = client->got[FLI_MSG_REJECT];
  sv_pull(client);
  if (client->got[FLI_MSG_REJECT] > rejects) return client->reject.reason;
  if (client->got[FLI_MSG_WELCOME] > welcomes) return FL_REJECT_NONE;
  return NO_ANSWER;
}

static inline uint32_t answer_to(sv_client *client, const fli_hello *hello)
{
  sv_send_hello(client, hello);
  return answer(client);
}

/* The whole of it, with the challenge where there is one. */
static inline uint32_t answer_to_hello(sv_client *client)
{
  const uint32_t rejects = client->got[FLI_MSG_REJECT];
  sv_hello(client);
  if (client->got[FLI_MSG_REJECT] > rejects) return client->reject.reason;
  return answer(client);
}

/* On another connection. */
static inline uint32_t answer_on_return(sv_client *client)
{
  client->peer += 100;
  return answer_to_hello(client);
}

#define EXPECT_ANSWER(got, want) cr_expect_eq(got, (uint32_t)(want))

static inline uint32_t reason_of_last(sv_world *world)
{
  const sv_event *event = NULL;
  return sv_events(world, FL_SERVER_PEER_REJECTED, &event) ? event->body.reason
                                                           : FL_REJECT_NONE;
}

#endif

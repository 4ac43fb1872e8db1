/* SPDX-License-Identifier: Apache-2.0 */
/* The bad network of the simulation: messages on their way, ordered by time,
 * and the chance that something happens to one. What a host does with them is
 * in sim.h. */
#ifndef NETWORK_H
#define NETWORK_H

#include <fl/client.h>
#include <fl/server.h>
#include <math.h>
#include <stdlib.h>

#include "base/rng.h"
#include "check.h"

enum { SIM_MAX_NODES = 8, SIM_MAX_STEPS = 400000, SIM_FAULTS = 150 };

#define SIM_MS UINT64_C(1000000)
#define SIM_SECOND (1000 * SIM_MS)
#define SIM_NEVER UINT64_MAX
#define SIM_SILENCE (20 * SIM_SECOND)
#define SIM_STRANGER (UINT64_C(1) << 40) /* peer numbers of strangers */

typedef struct sim_config {
  uint64_t seed;
  uint32_t n_nodes;
  uint32_t rounds;
  uint32_t codec;
  uint32_t thc_mode;
  uint32_t scale_mode;
  uint32_t error_feedback;
  uint32_t evaluate_every;
  float momentum;
  float over_selection;
  uint32_t participants;
  int is_strict;        /* everybody in every round, no deadline */
  int is_disturbed;     /* the network is bad */
  int asks_host;        /* NEED_TRAIN and submit instead of callbacks */
  int knows_model;      /* clients are given the model */
  int freezes;          /* module 0, from round 2 on */
  int has_part;         /* node 0 can afford the last module only */
  int has_keys;         /* all but node 1 */
  uint64_t staging_cap; /* 0 = default */
  int has_store;        /* a killed server comes back from it */
} sim_config;

typedef struct sim_message {
  struct sim_message *next;
  uint64_t at_ns;
  uint64_t peer;   /* connection it belongs to */
  int is_upward;   /* to the server */
  int is_breaking; /* the connection breaks behind it */
  size_t n;
  uint8_t data[];
} sim_message;

typedef struct sim_node {
  struct sim *sim;
  uint32_t index;
  char id[16];
  fl_client *client; /* NULL = dead */
  fl_buffer *saved;  /* NULL = never saved */
  uint64_t return_ns;
  uint64_t peer;
  uint64_t heard_ns;
  int is_done;
  int is_gone; /* for good */
  float *scratch;
} sim_node;

/* What can happen to a message. */
enum { SIM_DROPPED, SIM_DUPLICATED, SIM_REORDERED, SIM_CUT, SIM_KINDS };

typedef struct sim {
  sim_config config;
  fli_rng rng;
  fl_model *model;
  uint64_t n_weights;
  fl_server *server;
  fl_store *store; /* or NULL */
  fl_buffer *snapshot;
  sim_node nodes[SIM_MAX_NODES];
  sim_message *messages;
  uint64_t now_ns;
  uint64_t next_peer;
  uint32_t faults_left;
  uint32_t faults[SIM_KINDS];
  int is_begun;      /* some round was started, and that was saved */
  int is_broken;     /* a check failed: stop */
  uint32_t accepted; /* bits of the nodes counted since ROUND_STARTED */
  uint32_t trainings;
  uint32_t evaluations;
  uint32_t client_deaths;
  uint32_t server_deaths;
} sim;

#define SIM_CHECK(s, cond)                                                   \
  do {                                                                       \
    if (!(cond)) {                                                           \
      CHECK(cond);                                                           \
      fprintf(stderr, "  seed %" PRIu64 ", t = %.3f s: %s\n",                \
              (s)->config.seed, (double)(s)->now_ns / 1e9, fl_last_error()); \
      (s)->is_broken = 1;                                                    \
    }                                                                        \
  } while (0)
#define SIM_OK(s, call) SIM_CHECK(s, (call) == FL_OK)

/* ---- chance ------------------------------------------------------------- */

/* 1 in `one_in` messages, while faults are left. */
static inline int sim_fault(sim *s, uint32_t one_in)
{
  if (!s->config.is_disturbed || s->faults_left == 0) return 0;
  if (fli_rng_below(&s->rng, one_in) != 0) return 0;
  s->faults_left--;
  return 1;
}

/* ---- the network -------------------------------------------------------- */

static inline sim_node *sim_node_of(sim *s, uint64_t peer)
{
  for (uint32_t i = 0; i < s->config.n_nodes; i++)
    if (s->nodes[i].peer == peer) return &s->nodes[i];
  return NULL;
}

static inline void sim_post(sim *s, uint64_t peer, int is_upward,
                            const uint8_t *data, size_t n, uint64_t at_ns,
                            int is_breaking)
{
  sim_message *message = malloc(sizeof *message + n);
  sim_message **link = &s->messages;
  message->at_ns = at_ns;
  message->peer = peer;
  message->is_upward = is_upward;
  message->is_breaking = is_breaking;
  message->n = n;
  if (n > 0) memcpy(message->data, data, n);
  while (*link && (*link)->at_ns <= at_ns)
    link = &(*link)->next;
  message->next = *link;
  *link = message;
}

/* Put what one send gave on its way. Without a fault nothing overtakes. */
static inline void sim_transmit(sim *s, uint64_t peer, int is_upward,
                                const uint8_t *data, size_t n)
{
  uint64_t at = s->now_ns + 10 * SIM_MS;
  if (sim_fault(s, 12)) {
    s->faults[SIM_DROPPED]++;
    return;
  }
  if (sim_fault(s, 12)) {
    s->faults[SIM_DUPLICATED]++;
    sim_post(s, peer, is_upward, data, n,
             at + fli_rng_below(&s->rng, 3000) * SIM_MS, 0);
  }
  if (sim_fault(s, 12)) {
    s->faults[SIM_REORDERED]++;
    at += fli_rng_below(&s->rng, 3000) * SIM_MS;
  }
  if (sim_fault(s, 20)) {
    s->faults[SIM_CUT]++;
    n = fli_rng_below(&s->rng, (uint32_t)n);
    sim_post(s, peer, is_upward, data, n, at, 1);
    return;
  }
  sim_post(s, peer, is_upward, data, n, at, 0);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* Jobs that a server is killed in, of every kind whose state differs, with
 * three clients each. */
#ifndef SERVER_SETTINGS_H
#define SERVER_SETTINGS_H

#include <fl/strategy.h>
#include "server_fixture.h"

typedef struct setting {
  const char *name;
  uint32_t codec;
  uint32_t scale_mode;
  uint32_t evaluate_every;
  float momentum;
  uint32_t participants;
  uint32_t thc_mode; /* 0 = default */
  uint32_t error_feedback;
  const char *strategy; /* NULL: none */
} setting;

static const setting settings[] = {
    {"f32", FL_CODEC_F32, FL_SCALE_EXCHANGED, 0, 0.0f, 0, 0, 0, NULL},
    {"f32 momentum", FL_CODEC_F32, FL_SCALE_EXCHANGED, 1, 0.5f, 0, 0, 0, NULL},
    {"bf16", FL_CODEC_BF16, FL_SCALE_EXCHANGED, 2, 0.0f, 3, 0, 0, NULL},
    {"thc", FL_CODEC_THC, FL_SCALE_EXCHANGED, 1, 0.0f, 0, 0, 0, NULL},
    {"thc momentum", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0, 0.5f, 0, 0, 0, NULL},
    {"thc public", FL_CODEC_THC, FL_SCALE_PUBLIC, 0, 0.0f, 0, 0, 0, NULL},
    {"thc table", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0, 0.0f, 0, FL_THC_TABLE, 0,
     NULL},
    {"thc feedback", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0, 0.0f, 0, 0, 1, NULL},
    {"f32 median", FL_CODEC_F32, FL_SCALE_EXCHANGED, 0, 0.0f, 0, 0, 0,
     "median"},
    {"bf16 trimmed", FL_CODEC_BF16, FL_SCALE_EXCHANGED, 0, 0.0f, 0, 0, 0,
     "trimmed-mean"},
    {"thc median", FL_CODEC_THC, FL_SCALE_EXCHANGED, 0, 0.0f, 0, 0, 0,
     "median"},
};

static inline uint32_t some_clamped(const sv_client *client, uint64_t block)
{
  return (uint32_t)client->id[0] * (uint32_t)(block + 1);
}

#define WORLD_OK(call) SV_REQUIRE((call) == FL_OK)

/* `store` may be NULL. */
static inline void begin(sv_world *world, fl_context *context,
                         const setting *how, const fl_store *store)
{
  static fl_strategy_options strategy;
  sv_init(world, context, how->codec);
  if (how->strategy) {
    WORLD_OK(
        fl_strategy_options_named(&strategy, sizeof strategy, how->strategy));
    world->job_options.strategy = &strategy;
  }
  if (how->thc_mode != 0) world->codec.thc_mode = how->thc_mode;
  world->job_options.rounds = 3;
  world->job_options.scale_mode = how->scale_mode;
  world->job_options.evaluate_every = how->evaluate_every;
  world->job_options.server_momentum = how->momentum;
  world->job_options.participants = how->participants;
  world->job_options.error_feedback = how->error_feedback;
  world->clamped = some_clamped;
  world->options.store = store;
  sv_start(world);
  sv_add(world, "abe", 10);
  sv_add(world, "bea", 25);
  sv_add(world, "cay", 300);
}

/* One client pulls, or answers; whether anything was said. */
static inline int step(sv_world *world, size_t n)
{
  sv_client *client = &world->clients[n / 2 % world->n_clients];
  const int did = n % 2 ? sv_answer(client) : sv_pull(client);
  sv_drain(world);
  return did;
}

#endif

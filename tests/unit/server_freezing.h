/* SPDX-License-Identifier: Apache-2.0 */
/* A server's world whose job freezes. */
#ifndef SERVER_FREEZING_H
#define SERVER_FREEZING_H

#include <criterion/criterion.h>

#include "server/server.h"
#include "server_fixture.h"

typedef struct freezing {
  sv_world world;
  fl_freeze_options options;
  fl_freeze_fixed fixed[1];
} freezing;

static inline const fli_job *job_of(const freezing *f)
{
  return f->world.server->jobs[0];
}

static inline void init(freezing *f, uint32_t codec, uint32_t criterion)
{
  sv_init(&f->world, NULL, codec);
  sv_add(&f->world, "abe", 10);
  sv_add(&f->world, "bea", 20);
  sv_add(&f->world, "cay", 30);
  cr_assert_eq(fl_freeze_options_init(&f->options, sizeof f->options), FL_OK);
  f->options.criterion = criterion;
  f->options.max_frozen = 1;
  f->world.job_options.freeze = &f->options;
  for (size_t i = 0; i < 3; i++)
    f->world.clients[i].loss = (double)NAN;
}

/* Module 0 is frozen from this round on. */
static inline void init_fixed(freezing *f, uint32_t codec, uint64_t round)
{
  init(f, codec, FL_FREEZE_FIXED);
  f->fixed[0] = (fl_freeze_fixed){.step = round, .first_active = 1};
  f->options.fixed = f->fixed;
  f->options.n_fixed = 1;
}

#endif

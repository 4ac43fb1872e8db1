/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures of strategies and of their client's side: a step that has
 * no memory leaves weights and state. */
#include "oom.h"

#include <fl/strategy.h>
#include "base/error.h"

enum { N = 1030, COUNT = 5 };

static float updates[COUNT][N];
static const float *rows[COUNT];
static const uint64_t steps[COUNT] = {1, 2, 3, 4, 5};
static const double losses[COUNT] = {1, 2, 3, 4, 5};

static fl_status copy(void *user, uint32_t index, uint64_t at, uint64_t n,
                      float *buffer, const float **values)
{
  (void)user;
  (void)values;
  memcpy(buffer, updates[index] + at, (size_t)n * sizeof *buffer);
  return FL_OK;
}

static fl_status use(fl_context *context, void *arg)
{
  const char *name = arg;
  fl_status st = FL_OK;
  fl_strategy *strategy = NULL;
  fl_strategy_options options;
  fl_strategy_round round;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  float weights[N] = {0};
  FLI_TRY(fl_strategy_options_named(&options, sizeof options, name));
  if (options.rule != FL_RULE_SCAFFOLD) options.clip = 3.0f;
  FLI_TRY(fl_strategy_round_init(&round, sizeof round));
  round.count = COUNT;
  round.steps = steps;
  round.losses = losses;
  round.read = copy;
  round.control_rows = rows;
  FLI_TRY(fl_strategy_new(&strategy, context, &options, N));
  st = fl_strategy_step(strategy, &round, weights, N);
  for (size_t i = 0; st != FL_OK && i < N; i++)
    CHECK_EQ_F64(weights[i], 0.0);
  FLI_TRY(st);
  FLI_TRY(fl_buffer_new(&buffer, context));
  FLI_TRY(fl_buffer_as_writer(buffer, &writer));
  FLI_TRY(fl_strategy_save(strategy, &writer));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  FLI_TRY(fl_strategy_load(strategy, &reader));
out:
  fl_buffer_free(buffer);
  fl_strategy_free(strategy);
  return st;
}

static fl_status use_local(fl_context *context, void *arg)
{
  fl_status st = FL_OK;
  fl_local *local = NULL;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  (void)arg;
  FLI_TRY(fl_local_new(&local, context, 0.1f, N));
  FLI_TRY(fl_local_begin(local, updates[0], updates[1], N));
  FLI_TRY(fl_local_end(local, updates[2], 3, 0.1f, NULL, N));
  FLI_TRY(fl_buffer_new(&buffer, context));
  FLI_TRY(fl_buffer_as_writer(buffer, &writer));
  FLI_TRY(fl_local_save(local, &writer));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  FLI_TRY(fl_local_load(local, &reader));
out:
  fl_buffer_free(buffer);
  fl_local_free(local);
  return st;
}

static void strategies_of_all_names(void)
{
  static char names[][20] = {"fedavgm",  "fedadam",         "fednova",
                             "scaffold", "median",          "q-fedavg",
                             "krum",     "geometric-median"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    oom_loop(use, names[i]);
}

static void clients_side(void)
{
  oom_loop(use_local, NULL);
}

int main(void)
{
  for (size_t k = 0; k < COUNT; k++) {
    rows[k] = updates[k];
    for (size_t i = 0; i < N; i++)
      updates[k][i] = (float)((i * 7 + k * 3) % 11) - 5.0f;
  }
  CHECK_CASE(strategies_of_all_names);
  CHECK_CASE(clients_side);
  return check_report();
}

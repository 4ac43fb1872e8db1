/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of strategy_state: states after three steps, whole, cut, and with a
 * byte that says something else. */
#include "seeds.h"

#include <stdio.h>

#include "strategy_job.h"

static void put_state(const char *folder, uint8_t kind)
{
  static const struct {
    const char *name;
    size_t at;
    uint8_t to;
  } lies[] = {{"bad-fields", 0, 0x8f},
              {"bad-rule", 2, 0x09},
              {"bad-count", 6, 0x7f},
              {"bad-clip", 10, 0xcf}};
  uint8_t all[512] = {kind};
  float weights[JOB_N] = {0};
  char name[64];
  fli_bytes payload;
  fl_strategy *strategy = job_strategy(kind);
  for (int i = 0; i < 3; i++)
    FUZZ_CHECK(job_step(strategy, weights) == FL_OK);
  fli_bytes_init(&payload, NULL);
  FUZZ_CHECK(fli_strategy_write(strategy, &payload) == FL_OK);
  FUZZ_CHECK(payload.size < sizeof all);
  memcpy(all + 1, payload.data, payload.size);
  (void)snprintf(name, sizeof name, "kind-%u", kind);
  seeds_put(folder, "strategy_state", name, all, payload.size + 1);
  (void)snprintf(name, sizeof name, "kind-%u-cut", kind);
  seeds_put(folder, "strategy_state", name, all, payload.size / 2);
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    const uint8_t kept = all[1 + lies[i].at];
    all[1 + lies[i].at] = lies[i].to;
    (void)snprintf(name, sizeof name, "kind-%u-%s", kind, lies[i].name);
    seeds_put(folder, "strategy_state", name, all, payload.size + 1);
    all[1 + lies[i].at] = kept;
  }
  fli_bytes_free(&payload);
  fl_strategy_free(strategy);
}

void seeds_put_strategies(const char *folder)
{
  for (uint8_t kind = 0; kind < JOB_KINDS; kind++)
    put_state(folder, kind);
}

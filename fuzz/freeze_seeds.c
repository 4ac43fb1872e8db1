/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of freeze_plan and freeze_state: plans and states of every kind, and
 * one of each with a byte that says something else. */
#include "seeds.h"

#include <stdio.h>

#include "freeze/freeze.h"
#include "freeze_job.h"

enum { PLAN_MAX = 256 };

typedef struct lie {
  const char *name;
  size_t at;
  uint8_t to;
} lie;

static size_t make_plan(uint8_t *plan, uint32_t first_active,
                        const uint8_t *frozen)
{
  size_t n = 0;
  fl_freeze_options o;
  fl_freeze *freeze = NULL;
  FUZZ_CHECK(fl_freeze_options_init(&o, sizeof o) == FL_OK);
  o.criterion = FL_FREEZE_SERVER;
  o.steps_per_epoch = 32;
  FUZZ_CHECK(fl_freeze_new(&freeze, NULL, JOB_MODULES, &o) == FL_OK);
  freeze->state.first_active = first_active;
  freeze->state.version = 3;
  memcpy(freeze->state.frozen, frozen, JOB_MODULES);
  FUZZ_CHECK(fl_freeze_copy_plan(freeze, plan, PLAN_MAX, &n) == FL_OK);
  fl_freeze_free(freeze);
  return n;
}

/* The byte before a plan: what is allowed. */
static void put_plan(const char *folder, const char *name, uint8_t choice,
                     const uint8_t *plan, size_t n)
{
  uint8_t all[1 + PLAN_MAX];
  all[0] = choice;
  memcpy(all + 1, plan, n);
  seeds_put(folder, "freeze_plan", name, all, n + 1);
}

static void put_plans(const char *folder)
{
  /* 87 01 FORMAT 02 c4 20 JOB 03 MODULES 04 FIRST 05 VERSION 06 STEP 07
   * REASON */
  static const lie lies[] = {
      {"format", 2, 9},    {"job", 20, 1},       {"modules", 39, 7},
      {"head", 41, 5},     {"all", 41, 6},       {"reason", 47, 9},
      {"fields", 0, 0x86}, {"version-0", 43, 0}, {"key", 40, 0x7f}};
  const uint8_t prefix[JOB_MODULES] = {1, 1, 1, 0, 0, 0};
  const uint8_t mask[JOB_MODULES] = {1, 0, 1, 1, 0, 0};
  const uint8_t head[JOB_MODULES] = {1, 0, 0, 0, 0, 1};
  uint8_t plan[PLAN_MAX];
  size_t n = make_plan(plan, 3, prefix);
  put_plan(folder, "prefix", 0, plan, n);
  put_plan(folder, "prefix-rounded", 3, plan, n);
  put_plan(folder, "cut", 0, plan, n - 3);
  for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
    char name[64];
    uint8_t bad[PLAN_MAX];
    memcpy(bad, plan, n);
    bad[lies[i].at] = lies[i].to;
    (void)snprintf(name, sizeof name, "bad-%s", lies[i].name);
    put_plan(folder, name, 0, bad, n);
  }
  n = make_plan(plan, 1, mask);
  put_plan(folder, "mask", 2, plan, n);
  n = make_plan(plan, 1, head);
  put_plan(folder, "bad-mask-head", 0, plan, n);
}

static void put_state(const char *folder, uint8_t kind, int steps)
{
  char name[64];
  fli_bytes bytes;
  fl_freeze *freeze = job_make(kind);
  for (int i = 0; i < steps; i++)
    job_step(freeze);
  fli_bytes_init(&bytes, NULL);
  FUZZ_CHECK(fli_bytes_append(&bytes, &kind, 1) == FL_OK);
  FUZZ_CHECK(fli_freeze_write(freeze, &bytes) == FL_OK);
  /* The target puts in its own. */
  memset(bytes.data + 1 + JOB_HASH_AT, 0, 32);
  (void)snprintf(name, sizeof name, "kind-%u-step-%d", kind, steps);
  seeds_put(folder, "freeze_state", name, bytes.data, bytes.size);
  if (steps == 7) {
    /* decided: behind hash, key, step, key */
    bytes.data[1 + JOB_HASH_AT + 32 + 3] = 5;
    (void)snprintf(name, sizeof name, "bad-kind-%u-decided", kind);
    seeds_put(folder, "freeze_state", name, bytes.data, bytes.size);
    (void)snprintf(name, sizeof name, "bad-kind-%u-cut", kind);
    seeds_put(folder, "freeze_state", name, bytes.data, bytes.size - 40);
  }
  fli_bytes_free(&bytes);
  fl_freeze_free(freeze);
}

void seeds_put_freezes(const char *folder)
{
  static const int steps[] = {0, 7, 30, 61};
  put_plans(folder);
  for (uint8_t kind = 0; kind < JOB_KINDS; kind++) {
    for (int i = 0; i < 4; i++)
      put_state(folder, kind, steps[i]);
  }
}

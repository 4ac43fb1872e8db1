/* SPDX-License-Identifier: Apache-2.0 */
/* A plan of the server's. The first byte chooses what is allowed, the rest are
 * the plan's bytes. What is accepted freezes neither the last module of the
 * body nor the head, is written again as what is held, and changes nothing when
 * it comes a second time; what is refused says why and changes nothing. */
#include "fuzz.h"

#include <fl/freeze.h>

enum { MODULES = 6, CAPACITY = 256 };

static fl_freeze *make(uint8_t choice)
{
  static const uint32_t allowed[] = {0, 2, 3};
  fl_freeze *freeze = NULL;
  fl_freeze_options o;
  FUZZ_CHECK(fl_freeze_options_init(&o, sizeof o) == FL_OK);
  o.criterion = FL_FREEZE_SERVER;
  o.steps_per_epoch = 32;
  o.reports = choice & 2 ? FL_FREEZE_GRADNORM : 0;
  o.allowed = allowed;
  o.n_allowed = choice & 1 ? 3 : 0;
  FUZZ_CHECK(fl_freeze_new(&freeze, NULL, MODULES, &o) == FL_OK);
  return freeze;
}

static size_t copy(const fl_freeze *freeze, uint8_t *plan)
{
  size_t n = 0;
  FUZZ_CHECK(fl_freeze_copy_plan(freeze, plan, CAPACITY, &n) == FL_OK);
  return n;
}

static void is_plan(const fl_freeze *freeze)
{
  fl_freeze_plan plan;
  FUZZ_CHECK(fl_freeze_plan_init(&plan, sizeof plan) == FL_OK);
  FUZZ_CHECK(fl_freeze_get_plan(freeze, &plan) == FL_OK);
  FUZZ_CHECK(plan.first_active <= MODULES - 2);
  for (uint32_t i = 0; i < MODULES; i++) {
    FUZZ_CHECK(plan.frozen[i] <= 1);
    FUZZ_CHECK(i >= plan.first_active || plan.frozen[i] == 1);
    FUZZ_CHECK(i < MODULES - 2 || plan.frozen[i] == 0);
  }
}

/* A step under the plan. */
static void goes_on(fl_freeze *freeze)
{
  fl_freeze_request request;
  FUZZ_CHECK(fl_freeze_request_init(&request, sizeof request) == FL_OK);
  FUZZ_CHECK(fl_freeze_begin_step(freeze, .1f, &request) == FL_OK);
  FUZZ_CHECK(request.module <= MODULES - 2);
  FUZZ_CHECK(fl_freeze_end_step(freeze, 1) == FL_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  uint8_t before[CAPACITY], after[CAPACITY];
  if (n < 1) return 0;
  fl_freeze *freeze = make(data[0]);
  uint8_t *plan = fuzz_exact_copy(data + 1, n - 1);
  const size_t n_before = copy(freeze, before);
  const fl_status st = fl_freeze_apply_plan(freeze, plan, n - 1);
  if (st != FL_OK) {
    FUZZ_CHECK(fl_last_error()[0] != '\0');
    FUZZ_CHECK(copy(freeze, after) == n_before);
    FUZZ_CHECK(memcmp(before, after, n_before) == 0);
  } else {
    is_plan(freeze);
    const size_t n_held = copy(freeze, before);
    FUZZ_CHECK(fl_freeze_apply_plan(freeze, plan, n - 1) == FL_OK);
    FUZZ_CHECK(copy(freeze, after) == n_held);
    FUZZ_CHECK(memcmp(before, after, n_held) == 0);
  }
  goes_on(freeze);
  is_plan(freeze);
  free(plan);
  fl_freeze_free(freeze);
  return 0;
}

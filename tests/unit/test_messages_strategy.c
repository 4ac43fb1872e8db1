/* SPDX-License-Identifier: Apache-2.0 */
/* What plans say of strategies: FedProx's mu, which may be left out. */
#include <criterion/criterion.h>
#include <math.h>

#include "base/bytes.h"
#include "wire_messages.h"

static fl_status read_back(float mu, fli_plan *back)
{
  fli_bytes bytes;
  fli_plan plan;
  fli_bytes_init(&bytes, NULL);
  cr_assert_eq(wire_sample(7, &bytes), FL_OK);
  cr_assert_eq(fli_parse_plan(&plan, bytes.data + FLI_FRAME_HEADER,
                              bytes.size - FLI_FRAME_HEADER),
               FL_OK);
  plan.prox_mu = mu;
  fli_bytes again;
  fli_bytes_init(&again, NULL);
  cr_assert_eq(fli_write_plan(&again, &plan), FL_OK);
  const fl_status st = fli_parse_plan(back, again.data + FLI_FRAME_HEADER,
                                      again.size - FLI_FRAME_HEADER);
  if (mu == 0.0f) cr_assert_eq(again.size, bytes.size);
  fli_bytes_free(&bytes);
  fli_bytes_free(&again);
  return st;
}

Test(messages_strategy, mu_is_optional_and_within_its_range)
{
  fli_plan plan;
  cr_assert_eq(read_back(0.0f, &plan), FL_OK);
  cr_assert_eq(plan.prox_mu, 0.0f);
  cr_assert_eq(read_back(0.25f, &plan), FL_OK);
  cr_assert_eq(plan.prox_mu, 0.25f);
  cr_assert_eq(read_back(1e6f, &plan), FL_OK);
  cr_assert_eq(read_back(2e6f, &plan), FL_E_RANGE);
  cr_assert_eq(read_back(INFINITY, &plan), FL_E_NOT_FINITE);
}

/* Every key that a plan may have, in one. */
Test(messages_strategy, mu_goes_with_all_that_plans_may_have)
{
  static const uint8_t slices[3] = {1, 2, 3};
  fli_plan plan, back;
  fli_bytes bytes;
  wire_plan(&plan);
  wire_add_freezing(&plan);
  plan.has_counted = 1;
  plan.has_cohort = 1;
  plan.cohort = 5;
  plan.slices = slices;
  plan.slices_size = sizeof slices;
  plan.prox_mu = 0.25f;
  fli_bytes_init(&bytes, NULL);
  cr_assert_eq(fli_write_plan(&bytes, &plan), FL_OK);
  cr_assert_eq(fli_parse_plan(&back, bytes.data + FLI_FRAME_HEADER,
                              bytes.size - FLI_FRAME_HEADER),
               FL_OK, "%s", fl_last_error());
  cr_expect_eq(back.cohort, 5u);
  cr_expect_eq(back.slices_size, sizeof slices);
  cr_expect_eq(back.prox_mu, 0.25f);
  cr_expect_eq(back.freeze_plan_size, plan.freeze_plan_size);
  fli_bytes_free(&bytes);
}

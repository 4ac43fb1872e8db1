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

/* Absent, they cost no byte; what stands there comes back. */
Test(messages_strategy, demands_scale_and_control_are_optional)
{
  fli_plan plan, back;
  fli_bytes plain, full;
  fli_bytes_init(&plain, NULL);
  fli_bytes_init(&full, NULL);
  wire_plan(&plan);
  cr_assert_eq(fli_write_plan(&plain, &plan), FL_OK);
  cr_assert_eq(fli_parse_plan(&back, plain.data + FLI_FRAME_HEADER,
                              plain.size - FLI_FRAME_HEADER),
               FL_OK);
  cr_expect_eq(back.demands, 0u);
  cr_expect_eq(back.scale_round, 0u);
  cr_expect_eq(back.has_control, 0);
  plan.demands = 5;
  plan.scale_round = UINT32_MAX;
  plan.has_control = 1;
  memset(plan.control_hash, 0xa5, sizeof plan.control_hash);
  cr_assert_eq(fli_write_plan(&full, &plan), FL_OK);
  cr_expect_geq(full.size, plain.size + 43); /* 2, 6 and 35 */
  cr_assert_eq(fli_parse_plan(&back, full.data + FLI_FRAME_HEADER,
                              full.size - FLI_FRAME_HEADER),
               FL_OK);
  cr_expect_eq(back.demands, 5u);
  cr_expect_eq(back.scale_round, UINT32_MAX);
  cr_expect_eq(back.has_control, 1);
  cr_expect_arr_eq(back.control_hash, plan.control_hash, FLI_HASH_BYTES);
  fli_bytes_free(&plain);
  fli_bytes_free(&full);
}

Test(messages_strategy, hello_says_what_the_device_lacks)
{
  fli_hello hello = {.version_min = 1,
                     .version_max = 1,
                     .client_id = "abe",
                     .samples = 1,
                     .lacks = 0};
  for (uint32_t lacks = 0; lacks < 2; lacks++) {
    fli_hello back;
    fli_bytes bytes;
    fli_bytes_init(&bytes, NULL);
    hello.lacks = lacks * 13;
    cr_assert_eq(fli_write_hello(&bytes, &hello), FL_OK);
    cr_assert_eq(fli_parse_hello(&back, bytes.data + FLI_FRAME_HEADER,
                                 bytes.size - FLI_FRAME_HEADER),
                 FL_OK);
    cr_expect_eq(back.lacks, lacks * 13);
    fli_bytes_free(&bytes);
  }
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

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

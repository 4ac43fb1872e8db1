/* SPDX-License-Identifier: Apache-2.0 */
/* The public facts of the protocol. */
#include <criterion/criterion.h>
#include <fl/protocol.h>
#include <string.h>

#include "wire/frame.h"

Test(protocol, versions_are_those_of_the_frames)
{
  cr_assert_eq(fl_protocol_version_min(), FLI_PROTOCOL_MIN);
  cr_assert_eq(fl_protocol_version_max(), FLI_PROTOCOL_MAX);
  cr_assert_leq(fl_protocol_version_min(), fl_protocol_version_max());
}

Test(protocol, every_reason_has_name_and_text)
{
#define REASON(name, number, text)               \
  cr_assert_eq(name, number);                    \
  cr_assert_str_eq(fl_reject_name(name), #name); \
  cr_assert_str_eq(fl_reject_text(name), text);
  FL_REJECT_TABLE(REASON)
#undef REASON
}

Test(protocol, unknown_reasons_have_a_name_too)
{
  cr_assert_str_eq(fl_reject_name(FL_REJECT_FORGOTTEN + 1), "FL_REJECT_?");
  cr_assert_str_eq(fl_reject_name(UINT32_MAX), "FL_REJECT_?");
  cr_assert_gt(strlen(fl_reject_text(UINT32_MAX)), 0);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The cancel flag. */
#include <criterion/criterion.h>

#include <fl/base.h>

Test(cancel, is_down_until_requested_and_after_reset)
{
  fl_cancel *cancel = NULL;
  cr_assert_eq(fl_cancel_new(&cancel), FL_OK);
  cr_assert_eq(fl_cancel_is_requested(cancel), 0);
  fl_cancel_request(cancel);
  fl_cancel_request(cancel);
  cr_assert_eq(fl_cancel_is_requested(cancel), 1);
  fl_cancel_reset(cancel);
  cr_assert_eq(fl_cancel_is_requested(cancel), 0);
  fl_cancel_free(cancel);
}

Test(cancel, null_is_never_raised)
{
  fl_cancel_request(NULL);
  fl_cancel_reset(NULL);
  fl_cancel_free(NULL);
  cr_assert_eq(fl_cancel_is_requested(NULL), 0);
}

Test(cancel, new_refuses_null)
{
  cr_assert_eq(fl_cancel_new(NULL), FL_E_ARGUMENT);
  cr_assert_str_neq(fl_last_error(), "");
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The status table and the error text. */
#include <criterion/criterion.h>
#include <string.h>

#include "base/error.h"

Test(status, every_code_has_its_own_name_and_text)
{
  for (uint32_t i = 0; i < fl_status_count(); i++) {
    fl_status st = fl_status_at(i);
    cr_assert_str_neq(fl_status_name(st), "FL_E_?");
    cr_assert(strlen(fl_status_text(st)) > 0);
    for (uint32_t j = 0; j < i; j++) {
      cr_assert_neq(fl_status_at(j), st);
      cr_assert_str_neq(fl_status_name(fl_status_at(j)), fl_status_name(st));
    }
  }
}

Test(status, codes_are_zero_or_negative)
{
  cr_assert_eq(fl_status_at(0), FL_OK);
  for (uint32_t i = 1; i < fl_status_count(); i++) {
    cr_assert_lt(fl_status_at(i), 0);
  }
}

Test(status, name_is_the_constants_name)
{
  cr_assert_str_eq(fl_status_name(FL_OK), "FL_OK");
  cr_assert_str_eq(fl_status_name(FL_E_DIM), "FL_E_DIM");
  cr_assert_str_eq(fl_status_text(FL_E_NOMEM), "out of memory");
}

Test(status, unknown_code_has_a_name_and_a_text)
{
  cr_assert_str_eq(fl_status_name(1), "FL_E_?");
  cr_assert_str_eq(fl_status_name(INT32_MIN), "FL_E_?");
  cr_assert_str_eq(fl_status_text(-99), "unknown status");
}

Test(status, row_out_of_range_is_an_internal_error)
{
  cr_assert_eq(fl_status_at(fl_status_count()), FL_E_INTERNAL);
  cr_assert_eq(fl_status_at(UINT32_MAX), FL_E_INTERNAL);
}

Test(error, text_is_empty_at_first_and_after_clear)
{
  cr_assert_str_eq(fl_last_error(), "");
  fli_error(FL_E_IO, "blob: lost");
  fli_clear_error();
  cr_assert_str_eq(fl_last_error(), "");
}

Test(error, text_is_formatted_and_status_passed_on)
{
  fl_status st = fli_error(FL_E_DIM, "tensor %s: got %d, want %d", "w", 3, 4);
  cr_assert_eq(st, FL_E_DIM);
  cr_assert_str_eq(fl_last_error(), "tensor w: got 3, want 4");
}

Test(error, long_text_is_cut_not_overrun)
{
  char longer[1000];
  memset(longer, 'x', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  fli_error(FL_E_FORMAT, "%s", longer);
  size_t n = strlen(fl_last_error());
  cr_assert_gt(n, 100);
  cr_assert_lt(n, sizeof longer - 1);
  cr_assert_eq(strspn(fl_last_error(), "x"), n);
}

Test(error, nomem_names_the_bytes)
{
  cr_assert_eq(fli_nomem(4711), FL_E_NOMEM);
  cr_assert_not_null(strstr(fl_last_error(), "4711"));
}

Test(error, successful_call_clears_the_text)
{
  fl_context *context = NULL;
  fli_error(FL_E_IO, "old");
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  cr_assert_str_eq(fl_last_error(), "");
  fl_context_free(context);
}

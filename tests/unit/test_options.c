/* SPDX-License-Identifier: Apache-2.0 */
/* Size-prefixed structs between hosts and libraries of different age. */
#include <criterion/criterion.h>
#include <stddef.h>
#include <string.h>

#include "base/options.h"

typedef struct sample {
  uint32_t struct_size;
  uint32_t first;
  uint64_t second;
  uint32_t third;
  uint32_t reserved;
} sample;

/* A host that is newer than the library. */
typedef struct longer_sample {
  sample known;
  uint64_t unknown[2];
} longer_sample;

static const sample defaults = {sizeof(sample), 11, 22, 33, 0};

enum { SHORT_SIZE = offsetof(sample, second) };

Test(options, init_writes_defaults_and_size)
{
  sample options;
  memset(&options, 0xcc, sizeof options);
  cr_assert_eq(
      fli_options_init(&options, sizeof options, &defaults, sizeof defaults),
      FL_OK);
  cr_assert_eq(options.struct_size, sizeof options);
  cr_assert_eq(options.first, 11);
  cr_assert_eq(options.second, 22);
  cr_assert_eq(options.third, 33);
}

Test(options, init_of_older_host_stays_inside_its_struct)
{
  sample options;
  memset(&options, 0xcc, sizeof options);
  cr_assert_eq(
      fli_options_init(&options, SHORT_SIZE, &defaults, sizeof defaults),
      FL_OK);
  cr_assert_eq(options.struct_size, SHORT_SIZE);
  cr_assert_eq(options.first, 11);
  cr_assert_eq(options.second, UINT64_C(0xcccccccccccccccc));
}

Test(options, init_of_newer_host_zeroes_what_is_unknown)
{
  longer_sample options;
  memset(&options, 0xcc, sizeof options);
  cr_assert_eq(
      fli_options_init(&options, sizeof options, &defaults, sizeof defaults),
      FL_OK);
  cr_assert_eq(options.known.struct_size, sizeof options);
  cr_assert_eq(options.known.third, 33);
  cr_assert_eq(options.unknown[0], 0);
  cr_assert_eq(options.unknown[1], 0);
}

Test(options, init_refuses_null_and_absurd_sizes)
{
  sample options;
  size_t full = sizeof defaults;
  cr_assert_eq(fli_options_init(NULL, full, &defaults, full), FL_E_OPTIONS);
  cr_assert_eq(fli_options_init(&options, 0, &defaults, full), FL_E_OPTIONS);
  cr_assert_eq(fli_options_init(&options, 3, &defaults, full), FL_E_OPTIONS);
  cr_assert_eq(fli_options_init(&options, 65537, &defaults, full),
               FL_E_OPTIONS);
  cr_assert_eq(fli_options_init(&options, SIZE_MAX, &defaults, full),
               FL_E_OPTIONS);
}

Test(options, load_of_null_keeps_the_defaults)
{
  sample local = defaults;
  cr_assert_eq(fli_options_load(&local, sizeof local, NULL, "sample"), FL_OK);
  cr_assert_eq(memcmp(&local, &defaults, sizeof local), 0);
}

Test(options, load_of_older_host_keeps_defaults_of_missing_fields)
{
  sample local = defaults;
  sample older = {SHORT_SIZE, 5, 6, 7, 8};
  cr_assert_eq(fli_options_load(&local, sizeof local, &older, "sample"), FL_OK);
  cr_assert_eq(local.struct_size, sizeof local);
  cr_assert_eq(local.first, 5);
  cr_assert_eq(local.second, 22);
  cr_assert_eq(local.third, 33);
}

Test(options, load_of_newer_host_wants_a_zero_tail)
{
  sample local = defaults;
  longer_sample newer = {{sizeof newer, 5, 6, 7, 0}, {0, 0}};
  cr_assert_eq(fli_options_load(&local, sizeof local, &newer.known, "sample"),
               FL_OK);
  cr_assert_eq(local.third, 7);
  newer.unknown[1] = UINT64_C(1) << 63;
  local = defaults;
  cr_assert_eq(fli_options_load(&local, sizeof local, &newer.known, "sample"),
               FL_E_OPTIONS);
  cr_assert_eq(memcmp(&local, &defaults, sizeof local), 0);
  cr_assert_not_null(strstr(fl_last_error(), "sample"));
}

Test(options, load_refuses_a_struct_that_was_not_initialised)
{
  sample local = defaults;
  sample zero = {0, 0, 0, 0, 0};
  cr_assert_eq(fli_options_load(&local, sizeof local, &zero, "sample"),
               FL_E_OPTIONS);
  zero.struct_size = UINT32_MAX;
  cr_assert_eq(fli_options_load(&local, sizeof local, &zero, "sample"),
               FL_E_OPTIONS);
  cr_assert_eq(memcmp(&local, &defaults, sizeof local), 0);
}

Test(options, store_stays_inside_an_older_hosts_struct)
{
  sample result = {SHORT_SIZE, 0, 77, 77, 77};
  cr_assert_eq(fli_options_store(&result, &defaults, sizeof defaults, "sample"),
               FL_OK);
  cr_assert_eq(result.struct_size, SHORT_SIZE);
  cr_assert_eq(result.first, 11);
  cr_assert_eq(result.second, 77);
}

Test(options, store_keeps_a_newer_hosts_size_and_zeroes_what_is_unknown)
{
  longer_sample result = {{sizeof result, 0, 0, 0, 0}, {9, 9}};
  cr_assert_eq(fli_options_store(&result, &defaults, sizeof defaults, "sample"),
               FL_OK);
  cr_assert_eq(result.known.struct_size, sizeof result);
  cr_assert_eq(result.known.third, 33);
  cr_assert_eq(result.unknown[0], 0);
  cr_assert_eq(result.unknown[1], 0);
}

Test(options, store_refuses_absurd_sizes)
{
  sample result = {0, 1, 1, 1, 1};
  cr_assert_eq(fli_options_store(&result, &defaults, sizeof defaults, "sample"),
               FL_E_OPTIONS);
  result.struct_size = 65537;
  cr_assert_eq(fli_options_store(&result, &defaults, sizeof defaults, "sample"),
               FL_E_OPTIONS);
  cr_assert_eq(result.first, 1);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What messages say of freezing: optional keys, so that peers of either age
 * read each other, and reports that may be any double. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "wire_messages.h"

static fli_frame frame_of(const fli_bytes *bytes)
{
  fli_frame frame = {bytes->data[4], bytes->data[5], 0,
                     bytes->data + FLI_FRAME_HEADER,
                     bytes->size - FLI_FRAME_HEADER};
  return frame;
}

static fli_frame sample(uint32_t index, fli_bytes *bytes)
{
  fli_bytes_clear(bytes);
  cr_assert_eq(wire_sample(index, bytes), FL_OK);
  return frame_of(bytes);
}

Test(messages_freezing, depth_is_optional)
{
  fli_bytes bytes;
  fli_hello hello;
  fli_bytes_init(&bytes, NULL);
  fli_frame frame = sample(21, &bytes);
  cr_assert_eq(fli_parse_hello(&hello, frame.body, frame.size), FL_OK);
  cr_assert_eq(hello.depth, 3u);
  frame = sample(0, &bytes);
  cr_assert_eq(fli_parse_hello(&hello, frame.body, frame.size), FL_OK);
  cr_assert_eq(hello.depth, 0u);
  fli_bytes_free(&bytes);
}

Test(messages_freezing, plan_freezes_nothing_without_the_keys)
{
  fli_bytes bytes;
  fli_plan plan;
  fli_bytes_init(&bytes, NULL);
  fli_frame frame = sample(22, &bytes);
  cr_assert_eq(fli_parse_plan(&plan, frame.body, frame.size), FL_OK);
  cr_assert_eq(plan.first_active, 2u);
  cr_assert_eq(plan.freeze_plan_size, 3u);
  cr_assert_eq(plan.freeze_plan[2], 2u);
  cr_assert_eq(plan.freeze_reports, 1u);
  frame = sample(7, &bytes);
  cr_assert_eq(fli_parse_plan(&plan, frame.body, frame.size), FL_OK);
  cr_assert_eq(plan.first_active, 0u);
  cr_assert_null(plan.freeze_plan);
  cr_assert_eq(plan.freeze_reports, 0u);
  fli_bytes_free(&bytes);
}

/* Whether a report can be used is the round's question. */
Test(messages_freezing, any_double_is_a_report)
{
  static const double values[] = {-1, 0, (double)INFINITY, (double)NAN};
  fli_bytes bytes;
  fli_manifest manifest;
  fli_bytes_init(&bytes, NULL);
  for (size_t i = 0; i < FLI_COUNT_OF(values); i++) {
    fli_bytes_clear(&bytes);
    wire_manifest(&manifest);
    manifest.has_report = 1;
    manifest.report_module = 4;
    manifest.report_value = values[i];
    cr_assert_eq(fli_write_manifest(&bytes, &manifest), FL_OK);
    fli_frame frame = frame_of(&bytes);
    cr_assert_eq(fli_parse_manifest(&manifest, frame.body, frame.size), FL_OK);
    cr_expect(manifest.has_report);
    cr_expect_eq(manifest.report_module, 4u);
    cr_expect_eq(fli_f64_bits(manifest.report_value), fli_f64_bits(values[i]));
  }
  fli_frame frame = sample(14, &bytes);
  cr_assert_eq(fli_parse_manifest(&manifest, frame.body, frame.size), FL_OK);
  cr_expect_not(manifest.has_report);
  fli_bytes_free(&bytes);
}

/* Body: the last value of the sample is the report's double, key 13. */
Test(messages_freezing, half_a_report_is_malformed)
{
  fli_bytes bytes;
  fli_manifest manifest;
  fli_bytes_init(&bytes, NULL);
  fli_frame frame = sample(23, &bytes);
  uint8_t *body = bytes.data + FLI_FRAME_HEADER;
  const size_t n = frame.size - 10; /* without key 13 and its double */
  cr_assert_eq(body[0] & 0xf0, 0x80);
  cr_assert_eq(body[n], 13);
  body[0]--;
  cr_assert_eq(fli_parse_manifest(&manifest, body, n), FL_E_FORMAT);
  fli_bytes_free(&bytes);
}

Test(messages_freezing, freezing_out_of_range_is_refused)
{
  static uint8_t large[FLI_MAX_FREEZE_PLAN + 1];
  fli_bytes bytes;
  fli_plan plan;
  fli_bytes_init(&bytes, NULL);
  wire_plan(&plan);
  plan.first_active = FLI_MAX_MODULES;
  cr_assert_eq(fli_write_plan(&bytes, &plan), FL_OK);
  fli_frame frame = frame_of(&bytes);
  cr_assert_eq(fli_parse_plan(&plan, frame.body, frame.size), FL_E_RANGE);
  fli_bytes_clear(&bytes);
  plan.first_active = FLI_MAX_MODULES - 1;
  plan.freeze_plan = large;
  plan.freeze_plan_size = sizeof large;
  cr_assert_eq(fli_write_plan(&bytes, &plan), FL_OK);
  frame = frame_of(&bytes);
  cr_assert_eq(fli_parse_plan(&plan, frame.body, frame.size), FL_E_RANGE);
  fli_bytes_clear(&bytes);
  plan.freeze_plan_size--;
  cr_assert_eq(fli_write_plan(&bytes, &plan), FL_OK);
  frame = frame_of(&bytes);
  cr_assert_eq(fli_parse_plan(&plan, frame.body, frame.size), FL_OK);
  fli_bytes_free(&bytes);
}

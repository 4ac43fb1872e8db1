/* SPDX-License-Identifier: Apache-2.0 */
/* Keys of jobs with cohorts. */
#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

#include "wire/messages.h"

static fl_status pass_metrics(const fli_metrics *in, fli_metrics *out)
{
  fli_bytes bytes;
  fli_bytes_init(&bytes, NULL);
  cr_assert_eq(fli_write_metrics(&bytes, in), FL_OK);
  const fl_status st = fli_parse_metrics(out, bytes.data + FLI_FRAME_HEADER,
                                         bytes.size - FLI_FRAME_HEADER);
  fli_bytes_free(&bytes);
  return st;
}

Test(messages_cohorts, losses_of_probes_are_any_double)
{
  const double losses[] = {
      (double)NAN, (double)INFINITY, -(double)INFINITY, -1., 0., 1e300};
  fli_metrics out;
  for (size_t i = 0; i < sizeof losses / sizeof *losses; i++) {
    const fli_metrics in = {.round = 3,
                            .loss = losses[i],
                            .is_probe = 1,
                            .cohort = 63,
                            .attempt = 2};
    cr_assert_eq(pass_metrics(&in, &out), FL_OK);
    cr_assert(out.is_probe && out.cohort == 63 && out.attempt == 2);
    cr_assert(out.loss == losses[i] || isnan(losses[i]));
  }
}

Test(messages_cohorts, losses_of_scores_are_finite)
{
  fli_metrics out;
  fli_metrics in = {.round = 3, .loss = (double)NAN};
  cr_assert_eq(pass_metrics(&in, &out), FL_E_NOT_FINITE);
  in.loss = 1.;
  cr_assert_eq(pass_metrics(&in, &out), FL_OK);
  cr_assert_eq(out.is_probe, 0);
}

Test(messages_cohorts, cohorts_are_below_64)
{
  fli_metrics out;
  const fli_metrics in = {.round = 3, .is_probe = 1, .cohort = 64};
  cr_assert_eq(pass_metrics(&in, &out), FL_E_RANGE);
}

Test(messages_cohorts, manifests_of_probes_go_round)
{
  fli_bytes bytes;
  fli_manifest out;
  const fli_manifest in = {.kind = FLI_TRANSFER_PROBE,
                           .total = 9,
                           .chunk_size = FLI_CHUNK_MIN,
                           .loss = (double)NAN,
                           .model_version = 4,
                           .has_cohort = 1,
                           .cohort = 5};
  fli_bytes_init(&bytes, NULL);
  cr_assert_eq(fli_write_manifest(&bytes, &in), FL_OK);
  cr_assert_eq(fli_parse_manifest(&out, bytes.data + FLI_FRAME_HEADER,
                                  bytes.size - FLI_FRAME_HEADER),
               FL_OK);
  cr_assert(out.has_cohort && out.cohort == 5);
  cr_assert_eq(out.kind, (uint32_t)FLI_TRANSFER_PROBE);
  fli_bytes_free(&bytes);
}

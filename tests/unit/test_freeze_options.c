/* SPDX-License-Identifier: Apache-2.0 */
/* What a controller may be made with. */
#include "freeze/freeze.h"
#include "freeze_fixture.h"

static fl_freeze_options made(uint32_t n_modules, const fl_freeze_options *o)
{
  fl_freeze *freeze = freeze_make(n_modules, o);
  const fl_freeze_options filled = freeze->options;
  fl_freeze_free(freeze);
  return filled;
}

static fl_status tried(uint32_t n_modules, const fl_freeze_options *o)
{
  fl_freeze *freeze = NULL;
  const fl_status st = fl_freeze_new(&freeze, NULL, n_modules, o);
  cr_assert((st == FL_OK) == (freeze != NULL));
  cr_assert(st == FL_OK || strlen(fl_last_error()) > 0);
  fl_freeze_free(freeze);
  return st;
}

Test(freeze_options, defaults_are_the_criterions)
{
  fl_freeze_options o;
  must(fl_freeze_options_init(&o, sizeof o));
  o.steps_per_epoch = 160;
  fl_freeze_options got = made(6, &o);
  cr_expect_eq(got.criterion, FL_FREEZE_GRADNORM);
  cr_expect_eq(got.interval, 10);
  cr_expect_eq(got.gap, 320);
  cr_expect_eq(got.max_frozen, 4);
  cr_expect_eq(got.window, 4);
  cr_expect_eq(got.patience, 8);
  cr_expect_eq(got.tolerance, .9f);
  cr_expect_eq(got.loss_level, .6f);
  cr_expect_eq(got.unfreezes, 0);
  cr_expect_eq(got.rows, 16);
  cr_expect_eq(got.refresh, 8);
  o.steps_per_epoch = 10;
  cr_expect_eq(made(6, &o).interval, 2);
  o.criterion = FL_FREEZE_RELATIVE_PLASTICITY;
  got = made(6, &o);
  cr_expect_eq(got.window, 16);
  cr_expect_eq(got.patience, 8);
  cr_expect_eq(got.tolerance, .2f);
  cr_expect_eq(got.unfreezes, 1);
}

Test(freeze_options, presets_are_window_tolerance_and_loss_level)
{
  static const struct {
    uint32_t preset, window;
    float tolerance, loss_level;
  } want[] = {{FL_FREEZE_CAREFUL, 20, .05f, .25f},
              {FL_FREEZE_BALANCED, 12, .1f, .6f},
              {0, 12, .1f, .6f},
              {FL_FREEZE_FAST, 6, .2f, .6f}};
  for (int i = 0; i < 4; i++) {
    fl_freeze_options o = freeze_options(FL_FREEZE_PLASTICITY);
    o.preset = want[i].preset;
    const fl_freeze_options got = made(6, &o);
    cr_expect_eq(got.window, want[i].window);
    cr_expect_eq(got.patience, want[i].window);
    cr_expect_eq(got.tolerance, want[i].tolerance);
    cr_expect_eq(got.loss_level, want[i].loss_level);
    cr_expect_eq(got.unfreezes, 1);
  }
}

Test(freeze_options, without_options_it_is_an_aggregators)
{
  const fl_freeze_options got = made(6, NULL);
  cr_expect_eq(got.criterion, FL_FREEZE_GRADNORM);
  cr_expect_eq(got.patience, 3);
  cr_expect_eq(got.gap, 2);
  cr_expect_eq(got.interval, 1);
}

#define REFUSED(status, criterion, setting)                         \
  do {                                                              \
    fl_freeze_options o = freeze_options(criterion);                \
    cr_expect_eq(tried(6, &o), (criterion) == FL_FREEZE_FIXED ||    \
                                       (criterion) == FL_FREEZE_CKA \
                                   ? FL_E_OPTIONS                   \
                                   : FL_OK);                        \
    setting;                                                        \
    cr_expect_eq(tried(6, &o), (status), "%s", #setting);           \
  } while (0)

Test(freeze_options, values_out_of_range_are_refused)
{
  const uint32_t g = FL_FREEZE_GRADNORM;
  REFUSED(FL_E_OPTIONS, g, o.criterion = 7);
  REFUSED(FL_E_OPTIONS, g, o.preset = 4);
  REFUSED(FL_E_OPTIONS, g, o.steps_per_epoch = (UINT64_C(1) << 40) + 1);
  REFUSED(FL_E_OPTIONS, g, o.interval = 1);
  REFUSED(FL_OK, FL_FREEZE_PLASTICITY, o.interval = 1);
  REFUSED(FL_E_OPTIONS, g, o.window = 2);
  REFUSED(FL_OK, g, o.window = 256);
  REFUSED(FL_E_OPTIONS, g, o.window = 257);
  REFUSED(FL_E_OPTIONS, g, o.tolerance = -1);
  REFUSED(FL_E_OPTIONS, g, o.tolerance = NAN);
  REFUSED(FL_E_OPTIONS, g, o.loss_level = INFINITY);
  REFUSED(FL_E_OPTIONS, g, o.loss_change = -.1f);
  REFUSED(FL_E_OPTIONS, g, o.is_pretrained = 2);
  REFUSED(FL_E_OPTIONS, g, o.is_pretrained = 1);
  REFUSED(FL_OK, g, (o.is_pretrained = 1, o.total_steps = 9));
  REFUSED(FL_E_OPTIONS, g, o.pretrained_share = 1.5f);
  REFUSED(FL_OK, g, o.max_frozen = 5);
  REFUSED(FL_E_OPTIONS, g, o.max_frozen = 6);
  REFUSED(FL_E_OPTIONS, g, o.unfreezes = 2);
  REFUSED(FL_E_OPTIONS, g, o.halves_window = 2);
  REFUSED(FL_E_OPTIONS, g, o.rows = 3);
  REFUSED(FL_E_OPTIONS, g, o.rows = 257);
  REFUSED(FL_E_OPTIONS, FL_FREEZE_RELATIVE_PLASTICITY, o.steps_per_epoch = 0);
  REFUSED(FL_E_OPTIONS, FL_FREEZE_SERVER, o.steps_per_epoch = 0);
  REFUSED(FL_E_OPTIONS, FL_FREEZE_SERVER, o.reports = 3);
  REFUSED(FL_E_OPTIONS, g, o.struct_size = 3);
  REFUSED(FL_E_OPTIONS, FL_FREEZE_CKA, o.total_steps = 39);
  REFUSED(FL_OK, FL_FREEZE_CKA, o.total_steps = 41);
  REFUSED(FL_E_OPTIONS, FL_FREEZE_CKA,
          (o.total_steps = 1000, o.until_share = .1f));
}

Test(freeze_options, settings_that_exclude_each_other_are_refused)
{
  const fl_freeze_fixed fixed[] = {{0, 1, 0}};
  REFUSED(FL_E_CONFLICT, FL_FREEZE_GRADNORM, o.reports = FL_FREEZE_GRADNORM);
  REFUSED(FL_E_CONFLICT, FL_FREEZE_GRADNORM, (o.fixed = fixed, o.n_fixed = 1));
  REFUSED(FL_E_CONFLICT, FL_FREEZE_FIXED,
          (o.fixed = fixed, o.n_fixed = 1, o.unfreezes = 1));
  REFUSED(FL_E_CONFLICT, FL_FREEZE_SERVER, o.unfreezes = 1);
  REFUSED(FL_OK, FL_FREEZE_GRADNORM, o.unfreezes = 1);
}

Test(freeze_options, schedules_rise_and_leave_the_last_module)
{
  const fl_freeze_fixed good[] = {{0, 1, 0}, {9, 4, 0}, {12, 0, 0}};
  const fl_freeze_fixed again[] = {{3, 1, 0}, {3, 2, 0}};
  const fl_freeze_fixed high[] = {{3, 5, 0}};
  REFUSED(FL_OK, FL_FREEZE_FIXED, (o.fixed = good, o.n_fixed = 3));
  REFUSED(FL_E_OPTIONS, FL_FREEZE_FIXED, (o.fixed = again, o.n_fixed = 2));
  REFUSED(FL_E_OPTIONS, FL_FREEZE_FIXED, (o.fixed = high, o.n_fixed = 1));
  REFUSED(FL_OK, FL_FREEZE_FIXED,
          (o.fixed = high, o.n_fixed = 1, o.max_frozen = 5));
  REFUSED(FL_E_OPTIONS, FL_FREEZE_FIXED, (o.fixed = NULL, o.n_fixed = 1));
}

Test(freeze_options, allowed_values_rise_from_zero)
{
  const uint32_t good[] = {0, 2, 5}, late[] = {1, 2}, twice[] = {0, 2, 2};
  const uint32_t high[] = {0, 6};
  const uint32_t g = FL_FREEZE_GRADNORM;
  REFUSED(FL_OK, g, (o.allowed = good, o.n_allowed = 3));
  REFUSED(FL_E_OPTIONS, g, (o.allowed = late, o.n_allowed = 2));
  REFUSED(FL_E_OPTIONS, g, (o.allowed = twice, o.n_allowed = 3));
  REFUSED(FL_E_OPTIONS, g, (o.allowed = high, o.n_allowed = 2));
  REFUSED(FL_E_OPTIONS, g, (o.allowed = NULL, o.n_allowed = 2));
}

Test(freeze_options, two_to_4096_modules)
{
  fl_freeze_options o = freeze_options(FL_FREEZE_GRADNORM);
  cr_expect_eq(tried(1, &o), FL_E_OPTIONS);
  cr_expect_eq(tried(2, &o), FL_OK);
  cr_expect_eq(made(2, &o).max_frozen, 0);
  cr_expect_eq(tried(4096, &o), FL_OK);
  cr_expect_eq(tried(4097, &o), FL_E_OPTIONS);
  cr_expect_eq(fl_freeze_new(NULL, NULL, 4, &o), FL_E_ARGUMENT);
}

Test(freeze_options, older_hosts_have_shorter_options)
{
  fl_freeze_options o;
  memset(&o, 0xff, sizeof o);
  must(fl_freeze_options_init(&o, offsetof(fl_freeze_options, total_steps)));
  o.steps_per_epoch = 32;
  cr_expect_eq(made(6, &o).interval, 2);
  cr_expect_eq(made(6, &o).max_frozen, 4);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What a trainer shows. Nothing is learned from it before the step ends. */
#include "freeze/freeze.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/size.h"
#include "kernels/kernels.h"

static fl_status check_wanted(const fl_freeze *freeze, uint32_t wanted,
                              const char *what)
{
  if (freeze->is_begun && (freeze->wants & wanted)) return FL_OK;
  return fli_error(FL_E_STATE, "freeze: %s, got it unasked", what);
}

/* Pairs may come late. */
static fl_status check_asked(const fl_freeze *freeze)
{
  if (freeze->is_begun && (freeze->asked & FL_FREEZE_WANTS_PAIR)) return FL_OK;
  return fli_error(FL_E_STATE, "freeze: pair, got it unasked");
}

static fl_status check_front(const fl_freeze *freeze, uint32_t module)
{
  if (module == freeze->state.decided) return FL_OK;
  return fli_error(FL_E_ARGUMENT, "freeze: module, got %u, want %u", module,
                   freeze->state.decided);
}

static fl_status check_finite(const char *what, const float *x, size_t n)
{
  const size_t bad = flk_kernels()->find_not_finite(x, n);
  if (bad == n) return FL_OK;
  return fli_error(FL_E_NOT_FINITE, "freeze: %s, value %zu is not finite", what,
                   bad);
}

static fl_status check_outputs(const char *what, const fli_outputs *x)
{
  uint64_t count;
  size_t n;
  if (x->rows < 2 || x->rows > FLI_FREEZE_ROWS_MAX) {
    return fli_error(FL_E_DIM, "freeze: rows of %s, got %u, want 2..%d", what,
                     x->rows, FLI_FREEZE_ROWS_MAX);
  }
  if (x->n == 0 || !fli_mul_u64(x->n, x->rows, &count) ||
      !fli_to_size(count, &n) || n > SIZE_MAX / sizeof(float)) {
    return fli_error(FL_E_DIM,
                     "freeze: values of a row of %s, got %" PRIu64
                     ", want 1 .. what fits memory",
                     what, x->n);
  }
  return check_finite(what, x->values, n);
}

/* Both sets have the same rows. */
static fl_status measure(fl_context *context, const fli_outputs *a,
                         const fli_outputs *b, int is_cka, double *result)
{
  fl_status st = FL_OK;
  fli_fpguard guard;
  FLI_TRY(check_outputs("the first", a));
  FLI_TRY(check_outputs("the second", b));
  fli_fpguard_enter(&guard);
  st = is_cka ? fli_cka(context, a, b, result)
              : fli_plasticity(context, a, b, result);
  fli_fpguard_leave(&guard);
out:
  return st;
}

static fl_status keep_gradient(fl_freeze *freeze, const float *gradient,
                               size_t n)
{
  fli_gradient *first = &freeze->first;
  if (first->n != n) {
    float *copy = fli_alloc(freeze->context, n, sizeof *copy);
    if (!copy) return fli_nomem(n * sizeof *copy);
    fli_free(freeze->context, first->values,
             (size_t)first->n * sizeof *first->values);
    *first = (fli_gradient){copy, n};
  }
  memcpy(first->values, gradient, n * sizeof *gradient);
  return FL_OK;
}

static void take_change(fl_freeze *freeze, double sum_of_squares)
{
  freeze->change = sum_of_squares;
  freeze->has_change = 1;
}

fl_status fl_freeze_push_gradient(fl_freeze *freeze, uint32_t module,
                                  const float *gradient, uint64_t n)
{
  fl_status st = FL_OK;
  fli_clear_error();
  if (!freeze || !gradient) {
    return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  }
  const fli_gradient *before = &freeze->state.gradient;
  FLI_TRY(check_wanted(freeze, FL_FREEZE_WANTS_GRADIENT, "gradient"));
  FLI_TRY(check_front(freeze, module));
  if (n == 0 || n > SIZE_MAX / sizeof *gradient) {
    return fli_error(FL_E_DIM,
                     "freeze: gradient, got %" PRIu64
                     " values, want 1 .. what fits memory",
                     n);
  }
  if (!freeze->is_first && before->values && before->n != n) {
    return fli_error(FL_E_DIM,
                     "freeze: gradient, got %" PRIu64 " values, want %" PRIu64
                     " as the step before",
                     n, before->n);
  }
  FLI_TRY(check_finite("gradient", gradient, (size_t)n));
  if (freeze->is_first) return keep_gradient(freeze, gradient, (size_t)n);
  /* Nothing to compare with: the step before did not show it. */
  if (!before->values) return FL_OK;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  take_change(freeze, fli_change_squares(gradient, before->values, n));
  fli_fpguard_leave(&guard);
out:
  return st;
}

fl_status fl_freeze_push_gradient_change(fl_freeze *freeze, uint32_t module,
                                         double sum_of_squares)
{
  fl_status st = FL_OK;
  fli_clear_error();
  if (!freeze) return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  FLI_TRY(check_wanted(freeze, FL_FREEZE_WANTS_GRADIENT, "gradient"));
  FLI_TRY(check_front(freeze, module));
  if (freeze->is_first) {
    return fli_error(FL_E_STATE, "freeze: change of the gradient, got it on "
                                 "the first step of two");
  }
  if (!isfinite(sum_of_squares)) {
    return fli_error(FL_E_NOT_FINITE, "freeze: change is not finite");
  }
  if (sum_of_squares < 0) {
    return fli_error(FL_E_ARGUMENT, "freeze: change, got %g, want >= 0",
                     sum_of_squares);
  }
  take_change(freeze, sum_of_squares);
out:
  return st;
}

fl_status fl_freeze_push_pair(fl_freeze *freeze, uint32_t module,
                              const float *model, const float *snapshot,
                              uint32_t rows, uint64_t n)
{
  fl_status st = FL_OK;
  double plasticity = 0;
  const fli_outputs a = {model, n, rows}, b = {snapshot, n, rows};
  fli_clear_error();
  if (!freeze || !model || !snapshot) {
    return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  }
  FLI_TRY(check_asked(freeze));
  const int is_last = (freeze->asked & FL_FREEZE_WANTS_LAST_PAIR) &&
                      module == fli_freeze_last(freeze);
  if (!is_last) FLI_TRY(check_front(freeze, module));
  FLI_TRY(measure(freeze->context, &a, &b, 0, &plasticity));
  if (is_last) {
    freeze->shown.last = plasticity;
  } else {
    freeze->shown.front = plasticity;
  }
out:
  return st;
}

fl_status fl_freeze_push_features(fl_freeze *freeze, uint32_t module,
                                  const float *before, uint64_t n_before,
                                  const float *after, uint64_t n_after,
                                  uint32_t rows)
{
  fl_status st = FL_OK;
  double cka = 0;
  const fli_outputs a = {before, n_before, rows}, b = {after, n_after, rows};
  fli_clear_error();
  if (!freeze || !before || !after) {
    return fli_error(FL_E_ARGUMENT, "freeze: got NULL");
  }
  FLI_TRY(check_wanted(freeze, FL_FREEZE_WANTS_FEATURES, "features"));
  if (module >= freeze->n_modules) {
    return fli_error(FL_E_ARGUMENT, "freeze: module, got %u, want 0..%u",
                     module, freeze->n_modules - 1);
  }
  FLI_TRY(measure(freeze->context, &a, &b, 1, &cka));
  /* Of several adapters, the one that does most. */
  if (1 - cka > freeze->features[module]) freeze->features[module] = 1 - cka;
out:
  return st;
}

static fl_status compare_sets(fl_context *context, const fli_outputs *a,
                              const fli_outputs *b, int is_cka, double *result)
{
  fli_clear_error();
  if (!a->values || !b->values || !result) {
    return fli_error(FL_E_ARGUMENT, "similarity: got NULL");
  }
  double value = 0;
  fl_status st = measure(context, a, b, is_cka, &value);
  if (st == FL_OK) *result = value;
  return st;
}

fl_status fl_plasticity(fl_context *context, const float *a, const float *b,
                        uint32_t rows, uint64_t n, double *plasticity)
{
  const fli_outputs first = {a, n, rows}, second = {b, n, rows};
  return compare_sets(context, &first, &second, 0, plasticity);
}

fl_status fl_cka(fl_context *context, const float *a, uint64_t n_a,
                 const float *b, uint64_t n_b, uint32_t rows, double *cka)
{
  const fli_outputs first = {a, n_a, rows}, second = {b, n_b, rows};
  return compare_sets(context, &first, &second, 1, cka);
}

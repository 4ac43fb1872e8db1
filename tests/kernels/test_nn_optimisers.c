/* SPDX-License-Identifier: Apache-2.0 */
/* Three steps of every optimiser, each table against torch.optim's formulas in
 * double: all lengths up to NN_SHORT and a long one, at several offsets. */
#include "nn_check.h"

#include <float.h>

enum { STEPS = 3 };

static const double rate = 0.05, decay = 0.01, factor = 0.5, momentum = 0.9;
static const double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;

/* One element of a model in double. */
typedef struct element {
  double w;
  double first;
  double second;
} element;

static element elements[NN_LONG];

typedef enum rule { SGD, MOMENTUM, NESTEROV, ADAM, ADAMW, ADAGRAD, RULES } rule;

static void want_adam(element *e, double g, int step, int is_decoupled)
{
  if (is_decoupled) {
    e->w -= rate * decay * e->w;
  } else {
    g += decay * e->w;
  }
  e->first = beta1 * e->first + (1.0 - beta1) * g;
  e->second = beta2 * e->second + (1.0 - beta2) * g * g;
  double correction1 = 1.0 - pow(beta1, step);
  double correction2 = 1.0 - pow(beta2, step);
  e->w -= rate / correction1 * e->first /
          (sqrt(e->second) / sqrt(correction2) + epsilon);
}

static void want(rule which, element *e, double gradient, int step)
{
  double g = factor * gradient;
  if (which == ADAM || which == ADAMW) {
    want_adam(e, g, step, which == ADAMW);
    return;
  }
  g += decay * e->w;
  if (which == ADAGRAD) {
    e->first += g * g;
    e->w -= rate * g / (sqrt(e->first) + epsilon);
    return;
  }
  if (which != SGD) {
    e->first = step == 1 ? g : momentum * e->first + g;
    g = which == NESTEROV ? g + momentum * e->first : e->first;
  }
  e->w -= rate * g;
}

static void run(rule which, float *const *a, size_t n, int step)
{
  flk_sgd sgd = {(float)factor, (float)rate, (float)decay, (float)momentum};
  flk_adagrad adagrad = {(float)factor, (float)rate, (float)decay,
                         (float)epsilon};
  flk_adam adam = {.factor = (float)factor,
                   .beta1 = (float)beta1,
                   .beta2 = (float)beta2,
                   .epsilon = (float)epsilon,
                   .decay = (float)(which == ADAMW ? rate * decay : decay),
                   .rate = (float)(rate / (1.0 - pow(beta1, step))),
                   .root_factor = (float)(1.0 / sqrt(1.0 - pow(beta2, step)))};
  const flk_optimiser_kernels *o = &nn->optimiser;
  switch (which) {
  case SGD: o->sgd(a[0], a[1], n, &sgd); break;
  case MOMENTUM: o->momentum(a[0], a[1], a[2], n, &sgd); break;
  case NESTEROV: o->nesterov(a[0], a[1], a[2], n, &sgd); break;
  case ADAM: o->adam(a[0], a[1], a[2], a[3], n, &adam); break;
  case ADAMW: o->adamw(a[0], a[1], a[2], a[3], n, &adam); break;
  case ADAGRAD: o->adagrad(a[0], a[1], a[2], n, &adagrad); break;
  case RULES: break;
  }
}

static void check_rule(rule which, size_t n, size_t offset)
{
  float *a[4];
  for (size_t slot = 0; slot < 4; slot++) {
    a[slot] = nn_new(slot, n, (offset * (slot + 1)) % 16);
  }
  nn_draw(a[0], n, 1.0f, n);
  for (size_t i = 0; i < n; i++) {
    elements[i] = (element){(double)a[0][i], 0.0, 0.0};
    a[2][i] = a[3][i] = 0.0f;
  }
  for (int step = 1; step <= STEPS; step++) {
    nn_draw(a[1], n, 3.0f, n + (size_t)step);
    run(which, a, n, step);
    for (size_t i = 0; i < n; i++) {
      element *e = &elements[i];
      want(which, e, (double)a[1][i], step);
      /* 1 - beta in float is off by 3e-8 of 1 - beta2 = 0.001 */
      NN_NEAR(a[0][i], e->w, i, which >= ADAM ? 4e-6 : 1e-6, 2e-7);
      NN_NEAR(a[2][i], e->first, i, 1e-6, 1e-6);
      NN_NEAR(a[3][i], e->second, i, 1e-10, 5e-5);
    }
  }
  for (size_t slot = 0; slot < 4; slot++) {
    nn_check_guards(slot);
  }
}

static void optimisers_follow_their_formulas(void)
{
  for (size_t n = 0; n <= NN_LONG; n = nn_next(n)) {
    for (size_t o = 0; o < NN_OFFSETS; o++) {
      for (int which = 0; which < RULES; which++) {
        check_rule((rule)which, n, nn_offsets[o]);
      }
    }
  }
}

static void nan_in_a_gradient_stays_where_it_is(void)
{
  enum { N = 21 };
  for (int which = 0; which < RULES; which++) {
    float *a[4];
    for (size_t slot = 0; slot < 4; slot++) {
      a[slot] = nn_new(slot, N, slot);
      for (size_t i = 0; i < N; i++) {
        a[slot][i] = 0.25f;
      }
    }
    a[1][17] = NAN;
    run((rule)which, a, N, 1);
    for (size_t i = 0; i < N; i++) {
      CHECK_EQ_U64(isnan(a[0][i]), i == 17);
      CHECK_EQ_U64(isnan(a[2][i]), i == 17 && which != SGD);
      CHECK_EQ_U64(isnan(a[3][i]),
                   i == 17 && (which == ADAM || which == ADAMW));
    }
  }
}

/* The square of the gradient is beyond float, that of the next one is not. */
static void squares_end_at_the_largest_float(void)
{
  enum { N = 21, LARGE = 17 };
  for (int which = ADAM; which <= ADAGRAD; which++) {
    float *a[4];
    for (size_t slot = 0; slot < 4; slot++) {
      a[slot] = nn_new(slot, N, slot);
      for (size_t i = 0; i < N; i++) {
        a[slot][i] = 0.25f;
      }
    }
    float *squares = which == ADAGRAD ? a[2] : a[3];
    a[1][LARGE] = 1e25f;
    run((rule)which, a, N, 1);
    CHECK_EQ_F64((double)squares[LARGE], (double)FLT_MAX);
    a[1][LARGE] = 0.25f;
    run((rule)which, a, N, 2);
    float kept = which == ADAGRAD ? 1.0f : (float)beta2;
    CHECK_EQ_F64((double)squares[LARGE], (double)(FLT_MAX * kept));
    for (size_t i = 0; i < N; i++) {
      CHECK(isfinite(a[0][i]));
      CHECK_EQ_U64(squares[i] < 1.0f, i != LARGE);
    }
  }
}

/* No gradient at all, which would be 0 / 0 without epsilon. */
static void zero_gradients_change_nothing(void)
{
  enum { N = 19 };
  for (int which = 0; which < RULES; which++) {
    float *a[4];
    for (size_t slot = 0; slot < 4; slot++) {
      a[slot] = nn_new(slot, N, slot);
      memset(a[slot], 0, N * sizeof(float));
    }
    run((rule)which, a, N, 1);
    for (size_t i = 0; i < N; i++) {
      CHECK_EQ_F64(a[0][i], 0.0);
    }
  }
}

int main(void)
{
  NN_CASE(optimisers_follow_their_formulas);
  NN_CASE(nan_in_a_gradient_stays_where_it_is);
  NN_CASE(squares_end_at_the_largest_float);
  NN_CASE(zero_gradients_change_nothing);
  return check_report();
}

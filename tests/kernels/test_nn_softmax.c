/* SPDX-License-Identifier: Apache-2.0 */
/* Softmax and losses, each table against loops in double. */
#include "nn_check.h"

enum { ROWS = 3, TARGETS = 700 };

static int32_t targets[TARGETS];

/* Row lengths: all short ones, and long ones in rows that fit the arrays. */
static size_t next_length(size_t n)
{
  return n < NN_SHORT ? n + 1 : n < 1000 ? 1000 : n < 6001 ? 6001 : NN_LONG;
}

static double greatest_of(const float *x, size_t n)
{
  double greatest = -INFINITY;
  for (size_t i = 0; i < n; i++) {
    if ((double)x[i] > greatest) greatest = (double)x[i];
  }
  return greatest;
}

static double log_sum_exp(const float *x, size_t n)
{
  double greatest = greatest_of(x, n);
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) {
    sum += exp((double)x[i] - greatest);
  }
  return greatest + log(sum);
}

/* Rows around different values, the second one of a wide range. */
static void draw_logits(float *x, size_t rows, size_t n)
{
  for (size_t r = 0; r < rows; r++) {
    nn_draw(x + r * n, n, r == 1 ? 120.0f : 5.0f, r * 1000 + n);
    for (size_t i = 0; i < n; i++) {
      x[r * n + i] += r == 2 ? 5000.0f : 0.0f;
    }
  }
}

static void check_softmax(size_t n, size_t offset)
{
  float *x = nn_new(0, ROWS * n, offset);
  float *y = nn_new(1, ROWS * n, 1);
  float *dy = nn_new(2, ROWS * n, offset);
  float *dx = nn_new(3, ROWS * n, 2);
  draw_logits(x, ROWS, n);
  nn_draw(dy, ROWS * n, 1.0f, n);
  nn->softmax.forward(y, x, ROWS, n);
  nn->softmax.backward(dx, dy, y, ROWS, n);
  for (size_t r = 0; r < ROWS; r++) {
    const float *row = y + r * n;
    double level = log_sum_exp(x + r * n, n);
    double mean = 0.0;
    for (size_t i = 0; i < n; i++) {
      /* The difference to the greatest is rounded at up to 2^-18. */
      NN_NEAR(row[i], exp((double)x[r * n + i] - level), i, 1e-37, 5e-6);
      mean += (double)row[i] * (double)dy[r * n + i];
    }
    for (size_t i = 0; i < n; i++) {
      NN_NEAR(dx[r * n + i], (double)row[i] * ((double)dy[r * n + i] - mean), i,
              1e-6 * (double)row[i], 1e-6);
    }
  }
  nn->softmax.backward(dy, dy, y, ROWS, n);
  CHECK_EQ_MEM(dy, dx, ROWS * n * sizeof *dx);
  nn->softmax.forward(x, x, ROWS, n);
  CHECK_EQ_MEM(x, y, ROWS * n * sizeof *y);
  for (size_t slot = 0; slot < 4; slot++) {
    nn_check_guards(slot);
  }
}

static void softmax_of_rows(void)
{
  for (size_t n = 0; ROWS * n <= NN_LONG; n = next_length(n)) {
    for (size_t o = 0; o < NN_OFFSETS; o++) {
      check_softmax(n, nn_offsets[o]);
    }
  }
}

/* What a row of the gradient is, and its loss. */
static double check_row(const flk_cross_entropy *loss, const float *x,
                        const float *gradient, int32_t target)
{
  size_t n = loss->n;
  double smoothing = (double)loss->smoothing;
  double level = log_sum_exp(x, n);
  double sum = 0.0;
  for (size_t i = 0; i < n; i++) {
    double share = smoothing / (double)n;
    if ((int32_t)i == target) share += 1.0 - smoothing;
    if (share > 0.0) sum += share * (level - (double)x[i]);
    double want = (exp((double)x[i] - level) - share) * (double)loss->factor;
    if (target == loss->ignore) want = 0.0;
    NN_NEAR(gradient[i], want, i, 3e-7 * (double)loss->factor, 1e-6);
  }
  return target == loss->ignore ? 0.0 : sum;
}

static void check_cross_entropy(size_t rows, size_t n, float smoothing)
{
  float *x = nn_new(0, rows * n, 1);
  float *gradient = nn_new(1, rows * n, 7);
  draw_logits(x, rows, n);
  flk_cross_entropy loss = {.logits = x,
                            .targets = targets,
                            .gradient = gradient,
                            .rows = rows,
                            .n = n,
                            .smoothing = smoothing,
                            .ignore = rows % 2 ? FLK_IGNORE : 0};
  for (size_t r = 0; r < rows; r++) {
    targets[r] = r % 4 == 3 ? loss.ignore : (int32_t)((r * 7 + 5) % n);
  }
  size_t count = flk_count_targets(targets, rows, loss.ignore);
  loss.factor = 1.0f / (float)(count > 0 ? count : 1);
  double got = nn->softmax.cross_entropy(&loss);
  double want = 0.0;
  double size = 0.0;
  for (size_t r = 0; r < rows; r++) {
    want += check_row(&loss, x + r * n, gradient + r * n, targets[r]);
    size += n > 0 ? fabs(greatest_of(x + r * n, n)) + 10.0 : 0.0;
  }
  NN_NEAR((float)got, want, rows, 1e-7 * size, 1e-6);
  loss.gradient = NULL;
  CHECK_EQ_F64(nn->softmax.cross_entropy(&loss), got);
  nn_check_guards(0);
  loss.gradient = x; /* in place */
  CHECK_EQ_F64(nn->softmax.cross_entropy(&loss), got);
  CHECK_EQ_MEM(x, gradient, rows * n * sizeof *x);
  nn_check_guards(0);
  nn_check_guards(1);
}

static void cross_entropy_and_its_gradient(void)
{
  for (size_t n = 1; n <= NN_LONG; n = next_length(n)) {
    size_t rows = n < NN_SHORT ? n % 9 : 1 + (n == 1000);
    check_cross_entropy(rows, n, 0.0f);
    check_cross_entropy(rows, n, 0.1f);
    check_cross_entropy(rows, n, 1.0f);
    if (n == NN_LONG) break;
  }
  check_cross_entropy(TARGETS, 10, 0.0f);
  flk_cross_entropy nothing = {.rows = 3, .ignore = FLK_IGNORE};
  CHECK_EQ_F64(nn->softmax.cross_entropy(&nothing), 0.0);
}

static void extreme_logits_are_safe(void)
{
  enum { N = 11 };
  float x[N], y[N], gradient[N];
  const float huge = 1e30f;
  flk_cross_entropy loss = {.logits = x,
                            .targets = targets,
                            .gradient = gradient,
                            .rows = 1,
                            .n = N,
                            .ignore = FLK_IGNORE,
                            .factor = 1.0f};
  for (size_t i = 0; i < N; i++) {
    x[i] = i == 4 ? huge : i == 5 ? -INFINITY : -huge;
  }
  targets[0] = 4;
  CHECK_EQ_F64(nn->softmax.cross_entropy(&loss), 0.0);
  nn->softmax.forward(y, x, 1, N);
  for (size_t i = 0; i < N; i++) {
    CHECK_EQ_F64(y[i], i == 4 ? 1.0 : 0.0);
    CHECK_EQ_F64(gradient[i], 0.0);
  }
  targets[0] = 0;
  NN_NEAR((float)nn->softmax.cross_entropy(&loss), 2e30, 0, 0.0, 1e-6);
  CHECK_EQ_F64(gradient[0], -1.0);
  CHECK_EQ_F64(gradient[4], 1.0);
  x[10] = NAN;
  CHECK(isnan(nn->softmax.cross_entropy(&loss)));
  nn->softmax.forward(y, x, 1, N);
  for (size_t i = 0; i < N; i++) {
    CHECK(isnan(y[i]));
    CHECK(isnan(gradient[i]));
  }
}

static double error_of(double x, double target, double *slope)
{
  *slope = 2.0 * (x - target);
  return (x - target) * (x - target);
}

static double entropy_of(double x, double target, double *slope)
{
  *slope = 1.0 / (1.0 + exp(-x)) - target;
  return fmax(x, 0.0) - x * target + log1p(exp(-fabs(x)));
}

/* `f` gives a loss and its slope; `is_binary`: targets are 0..1. */
static void check_loss(double (*kernel)(const flk_loss *loss),
                       double (*f)(double, double, double *), size_t n,
                       size_t offset)
{
  float *x = nn_new(0, n, offset);
  float *target = nn_new(1, n, 1);
  float *gradient = nn_new(2, n, offset);
  nn_draw(x, n, n % 2 ? 100.0f : 4.0f, n);
  nn_draw(target, n, 0.5f, n + 1);
  for (size_t i = 0; i < n; i++) {
    target[i] = i % 3 ? (float)(i % 2) : target[i] + 0.5f;
  }
  flk_loss loss = {x, target, gradient, n, 0.25f};
  double got = kernel(&loss);
  double want = 0.0;
  double size = 0.0;
  for (size_t i = 0; i < n; i++) {
    double slope;
    want += f((double)x[i], (double)target[i], &slope);
    size += fabs((double)x[i]) + 1.0;
    NN_NEAR(gradient[i], slope * 0.25, i, 1e-7, 1e-6);
  }
  NN_NEAR((float)got, want, n, 1e-7 * size, 1e-6);
  loss.gradient = NULL;
  CHECK_EQ_F64(kernel(&loss), got);
  loss.gradient = x;
  CHECK_EQ_F64(kernel(&loss), got);
  CHECK_EQ_MEM(x, gradient, n * sizeof *x);
  for (size_t slot = 0; slot < 3; slot++) {
    nn_check_guards(slot);
  }
}

static void losses_of_elements(void)
{
  for (size_t n = 0; n <= NN_LONG; n = nn_next(n)) {
    for (size_t o = 0; o < NN_OFFSETS; o++) {
      check_loss(nn->softmax.squared_error, error_of, n, nn_offsets[o]);
      check_loss(nn->softmax.binary_cross_entropy, entropy_of, n,
                 nn_offsets[o]);
    }
  }
}

static void extreme_elements_have_losses(void)
{
  float x[4] = {1e30f, -1e30f, 1e30f, -40.0f};
  float target[4] = {1.0f, 0.0f, 0.0f, 0.0f};
  float gradient[4];
  flk_loss loss = {x, target, gradient, 4, 1.0f};
  double got = nn->softmax.binary_cross_entropy(&loss);
  NN_NEAR((float)got, 1e30, 0, 0.0, 1e-6);
  CHECK_EQ_F64(gradient[0], 0.0);
  CHECK_EQ_F64(gradient[1], 0.0);
  CHECK_EQ_F64(gradient[2], 1.0);
  loss = (flk_loss){x + 3, target + 3, gradient, 1, 1.0f};
  got = nn->softmax.binary_cross_entropy(&loss);
  CHECK(fabs(got - exp(-40.0)) <= 1e-6 * exp(-40.0));
  loss = (flk_loss){x, target, gradient, 3, 1.0f};
  got = nn->softmax.squared_error(&loss);
  CHECK(fabs(got - 3e60) <= 1e-6 * 3e60);
  x[1] = NAN;
  CHECK(isnan(nn->softmax.squared_error(&loss)) && isnan(gradient[1]));
  CHECK(isnan(nn->softmax.binary_cross_entropy(&loss)) && isnan(gradient[1]));
}

int main(void)
{
  NN_CASE(softmax_of_rows);
  NN_CASE(cross_entropy_and_its_gradient);
  NN_CASE(extreme_logits_are_safe);
  NN_CASE(losses_of_elements);
  NN_CASE(extreme_elements_have_losses);
  return check_report();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Activations and sums of arrays, each table against loops in double: all
 * lengths up to NN_SHORT and a long one, at several offsets. */
#include <float.h>

#include "nn_check.h"

typedef struct activation_case {
  double (*f)(double x);
  /* f' from x and y */
  double (*slope)(double x, double y);
  double absolute; /* per 1 + |x| */
  double relative;
} activation_case;

static double relu(double x)
{
  return x > 0.0 || isnan(x) ? x : 0.0;
}

static double relu_slope(double x, double y)
{
  return y > 0.0 || isnan(y);
}

static double gelu(double x)
{
  return x * 0.5 * (1.0 + erf(x / sqrt(2.0)));
}

static double gelu_slope(double x, double y)
{
  double density = exp(-0.5 * x * x) / sqrt(2.0 * acos(-1.0));
  double tail = isinf(x) ? 0.0 : x * density;
  return 0.5 * (1.0 + erf(x / sqrt(2.0))) + tail;
}

static double sigmoid(double x)
{
  return 1.0 / (1.0 + exp(-x));
}

static double sigmoid_slope(double x, double y)
{
  return y * (1.0 - y);
}

static double silu(double x)
{
  return x * sigmoid(x);
}

static double silu_slope(double x, double y)
{
  double s = sigmoid(x);
  return isinf(x) ? s : s + x * s * (1.0 - s);
}

static double tanh_slope(double x, double y)
{
  return 1.0 - y * y;
}

static const activation_case activations[FLK_ACTIVATIONS] = {
    [FLK_RELU] = {relu, relu_slope, 0.0, 0.0},
    [FLK_GELU] = {gelu, gelu_slope, 2e-7, 4e-7},
    [FLK_SILU] = {silu, silu_slope, 1e-37, 4e-7},
    [FLK_TANH] = {tanh, tanh_slope, 0.0, 4e-7},
    [FLK_SIGMOID] = {sigmoid, sigmoid_slope, 2e-38, 4e-7}};

/* Drawn ones with others among them. */
static void draw_arguments(float *x, size_t n, uint64_t seed)
{
  static const float edges[] = {0.0f,  -0.0f, FLT_TRUE_MIN, -0x1p-130f,
                                1e30f, 20.0f, -20.0f,       -88.0f,
                                88.0f, 8.99f, -9.02f,       0x1p-20f};
  nn_draw(x, n, 6.0f, seed);
  for (size_t i = 3; i < n; i += 5) {
    x[i] = edges[i / 5 % FLI_COUNT_OF(edges)];
  }
}

static void check_activation(int which, size_t n, size_t offset)
{
  const activation_case *a = &activations[which];
  float *x = nn_new(0, n, offset);
  float *y = nn_new(1, n, offset / 2);
  float *dy = nn_new(2, n, 0);
  float *dx = nn_new(3, n, offset);
  draw_arguments(x, n, n);
  nn_draw(dy, n, 2.0f, n + 1);
  nn->activation.forward[which](y, x, n);
  const float *known = flk_activation_keeps_x(which) ? x : y;
  nn->activation.backward[which](dx, dy, known, n);
  for (size_t i = 0; i < n; i++) {
    double want = a->f((double)x[i]);
    NN_NEAR(y[i], want, i, a->absolute * (1.0 + fabs((double)x[i])),
            a->relative);
    double slope = a->slope((double)x[i], (double)y[i]);
    NN_NEAR(dx[i], slope * (double)dy[i], i, a->relative * 3.0, a->relative);
  }
  /* in place */
  nn->activation.backward[which](dy, dy, known, n);
  CHECK_EQ_MEM(dy, dx, n * sizeof *dx);
  nn->activation.forward[which](x, x, n);
  CHECK_EQ_MEM(x, y, n * sizeof *y);
  for (size_t slot = 0; slot < 4; slot++) {
    nn_check_guards(slot);
  }
}

static void activations_follow_their_formulas(void)
{
  for (size_t n = 0; n <= NN_LONG; n = nn_next(n)) {
    for (size_t o = 0; o < NN_OFFSETS; o++) {
      for (int which = 0; which < FLK_ACTIVATIONS; which++) {
        check_activation(which, n, nn_offsets[o]);
      }
    }
  }
}

/* Every 5 * 10^-5 from -12 to 12, and the rest in steps of 1/8. */
static void errors_are_as_stated_everywhere(void)
{
  enum { STEPS = 20000 };
  float *x = nn_new(0, STEPS, 0);
  float *y = nn_new(1, STEPS, 0);
  for (int block = 0; block < 8; block++) {
    for (size_t i = 0; i < STEPS; i++) {
      double at = ((double)i + 0.37) / STEPS;
      x[i] = (float)(block < 4    ? -12.0 + 24.0 * (at + block) / 4.0
                     : block == 7 ? -100.0 + 200.0 * at
                                  : pow(2.0, -30.0 + 33.0 * at) *
                                        (block == 5 ? -1.0 : 1.0));
    }
    for (int which = 0; which < FLK_ACTIVATIONS; which++) {
      const activation_case *a = &activations[which];
      nn->activation.forward[which](y, x, STEPS);
      for (size_t i = 0; i < STEPS; i++) {
        NN_NEAR(y[i], a->f((double)x[i]), i,
                a->absolute * (1.0 + fabs((double)x[i])), a->relative);
      }
    }
  }
}

static void nan_and_infinity_pass_activations(void)
{
  static const float odd[] = {NAN, INFINITY, -INFINITY, -NAN, -1e30f, 1e30f};
  enum { N = 37 };
  for (int which = 0; which < FLK_ACTIVATIONS; which++) {
    float *x = nn_new(0, N, 1);
    float *y = nn_new(1, N, 1);
    float *dx = nn_new(2, N, 1);
    float *ones = nn_new(3, N, 1);
    for (size_t i = 0; i < N; i++) {
      x[i] = odd[i % FLI_COUNT_OF(odd)];
      ones[i] = 1.0f;
    }
    nn->activation.forward[which](y, x, N);
    nn->activation.backward[which](dx, ones,
                                   flk_activation_keeps_x(which) ? x : y, N);
    for (size_t i = 0; i < N; i++) {
      int is_nan =
          isnan(x[i]) || (x[i] == -INFINITY && flk_activation_keeps_x(which));
      double at = (double)x[i];
      double want = activations[which].f(at);
      NN_NEAR(y[i], is_nan ? (double)NAN : want, i, 1e-30, 0.0);
      double slope = activations[which].slope(at, want);
      if (which == FLK_RELU && isnan(x[i])) slope = 1.0;
      NN_NEAR(dx[i], slope, i, 1e-6, 0.0);
      /* and NaN in dy stays */
      float bad = NAN;
      nn->activation.backward[which](&bad, &bad, &ones[i], 1);
      CHECK(isnan(bad));
    }
  }
}

static void check_sums(size_t n, size_t offset)
{
  float *a = nn_new(0, n, offset);
  float *b = nn_new(1, n, 1);
  float *y = nn_new(2, n, offset);
  nn_draw(a, n, 1e3f, n);
  nn_draw(b, n, 1.0f, n + 1);
  nn->vector.add(y, a, b, n);
  for (size_t i = 0; i < n; i++) {
    CHECK_EQ_F64(y[i], a[i] + b[i]);
  }
  nn->vector.axpy(y, -0.3f, a, n);
  for (size_t i = 0; i < n; i++) {
    NN_NEAR(y[i], (double)(a[i] + b[i]) + (double)-0.3f * (double)a[i], i, 1e-4,
            1e-7);
  }
  nn->vector.scale(y, 0.7f, a, n);
  for (size_t i = 0; i < n; i++) {
    CHECK_EQ_F64(y[i], 0.7f * a[i]);
  }
  nn->vector.add(a, a, b, n);
  nn->vector.scale(a, 0.5f, a, n);
  for (size_t i = 0; i < n; i++) {
    NN_NEAR(a[i], ((double)(y[i]) / (double)0.7f + (double)b[i]) * 0.5, i, 1e-4,
            1e-6);
  }
  for (size_t slot = 0; slot < 3; slot++) {
    nn_check_guards(slot);
  }
}

static void sums_and_multiples_of_arrays(void)
{
  for (size_t n = 0; n <= NN_LONG; n = nn_next(n)) {
    for (size_t o = 0; o < NN_OFFSETS; o++) {
      check_sums(n, nn_offsets[o]);
    }
  }
}

static void bytes_become_floats(void)
{
  static uint8_t bytes[NN_LONG + 8];
  for (size_t i = 0; i < sizeof bytes; i++) {
    bytes[i] = (uint8_t)(i * 7 + i / 256);
  }
  for (size_t n = 0; n <= NN_LONG; n = nn_next(n)) {
    for (size_t o = 0; o < NN_OFFSETS; o++) {
      float *y = nn_new(0, n, nn_offsets[o]);
      const uint8_t *x = bytes + nn_offsets[o];
      nn->vector.from_u8(y, x, n, 1.0f / 255.0f, -0.5f);
      for (size_t i = 0; i < n; i++) {
        NN_NEAR(y[i], x[i] / 255.0 - 0.5, i, 1e-7, 1e-7);
      }
      nn_check_guards(0);
    }
  }
}

static void floats_are_scaled(void)
{
  for (size_t n = 0; n <= NN_LONG; n = nn_next(n)) {
    for (size_t o = 0; o < NN_OFFSETS; o++) {
      float *x = nn_new(0, n, nn_offsets[o]);
      float *y = nn_new(1, n, nn_offsets[NN_OFFSETS - 1 - o]);
      nn_draw(x, n, 255.0f, n);
      nn->vector.from_f32(y, x, n, 1.0f / 255.0f, -0.5f);
      for (size_t i = 0; i < n; i++) {
        NN_NEAR(y[i], (double)x[i] / 255.0 - 0.5, i, 2e-7, 1e-7);
      }
      nn_check_guards(0);
      nn_check_guards(1);
    }
  }
}

static void check_columns(size_t rows, size_t n)
{
  float *x = nn_new(0, rows * n, 3);
  float *old = nn_new(1, n, 1);
  float *sums = nn_new(2, n, 5);
  nn_draw(x, rows * n, 1.0f, n);
  nn_draw(old, n, 1.0f, rows);
  for (int does_add = 0; does_add < 2; does_add++) {
    memcpy(sums, old, n * sizeof *old);
    nn->vector.column_sums(sums, x, rows, n, does_add);
    for (size_t j = 0; j < n; j++) {
      double want = does_add ? (double)old[j] : 0.0;
      for (size_t r = 0; r < rows; r++) {
        want += (double)x[r * n + j];
      }
      NN_NEAR(sums[j], want, j, 3e-6 * sqrt((double)rows + 1.0), 1e-6);
    }
  }
  for (size_t slot = 0; slot < 3; slot++) {
    nn_check_guards(slot);
  }
}

static void columns_are_summed(void)
{
  static const size_t many[] = {0, 1, 2, 3, 4, 5, 255, 256, 257};
  for (size_t n = 0; n <= NN_SHORT; n++) {
    for (size_t k = 0; k < FLI_COUNT_OF(many); k++) {
      check_columns(many[k], n);
    }
  }
  check_columns(2003, 8);
  check_columns(5, 3999);
}

static void squares_are_summed_in_double(void)
{
  for (size_t n = 0; n <= NN_LONG; n = nn_next(n)) {
    float *x = nn_new(0, n, n % 5);
    double want = 0.0;
    nn_draw(x, n, 1.0f, n);
    for (size_t i = 0; i < n; i += 9) {
      x[i] *= 1e25f; /* whose square float does not hold */
    }
    for (size_t i = 0; i < n; i++) {
      want += (double)x[i] * (double)x[i];
    }
    double got = nn->vector.sum_squares(x, n);
    CHECK(fabs(got - want) <= 1e-13 * want);
    if (n == 0) continue;
    x[n - 1] = NAN;
    CHECK(isnan(nn->vector.sum_squares(x, n)));
  }
}

static void rows_are_gathered_and_scattered(void)
{
  enum { TABLE = 20, ROWS = 33 };
  static float want[TABLE * NN_SHORT];
  int32_t ids[ROWS];
  for (int32_t r = 0; r < ROWS; r++) {
    ids[r] = r * 7 % 11 + r % 2 * 9;
  }
  for (size_t n = 0; n <= NN_SHORT; n++) {
    float *table = nn_new(0, TABLE * n, n % 3);
    float *rows = nn_new(1, ROWS * n, n % 5);
    nn_draw(table, TABLE * n, 1.0f, n);
    nn->vector.gather(rows, table, ids, ROWS, n);
    for (size_t i = 0; i < TABLE * n; i++) {
      want[i] = table[i];
    }
    for (size_t r = 0; r < ROWS; r++) {
      size_t id = (size_t)ids[r];
      CHECK_EQ_MEM(rows + r * n, table + id * n, n * sizeof *rows);
      for (size_t i = 0; i < n; i++) {
        want[id * n + i] += rows[r * n + i];
      }
    }
    nn->vector.scatter_add(table, rows, ids, ROWS, n);
    CHECK_EQ_MEM(table, want, TABLE * n * sizeof *table);
    nn_check_guards(0);
    nn_check_guards(1);
  }
}

int main(void)
{
  NN_CASE(activations_follow_their_formulas);
  NN_CASE(errors_are_as_stated_everywhere);
  NN_CASE(nan_and_infinity_pass_activations);
  NN_CASE(sums_and_multiples_of_arrays);
  NN_CASE(bytes_become_floats);
  NN_CASE(floats_are_scaled);
  NN_CASE(columns_are_summed);
  NN_CASE(squares_are_summed_in_double);
  NN_CASE(rows_are_gathered_and_scattered);
  return check_report();
}

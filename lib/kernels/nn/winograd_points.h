/* SPDX-License-Identifier: Apache-2.0 */
/* Winograd's transforms in one dimension, of F(m, 3) with a constant m: see
 * winograd_body.h, which defines VEC and NAMED(name). Included once per type:
 * no guard. */

/* B^T: m + 2 inputs to m + 2 points */
INLINE void NAMED(data_points)(const VEC *d, VEC *p, size_t m)
{
  if (m == 1) {
    p[0] = 4.0f * (d[0] - d[1]);
    p[1] = d[2] - d[1];
    p[2] = -6.0f * d[1];
  } else if (m == 2) {
    p[0] = 4.0f * (d[0] - d[2]);
    p[1] = d[3] - d[1];
    p[2] = -3.0f * (d[2] + d[1]);
    p[3] = -3.0f * (d[2] - d[1]);
  } else if (m == 3) {
    p[0] = 4.0f * (d[0] - d[2]) + 2.0f * (d[3] - d[1]);
    p[1] = 2.0f * (d[1] - d[3]) + (d[4] - d[2]);
    p[2] = 3.0f * ((d[3] - d[2]) - 2.0f * d[1]);
    p[3] = (d[3] - 3.0f * d[2]) + 2.0f * d[1];
    p[4] = 4.0f * (d[3] - d[1]);
  } else {
    VEC even = d[4] - 4.0f * d[2], odd = d[3] - 4.0f * d[1];
    VEC even2 = d[4] - d[2], odd2 = d[3] - d[1];
    p[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
    p[1] = 4.0f * d[1] - 5.0f * d[3] + d[5];
    p[2] = even + odd;
    p[3] = even - odd;
    p[4] = even2 + 2.0f * odd2;
    p[5] = even2 - 2.0f * odd2;
  }
}

/* B: gradients at points to those of inputs */
INLINE void NAMED(data_points_back)(const VEC *p, VEC *d, size_t m)
{
  if (m == 1) {
    d[0] = 4.0f * p[0];
    d[1] = -4.0f * p[0] - 6.0f * p[2] - p[1];
    d[2] = p[1];
  } else if (m == 2) {
    VEC sum = 3.0f * (p[2] + p[3]), difference = 3.0f * (p[2] - p[3]);
    d[0] = 4.0f * p[0];
    d[1] = -(difference + p[1]);
    d[2] = -(4.0f * p[0] + sum);
    d[3] = p[1];
  } else if (m == 3) {
    VEC one = 3.0f * p[2];
    d[0] = 4.0f * p[0];
    d[1] = 2.0f * (p[1] + p[3] - p[0] - one) - 4.0f * p[4];
    d[2] = -4.0f * p[0] - one - 3.0f * p[3] - p[1];
    d[3] = 2.0f * (p[0] - p[1]) + one + p[3] + 4.0f * p[4];
    d[4] = p[1];
  } else {
    VEC sum = p[2] + p[3], difference = p[2] - p[3];
    VEC sum2 = p[4] + p[5], difference2 = p[4] - p[5];
    d[0] = 4.0f * p[0];
    d[1] = 4.0f * (p[1] - difference) - 2.0f * difference2;
    d[2] = -5.0f * p[0] - 4.0f * sum - sum2;
    d[3] = difference + 2.0f * difference2 - 5.0f * p[1];
    d[4] = p[0] + sum + sum2;
    d[5] = p[1];
  }
}

/* A^T: m + 2 points to m outputs */
INLINE void NAMED(result_points)(const VEC *p, VEC *y, size_t m)
{
  if (m == 1) {
    y[0] = p[0] + p[2] + p[1];
  } else if (m == 2) {
    y[0] = p[0] + (p[2] + p[3]);
    y[1] = (p[2] - p[3]) + p[1];
  } else if (m == 3) {
    VEC sum = p[2] + p[3];
    y[0] = p[0] + sum + p[4];
    y[1] = (p[2] - p[3]) + 2.0f * p[4];
    y[2] = sum + 4.0f * p[4] + p[1];
  } else {
    VEC sum = p[2] + p[3], difference = p[2] - p[3];
    VEC sum2 = p[4] + p[5], difference2 = p[4] - p[5];
    y[0] = p[0] + sum + sum2;
    y[1] = difference + 2.0f * difference2;
    y[2] = sum + 4.0f * sum2;
    y[3] = difference + 8.0f * difference2 + p[1];
  }
}

/* A: gradients of m outputs to those at m + 2 points */
INLINE void NAMED(result_points_back)(const VEC *y, VEC *p, size_t m)
{
  p[0] = y[0];
  p[1] = y[m - 1];
  if (m == 1) {
    p[2] = y[0];
  } else if (m == 2) {
    p[2] = y[0] + y[1];
    p[3] = y[0] - y[1];
  } else if (m == 3) {
    VEC even = y[0] + y[2];
    p[2] = even + y[1];
    p[3] = even - y[1];
    p[4] = y[0] + 4.0f * y[2] + 2.0f * y[1];
  } else {
    VEC even = y[0] + y[2], odd = y[1] + y[3];
    VEC even2 = y[0] + 4.0f * y[2], odd2 = y[1] + 4.0f * y[3];
    p[2] = even + odd;
    p[3] = even - odd;
    p[4] = even2 + 2.0f * odd2;
    p[5] = even2 - 2.0f * odd2;
  }
}

/* G: 3 weights, `stride` apart, to all points */
INLINE void NAMED(weight_points)(const VEC *g, size_t stride, VEC *p)
{
  VEC ends = g[0] + g[2 * stride];
  VEC ends2 = g[0] + 4.0f * g[2 * stride];
  p[0] = 0.25f * g[0];
  p[1] = g[2 * stride];
  p[2] = (-1.0f / 6.0f) * (ends + g[stride]);
  p[3] = (-1.0f / 6.0f) * (ends - g[stride]);
  p[4] = (1.0f / 24.0f) * (ends2 + 2.0f * g[stride]);
  p[5] = (1.0f / 24.0f) * (ends2 - 2.0f * g[stride]);
}

/* G^T: gradients at all points to those of 3 weights, `stride` apart */
INLINE void NAMED(weight_points_back)(const VEC *p, VEC *g, size_t stride)
{
  VEC sum = (1.0f / 6.0f) * (p[2] + p[3]);
  VEC difference = (1.0f / 6.0f) * (p[2] - p[3]);
  VEC sum2 = (1.0f / 24.0f) * (p[4] + p[5]);
  VEC difference2 = (1.0f / 12.0f) * (p[4] - p[5]);
  g[0] = 0.25f * p[0] - sum + sum2;
  g[stride] = difference2 - difference;
  g[2 * stride] = p[1] - sum + 4.0f * sum2;
}

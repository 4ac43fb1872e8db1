/* SPDX-License-Identifier: Apache-2.0 */
/* What FedProx and SCAFFOLD add at the client, with the built-in trainer and
 * without. */
#include <criterion/criterion.h>
#include <math.h>
#include <string.h>

#include <fl/strategy.h>
#include "wire/writer.h"

enum { N = 20 };

static void fill(float *x, float first)
{
  for (size_t i = 0; i < N; i++)
    x[i] = first + 0.25f * (float)i;
}

static fl_local *made(float mu)
{
  fl_local *local = NULL;
  cr_assert_eq(fl_local_new(&local, NULL, mu, N), FL_OK);
  return local;
}

Test(local, prox_pulls_to_the_global_weights_piece_by_piece)
{
  fl_local *local = made(0.5f);
  float global[N], weights[N], gradient[N] = {0}, tail[N] = {0};
  fill(global, 1.0f);
  fill(weights, 3.0f);
  cr_assert_eq(fl_local_begin(local, global, NULL, N), FL_OK);
  cr_assert_eq(fl_local_correct(local, gradient, weights, 0, 7), FL_OK);
  cr_assert_eq(fl_local_correct(local, gradient + 7, weights + 7, 7, N - 7),
               FL_OK);
  for (size_t i = 0; i < N; i++)
    cr_assert_eq(gradient[i], 1.0f);
  /* A model whose first modules are frozen hands out the last ones. */
  cr_assert_eq(fl_local_gradient(tail, weights + 15, 5, local), FL_OK);
  cr_assert_eq(tail[4], 1.0f);
  cr_assert_eq(tail[5], 0.0f);
  fl_local_free(local);
}

Test(local, control_of_a_client_outlives_rounds_and_the_process)
{
  fl_local *local = made(0.0f), *again = made(0.0f);
  float global[N], weights[N], control[N], change[N], gradient[N] = {0};
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  fill(global, 1.0f);
  fill(weights, 0.0f);
  fill(control, 2.0f);
  cr_assert_eq(fl_local_begin(local, global, control, N), FL_OK);
  cr_assert_eq(fl_local_end(local, weights, 4, 0.5f, change, N), FL_OK);
  for (size_t i = 0; i < N; i++)
    cr_assert_eq(change[i], 0.5f - control[i]);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_local_save(local, &writer), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_local_load(again, &reader), FL_OK);
  cr_assert_eq(fl_local_begin(again, global, control, N), FL_OK);
  cr_assert_eq(fl_local_correct(again, gradient, weights, 0, N), FL_OK);
  for (size_t i = 0; i < N; i++)
    cr_assert_eq(gradient[i], control[i] - (0.5f - control[i]));
  fl_buffer_free(buffer);
  fl_local_free(local);
  fl_local_free(again);
}

Test(local, a_torn_state_is_refused_and_changes_nothing)
{
  fl_local *local = made(0.0f);
  float global[N], control[N], change[N];
  const uint8_t *data = NULL;
  size_t size = 0;
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  fill(global, 1.0f);
  fill(control, 2.0f);
  cr_assert_eq(fl_local_begin(local, global, control, N), FL_OK);
  cr_assert_eq(fl_local_end(local, global, 1, 1.0f, change, N), FL_OK);
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_local_save(local, &writer), FL_OK);
  cr_assert_eq(fl_buffer_get(buffer, &data, &size), FL_OK);
  for (size_t cut = 0; cut < size; cut++) {
    fl_buffer *torn = NULL;
    cr_assert_eq(fl_buffer_new(&torn, NULL), FL_OK);
    cr_assert_eq(fl_buffer_append(torn, data, cut), FL_OK);
    cr_assert_eq(fl_buffer_as_reader(torn, &reader), FL_OK);
    cr_assert_neq(fl_local_load(local, &reader), FL_OK);
    fl_buffer_free(torn);
  }
  fl_local *other = NULL;
  cr_assert_eq(fl_local_new(&other, NULL, 0.0f, N + 1), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_local_load(other, &reader), FL_E_DIM);
  fl_local_free(other);
  fl_buffer_free(buffer);
  fl_local_free(local);
}

Test(local, what_is_out_of_turn_or_range_is_refused)
{
  fl_local *local = NULL;
  float x[N], bad[N], gradient[N] = {0};
  fill(x, 0.0f);
  fill(bad, 0.0f);
  bad[3] = NAN;
  cr_assert_eq(fl_local_new(&local, NULL, -1.0f, N), FL_E_OPTIONS);
  cr_assert_eq(fl_local_new(&local, NULL, NAN, N), FL_E_OPTIONS);
  cr_assert_eq(fl_local_new(&local, NULL, 0.0f, 0), FL_E_ARGUMENT);
  local = made(0.1f);
  cr_assert_eq(fl_local_correct(local, gradient, x, 0, N), FL_E_STATE);
  cr_assert_eq(fl_local_end(local, x, 1, 1.0f, NULL, N), FL_E_STATE);
  cr_assert_eq(fl_local_begin(local, bad, NULL, N), FL_E_NOT_FINITE);
  cr_assert_eq(fl_local_begin(local, x, bad, N), FL_E_NOT_FINITE);
  cr_assert_eq(fl_local_begin(local, x, NULL, N - 1), FL_E_DIM);
  cr_assert_eq(fl_local_begin(local, x, NULL, N), FL_OK);
  cr_assert_eq(fl_local_correct(local, gradient, x, 1, N), FL_E_DIM);
  cr_assert_eq(fl_local_correct(local, gradient, x, UINT64_MAX, 2), FL_E_DIM);
  cr_assert_eq(fl_local_gradient(gradient, x, N + 1, local), FL_E_ARGUMENT);
  cr_assert_eq(fl_local_end(local, x, 0, 1.0f, NULL, N), FL_E_ARGUMENT);
  cr_assert_eq(fl_local_end(local, x, 1, 0.0f, NULL, N), FL_E_ARGUMENT);
  cr_assert_eq(fl_local_end(local, bad, 1, 1.0f, NULL, N), FL_E_NOT_FINITE);
  cr_assert_eq(fl_local_end(local, x, 1, 1.0f, NULL, N), FL_OK);
  fl_local_free(local);
  fl_local_free(NULL);
}

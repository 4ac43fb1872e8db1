/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of FedProx and SCAFFOLD: what they add to gradients. */
#include <math.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "strategy/strategy.h"
#include "wire/container.h"
#include "wire/reader.h"

struct fl_local {
  fl_context *context;
  float mu;
  uint64_t n;
  float *global;  /* w */
  float *control; /* c; NULL before the first */
  float *own;     /* c_k; NULL while it is zeros */
  int is_begun;
  int has_control; /* in this round */
};

enum { LOCAL_STATE_VERSION = 1 };

static void free_floats(const fl_local *local, float *values)
{
  fli_free(local->context, values, (size_t)local->n * sizeof *values);
}

fl_status fl_local_new(fl_local **out, fl_context *context, float mu,
                       uint64_t n)
{
  fli_clear_error();
  if (!out || n == 0)
    return fli_error(FL_E_ARGUMENT, "local: out NULL, or 0 weights");
  if (!(mu >= 0.0f && mu <= 1e6f))
    return fli_error(FL_E_OPTIONS, "local: mu, got %g, want 0..1e6",
                     (double)mu);
  if (n > SIZE_MAX / sizeof(double)) return fli_nomem(SIZE_MAX);
  fl_local *local = fli_alloc(context, 1, sizeof *local);
  if (!local) return fli_nomem(sizeof *local);
  local->context = fli_context_ref(context);
  local->mu = mu;
  local->n = n;
  local->global = fli_alloc(context, (size_t)n, sizeof(float));
  if (!local->global) {
    fl_local_free(local);
    return fli_nomem((size_t)n * sizeof(float));
  }
  *out = local;
  return FL_OK;
}

void fl_local_free(fl_local *local)
{
  if (!local) return;
  fl_context *context = local->context;
  free_floats(local, local->global);
  free_floats(local, local->control);
  free_floats(local, local->own);
  fli_free(context, local, sizeof *local);
  fli_context_unref(context);
}

static fl_status check_n(const fl_local *local, uint64_t n)
{
  if (n == local->n) return FL_OK;
  return fli_error(FL_E_DIM, "local: got %llu values, want %llu",
                   (unsigned long long)n, (unsigned long long)local->n);
}

/* Memory for c and c_k, which a host without SCAFFOLD does not pay for. */
static fl_status need_controls(fl_local *local)
{
  const size_t n = (size_t)local->n;
  if (!local->control) local->control = fli_alloc(local->context, n, 4);
  if (!local->own) local->own = fli_alloc(local->context, n, 4);
  return local->control && local->own ? FL_OK : fli_nomem(n * 4);
}

fl_status fl_local_begin(fl_local *local, const float *weights,
                         const float *control, uint64_t n)
{
  fl_status st = FL_OK;
  fli_clear_error();
  if (!local || !weights) return fli_error(FL_E_ARGUMENT, "local: got NULL");
  FLI_TRY(check_n(local, n));
  FLI_TRY(fli_expect_finite(weights, n, "the global weights"));
  if (control) {
    FLI_TRY(fli_expect_finite(control, n, "the server's control"));
    FLI_TRY(need_controls(local));
    memcpy(local->control, control, (size_t)n * sizeof *control);
  }
  memcpy(local->global, weights, (size_t)n * sizeof *weights);
  local->has_control = control != NULL;
  local->is_begun = 1;
out:
  return st;
}

static void correct(const fl_local *local, float *gradient,
                    const float *weights, size_t at, size_t n)
{
  const float mu = local->mu;
  for (size_t i = 0; mu > 0.0f && i < n; i++)
    gradient[i] += mu * (weights[i] - local->global[at + i]);
  for (size_t i = 0; local->has_control && i < n; i++)
    gradient[i] += local->control[at + i] - local->own[at + i];
}

fl_status fl_local_correct(const fl_local *local, float *gradient,
                           const float *weights, uint64_t at, uint64_t n)
{
  fli_fpguard guard;
  fli_clear_error();
  if (!local || !gradient || !weights)
    return fli_error(FL_E_ARGUMENT, "local: got NULL");
  if (!local->is_begun)
    return fli_error(FL_E_STATE, "local: no round was begun");
  if (at > local->n || n > local->n - at)
    return fli_error(FL_E_DIM, "local: got [%llu, %llu + n), want <= %llu",
                     (unsigned long long)at, (unsigned long long)at,
                     (unsigned long long)local->n);
  fli_fpguard_enter(&guard);
  correct(local, gradient, weights, (size_t)at, (size_t)n);
  fli_fpguard_leave(&guard);
  return FL_OK;
}

fl_status fl_local_gradient(float *gradient, const float *weights,
                            uint64_t count, void *user)
{
  const fl_local *local = user;
  fli_clear_error();
  if (!local || count > local->n)
    return fli_error(FL_E_ARGUMENT, "local: NULL, or of another model");
  return fl_local_correct(local, gradient, weights, local->n - count, count);
}

static void find_change(const fl_local *local, const float *weights,
                        double scale, float *change)
{
  for (size_t i = 0; i < (size_t)local->n; i++) {
    const double moved =
        ((double)local->global[i] - (double)weights[i]) * scale;
    change[i] = (float)(moved - (double)local->control[i]);
  }
}

fl_status fl_local_end(fl_local *local, const float *weights, uint64_t steps,
                       float rate, float *change, uint64_t n)
{
  fl_status st = FL_OK;
  fli_fpguard guard;
  float *moved = NULL;
  fli_clear_error();
  if (!local || !weights || steps == 0 || !(rate > 0.0f && rate <= 1e6f))
    return fli_error(FL_E_ARGUMENT, "local: NULL, no steps, or rate %g",
                     (double)rate);
  if (!local->is_begun)
    return fli_error(FL_E_STATE, "local: no round was begun");
  FLI_TRY(check_n(local, n));
  FLI_TRY(fli_expect_finite(weights, n, "the trained weights"));
  if (local->has_control) {
    moved = fli_alloc(local->context, (size_t)n, sizeof *moved);
    if (!moved) FLI_TRY(fli_nomem((size_t)n * sizeof *moved));
    fli_fpguard_enter(&guard);
    find_change(local, weights, 1.0 / ((double)steps * (double)rate), moved);
    fli_fpguard_leave(&guard);
    FLI_TRY(fli_expect_finite(moved, n, "the change of the control"));
    for (size_t i = 0; i < (size_t)n; i++)
      local->own[i] += moved[i];
  }
  for (size_t i = 0; change && i < (size_t)n; i++)
    change[i] = moved ? moved[i] : 0.0f;
  local->is_begun = 0;
out:
  free_floats(local, moved);
  return st;
}

/* {1: n, 2: c_k, where it is not zeros} */
fl_status fl_local_save(const fl_local *local, const fl_writer *writer)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  fli_msg_writer pack;
  fli_clear_error();
  if (!local || !writer || !writer->write)
    return fli_error(FL_E_ARGUMENT, "local: got NULL");
  if (local->n >= UINT32_MAX / sizeof(float))
    return fli_error(FL_E_TOO_LARGE, "local: 2^30 weights or more");
  fli_bytes_init(&payload, local->context);
  fli_writer_init(&pack, &payload);
  fli_writer_map(&pack, local->own ? 2 : 1);
  fli_field_u64(&pack, 1, local->n);
  if (local->own) fli_field_floats(&pack, 2, local->own, (size_t)local->n);
  FLI_TRY(fli_writer_status(&pack));
  FLI_TRY(fli_container_write(writer, FLI_STATE_LOCAL, LOCAL_STATE_VERSION,
                              &payload));
out:
  fli_bytes_free(&payload);
  return st;
}

static fl_status read_own(fl_local *local, const fli_bytes *payload, float *own,
                          int *has_own)
{
  fl_status st = FL_OK;
  fli_msg_reader reader;
  uint64_t n = 0;
  uint32_t key = 0;
  fli_reader_init(&reader, payload->data, payload->size);
  for (fli_fields f = fli_fields_begin(&reader); fli_fields_next(&f, &key);) {
    switch (key) {
    case 1: n = fli_reader_u64(&reader); break;
    case 2:
      fli_reader_floats(&reader, own, (size_t)local->n, "local: c_k");
      *has_own = 1;
      break;
    default: fli_fields_unknown(&f);
    }
  }
  FLI_TRY(fli_reader_finish(&reader));
  FLI_TRY(check_n(local, n));
  FLI_TRY(fli_expect_finite(own, n, "the saved control"));
out:
  return st;
}

fl_status fl_local_load(fl_local *local, const fl_reader *reader)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  uint32_t version = 0;
  int has_own = 0;
  float *own = NULL;
  fli_clear_error();
  if (!local || !reader || !reader->read)
    return fli_error(FL_E_ARGUMENT, "local: got NULL");
  fli_bytes_init(&payload, local->context);
  FLI_TRY(fli_container_read(reader, FLI_STATE_LOCAL, LOCAL_STATE_VERSION,
                             64 + sizeof(float) * local->n, &version,
                             &payload));
  own = fli_alloc(local->context, (size_t)local->n, sizeof *own);
  if (!own) FLI_TRY(fli_nomem((size_t)local->n * sizeof *own));
  FLI_TRY(read_own(local, &payload, own, &has_own));
  if (has_own) {
    float *was = local->own;
    local->own = own;
    own = was;
  } else {
    free_floats(local, local->own);
    local->own = NULL;
    local->has_control = 0;
    local->is_begun = 0;
  }
out:
  free_floats(local, own);
  fli_bytes_free(&payload);
  return st;
}

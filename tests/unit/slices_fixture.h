/* SPDX-License-Identifier: Apache-2.0 */
/* A store that is served, and devices that have slices of it. */
#ifndef SLICES_FIXTURE_H
#define SLICES_FIXTURE_H

#include <string.h>

#include "embedding/slice.h"
#include "embedding_fixture.h"

enum { SLICE_DIM = 16, SLICE_TABLES = 2 };

typedef struct slice_server {
  fl_embedding *embedding;
  fl_slice_server *slices;
} slice_server;

typedef struct slice_device {
  fl_embedding *embedding;
  fl_slice_client *slices;
} slice_device;

static inline fl_embedding *slice_store(int is_adagrad, uint64_t budget)
{
  fl_embedding *e = embedding_of(NULL, is_adagrad, budget);
  (void)table_of(e, SLICE_DIM, 4);
  (void)table_of(e, SLICE_DIM / 2, 1);
  return e;
}

static inline fl_slice_server_options slice_server_options(void)
{
  fl_slice_server_options options;
  cr_assert_eq(fl_slice_server_options_init(&options, sizeof options), FL_OK);
  options.seed = 11;
  return options;
}

static inline slice_server
slice_server_of(uint64_t budget, const fl_slice_server_options *options)
{
  slice_server s = {.embedding = slice_store(0, budget)};
  cr_assert_eq(fl_slice_server_new(&s.slices, NULL, s.embedding, options),
               FL_OK, "%s", fl_last_error());
  return s;
}

static inline void slice_server_free(slice_server *s)
{
  fl_slice_server_free(s->slices);
  fl_embedding_free(s->embedding);
}

static inline slice_device
slice_device_of(uint64_t budget, const fl_slice_client_options *options)
{
  slice_device d = {.embedding = slice_store(1, budget)};
  cr_assert_eq(fl_slice_client_new(&d.slices, NULL, d.embedding, options),
               FL_OK, "%s", fl_last_error());
  return d;
}

static inline void slice_device_free(slice_device *d)
{
  fl_slice_client_free(d->slices);
  fl_embedding_free(d->embedding);
}

static inline fl_buffer *slice_buffer(void)
{
  fl_buffer *buffer = NULL;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  return buffer;
}

static inline fl_slice_client_status slice_status(const slice_device *d)
{
  fl_slice_client_status status;
  cr_assert_eq(fl_slice_client_status_init(&status, sizeof status), FL_OK);
  cr_assert_eq(fl_slice_client_get_status(d->slices, &status), FL_OK);
  return status;
}

static inline void slice_begin(slice_server *s, slice_device *d)
{
  uint8_t plan[FLI_SLICE_PLAN_MAX];
  size_t n;
  cr_assert_eq(fl_slice_server_copy_plan(s->slices, plan, sizeof plan, &n),
               FL_OK);
  cr_assert_eq(fl_slice_client_begin(d->slices, plan, n), FL_OK, "%s",
               fl_last_error());
}

/* All rows that the device wants; returns how many requests that took. */
static inline uint32_t slice_fetch(slice_server *s, slice_device *d)
{
  uint32_t n_requests = 0;
  fl_buffer *request = slice_buffer(), *answer = slice_buffer();
  slice_begin(s, d);
  while (fl_slice_client_request(d->slices, request) == FL_OK) {
    const uint8_t *data;
    size_t n;
    (void)fl_buffer_get(request, &data, &n);
    cr_assert_eq(fl_slice_server_answer(s->slices, data, n, answer), FL_OK,
                 "%s", fl_last_error());
    (void)fl_buffer_get(answer, &data, &n);
    cr_assert_eq(fl_slice_client_take(d->slices, data, n), FL_OK, "%s",
                 fl_last_error());
    fl_buffer_clear(request);
    fl_buffer_clear(answer);
    n_requests++;
  }
  fl_buffer_free(request);
  fl_buffer_free(answer);
  return n_requests;
}

/* One batch of these ids of a table, each a bag, all gradients `g`. */
static inline void slice_train(slice_device *d, uint32_t table,
                               const uint64_t *ids, size_t n, float g)
{
  static float values[4096 * SLICE_DIM];
  fl_embedding_bags bags = bags_of(ids, n, NULL, n);
  const size_t dim = d->embedding->tables[table]->dim;
  cr_assert_eq(fl_embedding_forward(d->embedding, table, &bags, values), FL_OK);
  for (size_t i = 0; i < n * dim; i++)
    values[i] = g;
  cr_assert_eq(fl_embedding_backward(d->embedding, table, &bags, values, 0.02f),
               FL_OK);
}

/* The update, as a buffer of the caller's. */
static inline fl_buffer *slice_update(slice_device *d, uint64_t seed)
{
  fl_buffer *update = slice_buffer();
  cr_assert_eq(fl_slice_client_update(d->slices, seed, update), FL_OK, "%s",
               fl_last_error());
  return update;
}

static inline fl_status slice_add(slice_server *s, const fl_buffer *update)
{
  const uint8_t *data;
  size_t n;
  (void)fl_buffer_get(update, &data, &n);
  return fl_slice_server_add(s->slices, data, n);
}

static inline void slice_send(slice_server *s, slice_device *d, uint64_t seed)
{
  fl_buffer *update = slice_update(d, seed);
  cr_assert_eq(slice_add(s, update), FL_OK, "%s", fl_last_error());
  fl_buffer_free(update);
}

static inline fl_slice_report slice_step(slice_server *s)
{
  fl_slice_report report;
  cr_assert_eq(fl_slice_report_init(&report, sizeof report), FL_OK);
  cr_assert_eq(fl_slice_server_step(s->slices, &report), FL_OK, "%s",
               fl_last_error());
  return report;
}

#endif

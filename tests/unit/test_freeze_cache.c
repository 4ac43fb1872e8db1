/* SPDX-License-Identifier: Apache-2.0 */
/* The cache in front of the frozen modules of a model. */
#include <stdlib.h>
#include <string.h>

#include <fl/weights.h>

#include "cache/cache.h"
#include "freeze/freeze.h"
#include "freeze_net.h"

Test(freeze_cache, losses_with_a_cache_are_those_without_to_the_last_bit)
{
  net *plain = new_net(NULL);
  net *cached = new_net(NULL);
  fl_freeze *freezes[2] = {new_fixed(STEPS_PER_EPOCH),
                           new_fixed(STEPS_PER_EPOCH)};
  fl_cache *cache = new_cache();
  attach(freezes[0], plain, NULL);
  attach(freezes[1], cached, cache);
  losses a = fit(plain, 8);
  losses b = fit(cached, 8);
  expect_same_losses(&b, &a);
  cr_expect_arr_eq(plain->model->values, cached->model->values,
                   (size_t)plain->model->n_weights * sizeof(float));
  fl_cache_status status = status_of(cache);
  /* f = 1 lasts one epoch, f = 2 six: the first one fills the cache. */
  cr_expect_eq(status.hits, 5 * SAMPLES);
  cr_expect_eq(status.rows, SAMPLES);
  cr_expect_eq(status.n_values, 5, "what the mean gives");
  for (int i = 0; i < 2; i++) {
    fl_freeze_free(freezes[i]);
  }
  fl_cache_free(cache);
  net_free(plain);
  net_free(cached);
}

Test(freeze_cache, another_data_set_does_not_get_the_outputs_of_the_first)
{
  net *a = new_net(NULL);
  net *b = new_net(NULL);
  fl_freeze *freeze = new_fixed(0);
  fl_freeze *plain = new_fixed(0);
  fl_cache *cache = new_cache();
  attach(freeze, a, cache);
  attach(plain, b, NULL);
  (void)fit(a, 3);
  (void)fit(b, 3);
  uint64_t hits = status_of(cache).hits;
  for (size_t i = 0; i < SAMPLES * 2 * 8 * 8; i++) {
    a->x[i] += 1.0f;
    b->x[i] += 1.0f;
  }
  float *moved = malloc(SAMPLES * 2 * 8 * 8 * sizeof *moved);
  cr_assert_not_null(moved);
  memcpy(moved, a->x, SAMPLES * 2 * 8 * 8 * sizeof *moved);
  float *first = a->x;
  a->x = moved;
  losses with = fit(a, 1);
  losses without = fit(b, 1);
  cr_expect_eq(status_of(cache).hits, hits);
  expect_same_losses(&with, &without);
  free(first);
  fl_freeze_free(freeze);
  fl_freeze_free(plain);
  fl_cache_free(cache);
  net_free(a);
  net_free(b);
}

/* As a host borrows them. */
static float *lent_weights(net *t)
{
  float *weights = NULL;
  cr_assert_eq(fl_model_get_weights(t->model, &weights, NULL), FL_OK);
  return weights;
}

/* At the same address, as an allocator likes to do. */
Test(freeze_cache, data_and_weights_changed_between_fits_are_seen)
{
  net *nets[2] = {new_net(NULL), new_net(NULL)};
  fl_freeze *freezes[2] = {new_fixed(0), new_fixed(0)};
  fl_cache *cache = new_cache();
  losses of[2];
  attach(freezes[0], nets[0], cache);
  attach(freezes[1], nets[1], NULL);
  for (uint32_t change = 0; change < 4; change++) {
    for (int i = 0; i < 2; i++) {
      if (change == 1) nets[i]->x[7] += 1.0f;
      if (change == 2) lent_weights(nets[i])[0] += 0.25f;
      of[i] = fit(nets[i], 2);
    }
    for (size_t k = 0; k < of[0].n; k++) {
      cr_expect(of[0].of[k] == of[1].of[k], "change %u, step %zu", change, k);
    }
  }
  cr_expect_eq(status_of(cache).hits, 4 * SAMPLES);
  for (int i = 0; i < 2; i++) {
    fl_freeze_free(freezes[i]);
    net_free(nets[i]);
  }
  fl_cache_free(cache);
}

Test(freeze_cache, cache_that_somebody_else_begins_is_begun_again)
{
  net *t = new_net(NULL);
  fl_freeze *freeze = new_fixed(0);
  const uint8_t tag[FL_HASH_BYTES] = {1};
  fl_cache *cache = new_cache();
  attach(freeze, t, cache);
  (void)fit(t, 3);
  uint64_t n_values = status_of(cache).n_values;
  cr_assert_eq(fl_cache_begin(cache, tag, SAMPLES, 100 * n_values), FL_OK);
  (void)fit(t, 1);
  cr_expect_eq(status_of(cache).n_values, n_values);
  fl_freeze_free(freeze);
  fl_cache_free(cache);
  net_free(t);
}

/* Steps with batches of the host's own have places that mean nothing. */
Test(freeze_cache, batches_without_ids_end_the_cache_and_not_the_training)
{
  net *t = new_net(NULL);
  fl_freeze *freeze = new_fixed(1);
  fl_cache *cache = new_cache();
  fl_freeze_event event;
  fl_dataset data = net_data(t);
  data.n = BATCH;
  attach(freeze, t, cache);
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_OK);
  }
  cr_expect_eq(fl_model_first_active(t->model), 1);
  cr_expect(has_event(freeze, FL_FREEZE_CACHE_OFF, &event));
  cr_expect_str_eq(event.text, "the samples have no ids");
  cr_expect_not(has_event(freeze, FL_FREEZE_CACHE_OFF, &event), "once");
  cr_expect_eq(status_of(cache).is_on, 0);
  fl_freeze_free(freeze);
  fl_cache_free(cache);
  net_free(t);
}

Test(freeze_cache, batches_with_ids_are_kept_by_them)
{
  net *t = new_net(NULL);
  fl_freeze_options o = options_of(FL_FREEZE_FIXED);
  const fl_freeze_fixed fixed = {.step = 0, .first_active = 1};
  uint64_t ids[BATCH];
  fl_freeze_attach_options with;
  fl_cache *cache = new_cache();
  fl_dataset data = net_data(t);
  o.fixed = &fixed;
  o.n_fixed = 1;
  fl_freeze *freeze = new_freeze(&o);
  cr_assert_eq(fl_freeze_attach_options_init(&with, sizeof with), FL_OK);
  with.cache = cache;
  with.n_samples = 1000;
  cr_assert_eq(fl_freeze_attach(freeze, t->model, &with), FL_OK);
  data.n = BATCH;
  data.ids = ids;
  for (uint64_t k = 0; k < BATCH; k++) {
    ids[k] = 999 - 3 * k;
  }
  cr_assert_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_OK);
  cr_expect_eq(status_of(cache).rows, BATCH);
  for (uint64_t k = 0; k < BATCH; k++) {
    ids[k] = 999 - 3 * (BATCH - 1 - k);
    data.indices = NULL;
  }
  cr_assert_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_OK);
  cr_expect_eq(status_of(cache).hits, BATCH);
  ids[0] = 1000;
  cr_assert_eq(fl_model_step(t->model, &data, 0.1f, NULL), FL_OK,
               "an id out of range ends the cache, not the step");
  fl_freeze_event event;
  cr_expect(has_event(freeze, FL_FREEZE_CACHE_OFF, &event));
  fl_freeze_free(freeze);
  fl_cache_free(cache);
  net_free(t);
}

Test(freeze_cache, cache_that_is_too_small_is_given_up)
{
  net *t = new_net(NULL);
  fl_freeze *freeze = new_fixed(0);
  fl_cache *cache = NULL;
  fl_cache_options o;
  fl_freeze_event event;
  cr_assert_eq(fl_cache_options_init(&o, sizeof o), FL_OK);
  o.byte_cap = 100;
  cr_assert_eq(fl_cache_new(&cache, NULL, &o), FL_OK);
  attach(freeze, t, cache);
  (void)fit(t, 2);
  cr_expect(has_event(freeze, FL_FREEZE_CACHE_OFF, &event));
  cr_expect_not_null(strstr(event.text, "100"), "%s", event.text);
  fl_freeze_free(freeze);
  fl_cache_free(cache);
  net_free(t);
}

/* A federated client: every round brings other weights for what is trained, and
 * the frozen prefix and the samples are the same. */
Test(freeze_cache, stays_valid_from_round_to_round_while_the_prefix_is_the_same)
{
  net *plain = new_net(NULL);
  net *cached = new_net(NULL);
  fl_freeze *freezes[2] = {new_fixed(0), new_fixed(0)};
  fl_cache *cache = new_cache();
  attach(freezes[0], plain, NULL);
  attach(freezes[1], cached, cache);
  (void)fit(plain, 2); /* f = 2 from the second epoch on, which fills it */
  (void)fit(cached, 2);
  for (int round = 0; round < 3; round++) {
    net *nets[2] = {plain, cached};
    losses of[2];
    for (int k = 0; k < 2; k++) {
      float *weights = lent_weights(nets[k]);
      for (uint64_t i = nets[k]->model->first_weight;
           i < nets[k]->model->n_weights; i++) {
        weights[i] *= 1.01f;
      }
      of[k] = fit(nets[k], 1);
    }
    expect_same_losses(&of[1], &of[0]);
    cr_expect_eq(status_of(cache).hits, (uint64_t)(round + 1) * SAMPLES);
  }
  /* Thawed and changed, it is another prefix. */
  lent_weights(cached)[0] += 0.5f;
  lent_weights(plain)[0] += 0.5f;
  losses a = fit(plain, 1);
  losses b = fit(cached, 1);
  cr_expect_eq(status_of(cache).hits, 3 * SAMPLES);
  expect_same_losses(&b, &a);
  for (int k = 0; k < 2; k++) {
    fl_freeze_free(freezes[k]);
  }
  fl_cache_free(cache);
  net_free(plain);
  net_free(cached);
}

static double step_with_ids(net *t)
{
  static const uint64_t ids[BATCH] = {0, 1, 2, 3, 4, 5, 6, 7};
  fl_dataset data = net_data(t);
  double loss = 0.0;
  data.n = BATCH;
  data.ids = ids;
  cr_assert_eq(fl_model_step(t->model, &data, 0.05f, &loss), FL_OK, "%s",
               fl_last_error());
  return loss;
}

static fl_buffer *checkpoint_of(net *t)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_model_save_checkpoint(t->model, &writer), FL_OK);
  return buffer;
}

static fl_buffer *weights_of(net *t)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_model_save_weights(t->model, &writer), FL_OK);
  return buffer;
}

enum { SET_TENSOR, SET_WEIGHTS, INIT, CHECKPOINT, WEIGHTS, BORROWED, WRITES };

/* Write to the first module's weights, in one of the ways that there are. */
static void write_weights(net *t, int way, fl_buffer *const saved[2])
{
  float *weights = malloc((size_t)t->model->n_weights * sizeof *weights);
  uint64_t n = t->model->tensors[0].shape.count;
  fl_reader reader;
  cr_assert_not_null(weights);
  memcpy(weights, t->model->values,
         (size_t)t->model->n_weights * sizeof *weights);
  weights[0] += 0.25f;
  fl_status st = FL_OK;
  if (way == SET_TENSOR) {
    st = fl_model_set_tensor(t->model, 0, weights, n);
  } else if (way == SET_WEIGHTS) {
    st = fl_model_set_weights(t->model, NULL, weights, t->model->n_weights);
  } else if (way == INIT) {
    st = fl_model_init_weights(t->model, 99);
  } else if (way == BORROWED) {
    lent_weights(t)[0] += 0.25f;
  } else {
    cr_assert_eq(fl_buffer_as_reader(saved[way == WEIGHTS], &reader), FL_OK);
    st = way == WEIGHTS ? fl_model_load_weights(t->model, &reader, 0, NULL)
                        : fl_model_load_checkpoint(t->model, &reader);
  }
  cr_assert_eq(st, FL_OK, "way %d: %s", way, fl_last_error());
  free(weights);
}

/* Steps of the host's own: the frozen weights are looked at again when they may
 * be others, and when they are the losses are those without a cache. */
Test(freeze_cache, frozen_weights_are_looked_at_when_they_may_have_changed)
{
  net *nets[2] = {new_net(NULL), new_net(NULL)};
  fl_freeze *freezes[2] = {new_fixed(0), new_fixed(0)};
  fl_cache *cache = new_cache();
  fl_buffer *saved[2] = {checkpoint_of(nets[0]), NULL};
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_model_init_weights(nets[i]->model, 7), FL_OK);
  }
  saved[1] = weights_of(nets[0]);
  attach(freezes[0], nets[0], cache);
  attach(freezes[1], nets[1], NULL);
  for (int i = 0; i < 2 * STEPS_PER_EPOCH; i++) { /* until f = 2 */
    cr_expect_eq(step_with_ids(nets[0]), step_with_ids(nets[1]));
  }
  for (int way = 0; way < WRITES; way++) {
    uint64_t begun = cache->begun;
    uint64_t hits = status_of(cache).hits;
    cr_expect_eq(step_with_ids(nets[0]), step_with_ids(nets[1]));
    /* Behind the library's back, which shows that it does not look. */
    nets[0]->model->values[0] += 0.25f;
    for (int i = 0; i < 2; i++) {
      cr_expect_eq(step_with_ids(nets[0]), step_with_ids(nets[1]));
    }
    nets[0]->model->values[0] -= 0.25f;
    cr_expect_geq(status_of(cache).hits, hits + 2 * BATCH);
    write_weights(nets[0], way, saved);
    write_weights(nets[1], way, saved);
    hits = status_of(cache).hits;
    cr_expect_eq(step_with_ids(nets[0]), step_with_ids(nets[1]), "way %d", way);
    cr_expect_gt(cache->begun, begun, "way %d", way);
    cr_expect_eq(status_of(cache).hits, hits, "way %d", way);
  }
  /* Somebody who has borrowed them may write at any time. */
  for (int i = 0; i < 2; i++) {
    (void)step_with_ids(nets[0]);
    (void)step_with_ids(nets[1]);
    nets[0]->model->values[0] += 0.5f;
    nets[1]->model->values[0] += 0.5f;
    cr_expect_eq(step_with_ids(nets[0]), step_with_ids(nets[1]));
  }
  for (int i = 0; i < 2; i++) {
    fl_buffer_free(saved[i]);
    fl_freeze_free(freezes[i]);
    net_free(nets[i]);
  }
  fl_cache_free(cache);
}

/* The host may set the first active module that a server's plan asks for. */
Test(freeze_cache, prefix_that_the_host_has_set_is_another)
{
  fl_freeze_options o = options_of(FL_FREEZE_SERVER);
  net *nets[2] = {new_net(NULL), new_net(NULL)};
  fl_freeze *freezes[2] = {new_freeze(&o), new_freeze(&o)};
  fl_freeze *server = new_freeze(&o);
  fl_cache *cache = new_cache();
  uint8_t plan[256];
  size_t n = 0;
  attach(freezes[0], nets[0], cache);
  attach(freezes[1], nets[1], NULL);
  for (uint32_t f = 1; f < 3; f++) {
    server->state.decided = f;
    fli_freeze_set_plan(server, NULL, f, FL_FREEZE_REASON_SERVER);
    cr_assert_eq(fl_freeze_copy_plan(server, plan, sizeof plan, &n), FL_OK);
    for (int i = 0; i < 2; i++) {
      cr_assert_eq(fl_freeze_apply_plan(freezes[i], plan, n), FL_OK);
      cr_assert_eq(fl_model_set_first_active(nets[i]->model, f), FL_OK);
    }
    for (int i = 0; i < 4; i++) {
      cr_expect_eq(step_with_ids(nets[0]), step_with_ids(nets[1]));
    }
  }
  cr_expect_gt(status_of(cache).hits, 0);
  for (int i = 0; i < 2; i++) {
    fl_freeze_free(freezes[i]);
    net_free(nets[i]);
  }
  fl_freeze_free(server);
  fl_cache_free(cache);
}

/* A controller that freezes in the middle of a call takes the workspace away,
 * which is there again for the batch. */
Test(freeze_cache, freezing_while_gradients_are_gathered_leaves_room_for_them)
{
  net *t = new_net(NULL);
  fl_freeze *freeze = new_fixed(2);
  fl_cache *cache = new_cache();
  fl_dataset data = net_data(t);
  data.n = BATCH;
  attach(freeze, t, cache);
  for (int i = 0; i < 4; i++) {
    cr_assert_eq(fl_model_accumulate(t->model, &data, NULL), FL_OK);
    cr_assert_eq(fl_model_accumulate(t->model, &data, NULL), FL_OK);
    cr_assert_eq(fl_model_update(t->model, 0.05f), FL_OK);
  }
  cr_expect_eq(fl_model_first_active(t->model), 1);
  fl_freeze_free(freeze);
  fl_cache_free(cache);
  net_free(t);
}

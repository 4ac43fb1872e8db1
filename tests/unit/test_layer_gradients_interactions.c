/* SPDX-License-Identifier: Apache-2.0 */
/* How vectors of fields go together, as test_layer_gradients.c does it.
 * Positions in front have, as their own gradient, that of every element. */
#include "net_check.h"

static const size_t fields[] = {2, 3, 8, 5};
static const size_t widths[] = {1, 7, 8, 21};

static void check_as_classes(net *t)
{
  (void)net_dense(t, 3);
  net_check(net_classes(t, 0.0f));
}

Test(layer_gradients_interactions, factorisation_machine_of_all_shapes)
{
  for (size_t i = 0; i < FLI_COUNT_OF(fields); i++) {
    net *t = net_sequence(fields[i], widths[i]);
    (void)net_machine(t);
    check_as_classes(t);
  }
}

Test(layer_gradients_interactions, pairwise_dots_of_all_shapes)
{
  for (size_t i = 0; i < FLI_COUNT_OF(fields); i++) {
    net *t = net_sequence(fields[i], widths[i]);
    (void)net_dots(t);
    check_as_classes(t);
  }
}

/* Products of tiles, whole panels and parts of them, by each table. */
Test(layer_gradients_interactions, pairwise_dots_by_every_instruction_set)
{
  static const size_t odd[] = {3, 16, 24, 33, 40};
  for (size_t table = 0; flk_nn_at(table); table++) {
    cr_assert(flk_nn_choose(flk_nn_at(table)->name));
    for (size_t i = 0; i < FLI_COUNT_OF(odd); i++) {
      net *t = net_sequence(4 + 13 * (i == 1), odd[i]);
      (void)net_dots(t);
      (void)net_dense(t, 3);
      (void)net_classes(t, 0.0f);
      net_check_batch(t, 3);
      net_free(t);
    }
  }
  cr_assert(flk_nn_choose(NULL));
}

/* DeepFM, the machine declared before the dense layers and behind them: its
 * gradient is the first one of the shared vectors or is added to it. */
Test(layer_gradients_interactions, machine_and_dense_layers_on_one_embedding)
{
  const uint64_t dims[1] = {4};
  for (int is_first = 0; is_first <= 1; is_first++) {
    net *t = net_begin(NULL, dims, 1);
    size_t v = net_embedding(t, 9, 6);
    size_t machine = is_first ? net_machine(t) : 0;
    net_from(t, v);
    (void)net_flatten(t);
    (void)net_dense(t, 5);
    (void)net_activation(t, FL_ACTIVATION_RELU);
    size_t deep = net_dense(t, 1);
    if (is_first) {
      (void)net_add(t, machine);
    } else {
      net_from(t, v);
      (void)net_machine(t);
      (void)net_add(t, deep);
    }
    net_check(net_numbers(t, NET_BINARY));
  }
}

/* DLRM: what its top layer makes of vectors and pairs side by side is a sum of
 * two dense layers. */
Test(layer_gradients_interactions, pairs_and_vectors_into_one_layer)
{
  const uint64_t dims[1] = {4};
  net *t = net_begin(NULL, dims, 1);
  size_t v = net_embedding(t, 9, 8);
  (void)net_dots(t);
  size_t pairs = net_dense(t, 5);
  net_from(t, v);
  (void)net_flatten(t);
  (void)net_dense(t, 5);
  (void)net_add(t, pairs);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_dense(t, 1);
  net_check(net_numbers(t, NET_BINARY));
}

Test(layer_gradients_interactions, every_kind_of_user_of_shared_vectors)
{
  for (int kind = 0; kind < 4; kind++) {
    net *t = net_sequence(3, 4);
    size_t x = net_dense(t, 4);
    size_t f = kind % 2 ? net_machine(t) : net_dots(t);
    f = net_dense(t, 3);
    net_from(t, x);
    (void)(kind / 2 ? net_machine(t) : net_dots(t));
    (void)net_dense(t, 3);
    (void)net_add(t, f);
    check_as_classes(t);
  }
}

Test(layer_gradients_interactions, one_vector_or_none_is_no_interaction)
{
  static const uint64_t dims[3][3] = {{6}, {1, 6}, {2, 3, 4}};
  for (uint32_t i = 0; i < 3; i++) {
    for (int is_machine = 0; is_machine <= 1; is_machine++) {
      fl_model_builder *builder = NULL;
      cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
      cr_assert_eq(fl_model_builder_input(builder, dims[i], i + 1, 1, 0),
                   FL_OK);
      fl_status st =
          is_machine
              ? fl_model_builder_factorisation_machine(builder, "culprit")
              : fl_model_builder_pairwise_dots(builder, "culprit");
      cr_assert_eq(st, FL_E_DIM, "%s", fl_status_name(st));
      cr_assert_not_null(strstr(fl_last_error(), "culprit"));
      fl_model_builder_free(builder);
    }
  }
}

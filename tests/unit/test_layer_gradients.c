/* SPDX-License-Identifier: Apache-2.0 */
/* Layers of vectors, losses and the shape of the graph: outputs, losses and
 * the gradient of every weight, against the oracle's finite differences to
 * 1e-4 of a tensor's largest gradient. A dense layer in front has, as its own
 * gradient, that of the input of what comes behind it. */
#include "net_check.h"

static void check_as_classes(net *t)
{
  (void)net_dense(t, 4);
  net_check(net_classes(t, 0.0f));
}

Test(layer_gradients, dense_layers_of_odd_widths)
{
  static const size_t widths[] = {1, 7, 8, 9, 17};
  for (size_t i = 0; i < FLI_COUNT_OF(widths); i++) {
    net *t = net_vector(widths[i]);
    (void)net_dense(t, widths[FLI_COUNT_OF(widths) - 1 - i]);
    (void)net_activation(t, FL_ACTIVATION_TANH);
    check_as_classes(t);
  }
}

Test(layer_gradients, every_activation)
{
  for (uint32_t kind = 0; kind <= FL_ACTIVATION_SIGMOID; kind++) {
    net *t = net_vector(11);
    (void)net_activation(t, kind);
    check_as_classes(t);
  }
}

Test(layer_gradients, activations_of_the_input_itself)
{
  for (uint32_t kind = 0; kind <= FL_ACTIVATION_SIGMOID; kind++) {
    const uint64_t dims[1] = {9};
    net *t = net_begin(NULL, dims, 1);
    (void)net_activation(t, kind);
    check_as_classes(t);
  }
}

Test(layer_gradients, activations_in_a_row_and_in_front_of_the_loss)
{
  for (uint32_t kind = 0; kind <= FL_ACTIVATION_SIGMOID; kind++) {
    net *t = net_vector(6);
    (void)net_activation(t, kind);
    (void)net_activation(t, (kind + 1) % 5);
    (void)net_activation(t, (kind + 2) % 5);
    (void)net_dense(t, 5);
    (void)net_activation(t, kind);
    net_check(net_classes(t, 0.0f));
  }
}

Test(layer_gradients, softmax_of_a_vector)
{
  net *t = net_vector(9);
  (void)net_softmax(t);
  check_as_classes(t);
}

Test(layer_gradients, layer_norm_of_a_vector)
{
  static const size_t widths[] = {3, 8, 13};
  for (size_t i = 0; i < FLI_COUNT_OF(widths); i++) {
    net *t = net_vector(widths[i]);
    (void)net_layer_norm(t, 1e-5f);
    check_as_classes(t);
  }
}

Test(layer_gradients, dropout_with_its_steps_mask)
{
  static const float rates[] = {0.0f, 0.3f, 0.75f};
  for (size_t i = 0; i < FLI_COUNT_OF(rates); i++) {
    net *t = net_vector(37);
    (void)net_dropout(t, rates[i]);
    (void)net_dense(t, 21);
    (void)net_dropout(t, 0.5f);
    check_as_classes(t);
  }
}

Test(layer_gradients, lora_behind_and_in_front_of_dense_layers)
{
  for (uint64_t rank = 1; rank <= 3; rank++) {
    net *t = net_vector(9);
    (void)net_lora(t, 6, rank, 4.0f);
    (void)net_activation(t, FL_ACTIVATION_RELU);
    (void)net_lora(t, 5, rank, 1.0f);
    check_as_classes(t);
  }
}

/* ---- losses ---------------------------------------------------------------
 */

Test(layer_gradients, cross_entropy_with_smoothing_and_ignored_labels)
{
  static const float smoothings[] = {0.0f, 0.1f, 1.0f};
  for (size_t i = 0; i < FLI_COUNT_OF(smoothings); i++) {
    net *t = net_vector(5);
    (void)net_dense(t, 7);
    net_check(net_classes(t, smoothings[i]));
  }
}

Test(layer_gradients, squared_error_and_binary_cross_entropy)
{
  for (net_loss loss = NET_SQUARES; loss <= NET_BINARY; loss++) {
    net *t = net_vector(5);
    (void)net_dense(t, 3);
    net_check(net_numbers(t, loss));
    t = net_sequence(3, 5);
    (void)net_dense(t, 2);
    net_check(net_numbers(t, loss));
  }
}

/* ---- graphs ---------------------------------------------------------------
 */

Test(layer_gradients, sum_of_a_layer_and_what_is_behind_it)
{
  for (int is_swapped = 0; is_swapped <= 1; is_swapped++) {
    net *t = net_vector(6);
    size_t x = net_activation(t, FL_ACTIVATION_TANH);
    size_t f = net_dense(t, 6);
    if (is_swapped) net_from(t, x);
    (void)net_add(t, is_swapped ? f : x);
    check_as_classes(t);
  }
}

Test(layer_gradients, sum_of_two_functions_of_a_layer)
{
  net *t = net_vector(6);
  size_t x = net_activation(t, FL_ACTIVATION_SILU);
  (void)net_dense(t, 6);
  size_t f = net_activation(t, FL_ACTIVATION_RELU);
  net_from(t, x);
  (void)net_layer_norm(t, 1e-5f);
  (void)net_add(t, f);
  check_as_classes(t);
}

Test(layer_gradients, sum_of_a_layer_with_itself)
{
  net *t = net_vector(6);
  size_t x = net_activation(t, FL_ACTIVATION_TANH);
  (void)net_add(t, x);
  check_as_classes(t);
}

Test(layer_gradients, sum_of_a_layer_with_itself_that_others_use_too)
{
  net *t = net_vector(6);
  size_t x = net_activation(t, FL_ACTIVATION_TANH);
  size_t twice = net_add(t, x);
  net_from(t, x);
  (void)net_dense(t, 6);
  (void)net_add(t, twice);
  check_as_classes(t);
}

Test(layer_gradients, output_used_three_times)
{
  net *t = net_vector(6);
  size_t x = net_activation(t, FL_ACTIVATION_GELU);
  size_t f = net_dense(t, 6);
  net_from(t, x);
  size_t g = net_dense(t, 6);
  net_from(t, x);
  (void)net_activation(t, FL_ACTIVATION_SIGMOID);
  (void)net_add(t, f);
  (void)net_add(t, g);
  check_as_classes(t);
}

/* Layers that cannot add to a gradient, those that work in place and views,
 * each as a user of x that is not the last one. */
Test(layer_gradients, every_kind_of_user_of_a_shared_layer)
{
  for (int kind = 0; kind < 8; kind++) {
    net *t = net_vector(6);
    size_t x = net_dense(t, 6);
    size_t f = 0;
    switch (kind) {
    case 0: f = net_activation(t, FL_ACTIVATION_RELU); break;
    case 1: f = net_activation(t, FL_ACTIVATION_GELU); break;
    case 2: f = net_softmax(t); break;
    case 3: f = net_layer_norm(t, 1e-5f); break;
    case 4: f = net_lora(t, 6, 2, 3.0f); break;
    case 5: f = net_flatten(t); break;
    case 6: f = net_add(t, x); break;
    default: f = net_dropout(t, 0.4f); break;
    }
    net_from(t, x);
    size_t g = net_activation(t, FL_ACTIVATION_TANH);
    net_from(t, x);
    (void)net_add(t, f);
    (void)net_add(t, g);
    check_as_classes(t);
  }
}

Test(layer_gradients, sum_of_sums_over_a_long_way)
{
  net *t = net_vector(5);
  size_t x = net_dense(t, 5);
  size_t first = x;
  for (int i = 0; i < 4; i++) {
    (void)net_layer_norm(t, 1e-5f);
    (void)net_dense(t, 5);
    (void)net_activation(t, FL_ACTIVATION_RELU);
    x = net_add(t, x);
  }
  (void)net_add(t, first);
  check_as_classes(t);
}

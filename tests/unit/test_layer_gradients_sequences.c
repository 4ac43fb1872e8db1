/* SPDX-License-Identifier: Apache-2.0 */
/* Layers of sequences, as test_layer_gradients.c does it. Positions in front
 * have, as their own gradient, that of every element of the sequence. */
#include "net_check.h"

/* A label per token. */
static void check_tokens(net *t)
{
  (void)net_dense(t, 3);
  net_check(net_classes(t, 0.0f));
}

static void check_flat(net *t)
{
  (void)net_flatten(t);
  check_tokens(t);
}

Test(layer_gradients_sequences, dense_for_each_token)
{
  static const size_t tokens[] = {1, 2, 9};
  for (size_t i = 0; i < FLI_COUNT_OF(tokens); i++) {
    net *t = net_sequence(tokens[i], 5);
    (void)net_dense(t, 6);
    (void)net_activation(t, FL_ACTIVATION_GELU);
    check_tokens(t);
  }
}

Test(layer_gradients_sequences, labels_per_token_smoothed_and_ignored)
{
  net *t = net_sequence(5, 4);
  (void)net_dense(t, 6);
  net_check(net_classes(t, 0.2f));
}

Test(layer_gradients_sequences, lora_for_each_token)
{
  net *t = net_sequence(4, 5);
  (void)net_lora(t, 6, 2, 4.0f);
  check_tokens(t);
}

Test(layer_gradients_sequences, flatten_and_mean_of_tokens)
{
  check_flat(net_sequence(3, 4));
  net *t = net_sequence(3, 4);
  (void)net_mean(t);
  check_tokens(t);
}

Test(layer_gradients_sequences, layer_norm_for_each_token)
{
  static const size_t widths[] = {3, 8, 17};
  for (size_t i = 0; i < FLI_COUNT_OF(widths); i++) {
    net *t = net_sequence(4, widths[i]);
    (void)net_layer_norm(t, 1e-5f);
    check_tokens(t);
  }
}

/* Values that are all alike: epsilon is what keeps the result finite. */
Test(layer_gradients_sequences, layer_norm_with_a_large_epsilon)
{
  net *t = net_sequence(2, 4);
  (void)net_layer_norm(t, 0.5f);
  check_flat(t);
}

Test(layer_gradients_sequences, softmax_for_each_token)
{
  net *t = net_sequence(3, 5);
  (void)net_softmax(t);
  check_flat(t);
}

Test(layer_gradients_sequences, embedding_with_ids_that_come_back)
{
  const uint64_t dims[1] = {6};
  net *t = net_begin(NULL, dims, 1);
  (void)net_embedding(t, 5, 4);
  check_tokens(t);
  t = net_begin(NULL, dims, 1);
  (void)net_embedding(t, 3, 7);
  (void)net_positions(t);
  (void)net_layer_norm(t, 1e-5f);
  check_flat(t);
}

Test(layer_gradients_sequences, two_embeddings_of_the_same_ids)
{
  const uint64_t dims[1] = {4};
  net *t = net_begin(NULL, dims, 1);
  size_t a = net_embedding(t, 5, 3);
  net_from(t, 0);
  (void)net_embedding(t, 5, 3);
  (void)net_add(t, a);
  check_flat(t);
}

Test(layer_gradients_sequences, positions_behind_a_layer_with_two_users)
{
  for (int is_swapped = 0; is_swapped <= 1; is_swapped++) {
    net *t = net_sequence(3, 4);
    size_t x = net_dense(t, 4);
    size_t f =
        is_swapped ? net_activation(t, FL_ACTIVATION_TANH) : net_positions(t);
    net_from(t, x);
    (void)(is_swapped ? net_positions(t)
                      : net_activation(t, FL_ACTIVATION_TANH));
    (void)net_add(t, f);
    check_flat(t);
  }
}

Test(layer_gradients_sequences, attention_with_and_without_a_future)
{
  static const size_t tokens[] = {1, 2, 7};
  static const size_t widths[] = {4, 6, 8};
  static const uint32_t heads[] = {1, 3, 2};
  for (size_t i = 0; i < FLI_COUNT_OF(tokens); i++) {
    for (int32_t is_causal = 0; is_causal <= 1; is_causal++) {
      net *t = net_sequence(tokens[i], widths[i]);
      (void)net_attention(t, heads[i], is_causal);
      check_flat(t);
    }
  }
}

Test(layer_gradients_sequences, attention_with_heads_of_one_element)
{
  net *t = net_sequence(5, 3);
  (void)net_attention(t, 3, 1);
  check_tokens(t);
}

/* More tokens and wider heads than a vector has lanes. */
Test(layer_gradients_sequences, attention_over_many_tokens)
{
  for (int32_t is_causal = 0; is_causal <= 1; is_causal++) {
    net *t = net_sequence(19, 18);
    (void)net_attention(t, 1, is_causal);
    (void)net_mean(t);
    (void)net_dense(t, 3);
    (void)net_classes(t, 0.0f);
    net_check_batch(t, 2);
    net_free(t);
  }
}

static size_t block(net *t, size_t x)
{
  (void)net_layer_norm(t, 1e-5f);
  (void)net_attention(t, 2, 0);
  x = net_add(t, x);
  (void)net_layer_norm(t, 1e-5f);
  (void)net_dense(t, 8);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_dense(t, 4);
  return net_add(t, x);
}

Test(layer_gradients_sequences, two_blocks_of_a_transformer)
{
  const uint64_t dims[2] = {5, 3};
  net *t = net_begin(NULL, dims, 2);
  (void)net_dense(t, 4);
  size_t x = net_positions(t);
  x = block(t, x);
  (void)block(t, x);
  (void)net_layer_norm(t, 1e-5f);
  (void)net_mean(t);
  check_tokens(t);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Layers of images, as test_layer_gradients.c does it. The convolution that
 * makes the image from one pixel has, as its own gradient, that of every
 * element of the image. */
#include "net_check.h"

/* Every element of the image counts with a weight of its own. */
static void check_flat(net *t)
{
  (void)net_flatten(t);
  (void)net_dense(t, 3);
  net_check(net_classes(t, 0.0f));
}

typedef struct conv_case {
  uint32_t channels, height, width; /* input */
  uint32_t filters, kernel_height, kernel_width;
  uint32_t stride, padding, groups;
} conv_case;

static const conv_case conv_cases[] = {
    {1, 5, 5, 1, 1, 1, 1, 0, 1},   {1, 6, 5, 4, 3, 3, 1, 1, 1},
    {3, 5, 4, 5, 3, 3, 1, 0, 1},   {2, 7, 6, 3, 3, 3, 2, 1, 1},
    {2, 6, 6, 3, 2, 3, 1, 1, 1},   {2, 6, 6, 3, 5, 5, 1, 2, 1},
    {2, 7, 7, 3, 3, 3, 3, 2, 1},   {4, 5, 5, 6, 3, 3, 1, 1, 2},
    {6, 5, 5, 6, 3, 3, 1, 1, 3},   {5, 5, 5, 5, 3, 3, 1, 1, 5},
    {3, 6, 5, 6, 3, 3, 2, 1, 3},   {8, 4, 4, 8, 3, 3, 1, 1, 1},
    {9, 4, 4, 7, 1, 1, 1, 0, 1},   {9, 4, 4, 17, 3, 3, 1, 1, 1},
    {16, 4, 4, 16, 3, 3, 1, 1, 1}, {9, 5, 4, 9, 5, 5, 2, 2, 9},
    {2, 4, 4, 3, 4, 4, 1, 0, 1},   {2, 3, 3, 2, 5, 5, 1, 4, 1},
};

static fl_conv2d_options conv_of(const conv_case *c)
{
  fl_conv2d_options o = net_conv_options(c->filters, 1, c->padding);
  o.height = c->kernel_height;
  o.width = c->kernel_width;
  o.stride = c->stride;
  o.groups = c->groups;
  return o;
}

Test(layer_gradients_images, convolutions_of_all_shapes)
{
  for (size_t i = 0; i < FLI_COUNT_OF(conv_cases); i++) {
    const conv_case *c = &conv_cases[i];
    fl_conv2d_options o = conv_of(c);
    net *t = net_image(c->channels, c->height, c->width);
    (void)net_conv(t, &o);
    check_flat(t);
  }
}

/* As the first layer: channels are not side by side with others' there. */
Test(layer_gradients_images, convolutions_of_the_input_itself)
{
  for (size_t i = 0; i < FLI_COUNT_OF(conv_cases); i++) {
    const conv_case *c = &conv_cases[i];
    const uint64_t dims[3] = {c->channels, c->height, c->width};
    fl_conv2d_options o = conv_of(c);
    net *t = net_begin(NULL, dims, 3);
    (void)net_conv(t, &o);
    (void)net_mean(t);
    (void)net_dense(t, 3);
    net_check(net_classes(t, 0.0f));
  }
}

Test(layer_gradients_images, convolution_relu_convolution)
{
  for (uint32_t filters = 7; filters <= 9; filters++) {
    net *t = net_image(3, 6, 5);
    fl_conv2d_options o = net_conv_options(filters, 3, 1);
    (void)net_conv(t, &o);
    (void)net_activation(t, FL_ACTIVATION_RELU);
    o = net_conv_options(4, 3, 0);
    (void)net_conv(t, &o);
    (void)net_activation(t, FL_ACTIVATION_RELU);
    check_flat(t);
  }
}

typedef struct pool_case {
  uint32_t size, stride, padding;
} pool_case;

static const pool_case pool_cases[] = {
    {1, 1, 0}, {2, 0, 0}, {3, 0, 0}, {3, 1, 0}, {3, 2, 0}, {2, 3, 0}, {3, 1, 1},
    {3, 2, 1}, {2, 2, 1}, {5, 2, 2}, {4, 1, 2}, {2, 1, 1}, {6, 6, 3},
};

Test(layer_gradients_images, pools_that_overlap_leave_gaps_and_are_padded)
{
  for (size_t i = 0; i < FLI_COUNT_OF(pool_cases); i++) {
    for (uint32_t kind = 0; kind <= FL_POOL_AVERAGE; kind++) {
      const pool_case *p = &pool_cases[i];
      net *t = net_image(5, 7, 6);
      (void)net_pool(t, kind, p->size, p->stride, p->padding);
      check_flat(t);
    }
  }
}

/* The ReLU in front of a pool is done by the pool, or not (padding, average,
 * an activation with two users). */
Test(layer_gradients_images, relu_in_front_of_a_pool)
{
  for (uint32_t kind = 0; kind <= FL_POOL_AVERAGE; kind++) {
    for (uint32_t padding = 0; padding <= 1; padding++) {
      net *t = net_image(9, 6, 6);
      (void)net_activation(t, FL_ACTIVATION_RELU);
      size_t a = net_pool(t, kind, 3, 2, padding);
      net_from(t, a);
      (void)net_activation(t, FL_ACTIVATION_TANH);
      check_flat(t);
    }
  }
}

Test(layer_gradients_images, relu_for_a_pool_and_for_another)
{
  net *t = net_image(3, 4, 4);
  size_t relu = net_activation(t, FL_ACTIVATION_RELU);
  size_t a = net_pool(t, FL_POOL_MAX, 3, 1, 1);
  net_from(t, relu);
  (void)net_pool(t, FL_POOL_AVERAGE, 3, 1, 1);
  (void)net_add(t, a);
  check_flat(t);
}

/* Of what a convolution gives, few images at a time are pooled by itself: 2,
 * and with the largest images 1, of which one has more than is set aside. Few
 * samples: among many windows there is one whose maximum the oracle's
 * differences move elsewhere. */
Test(layer_gradients_images, pools_of_large_images_behind_a_convolution)
{
  const uint64_t sizes[] = {22, 30, 34};
  for (size_t i = 0; i < FLI_COUNT_OF(sizes); i++) {
    for (uint32_t kind = 0; kind <= FL_POOL_AVERAGE; kind++) {
      const uint64_t dims[3] = {1, sizes[i], sizes[i]};
      net *t = net_begin(NULL, dims, 3);
      fl_conv2d_options o = net_conv_options(2, 3, 1);
      (void)net_conv(t, &o);
      (void)net_activation(t, FL_ACTIVATION_RELU);
      (void)net_pool(t, kind, 3, 3, 0);
      (void)net_activation(t, FL_ACTIVATION_TANH);
      (void)net_mean(t);
      (void)net_dense(t, 3);
      net_check_batch(net_classes(t, 0.0f), 3);
      net_free(t);
    }
  }
}

Test(layer_gradients_images, pool_of_the_input_itself)
{
  const uint64_t dims[3] = {3, 6, 6};
  for (uint32_t kind = 0; kind <= FL_POOL_AVERAGE; kind++) {
    net *t = net_begin(NULL, dims, 3);
    (void)net_activation(t, FL_ACTIVATION_RELU);
    (void)net_pool(t, kind, 2, 2, 0);
    check_flat(t);
  }
}

/* A dense layer weighs [channels][height][width] in that order. */
Test(layer_gradients_images, flatten_puts_channels_first)
{
  static const uint32_t channels[] = {1, 2, 8, 9};
  for (size_t i = 0; i < FLI_COUNT_OF(channels); i++) {
    const uint64_t dims[3] = {channels[i], 3, 2};
    net *t = net_begin(NULL, dims, 3);
    check_flat(t);
    t = net_image(channels[i], 3, 2);
    check_flat(t);
    t = net_image(channels[i], 1, 1);
    check_flat(t);
  }
}

Test(layer_gradients_images, mean_of_each_channel)
{
  static const uint32_t channels[] = {1, 7, 8, 17};
  for (size_t i = 0; i < FLI_COUNT_OF(channels); i++) {
    net *t = net_image(channels[i], 4, 3);
    (void)net_mean(t);
    (void)net_dense(t, 3);
    net_check(net_classes(t, 0.0f));
  }
}

Test(layer_gradients_images, mean_as_one_of_two_users)
{
  net *t = net_image(4, 3, 3);
  size_t x = net_activation(t, FL_ACTIVATION_TANH);
  size_t a = net_mean(t);
  net_from(t, x);
  (void)net_pool(t, FL_POOL_AVERAGE, 3, 1, 0);
  (void)net_flatten(t);
  (void)net_add(t, a);
  (void)net_dense(t, 3);
  net_check(net_classes(t, 0.0f));
}

Test(layer_gradients_images, every_activation_and_dropout)
{
  for (uint32_t kind = 0; kind <= FL_ACTIVATION_SIGMOID; kind++) {
    net *t = net_image(3, 3, 3);
    (void)net_activation(t, kind);
    (void)net_dropout(t, 0.4f);
    check_flat(t);
  }
}

Test(layer_gradients_images, group_norm_with_one_some_and_all_groups)
{
  static const uint32_t channels[] = {6, 6, 6, 8, 16, 9};
  static const uint32_t groups[] = {1, 2, 6, 2, 4, 3};
  for (size_t i = 0; i < FLI_COUNT_OF(groups); i++) {
    net *t = net_image(channels[i], 4, 3);
    t->has_no_gradient = groups[i] == channels[i]; /* a channel's bias */
    (void)net_group_norm(t, groups[i], 1e-5f);
    (void)net_activation(t, FL_ACTIVATION_SILU);
    check_flat(t);
  }
}

Test(layer_gradients_images, group_norm_of_the_input_itself)
{
  const uint64_t dims[3] = {3, 4, 4};
  net *t = net_begin(NULL, dims, 3);
  (void)net_group_norm(t, 3, 1e-5f);
  check_flat(t);
}

Test(layer_gradients_images, residual_convolutions)
{
  net *t = net_image(5, 4, 4);
  fl_conv2d_options o = net_conv_options(5, 3, 1);
  size_t x = net_activation(t, FL_ACTIVATION_RELU);
  (void)net_conv(t, &o);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_conv(t, &o);
  x = net_add(t, x);
  (void)net_activation(t, FL_ACTIVATION_RELU);
  (void)net_group_norm(t, 1, 1e-5f);
  (void)net_conv(t, &o);
  (void)net_add(t, x);
  check_flat(t);
}

Test(layer_gradients_images, sum_of_an_image_with_itself)
{
  net *t = net_image(5, 4, 4);
  size_t x = net_activation(t, FL_ACTIVATION_RELU);
  (void)net_add(t, x);
  check_flat(t);
}

/* The input has its channels in fewer floats than what a convolution gives. */
Test(layer_gradients_images, residual_of_the_input_itself)
{
  for (int is_swapped = 0; is_swapped <= 1; is_swapped++) {
    const uint64_t dims[3] = {3, 4, 4};
    net *t = net_begin(NULL, dims, 3);
    fl_conv2d_options o = net_conv_options(3, 3, 1);
    size_t x = net_activation(t, FL_ACTIVATION_TANH);
    size_t f = net_conv(t, &o);
    if (is_swapped) net_from(t, x);
    (void)net_add(t, is_swapped ? f : x);
    check_flat(t);
  }
}

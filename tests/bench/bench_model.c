/* SPDX-License-Identifier: Apache-2.0 */
/* Time of one training step of the MLP 784-128-10 at batch 32, pixels as bytes:
 * CPU time of the thread, median over rounds, and of the step's matrix products
 * alone, by the front and by the built-in kernel. The step with the built-in
 * kernel is not measured here but estimated, with the other products put in
 * their place; a build with -Dblas=none measures it. */
#define _POSIX_C_SOURCE 200809L /* clock_gettime */
#include <fl/model.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/compiler.h"
#include "base/rng.h"
#include "linalg/linalg.h"

enum { SAMPLES = 2048, PIXELS = 784, BATCH = 32, ROUNDS = 15 };

/* Of this thread: OpenBLAS's idle threads spin for a while after start. */
static double cpu_us(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) != 0) return 0.0;
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare_doubles(const void *a, const void *b)
{
  double x = *(const double *)a;
  double y = *(const double *)b;
  return (x > y) - (x < y);
}

static double median(double *values, size_t n)
{
  qsort(values, n, sizeof *values, compare_doubles);
  return values[n / 2];
}

static fl_model *make_mlp(void)
{
  const uint64_t dims[3] = {1, 28, 28};
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  if (fl_model_builder_new(&builder, NULL) != FL_OK) return NULL;
  (void)fl_model_builder_input(builder, dims, 3, 1.0f / 255.0f, 0.0f);
  (void)fl_model_builder_flatten(builder, "flat");
  (void)fl_model_builder_dense(builder, "a", 128);
  (void)fl_model_builder_relu(builder, "a.relu");
  (void)fl_model_builder_dense(builder, "b", 10);
  (void)fl_model_builder_softmax_cross_entropy(builder, "loss");
  if (fl_model_builder_build(builder, &model) == FL_OK) {
    (void)fl_model_init_weights(model, 1);
  }
  fl_model_builder_free(builder);
  return model;
}

static double step_us(fl_model *model, const fl_dataset *data)
{
  double times[ROUNDS];
  fl_fit_options options;
  (void)fl_fit_options_init(&options, sizeof options);
  for (size_t i = 0; i < ROUNDS; i++) {
    double begin = cpu_us();
    if (fl_model_fit(model, data, &options, NULL) != FL_OK) return -1.0;
    times[i] = (cpu_us() - begin) / (SAMPLES / BATCH);
  }
  return median(times, ROUNDS);
}

/* The products of one step. */
static double products_us(const float *memory, float *c,
                          void (*multiply)(const fli_gemm *))
{
  const struct {
    int trans_a, trans_b;
    size_t m, n, k;
    float alpha, beta;
  } shapes[] = {
      {0, 1, BATCH, 128, PIXELS, 1.0f, 0.0f},
      {0, 1, BATCH, 10, 128, 1.0f, 0.0f},
      {0, 0, BATCH, 128, 10, 1.0f, 0.0f},
      {1, 0, 10, 128, BATCH, -1e-9f, 1.0f},
      {1, 0, 128, PIXELS, BATCH, -1e-9f, 1.0f},
  };
  fli_gemm products[FLI_COUNT_OF(shapes)];
  for (size_t p = 0; p < FLI_COUNT_OF(shapes); p++) {
    products[p] = (fli_gemm){
        .trans_a = shapes[p].trans_a,
        .trans_b = shapes[p].trans_b,
        .m = shapes[p].m,
        .n = shapes[p].n,
        .k = shapes[p].k,
        .alpha = shapes[p].alpha,
        .a = memory,
        .lda = shapes[p].trans_a ? shapes[p].m : shapes[p].k,
        .b = memory,
        .ldb = shapes[p].trans_b ? shapes[p].k : shapes[p].n,
        .beta = shapes[p].beta,
        .c = c,
        .ldc = shapes[p].n,
    };
  }
  double times[ROUNDS];
  for (size_t i = 0; i < ROUNDS; i++) {
    double begin = cpu_us();
    for (size_t k = 0; k < 64; k++) {
      for (size_t p = 0; p < FLI_COUNT_OF(products); p++) {
        multiply(&products[p]);
      }
    }
    times[i] = (cpu_us() - begin) / 64.0;
  }
  return median(times, ROUNDS);
}

int main(void)
{
  fl_model *model = make_mlp();
  uint8_t *x = malloc((size_t)SAMPLES * PIXELS);
  int32_t *y = malloc(SAMPLES * sizeof *y);
  float *memory = calloc(128 * PIXELS, sizeof *memory);
  float *c = calloc(128 * PIXELS, sizeof *c);
  fl_dataset data;
  fli_rng rng;
  if (!model || !x || !y || !memory || !c) return 1;
  fli_rng_init(&rng, 1, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < (size_t)SAMPLES * PIXELS; i++) {
    x[i] = (uint8_t)fli_rng_below(&rng, 256);
  }
  for (size_t i = 0; i < SAMPLES; i++) {
    y[i] = (int32_t)fli_rng_below(&rng, 10);
  }
  for (size_t i = 0; i < (size_t)128 * PIXELS; i++) {
    memory[i] = fli_rng_f32(&rng) - 0.5f;
  }
  (void)fl_dataset_init(&data, sizeof data);
  data.x_dtype = FL_DTYPE_U8;
  data.x = x;
  data.y = y;
  data.n = SAMPLES;
  printf("linalg %s\n", fli_linalg_name());
  double step = step_us(model, &data);
  if (step < 0.0) {
    fprintf(stderr, "fit: %s\n", fl_last_error());
    return 1;
  }
  double products = products_us(memory, c, fli_sgemm);
  double builtin = products_us(memory, c, fli_sgemm_builtin);
  printf("mlp_step_us %.1f\n", step);
  printf("mlp_products_us %.1f\n", products);
  printf("mlp_products_builtin_us %.1f\n", builtin);
  printf("mlp_step_builtin_estimated_us %.1f\n", step - products + builtin);
  fl_model_free(model);
  free(x);
  free(y);
  free(memory);
  free(c);
  return 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first program of somebody who has just installed libfl: build a model,
 * train it, keep its weights in a file, read them back, and ask it. The data
 * are points in a plane, of three kinds: near the middle, in a ring around it,
 * and outside.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include <fl/fl.h>

enum { POINTS = 3000, TEST_POINTS = 500, KINDS = 3 };

struct points {
  float x[POINTS][2];
  int32_t kind[POINTS];
};

static void check(fl_status st)
{
  if (st == FL_OK) return;
  fprintf(stderr, "%s: %s\n", fl_status_name(st), fl_last_error());
  exit(1);
}

static float uniform(void) /* in -1..1 */
{
  static uint32_t state = 1;
  state = state * 1664525u + 1013904223u;
  return (float)(state >> 8) / 8388608.0f - 1;
}

static int32_t kind_of(const float x[2])
{
  float radius = hypotf(x[0], x[1]);
  return radius < 0.45f ? 0 : radius < 0.85f ? 1 : 2;
}

static fl_dataset make_points(struct points *points, int n)
{
  fl_dataset data;
  for (int i = 0; i < n; i++) {
    points->x[i][0] = uniform();
    points->x[i][1] = uniform();
    points->kind[i] = kind_of(points->x[i]);
  }
  check(fl_dataset_init(&data, sizeof data));
  data.x_dtype = FL_DTYPE_F32;
  data.x = points->x;
  data.y = points->kind;
  data.n = (uint64_t)n;
  return data;
}

/* A builder keeps the first failure, and build returns it. */
static fl_model *make_model(void)
{
  const uint64_t dims = 2;
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  check(fl_model_builder_new(&builder, NULL));
  fl_model_builder_input(builder, &dims, 1, 1, 0);
  fl_model_builder_dense(builder, "hidden", 32);
  fl_model_builder_activation(builder, "hidden.tanh", FL_ACTIVATION_TANH);
  fl_model_builder_dense(builder, "out", KINDS);
  fl_model_builder_softmax_cross_entropy(builder, "loss");
  check(fl_model_builder_build(builder, &model));
  fl_model_builder_free(builder);
  return model;
}

static fl_status on_progress(const fl_fit_progress *at, void *user)
{
  (void)user;
  printf("step %llu of %llu: loss %.3f\n", (unsigned long long)at->step,
         (unsigned long long)at->steps, at->loss);
  return FL_OK;
}

static void train(fl_model *model, const fl_dataset *data)
{
  fl_optimiser_options optimiser;
  fl_fit_options options;
  check(fl_optimiser_options_init(&optimiser, sizeof optimiser));
  optimiser.kind = FL_OPTIMISER_ADAM;
  optimiser.learning_rate = 0.01f;
  check(fl_model_init_weights(model, 1));
  check(fl_model_set_optimiser(model, &optimiser));
  check(fl_fit_options_init(&options, sizeof options));
  options.epochs = 20;
  options.progress = on_progress;
  options.progress_every = 470;
  check(fl_model_fit(model, data, &options, NULL));
}

/* libfl has no files: it reads and writes through these. */
static fl_status to_file(void *file, const void *bytes, size_t n)
{
  return fwrite(bytes, 1, n, file) == n ? FL_OK : FL_E_IO;
}

static fl_status from_file(void *file, void *bytes, size_t n, size_t *got)
{
  *got = fread(bytes, 1, n, file);
  return ferror((FILE *)file) ? FL_E_IO : FL_OK;
}

static FILE *open_file(const char *path, const char *mode)
{
  FILE *file = fopen(path, mode);
  if (file) return file;
  perror(path);
  exit(1);
}

int main(int argc, char **argv)
{
  static struct points points, others;
  const char *path = argc > 1 ? argv[1] : "points.safetensors";
  fl_dataset data = make_points(&points, POINTS);
  fl_dataset test = make_points(&others, TEST_POINTS);
  fl_evaluation evaluation;

  fl_model *model = make_model();
  train(model, &data);
  FILE *file = open_file(path, "wb");
  const fl_writer writer = {.write = to_file, .user = file};
  check(fl_model_save_weights(model, &writer));
  if (fclose(file)) check(FL_E_IO);
  fl_model_free(model);

  model = make_model();
  file = open_file(path, "rb");
  const fl_reader reader = {.read = from_file, .user = file};
  check(fl_model_load_weights(model, &reader, 0, NULL));
  fclose(file);
  check(fl_evaluation_init(&evaluation, sizeof evaluation));
  check(fl_model_evaluate(model, &test, &evaluation));
  double share = (double)evaluation.correct / (double)evaluation.count;
  printf("%s: %.1f %% of %d other points\n", fl_build_info(), 100 * share,
         TEST_POINTS);

  uint32_t best[3];
  test.n = 3; /* ask for the first few */
  check(fl_model_predict_top(model, &test, 1, best, NULL, 3));
  for (int i = 0; i < 3; i++) {
    printf("(%5.2f, %5.2f) is of kind %u, and the model says %u\n",
           (double)others.x[i][0], (double)others.x[i][1],
           (unsigned)others.kind[i], (unsigned)best[i]);
  }
  fl_model_free(model);
  return share > 0.9 ? 0 : 1;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Training and prediction by the host's threads: the same bits as without, for
 * any number of threads, tasks in any order, and a hook that fails. */
#include <pthread.h>
#include <stdlib.h>

#include <fl/embedding.h>
#include <fl/train.h>

#include "base/rng.h"
#include "check.h"
#include "models.h"

/* More samples than layers put into one task, and a rest. */
enum { SAMPLES = 37, STEPS = 2, INPUTS = 784, CLASSES = 10, MAX_THREADS = 5 };

typedef enum order { FORWARD, BACKWARD, SHUFFLED, LAZY, ORDERS } order;

typedef struct hook {
  uint32_t threads;
  order order;
  uint64_t calls;
} hook;

typedef struct share {
  const hook *hook;
  uint32_t first;
  uint64_t count;
  uint64_t step; /* coprime to count: visits every item once */
  fl_task_fn task;
  void *arg;
} share;

static uint64_t greatest_divisor(uint64_t a, uint64_t b)
{
  while (b > 0) {
    uint64_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

static void *run_share(void *arg)
{
  const share *s = arg;
  for (uint64_t i = s->first; i < s->count; i += s->hook->threads) {
    uint64_t item = i;
    if (s->hook->order == BACKWARD) item = s->count - 1 - i;
    if (s->hook->order == SHUFFLED) item = i * s->step % s->count;
    s->task(s->arg, item);
  }
  return NULL;
}

/* LAZY: every other item, and then a failure. */
static fl_status parallel_for(void *user, uint64_t count, fl_task_fn task,
                              void *arg)
{
  hook *h = user;
  pthread_t threads[MAX_THREADS];
  share shares[MAX_THREADS] = {{0}};
  uint64_t step = 7;
  h->calls++;
  if (h->order == LAZY) {
    for (uint64_t i = 0; i < count; i += 2) {
      task(arg, i);
    }
    return FL_E_IO;
  }
  while (greatest_divisor(step, count) != 1) {
    step++;
  }
  for (uint32_t t = 0; t < h->threads; t++) {
    shares[t] = (share){h, t, count, step, task, arg};
    if (t > 0 &&
        pthread_create(&threads[t], NULL, run_share, &shares[t]) != 0) {
      exit(1);
    }
  }
  (void)run_share(&shares[0]);
  for (uint32_t t = 1; t < h->threads; t++) {
    pthread_join(threads[t], NULL);
  }
  return FL_OK;
}

static fl_context *new_context(hook *h)
{
  fl_context_options options;
  fl_context *context = NULL;
  CHECK_OK(fl_context_options_init(&options, sizeof options));
  options.parallel_for = parallel_for;
  options.user = h;
  options.log_level = FL_LOG_ERROR;
  CHECK_OK(fl_context_new(&context, &options));
  return context;
}

typedef struct outcome {
  float *weights;
  size_t n;
  float outputs[SAMPLES * CLASSES];
  double losses[STEPS + 1];
} outcome;

static uint8_t pixels[SAMPLES * INPUTS];
static int32_t labels[SAMPLES];

static void draw_data(void)
{
  fli_rng rng;
  fli_rng_init(&rng, 3, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < sizeof pixels; i++) {
    pixels[i] = (uint8_t)fli_rng_below(&rng, 256);
  }
  for (size_t i = 0; i < SAMPLES; i++) {
    labels[i] = (int32_t)fli_rng_below(&rng, CLASSES);
  }
}

static fl_dataset data_set(void)
{
  fl_dataset data;
  CHECK_OK(fl_dataset_init(&data, sizeof data));
  data.x_dtype = FL_DTYPE_U8;
  data.x = pixels;
  data.y = labels;
  data.n = SAMPLES;
  return data;
}

static fl_status see(float *gradient, const float *weights, uint64_t count,
                     void *user)
{
  (void)gradient;
  (void)weights;
  (void)user;
  return count > 0 ? FL_OK : FL_E_INTERNAL;
}

/* Steps, updated on the way back or gathered; then a score and outputs. */
static outcome play(fl_context *context, uint32_t index, int gathers)
{
  outcome out = {.n = 0};
  fl_dataset data = data_set();
  fl_evaluation evaluation;
  fl_model *model = models_new(index, context);
  CHECK(model != NULL);
  if (!model) return out;
  if (gathers) CHECK_OK(fl_model_set_gradient_hook(model, see, NULL));
  for (int i = 0; i < STEPS; i++) {
    CHECK_OK(fl_model_step(model, &data, FL_RATE_SCHEDULED, &out.losses[i]));
  }
  CHECK_OK(fl_evaluation_init(&evaluation, sizeof evaluation));
  CHECK_OK(fl_model_evaluate(model, &data, &evaluation));
  out.losses[STEPS] = evaluation.loss;
  CHECK_OK(fl_model_predict(model, &data, out.outputs, SAMPLES * CLASSES));
  out.n = (size_t)fl_model_weight_count(model);
  out.weights = malloc(out.n * sizeof *out.weights);
  if (!out.weights) exit(1);
  CHECK_OK(fl_model_copy_weights(model, out.weights, out.n));
  fl_model_free(model);
  return out;
}

static void check_same(const outcome *got, const outcome *want)
{
  CHECK_EQ_U64(got->n, want->n);
  CHECK_EQ_MEM(got->losses, want->losses, sizeof got->losses);
  CHECK_EQ_MEM(got->outputs, want->outputs, sizeof got->outputs);
  CHECK_EQ_MEM(got->weights, want->weights, got->n * sizeof *got->weights);
}

static void check_model(uint32_t index, int gathers)
{
  static const uint32_t threads[] = {1, 2, 3, 5};
  outcome want = play(NULL, index, gathers);
  for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
    hook h = {.threads = threads[i], .order = (order)i};
    fl_context *context = new_context(&h);
    outcome got = play(context, index, gathers);
    check_same(&got, &want);
    CHECK(h.calls > 0 || index == 0); /* the perceptron is small */
    if (check_totals.failures > 0) {
      fprintf(stderr, "model %u, %u threads, order %d\n", index, h.threads,
              (int)h.order);
    }
    free(got.weights);
    fl_context_free(context);
  }
  free(want.weights);
}

/* ---- rows of a store ---------------------------------------------------- */

enum { CLICKS = 3000, FIELDS = 3, WIDTH = 8 };

static fl_embedding *new_store(fl_context *context)
{
  static const uint8_t secret[16] = {1};
  fl_embedding *store = NULL;
  fl_embedding_options o;
  fl_embedding_table_options t;
  uint32_t table = 0;
  CHECK_OK(fl_embedding_options_init(&o, sizeof o));
  CHECK_OK(fl_embedding_table_options_init(&t, sizeof t));
  o.secret = secret;
  t.dim = WIDTH;
  CHECK_OK(fl_embedding_new(&store, context, &o));
  CHECK_OK(fl_embedding_add_table(store, &t, &table));
  return store;
}

static fl_model *new_recommender(fl_context *context, fl_embedding *store)
{
  const uint64_t fields = FIELDS;
  fl_model_builder *b = NULL;
  fl_model *model = NULL;
  CHECK_OK(fl_model_builder_new(&b, context));
  CHECK_OK(fl_model_builder_input(b, &fields, 1, 1.0f, 0.0f));
  CHECK_OK(fl_model_builder_sparse_embedding(b, "v", WIDTH));
  CHECK_OK(fl_model_builder_pairwise_dots(b, "p"));
  CHECK_OK(fl_model_builder_dense(b, "d", 1));
  CHECK_OK(fl_model_builder_from(b, "v"));
  CHECK_OK(fl_model_builder_factorisation_machine(b, "m"));
  CHECK_OK(fl_model_builder_add(b, "s", "d"));
  CHECK_OK(fl_model_builder_binary_cross_entropy(b, "loss"));
  CHECK_OK(fl_model_builder_build(b, &model));
  fl_model_builder_free(b);
  CHECK_OK(fl_model_init_weights(model, 1));
  CHECK_OK(fl_embedding_attach(store, model, NULL));
  return model;
}

static fl_dataset draw_clicks(void)
{
  static uint64_t ids[CLICKS * FIELDS];
  static float clicks[CLICKS];
  fl_dataset data;
  fli_rng rng;
  fli_rng_init(&rng, 5, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < CLICKS * FIELDS; i++) {
    ids[i] = fli_rng_below(&rng, 4000) * UINT64_C(0x9e3779b97f4a7c15);
    clicks[i / FIELDS] = (float)(ids[i] & 1);
  }
  CHECK_OK(fl_dataset_init(&data, sizeof data));
  data.x_dtype = FL_DTYPE_U64;
  data.x = ids;
  data.targets = clicks;
  data.n = CLICKS;
  return data;
}

static void recommend(fl_context *context, float scores[CLICKS])
{
  fl_embedding *store = new_store(context);
  fl_model *model = new_recommender(context, store);
  fl_dataset data = draw_clicks();
  for (int i = 0; i < STEPS; i++) {
    CHECK_OK(fl_model_step(model, &data, 0.1f, NULL));
  }
  CHECK_OK(fl_model_predict(model, &data, scores, CLICKS));
  fl_embedding_free(store);
  fl_model_free(model);
}

static void recommenders_have_the_same_bits_for_any_number_of_threads(void)
{
  static const uint32_t threads[] = {1, 2, 3, 5};
  static float want[CLICKS];
  static float got[CLICKS];
  recommend(NULL, want);
  for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
    hook h = {.threads = threads[i], .order = (order)i};
    fl_context *context = new_context(&h);
    recommend(context, got);
    CHECK_EQ_MEM(got, want, sizeof got);
    CHECK(h.calls > 0);
    fl_context_free(context);
  }
}

typedef struct scoring {
  fl_model *model;
  const fl_dataset *data;
  float scores[CLICKS];
  uint64_t n_bad;
} scoring;

static void *score(void *arg)
{
  scoring *s = arg;
  for (int i = 0; i < 20; i++) {
    CHECK_OK(fl_model_predict(s->model, s->data, s->scores, CLICKS));
    for (size_t k = 0; k < CLICKS; k++) {
      s->n_bad += !(s->scores[k] > -1e3f && s->scores[k] < 1e3f);
    }
  }
  return NULL;
}

/* Each of two models is one thread's; the rows, which are made meanwhile, are
 * both's. */
static void scores_of_a_model_beside_steps_of_another(void)
{
  static scoring s;
  fl_dataset data = draw_clicks();
  fl_embedding *store = new_store(NULL);
  fl_model *trained = new_recommender(NULL, store);
  pthread_t thread;
  s = (scoring){.model = new_recommender(NULL, store), .data = &data};
  if (pthread_create(&thread, NULL, score, &s) != 0) exit(1);
  for (uint64_t n = 100; n <= CLICKS; n += 100) {
    fl_dataset batch = data;
    batch.n = n;
    CHECK_OK(fl_model_step(trained, &batch, 0.1f, NULL));
  }
  pthread_join(thread, NULL);
  CHECK_EQ_U64(s.n_bad, 0);
  fl_model_free(s.model);
  fl_model_free(trained);
  fl_embedding_free(store);
}

static void models_have_the_same_bits_for_any_number_of_threads(void)
{
  for (uint32_t index = 0; index < MODELS; index++) {
    check_model(index, 0);
  }
}

static void gathered_gradients_have_the_same_bits(void)
{
  for (uint32_t index = 1; index < MODELS; index++) {
    check_model(index, 1);
  }
}

typedef struct worker {
  uint32_t index;
  outcome out;
} worker;

static void *train_one(void *arg)
{
  worker *w = arg;
  hook h = {.threads = 2};
  fl_context *context = new_context(&h);
  w->out = play(context, w->index, 0);
  fl_context_free(context);
  return NULL;
}

/* Data are shared, models are not. */
static void models_are_trained_side_by_side(void)
{
  pthread_t threads[MAX_THREADS];
  worker workers[MAX_THREADS];
  outcome want = play(NULL, 1, 0);
  for (int i = 0; i < MAX_THREADS; i++) {
    workers[i] = (worker){.index = 1};
    if (pthread_create(&threads[i], NULL, train_one, &workers[i]) != 0) {
      exit(1);
    }
  }
  for (int i = 0; i < MAX_THREADS; i++) {
    pthread_join(threads[i], NULL);
    check_same(&workers[i].out, &want);
    free(workers[i].out.weights);
  }
  free(want.weights);
}

int main(void)
{
  CHECK_CASE(scores_of_a_model_beside_steps_of_another);
  CHECK_CASE(recommenders_have_the_same_bits_for_any_number_of_threads);
  draw_data();
  CHECK_CASE(models_have_the_same_bits_for_any_number_of_threads);
  CHECK_CASE(gathered_gradients_have_the_same_bits);
  CHECK_CASE(models_are_trained_side_by_side);
  return check_report();
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Gradients: against an oracle in double that is written down plainly, which is
 * itself checked by finite differences; and what an observer sees of a step. */
#include <fl/model.h>

#include <math.h>
#include <string.h>

#include "model/model.h"
#include "model_fixture.h"

/* ---- the oracle: the same network in double, written down plainly -------- */

typedef struct oracle {
  double h[HIDDEN];
  double z[CLASSES];
} oracle;

static double oracle_sample(const double *w, const float *x, int32_t y,
                            oracle *o)
{
  const double *b1 = w + A;
  const double *w2 = b1 + HIDDEN;
  const double *b2 = w2 + HIDDEN * CLASSES;
  for (size_t i = 0; i < HIDDEN; i++) {
    double sum = b1[i];
    for (size_t j = 0; j < INPUTS; j++) {
      sum += w[i * INPUTS + j] * (double)x[j];
    }
    o->h[i] = sum > 0.0 ? sum : 0.0;
  }
  double total = 0.0;
  for (size_t i = 0; i < CLASSES; i++) {
    o->z[i] = b2[i];
    for (size_t j = 0; j < HIDDEN; j++) {
      o->z[i] += w2[i * HIDDEN + j] * o->h[j];
    }
    total += exp(o->z[i]);
  }
  return log(total) - o->z[y];
}

static double oracle_loss(const double *w, const sample_set *set, size_t n)
{
  oracle o;
  double sum = 0.0;
  for (size_t k = 0; k < n; k++) {
    sum += oracle_sample(w, set->x + k * INPUTS, set->y[k], &o);
  }
  return sum / (double)n;
}

static void oracle_gradient(const double *w, const sample_set *set, size_t n,
                            double *gradient)
{
  const double *w2 = w + A + HIDDEN;
  memset(gradient, 0, WEIGHTS * sizeof *gradient);
  for (size_t k = 0; k < n; k++) {
    oracle o;
    double dh[HIDDEN] = {0};
    double total = 0.0;
    (void)oracle_sample(w, set->x + k * INPUTS, set->y[k], &o);
    for (size_t i = 0; i < CLASSES; i++) {
      total += exp(o.z[i]);
    }
    for (size_t i = 0; i < CLASSES; i++) {
      double dz = exp(o.z[i]) / total - (set->y[k] == (int32_t)i);
      dz /= (double)n;
      gradient[WEIGHTS - CLASSES + i] += dz;
      for (size_t j = 0; j < HIDDEN; j++) {
        gradient[A + HIDDEN + i * HIDDEN + j] += dz * o.h[j];
        dh[j] += dz * w2[i * HIDDEN + j];
      }
    }
    for (size_t i = 0; i < HIDDEN; i++) {
      if (o.h[i] <= 0.0) continue;
      gradient[A + i] += dh[i];
      for (size_t j = 0; j < INPUTS; j++) {
        gradient[i * INPUTS + j] += dh[i] * (double)set->x[k * INPUTS + j];
      }
    }
  }
}

static void weights_as_double(const fl_model *model, double *w)
{
  float weights[WEIGHTS];
  cr_assert_eq(fl_model_copy_weights(model, weights, WEIGHTS), FL_OK);
  for (size_t i = 0; i < WEIGHTS; i++) {
    w[i] = (double)weights[i];
  }
}

/* ---- an observer that notes what it sees --------------------------------- */

typedef struct notes {
  uint32_t begins;
  uint32_t ends;
  uint64_t at[8]; /* of the gradients shown */
  uint32_t n_shown;
  double loss;
  float rate;
  float gradient[WEIGHTS];
  fl_status begin_answer;
  fl_status end_answer;
} notes;

static fl_status note_begin(void *user, const fli_batch *batch, float rate,
                            fli_watch *watch)
{
  notes *n = user;
  cr_assert_gt(batch->n, 0);
  n->begins++;
  n->rate = rate;
  watch->n = WEIGHTS;
  return n->begin_answer;
}

static void note_gradient(void *user, uint64_t at, const float *gradient,
                          uint64_t count)
{
  notes *n = user;
  n->at[n->n_shown++ % 8] = at;
  memcpy(n->gradient + at, gradient, (size_t)count * sizeof *gradient);
}

static fl_status note_end(void *user, double loss)
{
  notes *n = user;
  n->ends++;
  n->loss = loss;
  return n->end_answer;
}

static fli_observer observer_of(notes *n)
{
  return (fli_observer){.user = n,
                        .begin = note_begin,
                        .gradient = note_gradient,
                        .end = note_end};
}

Test(model_gradients, oracles_gradient_agrees_with_finite_differences)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  double w[WEIGHTS];
  double gradient[WEIGHTS];
  const double step = 1e-5;
  fixture_samples(&set, SEED);
  weights_as_double(model, w);
  oracle_gradient(w, &set, 9, gradient);
  for (size_t i = 0; i < WEIGHTS; i++) {
    double kept = w[i];
    w[i] = kept + step;
    double up = oracle_loss(w, &set, 9);
    w[i] = kept - step;
    double down = oracle_loss(w, &set, 9);
    w[i] = kept;
    cr_assert(fabs((up - down) / (2 * step) - gradient[i]) < 1e-7,
              "seed %d, weight %zu: %g, want %g", SEED, i,
              (up - down) / (2 * step), gradient[i]);
  }
  fl_model_free(model);
}

Test(model_gradients, gradient_and_loss_agree_with_the_oracle)
{
  static const size_t sizes[] = {1, 2, 31, 32, 33};
  for (size_t s = 0; s < FLI_COUNT_OF(sizes); s++) {
    fl_model *model = fixture_small_mlp();
    sample_set set;
    double w[WEIGHTS];
    double want[WEIGHTS];
    double loss = 0.0;
    notes seen = {0};
    fli_observer observer = observer_of(&seen);
    fixture_samples(&set, SEED + s);
    fl_dataset data = fixture_data(set.x, set.y, sizes[s]);
    weights_as_double(model, w);
    oracle_gradient(w, &set, sizes[s], want);
    fli_model_set_observer(model, &observer);
    cr_assert_eq(fl_model_step(model, &data, 0.0f, &loss), FL_OK);
    cr_assert(fabs(loss - oracle_loss(w, &set, sizes[s])) < 1e-6);
    cr_assert(seen.loss == loss);
    for (size_t i = 0; i < WEIGHTS; i++) {
      cr_assert(fabs((double)seen.gradient[i] - want[i]) < 1e-6,
                "seed %zu, n %zu, weight %zu: %g, want %g", SEED + s, sizes[s],
                i, (double)seen.gradient[i], want[i]);
    }
    fl_model_free(model);
  }
}

/* Whatever makes the update: plain SGD, which an observer makes write down
 * gradients that it has no need of, momentum, and gathered gradients. */
Test(model_gradients, being_observed_changes_no_bit)
{
  for (int kind = 0; kind < 3; kind++) {
    fl_model *alone = fixture_small_mlp();
    fl_model *observed = fixture_small_mlp();
    sample_set set;
    float a[WEIGHTS];
    float b[WEIGHTS];
    notes seen = {0};
    fli_observer observer = observer_of(&seen);
    fl_optimiser_options o;
    fixture_samples(&set, SEED);
    fl_dataset data = fixture_data(set.x, set.y, 32);
    (void)fl_optimiser_options_init(&o, sizeof o);
    if (kind == 1) o.momentum = 0.9f;
    if (kind == 2) o.clip_norm = 0.5f;
    cr_assert_eq(fl_model_set_optimiser(alone, &o), FL_OK);
    cr_assert_eq(fl_model_set_optimiser(observed, &o), FL_OK);
    fli_model_set_observer(observed, &observer);
    for (int i = 0; i < 20; i++) {
      cr_assert_eq(fl_model_step(alone, &data, 0.1f, NULL), FL_OK);
      cr_assert_eq(fl_model_step(observed, &data, 0.1f, NULL), FL_OK);
    }
    cr_assert_eq(seen.ends, 20);
    cr_assert_eq(fl_model_copy_weights(alone, a, WEIGHTS), FL_OK);
    cr_assert_eq(fl_model_copy_weights(observed, b, WEIGHTS), FL_OK);
    cr_assert_arr_eq(a, b, sizeof a, "%d", kind);
    fl_model_free(alone);
    fl_model_free(observed);
  }
}

Test(model_gradients, observer_sees_every_update_and_tensor)
{
  static const uint64_t back[4] = {A + HIDDEN, WEIGHTS - CLASSES, 0, A};
  fl_model *model = fixture_small_mlp();
  sample_set set;
  notes seen = {0};
  fli_observer observer = observer_of(&seen);
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, 8);
  fli_model_set_observer(model, &observer);
  cr_assert_eq(fl_model_step(model, &data, 0.25f, NULL), FL_OK);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
  cr_assert_eq(seen.begins, 2);
  cr_assert_eq(seen.ends, 2);
  cr_assert_eq(seen.rate, 0.1f);
  cr_assert_eq(seen.n_shown, 8);
  for (uint32_t i = 0; i < 4; i++) {
    int is_seen = 0;
    for (uint32_t k = 0; k < 4; k++) {
      is_seen += seen.at[k] == back[i];
    }
    cr_assert_eq(is_seen, 1, "tensor at %llu", (unsigned long long)back[i]);
  }
  fli_model_set_observer(model, NULL);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_OK);
  cr_assert_eq(seen.begins, 2);
  fl_model_free(model);
}

/* One begin and one end for all batches of an update. */
Test(model_gradients, observer_sees_gathered_batches_as_one_update)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  notes seen = {0};
  fli_observer observer = observer_of(&seen);
  double losses[2];
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, 8);
  fli_model_set_observer(model, &observer);
  cr_assert_eq(fl_model_accumulate(model, &data, &losses[0]), FL_OK);
  data = fixture_data(set.x + 8 * INPUTS, set.y + 8, 8);
  cr_assert_eq(fl_model_accumulate(model, &data, &losses[1]), FL_OK);
  cr_assert_eq(seen.ends, 0);
  cr_assert_eq(fl_model_update(model, 0.1f), FL_OK);
  cr_assert_eq(seen.begins, 1);
  cr_assert_eq(seen.ends, 1);
  cr_assert_eq(seen.n_shown, 4);
  cr_assert(seen.loss == (losses[0] + losses[1]) / 2);
  fl_model_free(model);
}

Test(model_gradients, observer_that_fails_at_the_beginning_stops_the_step)
{
  fl_model *model = fixture_small_mlp();
  sample_set set;
  float before[WEIGHTS];
  float after[WEIGHTS];
  notes seen = {.begin_answer = FL_E_STATE};
  fli_observer observer = observer_of(&seen);
  fixture_samples(&set, SEED);
  fl_dataset data = fixture_data(set.x, set.y, 8);
  cr_assert_eq(fl_model_copy_weights(model, before, WEIGHTS), FL_OK);
  fli_model_set_observer(model, &observer);
  cr_assert_eq(fl_model_step(model, &data, 0.1f, NULL), FL_E_STATE);
  cr_assert_eq(seen.ends, 0);
  cr_assert_eq(fl_model_copy_weights(model, after, WEIGHTS), FL_OK);
  cr_assert_arr_eq(after, before, sizeof before);
  fl_model_free(model);
}

/* Layers in odd places: ReLU on the input, two in a row, one in front of the
 * loss. The gradient is compared with finite differences of the loss. */
Test(model_gradients, relu_anywhere_has_the_right_gradient)
{
  enum { IN = 6, OUT = 3, N = 5, COUNT = IN * OUT + OUT };
  const uint64_t dims[2] = {2, 3};
  fl_model_builder *builder = NULL;
  fl_model *model = NULL;
  float x[N * IN];
  int32_t y[N];
  float weights[COUNT];
  notes seen = {0};
  fli_observer observer = observer_of(&seen);
  fli_rng rng;
  cr_assert_eq(fl_model_builder_new(&builder, NULL), FL_OK);
  (void)fl_model_builder_input(builder, dims, 2, 2.0f, 0.5f);
  (void)fl_model_builder_relu(builder, "r1");
  (void)fl_model_builder_flatten(builder, "f");
  (void)fl_model_builder_relu(builder, "r2");
  (void)fl_model_builder_dense(builder, "d", OUT);
  (void)fl_model_builder_relu(builder, "r3");
  (void)fl_model_builder_relu(builder, "r4");
  (void)fl_model_builder_softmax_cross_entropy(builder, "l");
  cr_assert_eq(fl_model_builder_build(builder, &model), FL_OK);
  fl_model_builder_free(builder);
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 1, 0);
  for (size_t i = 0; i < N * IN; i++) {
    x[i] = 2.0f * fli_rng_f32(&rng) - 1.0f;
  }
  for (size_t i = 0; i < N; i++) {
    y[i] = (int32_t)fli_rng_below(&rng, OUT);
  }
  fl_dataset data = fixture_data(x, y, N);
  cr_assert_eq(fl_model_init_weights(model, SEED), FL_OK);
  fli_model_set_observer(model, &observer);
  cr_assert_eq(fl_model_step(model, &data, 0.0f, NULL), FL_OK);
  cr_assert_eq(fl_model_copy_weights(model, weights, COUNT), FL_OK);
  for (size_t i = 0; i < COUNT; i++) {
    double loss[2];
    const float step = 1.0f / 256;
    float kept = weights[i];
    for (size_t side = 0; side < 2; side++) {
      fl_evaluation evaluation;
      cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
      weights[i] = side ? kept + step : kept - step;
      cr_assert_eq(fl_model_set_weights(model, NULL, weights, COUNT), FL_OK);
      cr_assert_eq(fl_model_evaluate(model, &data, &evaluation), FL_OK);
      loss[side] = evaluation.loss;
    }
    weights[i] = kept;
    double want = (loss[1] - loss[0]) / (2.0 * (double)step);
    cr_assert(fabs((double)seen.gradient[i] - want) < 2e-3,
              "seed %d, weight %zu: %g, want %g", SEED, i,
              (double)seen.gradient[i], want);
  }
  fl_model_free(model);
}

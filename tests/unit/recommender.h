/* SPDX-License-Identifier: Apache-2.0 */
/* Recommenders of a few fields, over an embedding that is a tensor or over one
 * whose rows are somebody else's, and clicks that depend on pairs of fields. */
#ifndef RECOMMENDER_H
#define RECOMMENDER_H

#include <fl/layers.h>
#include <fl/train.h>

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "array_rows.h"
#include "base/rng.h"

enum { FIELDS = 4, WIDTH = 8, PER_FIELD = 12, IDS = FIELDS * PER_FIELD };
enum { CLICKS = 2000 };

typedef enum recommender_kind { DEEP_FM, DLRM } recommender_kind;

static inline void recommender_dense(fl_model_builder *builder,
                                     const char *name, uint64_t units)
{
  cr_assert_eq(fl_model_builder_dense(builder, name, units), FL_OK, "%s",
               fl_last_error());
}

/* fm(v) + mlp(v), or a perceptron of v and its pairs. */
static inline void recommender_layers(fl_model_builder *b,
                                      recommender_kind kind)
{
  (void)fl_model_builder_flatten(b, "flat");
  if (kind == DEEP_FM) {
    recommender_dense(b, "a", 16);
    (void)fl_model_builder_relu(b, "a.relu");
    recommender_dense(b, "deep", 1);
    (void)fl_model_builder_from(b, "v");
    (void)fl_model_builder_factorisation_machine(b, "fm");
    (void)fl_model_builder_add(b, "sum", "deep");
  } else {
    recommender_dense(b, "a", 16);
    (void)fl_model_builder_from(b, "v");
    (void)fl_model_builder_pairwise_dots(b, "pairs");
    recommender_dense(b, "b", 16);
    (void)fl_model_builder_add(b, "sum", "a");
    (void)fl_model_builder_relu(b, "sum.relu");
    recommender_dense(b, "top", 1);
  }
  (void)fl_model_builder_binary_cross_entropy(b, "loss");
}

static inline fl_model *recommender_new(fl_context *context,
                                        recommender_kind kind, int is_sparse)
{
  const uint64_t fields = FIELDS;
  fl_model_builder *b = NULL;
  fl_model *model = NULL;
  cr_assert_eq(fl_model_builder_new(&b, context), FL_OK);
  (void)fl_model_builder_input(b, &fields, 1, 1.0f, 0.0f);
  if (is_sparse) {
    (void)fl_model_builder_sparse_embedding(b, "v", WIDTH);
  } else {
    (void)fl_model_builder_module(b, 9); /* those of the rest stay the same */
    (void)fl_model_builder_embedding(b, "v", IDS, WIDTH);
  }
  (void)fl_model_builder_module(b, 0);
  recommender_layers(b, kind);
  cr_assert_eq(fl_model_builder_build(b, &model), FL_OK, "%s", fl_last_error());
  fl_model_builder_free(b);
  cr_assert_eq(fl_model_init_weights(model, 5), FL_OK);
  return model;
}

typedef struct clicks {
  uint64_t ids[CLICKS * FIELDS];
  int32_t small[CLICKS * FIELDS]; /* the same */
  float targets[CLICKS];
  fl_dataset data;
} clicks;

/* A click is likely where the secret vectors of the first two fields agree. */
static inline clicks *clicks_new(uint64_t seed)
{
  clicks *c = calloc(1, sizeof *c);
  float secret[IDS][3];
  fli_rng rng;
  cr_assert_not_null(c);
  fli_rng_init(&rng, 99, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < IDS * 3; i++) {
    secret[i / 3][i % 3] = 2.0f * fli_rng_f32(&rng) - 1.0f;
  }
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 1, 0);
  for (size_t k = 0; k < CLICKS; k++) {
    for (size_t f = 0; f < FIELDS; f++) {
      size_t at = k * FIELDS + f;
      c->ids[at] = f * PER_FIELD + fli_rng_below(&rng, PER_FIELD);
      c->small[at] = (int32_t)c->ids[at];
    }
    const float *u = secret[c->ids[k * FIELDS]];
    const float *v = secret[c->ids[k * FIELDS + 1]];
    float logit = 4.0f * (u[0] * v[0] + u[1] * v[1] + u[2] * v[2]);
    c->targets[k] = fli_rng_f32(&rng) < 1.0f / (1.0f + expf(-logit));
  }
  cr_assert_eq(fl_dataset_init(&c->data, sizeof c->data), FL_OK);
  c->data.x_dtype = FL_DTYPE_U64;
  c->data.x = c->ids;
  c->data.targets = c->targets;
  c->data.n = CLICKS;
  return c;
}

/* The chance that a click has a larger score than what is none. */
static inline double auc_of(const float *scores, const float *targets, size_t n)
{
  double wins = 0.0;
  double pairs = 0.0;
  for (size_t i = 0; i < n; i++) {
    for (size_t j = 0; j < n && targets[i] > 0.0f; j++) {
      if (targets[j] > 0.0f) continue;
      pairs += 1.0;
      wins += scores[i] > scores[j] ? 1.0 : scores[i] == scores[j] ? 0.5 : 0.0;
    }
  }
  return wins / pairs;
}

static inline double recommender_auc(fl_model *model, const clicks *c)
{
  static float scores[CLICKS];
  cr_assert_eq(fl_model_predict(model, &c->data, scores, CLICKS), FL_OK, "%s",
               fl_last_error());
  return auc_of(scores, c->targets, CLICKS);
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* A factorisation machine with a perceptron (DeepFM) and a perceptron of dot
 * products (DLRM), built with the public calls and trained on clicks. The
 * oracle is the same model with its rows in a tensor: losses, scores and rows
 * are the same to the last bit. */
#include "recommender.h"

enum { BATCH = 64 };

typedef struct trial {
  fl_model *dense;
  fl_model *sparse;
  array_rows *rows;
  uint32_t tensor; /* of the rows in the dense model */
} trial;

/* Gradients of both are gathered before an update. */
static void gather(fl_model *model)
{
  fl_optimiser_options o;
  cr_assert_eq(fl_optimiser_options_init(&o, sizeof o), FL_OK);
  o.clip_norm = 1e18f;
  cr_assert_eq(fl_model_set_optimiser(model, &o), FL_OK);
}

static trial trial_new(fl_context *context, recommender_kind kind)
{
  trial t = {.dense = recommender_new(context, kind, 0),
             .sparse = recommender_new(context, kind, 1)};
  static float values[IDS * WIDTH];
  static float tensor[16 * FIELDS * WIDTH];
  for (uint32_t i = 0; i < t.sparse->n_tensors; i++) {
    const fli_tensor *from = &t.sparse->tensors[i];
    uint32_t to = 0;
    uint64_t n = from->shape.count;
    cr_assert_leq(n, sizeof tensor / sizeof *tensor);
    cr_assert_eq(fl_model_find_tensor(t.dense, from->name, &to), FL_OK);
    cr_assert_eq(fl_model_copy_tensor(t.sparse, i, tensor, n), FL_OK);
    cr_assert_eq(fl_model_set_tensor(t.dense, to, tensor, n), FL_OK);
  }
  cr_assert_eq(fl_model_find_tensor(t.dense, "v.weight", &t.tensor), FL_OK);
  cr_assert_eq(fl_model_copy_tensor(t.dense, t.tensor, values, IDS * WIDTH),
               FL_OK);
  for (size_t i = 0; i < IDS * WIDTH; i++) {
    values[i] *= 0.2f;
  }
  cr_assert_eq(fl_model_set_tensor(t.dense, t.tensor, values, IDS * WIDTH),
               FL_OK);
  t.rows = array_rows_new(IDS, WIDTH, values);
  cr_assert_not_null(t.rows);
  fli_model_set_provider(t.sparse, &array_rows_provider, t.rows);
  gather(t.dense);
  gather(t.sparse);
  return t;
}

static void trial_free(trial *t)
{
  fl_model_free(t->dense);
  fl_model_free(t->sparse);
  cr_assert_eq(t->rows->gone, 1);
  array_rows_free(t->rows);
}

static void same_rows(const trial *t)
{
  static float values[IDS * WIDTH];
  cr_assert_eq(fl_model_copy_tensor(t->dense, t->tensor, values, IDS * WIDTH),
               FL_OK);
  cr_assert_arr_eq(values, t->rows->values, sizeof values);
}

static double fit(fl_model *model, const fl_dataset *data, uint32_t epochs)
{
  fl_fit_options o;
  fl_fit_result result;
  cr_assert_eq(fl_fit_options_init(&o, sizeof o), FL_OK);
  cr_assert_eq(fl_fit_result_init(&result, sizeof result), FL_OK);
  o.epochs = epochs;
  o.batch_size = BATCH;
  o.learning_rate = 0.3f;
  o.seed = 3;
  cr_assert_eq(fl_model_fit(model, data, &o, &result), FL_OK, "%s",
               fl_last_error());
  return result.mean_loss;
}

static double loss_of(fl_model *model, const fl_dataset *data)
{
  fl_evaluation e;
  cr_assert_eq(fl_evaluation_init(&e, sizeof e), FL_OK);
  cr_assert_eq(fl_model_evaluate(model, data, &e), FL_OK);
  return e.loss;
}

static void check_equal(fl_context *context, recommender_kind kind,
                        uint32_t dtype)
{
  clicks *c = clicks_new(1);
  trial t = trial_new(context, kind);
  fl_dataset small = c->data;
  small.x_dtype = FL_DTYPE_I32;
  small.x = c->small;
  const fl_dataset *ids = dtype == FL_DTYPE_I32 ? &small : &c->data;
  cr_assert_eq(fit(t.sparse, ids, 3), fit(t.dense, &small, 3));
  cr_assert_eq(loss_of(t.sparse, ids), loss_of(t.dense, &small));
  same_rows(&t);
  trial_free(&t);
  free(c);
}

Test(recommender, losses_and_rows_are_those_of_a_tensor)
{
  check_equal(NULL, DEEP_FM, FL_DTYPE_U64);
  check_equal(NULL, DLRM, FL_DTYPE_U64);
}

Test(recommender, small_ids_are_ids)
{
  check_equal(NULL, DEEP_FM, FL_DTYPE_I32);
}

Test(recommender, samples_are_taken_in_the_order_asked_for)
{
  clicks *c = clicks_new(1);
  trial t = trial_new(NULL, DLRM);
  uint32_t order[BATCH];
  fl_dataset small = c->data;
  double loss[2];
  for (uint32_t i = 0; i < BATCH; i++) {
    order[i] = (i * 7919) % CLICKS;
  }
  c->data.indices = order;
  c->data.n_indices = BATCH;
  small = c->data;
  small.x_dtype = FL_DTYPE_I32;
  small.x = c->small;
  cr_assert_eq(fl_model_step(t.sparse, &c->data, 0.1f, &loss[0]), FL_OK);
  cr_assert_eq(fl_model_step(t.dense, &small, 0.1f, &loss[1]), FL_OK);
  cr_assert_eq(loss[0], loss[1]);
  same_rows(&t);
  trial_free(&t);
  free(c);
}

/* Trained on some clicks, scored on others: .5 is chance, and .83 was
 * reached. */
static void check_learning(recommender_kind kind)
{
  clicks *c = clicks_new(1);
  clicks *other = clicks_new(2);
  trial t = trial_new(NULL, kind);
  double before = recommender_auc(t.sparse, other);
  (void)fit(t.sparse, &c->data, 60);
  double after = recommender_auc(t.sparse, other);
  cr_assert(before > 0.4 && before < 0.6, "AUC %g before", before);
  cr_assert(after > 0.75, "AUC %g, then %g", before, after);
  trial_free(&t);
  free(other);
  free(c);
}

Test(recommender, machine_and_perceptron_learn_clicks)
{
  check_learning(DEEP_FM);
}

Test(recommender, perceptron_of_pairs_learns_clicks)
{
  check_learning(DLRM);
}

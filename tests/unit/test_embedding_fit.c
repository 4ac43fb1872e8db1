/* SPDX-License-Identifier: Apache-2.0 */
/* Recommenders whose rows are a store's: they learn as with an array of rows,
 * scores only read, and the host adjusts the store while a fit stands still. */
#include "store.h"

/* The oracle is the array of test_recommender.c, with the store's first
 * values. */
Test(embedding_fit, fit_is_that_of_an_array_of_rows)
{
  static float first[IDS * WIDTH];
  static float rows[IDS * WIDTH];
  clicks *c = clicks_new(1);
  fl_embedding *e = store_new(NULL, FL_EMBEDDING_SGD, 1, WIDTH);
  fl_model *model = recommender_new(NULL, DEEP_FM, 1);
  fl_model *oracle = recommender_new(NULL, DEEP_FM, 1);
  fl_embedding_bags bags = one_each(c->ids, CLICKS * FIELDS);
  float *out = malloc(CLICKS * FIELDS * WIDTH * sizeof *out);
  cr_assert_not_null(out);
  cr_assert_eq(fl_embedding_forward(e, 0, &bags, out), FL_OK);
  read_rows(e, 0, IDS, first);
  array_rows *array = array_rows_new(IDS, WIDTH, first);
  fli_model_set_provider(oracle, &array_rows_provider, array);
  cr_assert_eq(fl_embedding_attach(e, model, NULL), FL_OK, "%s",
               fl_last_error());
  double got = fit(model, &c->data, 3, 0.2f);
  double want = fit(oracle, &c->data, 3, 0.2f);
  cr_assert_float_eq(got, want, 1e-6 * want);
  read_rows(e, 0, IDS, rows);
  for (size_t i = 0; i < IDS * WIDTH; i++) {
    cr_assert_float_eq(rows[i], array->values[i], 1e-5, "value %zu: %g, %g", i,
                       (double)rows[i], (double)array->values[i]);
  }
  cr_assert_neq(memcmp(first, rows, sizeof rows), 0);
  fl_model_free(model);
  fl_model_free(oracle);
  array_rows_free(array);
  fl_embedding_free(e);
  free(out);
  free(c);
}

static void check_learning(recommender_kind kind)
{
  clicks *c = clicks_new(1);
  clicks *other = clicks_new(2);
  fl_embedding *e = store_new(NULL, FL_EMBEDDING_ROW_ADAGRAD, 1, WIDTH);
  fl_model *model = recommender_new(NULL, kind, 1);
  fl_embedding_attach_options o;
  cr_assert_eq(fl_embedding_attach_options_init(&o, sizeof o), FL_OK);
  o.rate = 0.1f;
  cr_assert_eq(fl_embedding_attach(e, model, &o), FL_OK);
  double before = recommender_auc(model, other);
  (void)fit(model, &c->data, 15, 0.2f);
  double after = recommender_auc(model, other);
  cr_assert(before > 0.4 && before < 0.6, "AUC %g before", before);
  cr_assert(after > 0.75, "AUC %g, then %g", before, after);
  fl_embedding_free(e);
  fl_model_free(model);
  free(other);
  free(c);
}

Test(embedding_fit, recommenders_learn_clicks)
{
  check_learning(DEEP_FM);
  check_learning(DLRM);
}

Test(embedding_fit, scores_make_no_rows)
{
  static float rows[IDS * WIDTH];
  static const float zeros[IDS * WIDTH];
  static float scores[CLICKS];
  clicks *c = clicks_new(1);
  fl_embedding *e = store_new(NULL, FL_EMBEDDING_SGD, 1, WIDTH);
  fl_model *model = recommender_new(NULL, DEEP_FM, 1);
  fl_evaluation evaluation;
  cr_assert_eq(fl_embedding_attach(e, model, NULL), FL_OK);
  cr_assert_eq(fl_evaluation_init(&evaluation, sizeof evaluation), FL_OK);
  cr_assert_eq(fl_model_evaluate(model, &c->data, &evaluation), FL_OK);
  cr_assert_eq(fl_model_predict(model, &c->data, scores, CLICKS), FL_OK);
  read_rows(e, 0, IDS, rows);
  cr_assert_arr_eq(rows, zeros, sizeof rows);
  for (size_t k = 1; k < CLICKS; k++) {
    cr_assert_eq(scores[k], scores[0]); /* nothing is known of any id */
  }
  fl_model_free(model);
  fl_embedding_free(e);
  free(c);
}

typedef struct adjusting {
  fl_embedding *e;
  fl_embedding_report report;
  uint64_t evicted;
} adjusting;

static fl_status adjust(const fl_fit_progress *progress, void *user)
{
  adjusting *a = user;
  (void)progress;
  fl_status st = fl_embedding_adjust(a->e, &a->report);
  a->evicted += a->report.evicted;
  return st;
}

/* Twice as many ids as the budget has room for. */
Test(embedding_fit, host_adjusts_between_two_steps_of_a_fit)
{
  clicks *c = clicks_new(1);
  adjusting a = {0};
  fl_embedding_options o;
  fl_embedding_table_options t;
  fl_fit_options fit_options;
  fl_fit_result result;
  fl_model *model = recommender_new(NULL, DEEP_FM, 1);
  uint32_t table = 0;
  cr_assert_eq(fl_embedding_options_init(&o, sizeof o), FL_OK);
  cr_assert_eq(fl_embedding_table_options_init(&t, sizeof t), FL_OK);
  cr_assert_eq(fl_fit_options_init(&fit_options, sizeof fit_options), FL_OK);
  cr_assert_eq(fl_fit_result_init(&result, sizeof result), FL_OK);
  cr_assert_eq(fl_embedding_report_init(&a.report, sizeof a.report), FL_OK);
  o.secret = secret;
  o.byte_budget = 64 * 1024;
  t.dim = WIDTH;
  t.prune_from = 0;
  cr_assert_eq(fl_embedding_new(&a.e, NULL, &o), FL_OK);
  cr_assert_eq(fl_embedding_add_table(a.e, &t, &table), FL_OK, "%s",
               fl_last_error());
  cr_assert_eq(fl_embedding_attach(a.e, model, NULL), FL_OK);
  for (size_t i = 0; i < CLICKS * FIELDS; i++) {
    if (i % FIELDS == 3) c->ids[i] = i << 20; /* never seen again */
  }
  fit_options.epochs = 3;
  fit_options.progress = adjust;
  fit_options.progress_every = 10;
  fit_options.user = &a;
  cr_assert_eq(fl_model_fit(model, &c->data, &fit_options, &result), FL_OK,
               "%s", fl_last_error());
  cr_assert_gt(a.evicted, 0);
  fl_model_free(model);
  fl_embedding_free(a.e);
  free(c);
}

/* Rows are the embedding's: a checkpoint of the model neither has nor changes
 * them. */
Test(embedding_fit, checkpoints_leave_rows_as_they_are)
{
  static float rows[2][IDS * WIDTH];
  clicks *c = clicks_new(1);
  fl_embedding *e = store_new(NULL, FL_EMBEDDING_ROW_ADAGRAD, 1, WIDTH);
  fl_model *model = recommender_new(NULL, DEEP_FM, 1);
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  float weight[2];
  cr_assert_eq(fl_embedding_attach(e, model, NULL), FL_OK);
  (void)fit(model, &c->data, 1, 0.1f);
  weight[0] = model->values[0];
  cr_assert_eq(fl_buffer_new(&buffer, NULL), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffer, &writer), FL_OK);
  cr_assert_eq(fl_model_save_checkpoint(model, &writer), FL_OK);
  (void)fit(model, &c->data, 1, 0.1f);
  cr_assert_neq(model->values[0], weight[0]);
  read_rows(e, 0, IDS, rows[0]);
  cr_assert_eq(fl_buffer_as_reader(buffer, &reader), FL_OK);
  cr_assert_eq(fl_model_load_checkpoint(model, &reader), FL_OK);
  cr_assert_eq(model->values[0], weight[0]);
  read_rows(e, 0, IDS, rows[1]);
  cr_assert_arr_eq(rows[0], rows[1], sizeof rows[0]);
  (void)fit(model, &c->data, 1, 0.1f); /* still attached */
  fl_buffer_free(buffer);
  fl_model_free(model);
  fl_embedding_free(e);
  free(c);
}

/* A model's checkpoint and a saved embedding together are where training was:
 * it goes on to the same bits. */
Test(embedding_fit, model_and_store_that_were_saved_go_on_together)
{
  static float scores[2][CLICKS];
  clicks *c = clicks_new(1);
  fl_embedding *stores[2] = {
      store_new(NULL, FL_EMBEDDING_ROW_ADAGRAD, 1, WIDTH)};
  fl_model *models[2] = {recommender_new(NULL, DLRM, 1),
                         recommender_new(NULL, DLRM, 1)};
  fl_buffer *buffers[2] = {NULL, NULL};
  fl_writer writer;
  fl_reader reader;
  cr_assert_eq(fl_embedding_attach(stores[0], models[0], NULL), FL_OK);
  (void)fit(models[0], &c->data, 1, 0.1f);
  for (int i = 0; i < 2; i++) {
    cr_assert_eq(fl_buffer_new(&buffers[i], NULL), FL_OK);
  }
  cr_assert_eq(fl_buffer_as_writer(buffers[0], &writer), FL_OK);
  cr_assert_eq(fl_model_save_checkpoint(models[0], &writer), FL_OK);
  cr_assert_eq(fl_buffer_as_writer(buffers[1], &writer), FL_OK);
  cr_assert_eq(fl_embedding_save(stores[0], &writer), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffers[0], &reader), FL_OK);
  cr_assert_eq(fl_model_load_checkpoint(models[1], &reader), FL_OK);
  cr_assert_eq(fl_buffer_as_reader(buffers[1], &reader), FL_OK);
  cr_assert_eq(fl_embedding_load(&stores[1], NULL, &reader, 0), FL_OK, "%s",
               fl_last_error());
  cr_assert_eq(fl_embedding_attach(stores[1], models[1], NULL), FL_OK);
  for (int i = 0; i < 2; i++) {
    (void)fit(models[i], &c->data, 1, 0.1f);
    cr_assert_eq(fl_model_predict(models[i], &c->data, scores[i], CLICKS),
                 FL_OK);
    fl_buffer_free(buffers[i]);
    fl_embedding_free(stores[i]);
    fl_model_free(models[i]);
  }
  cr_assert_arr_eq(scores[0], scores[1], sizeof scores[0]);
  free(c);
}

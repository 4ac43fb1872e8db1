/* SPDX-License-Identifier: Apache-2.0 */
/* Scores and predictions against plain loops over the outputs: sequences,
 * labels that are ignored, more samples than a batch has, and the k largest
 * outputs. */
#include <fl/train.h>

#include <string.h>

#include "net_check.h"

enum { CLASSES = 5 };

typedef struct score {
  double loss; /* mean over labels that count */
  uint64_t labels;
  uint64_t correct;
  uint64_t count[CLASSES];
  uint64_t hits[CLASSES];
} score;

static score score_plainly(net *t)
{
  score s = {0};
  size_t labels = net_labels(t);
  s.loss = oracle_loss(t);
  for (size_t k = 0; k < t->n; k++) {
    oracle_forward(t, k);
    for (size_t j = 0; j < labels; j++) {
      int32_t label = t->labels[k * labels + j];
      const double *y = t->values[t->n_layers - 1] + j * CLASSES;
      size_t best = 0;
      if (label == t->classes.ignore_index) continue;
      for (size_t c = 1; c < CLASSES; c++) {
        if (y[c] > y[best]) best = c;
      }
      s.labels++;
      s.count[label]++;
      s.hits[label] += best == (size_t)label;
      s.correct += best == (size_t)label;
    }
  }
  return s;
}

static void check_scores(net *t)
{
  uint64_t count[CLASSES];
  uint64_t hits[CLASSES];
  fl_evaluation e;
  score want = score_plainly(t);
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_evaluation_init(&e, sizeof e), FL_OK);
  e.class_count = count;
  e.class_correct = hits;
  e.class_capacity = CLASSES;
  cr_assert_eq(fl_model_evaluate(t->model, &data, &e), FL_OK, "%s",
               fl_last_error());
  cr_assert_eq(e.n_classes, CLASSES);
  cr_assert(fabs(e.loss - want.loss) < 1e-5, "loss %g, want %g", e.loss,
            want.loss);
  cr_assert_eq(e.correct, want.correct);
  cr_assert_eq(e.count, want.labels, "%d labels, want %d", (int)e.count,
               (int)want.labels);
  cr_assert_arr_eq(count, want.count, sizeof count);
  cr_assert_arr_eq(hits, want.hits, sizeof hits);
  net_free(t);
}

/* `ignore`: a label, maybe one of the classes. */
static net *end_with_classes(net *t, int32_t ignore, size_t n)
{
  (void)net_dense(t, CLASSES);
  cr_assert_eq(fl_cross_entropy_options_init(&t->classes, sizeof t->classes),
               FL_OK);
  t->classes.ignore_index = ignore;
  cr_assert_eq(fl_model_builder_cross_entropy(t->builder, "loss", &t->classes),
               FL_OK);
  net_build(t);
  net_draw(t, n, NET_SEED);
  return t;
}

Test(evaluation, vectors_in_one_and_in_several_batches)
{
  static const size_t sizes[] = {1, 255, 256, 257, 600};
  for (size_t i = 0; i < FLI_COUNT_OF(sizes); i++) {
    check_scores(end_with_classes(net_vector(6), -100, sizes[i]));
  }
}

Test(evaluation, tokens_with_ignored_labels)
{
  static const size_t sizes[] = {2, 256, 300};
  for (size_t i = 0; i < FLI_COUNT_OF(sizes); i++) {
    check_scores(end_with_classes(net_sequence(3, 4), -100, sizes[i]));
  }
}

/* Padding is often a class of its own. */
Test(evaluation, ignored_label_that_is_a_class)
{
  check_scores(end_with_classes(net_sequence(3, 4), 0, 30));
  check_scores(end_with_classes(net_vector(4), CLASSES - 1, 30));
}

/* Nearly all of the second batch is ignored: means of batches are not what is
 * to be averaged. */
Test(evaluation, mean_is_over_labels_not_over_batches)
{
  net *t = end_with_classes(net_vector(4), -100, 400);
  for (size_t k = 258; k < 400; k++) {
    t->labels[k] = -100;
  }
  t->labels[256] = t->labels[257] = 2;
  check_scores(t);
}

Test(evaluation, batch_without_any_label_counts_nothing)
{
  net *t = end_with_classes(net_vector(4), -100, 7);
  for (size_t k = 0; k < 7; k++) {
    t->labels[k] = -100;
  }
  check_scores(t);
}

Test(evaluation, losses_of_numbers_have_no_classes)
{
  for (net_loss loss = NET_SQUARES; loss <= NET_BINARY; loss++) {
    net *t = net_vector(4);
    fl_evaluation e;
    (void)net_dense(t, 3);
    (void)net_numbers(t, loss);
    net_draw(t, 300, NET_SEED);
    fl_dataset data = net_data(t);
    cr_assert_eq(fl_evaluation_init(&e, sizeof e), FL_OK);
    cr_assert_eq(fl_model_evaluate(t->model, &data, &e), FL_OK);
    cr_assert_eq(e.n_classes, 0);
    cr_assert_eq(e.correct, 0);
    cr_assert_eq(e.count, 300);
    cr_assert(fabs(e.loss - oracle_loss(t)) < 1e-5);
    net_free(t);
  }
}

Test(evaluation, samples_may_be_chosen_by_index)
{
  net *t = end_with_classes(net_vector(4), -100, 9);
  static const uint32_t indices[] = {8, 0, 0, 3};
  float all[9 * CLASSES];
  float some[4 * CLASSES];
  fl_dataset data = net_data(t);
  cr_assert_eq(fl_model_predict(t->model, &data, all, 9 * CLASSES), FL_OK);
  data.indices = indices;
  data.n_indices = 4;
  cr_assert_eq(fl_model_predict(t->model, &data, some, 4 * CLASSES), FL_OK);
  for (size_t i = 0; i < 4; i++) {
    for (size_t c = 0; c < CLASSES; c++) {
      cr_assert(fabsf(some[i * CLASSES + c] - all[indices[i] * CLASSES + c]) <
                1e-6f);
    }
  }
  net_free(t);
}

/* ---- the k largest --------------------------------------------------------
 */

static void check_top(net *t, uint32_t k)
{
  size_t rows = t->n * net_labels(t);
  float *y = malloc(rows * CLASSES * sizeof *y);
  float *scores = malloc(rows * k * sizeof *scores);
  uint32_t *classes = malloc(rows * k * sizeof *classes);
  fl_dataset data = net_data(t);
  data.y = NULL;
  cr_assert(y && scores && classes);
  cr_assert_eq(fl_model_predict(t->model, &data, y, rows * CLASSES), FL_OK);
  cr_assert_eq(
      fl_model_predict_top(t->model, &data, k, classes, scores, rows * k),
      FL_OK);
  for (size_t r = 0; r < rows; r++) {
    for (size_t i = 0; i < k; i++) {
      uint32_t c = classes[r * k + i];
      size_t n_before = 0;
      cr_assert_lt(c, CLASSES);
      cr_assert_eq(scores[r * k + i], y[r * CLASSES + c]);
      for (uint32_t j = 0; j < CLASSES; j++) {
        float other = y[r * CLASSES + j];
        n_before +=
            other > scores[r * k + i] || (other == scores[r * k + i] && j < c);
      }
      cr_assert_eq(n_before, i);
    }
  }
  cr_assert_eq(fl_model_predict_top(t->model, &data, k, NULL, NULL, rows * k),
               FL_OK);
  cr_assert_eq(
      fl_model_predict_top(t->model, &data, k, classes, NULL, rows * k + 1),
      FL_E_DIM);
  free(y);
  free(scores);
  free(classes);
}

Test(evaluation, largest_outputs_of_samples_and_of_tokens)
{
  for (uint32_t k = 1; k <= CLASSES; k++) {
    net *t = end_with_classes(net_vector(4), -100, 300);
    check_top(t, k);
    /* equal ones */
    memset(t->model->values, 0, (size_t)t->model->n_weights * sizeof(float));
    check_top(t, k);
    net_free(t);
    t = end_with_classes(net_sequence(3, 4), -100, 5);
    check_top(t, k);
    net_free(t);
  }
}

Test(evaluation, more_of_the_largest_than_there_are_is_refused)
{
  net *t = end_with_classes(net_vector(4), -100, 2);
  uint32_t classes[2 * (CLASSES + 1)];
  fl_dataset data = net_data(t);
  fl_model *model = t->model;
  cr_assert_eq(fl_model_predict_top(model, &data, 0, classes, NULL, 0),
               FL_E_RANGE);
  cr_assert_eq(fl_model_predict_top(model, &data, CLASSES + 1, classes, NULL,
                                    2 * (CLASSES + 1)),
               FL_E_RANGE);
  cr_assert_eq(fl_model_predict_top(NULL, &data, 1, classes, NULL, 2),
               FL_E_ARGUMENT);
  cr_assert_eq(fl_model_predict_top(model, NULL, 1, classes, NULL, 2),
               FL_E_ARGUMENT);
  data.n = 0;
  cr_assert_eq(fl_model_predict_top(model, &data, 1, classes, NULL, 0),
               FL_E_EMPTY);
  net_free(t);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Accuracy of clients one by one, against numbers worked out by hand. */
#include <criterion/criterion.h>

#include <math.h>

#include "server/server.h"

static fl_client_accuracy accuracy_of(double *scores, uint32_t n)
{
  fl_client_accuracy accuracy;
  cr_assert_eq(fl_client_accuracy_init(&accuracy, sizeof accuracy), FL_OK);
  fli_accuracy_of(&accuracy, scores, n);
  return accuracy;
}

static int is_near(double a, double b)
{
  return fabs(a - b) < 1e-12;
}

Test(server_accuracy, of_ten_clients_is_worked_out)
{
  double scores[10] = {.9, .1, .8, .2, .7, .3, .6, .4, .5, 1.};
  const fl_client_accuracy a = accuracy_of(scores, 10);
  cr_assert_eq(a.clients, 10u);
  cr_assert(is_near(a.mean, .55));
  cr_assert(is_near(a.worst, .1));
  /* 5.5^2 / (10 x 3.85) */
  cr_assert(is_near(a.jain, 30.25 / 38.5));
  cr_assert(is_near(a.quantiles[0], .1));
  cr_assert(is_near(a.quantiles[5], .55));
  cr_assert(is_near(a.quantiles[1], .19));
  cr_assert(is_near(a.quantiles[10], 1.));
}

Test(server_accuracy, worst_tenth_is_rounded_up)
{
  double scores[11] = {0., .2, 1., 1., 1., 1., 1., 1., 1., 1., 1.};
  cr_assert(is_near(accuracy_of(scores, 11).worst, .1));
}

Test(server_accuracy, one_client_is_all_there_is)
{
  double scores[1] = {.25};
  const fl_client_accuracy a = accuracy_of(scores, 1);
  cr_assert(is_near(a.mean, .25));
  cr_assert(is_near(a.worst, .25));
  cr_assert(is_near(a.jain, 1.));
  for (int k = 0; k <= 10; k++)
    cr_assert(is_near(a.quantiles[k], .25));
}

Test(server_accuracy, of_nobody_and_of_nothing_right_it_is_defined)
{
  double scores[3] = {0., 0., 0.};
  cr_assert_eq(accuracy_of(scores, 0).clients, 0u);
  cr_assert(is_near(accuracy_of(scores, 0).mean, 0.));
  cr_assert(is_near(accuracy_of(scores, 3).jain, 1.));
  cr_assert(is_near(accuracy_of(scores, 3).mean, 0.));
}

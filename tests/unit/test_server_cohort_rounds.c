/* SPDX-License-Identifier: Apache-2.0 */
/* Cohorts that go on apart: scores, draws that come to nothing, and what a
 * round begins with. */
#include <criterion/criterion.h>

#include "cohort_apart.h"
#include "server/state.h"

static fl_status restore_saved(const cw_world *w, fl_server **server)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  fl_reader reader;
  CW_MUST(fl_buffer_new(&buffer, NULL));
  CW_MUST(fl_buffer_as_writer(buffer, &writer));
  CW_MUST(fl_server_save(w->server, &writer));
  CW_MUST(fl_buffer_as_reader(buffer, &reader));
  const fl_status st = fl_server_restore(server, NULL, NULL, &reader);
  fl_buffer_free(buffer);
  return st;
}

/* ---- scores -------------------------------------------------------------- */

static int is_scoring_alone(const cw_world *w, uint32_t cohort)
{
  const fli_cohort_scores *scores = &front_of(w)->cohorts->scores;
  return scores->left == UINT64_C(1) << cohort && scores->n > 0;
}

/* Until only this one, heard every seventh second, has still to score. */
static void run_until_alone(cw_world *w, uint32_t slow)
{
  for (uint64_t second = 1; second < 4000; second++) {
    w->now += CW_SECOND;
    CW_MUST(fl_server_tick(w->server, w->now));
    for (uint32_t k = 0; k < 8 * w->n_clients && !w->is_finished; k++) {
      const uint32_t i = k % w->n_clients;
      if (cw_cohort(w, i) == slow && second % 7 != 0) continue;
      (void)cw_talk(w, i);
      cw_listen(w);
      if (is_scoring_alone(w, slow)) return;
    }
  }
  cr_assert_fail("it never was");
}

/* Two of three clients are of one group. */
static uint32_t find_uneven(cw_world *w)
{
  init(w, FL_CODEC_THC, 60);
  w->job.participants = 12;
  w->job.evaluate_every = 20;
  cw_start(w);
  for (uint32_t i = 0; i < w->n_clients; i++)
    w->clients[i].group = i % 3 == 2;
  while (w->changes[FL_COHORT_KEPT] == 0 && !w->is_finished)
    cw_run(w, w->finished + 1);
  cr_assert_neq(cw_cohort(w, 2), cw_cohort(w, 0));
  return cw_cohort(w, 2);
}

Test(server_cohort_rounds, scores_of_those_who_have_left_are_saved)
{
  static cw_world w;
  fl_server *server = NULL;
  const uint32_t slow = find_uneven(&w);
  run_until_alone(&w, slow);
  CW_MUST(fl_server_pause_job(w.server, 0));
  for (uint32_t k = 0; k < 20 * w.n_clients; k++) {
    if (k % 3 != 2) (void)cw_talk(&w, k % w.n_clients);
  }
  for (uint32_t i = 0; i < 45; i++) {
    if (i % 3 != 2) CW_MUST(fl_server_forget(w.server, 0, w.clients[i].id));
  }
  CW_MUST(fl_server_tick(w.server, w.now));
  const uint32_t n = front_of(&w)->cohorts->scores.n;
  cr_assert_gt(n, front_of(&w)->registry.count);
  CW_MUST(restore_saved(&w, &server));
  cr_assert_eq(server->jobs[0]->cohorts->scores.n, n);
  fl_server_free(server);
  cw_free(&w);
}

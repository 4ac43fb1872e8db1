/* SPDX-License-Identifier: Apache-2.0 */
/* Groups of clients found while training, against one model for all and against
 * the true groups: accuracy per client, agreement with the groups, models sent.
 * docs/design/cohort.md has the recipe and the tables.
 *
 *   bench_cohorts --scenario perm --rule sketch --seed 11
 *
 *   --scenario perm|permskew|rot|drift|imbalanced|iid|disjoint|corrupt
 *   --rule sketch|auxo|loss|fedavg|oracle
 *   --seed N --rounds N --every N (rounds between scores) --data FOLDER
 *   --evaluated N (clients asked for losses per round) --splits A,B (auxo)
 *   --reference 1 (the prototype's rule to the letter) --published 1 (auxo)
 *   --sketch lanes|floats (through the server and real clients, with THC;
 *   `direct`, the default: the set alone, float updates) --codec thc|f32
 *   --pace together|apart (of the server's cohorts)
 *   --verbose 1 (what is decided) --set NAME=VALUE (an option of the rule) */
#include "cohorts/cohorts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cohort/cohort.h"

enum { CLIENTS = 1000, DRIFT_AT = 100, ROUNDS = 200, EVERY = 5 };

typedef struct settings {
  const char *scenario;
  const char *rule;
  const char *data;
  uint64_t seed;
  uint32_t rounds;
  uint32_t every;
  int is_served;
  uint32_t splits[FL_COHORT_SPLITS_MAX];
} settings;

static void usage(const char *what)
{
  fprintf(stderr, "bench_cohorts: %s: see the top of the source\n", what);
  exit(2);
}

static uint32_t cohort_of(const run *r, uint32_t client)
{
  fl_cohort_member member;
  cohorts_must(fl_cohort_member_init(&member, sizeof member), "member");
  cohorts_must(fl_cohort_set_get_member(r->seen, client, &member), "member");
  return member.cohort;
}

static void print_event(run *r, const fl_cohort_event *e)
{
  uint32_t sides[2][COHORTS_GROUPS] = {{0}};
  for (uint32_t i = 0; i < r->w->n; i++) {
    if (cohort_of(r, i) == e->cohort) sides[0][r->w->group[i]]++;
    if (cohort_of(r, i) == e->child) sides[1][r->w->group[i]]++;
  }
  fprintf(stderr,
          "%3u %-6s %u %u  win %.2f lump %.2f n %u  %u/%u/%u/%u "
          "%u/%u/%u/%u\n",
          e->round, event_name(e->kind), e->cohort, e->child, (double)e->win,
          (double)e->lump, e->n_probes, sides[0][0], sides[0][1], sides[0][2],
          sides[0][3], sides[1][0], sides[1][1], sides[1][2], sides[1][3]);
}

static void set_option(fl_cohort_options *o, const char *text)
{
  const struct {
    const char *name;
    float *share;
    uint32_t *number;
  } names[] = {{"floor", &o->floor, NULL},
               {"spike", &o->spike, NULL},
               {"agreement", &o->agreement, NULL},
               {"gap", &o->gap, NULL},
               {"merge", &o->merge, NULL},
               {"trial_margin", &o->trial_margin, NULL},
               {"trial_share", &o->trial_share, NULL},
               {"trial_sure", &o->trial_sure, NULL},
               {"trial_win", &o->trial_win, NULL},
               {"trial_lump", &o->trial_lump, NULL},
               {"trial_again", &o->trial_again, NULL},
               {"cap", NULL, &o->cap},
               {"dim", NULL, &o->dim},
               {"evidence", NULL, &o->evidence},
               {"reseed", NULL, &o->reseed},
               {"settle", NULL, &o->settle},
               {"wait", NULL, &o->wait},
               {"asks_first", NULL, &o->asks_first},
               {"trial_start", NULL, &o->trial_start},
               {"trial_length", NULL, &o->trial_length},
               {"trial_probes", NULL, &o->trial_probes},
               {"trial_most", NULL, &o->trial_most}};
  const char *value = strchr(text, '=');
  if (!value) usage(text);
  const size_t n = (size_t)(value - text);
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    if (strlen(names[i].name) != n || strncmp(names[i].name, text, n) != 0)
      continue;
    if (names[i].share) *names[i].share = strtof(value + 1, NULL);
    if (names[i].number)
      *names[i].number = (uint32_t)strtoul(value + 1, NULL, 10);
    return;
  }
  usage(text);
}

/* The prototype's constants where ours are others. */
static void be_reference(run *r)
{
  r->is_reference = 1;
  r->evaluated = 0;
  r->options.asks_first = 0;
  r->options.spike = 2.0f;
  r->options.agreement = .9f;
  r->options.trial_win = .8f;
  r->options.trial_lump = .83f;
  r->options.min_members = 1;
}

static void take_splits(settings *s, fl_cohort_options *o, const char *text)
{
  char *end = NULL;
  o->splits = s->splits;
  for (o->n_splits = 0; *text && o->n_splits < FL_COHORT_SPLITS_MAX;
       text = *end ? end + 1 : end) {
    s->splits[o->n_splits++] = (uint32_t)strtoul(text, &end, 10);
  }
}

static void read_setting(settings *s, run *r, const char *name,
                         const char *value)
{
  const uint32_t number = (uint32_t)strtoul(value, NULL, 10);
  if (strcmp(name, "--scenario") == 0) {
    s->scenario = value;
  } else if (strcmp(name, "--rule") == 0) {
    s->rule = value;
  } else if (strcmp(name, "--data") == 0) {
    s->data = value;
  } else if (strcmp(name, "--seed") == 0) {
    s->seed = number;
  } else if (strcmp(name, "--rounds") == 0) {
    s->rounds = number;
  } else if (strcmp(name, "--every") == 0) {
    s->every = number ? number : 1;
  } else if (strcmp(name, "--evaluated") == 0) {
    r->evaluated = number;
  } else if (strcmp(name, "--sketch") == 0) {
    s->is_served = strcmp(value, "direct") != 0;
    r->sketches = strcmp(value, "lanes") == 0    ? FL_SKETCH_LANES
                  : strcmp(value, "floats") == 0 ? FL_SKETCH_FLOATS
                                                 : FL_SKETCH_AUTO;
    if (s->is_served && r->sketches == FL_SKETCH_AUTO) usage(value);
  } else if (strcmp(name, "--codec") == 0) {
    if (strcmp(value, "thc") != 0 && strcmp(value, "f32") != 0) usage(value);
    r->codec = strcmp(value, "thc") == 0 ? FL_CODEC_THC : FL_CODEC_F32;
  } else if (strcmp(name, "--pace") == 0) {
    if (strcmp(value, "together") != 0 && strcmp(value, "apart") != 0)
      usage(value);
    r->pace =
        strcmp(value, "apart") == 0 ? FL_COHORT_APART : FL_COHORT_TOGETHER;
  } else if (strcmp(name, "--verbose") == 0) {
    r->on_event = number ? print_event : NULL;
  } else if (strcmp(name, "--published") == 0) {
    r->options.is_published = number;
  } else if (strcmp(name, "--splits") == 0) {
    take_splits(s, &r->options, value);
  } else if (strcmp(name, "--set") == 0) {
    set_option(&r->options, value);
  } else if (strcmp(name, "--reference") == 0) {
    if (number) be_reference(r);
  } else {
    usage(name);
  }
}

typedef struct curve {
  figures last;
  uint32_t leaves;
  uint32_t reached[3]; /* round, 0: never */
} curve;

static void score(run *r, const rule *how, uint32_t t, curve *c)
{
  static const double levels[3] = {.75, .80, .83};
  c->last = run_score(r, how, &c->leaves);
  for (uint32_t i = 0; i < sizeof levels / sizeof *levels; i++) {
    if (c->last.mean >= levels[i] && c->reached[i] == 0) c->reached[i] = t;
  }
  if (r->on_event) {
    fprintf(stderr, "%3u mean %.4f worst10 %.4f ari %.3f leaves %u\n", t,
            c->last.mean, c->last.worst10, c->last.ari, c->leaves);
  }
}

static void print_reached(const char *level, uint32_t round)
{
  printf("rounds_to_%s ", level);
  if (round == 0) {
    printf("never\n");
  } else {
    printf("%u\n", round);
  }
}

/* Loss and members by group of each cohort, if the rule has any. */
static void print_cohorts(const run *r)
{
  for (uint32_t m = 0; m < fl_cohort_set_cap(r->seen); m++) {
    uint32_t counts[COHORTS_GROUPS] = {0};
    fl_cohort_info info;
    cohorts_must(fl_cohort_info_init(&info, sizeof info), "info");
    cohorts_must(fl_cohort_set_get_info(r->seen, m, &info), "info");
    if (!info.is_alive) continue;
    for (uint32_t i = 0; i < r->w->n; i++) {
      if (cohort_of(r, i) == m) counts[r->w->group[i]]++;
    }
    printf("cohort_%u_loss %.6f\n", m, info.loss);
    printf("cohort_%u_members %u/%u/%u/%u\n", m, counts[0], counts[1],
           counts[2], counts[3]);
  }
}

static void print(const run *r, const curve *c, double seconds)
{
  printf("mean %.4f\nworst10 %.4f\nhonest_mean %.4f\njain %.4f\n", c->last.mean,
         c->last.worst10, c->last.honest, c->last.jain);
  printf("ari %.4f\nleaves %u\n", c->last.ari, c->leaves);
  print_reached("75", c->reached[0]);
  print_reached("80", c->reached[1]);
  print_reached("83", c->reached[2]);
  printf("models_down_per_upload %.3f\n", (double)r->down / (double)r->up);
  printf("eval_models_down_per_upload %.3f\n",
         (double)r->eval_down / (double)r->up);
  print_cohorts(r);
  printf("seconds %.1f\n", seconds);
}

/* What the rule chose last, also for those who have not trained since. */
static void place_auxo(run *r)
{
  for (uint32_t i = 0; i < r->w->n; i++)
    r->assign[i] = r->seen->assigned[i];
}

int main(int argc, char **argv)
{
  static run r;
  static world w;
  curve c = {.leaves = 0};
  settings s = {.scenario = "perm",
                .rule = "sketch",
                .data = "/usr/share/datasets/fashion-mnist",
                .seed = 11,
                .rounds = ROUNDS,
                .every = EVERY};
  const clock_t begun = clock();
  struct images images;
  run_init(&r);
  r.place = place_auxo;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 >= argc) usage(argv[i]);
    read_setting(&s, &r, argv[i], argv[i + 1]);
  }
  r.rounds = s.rounds;
  const rule *how = s.is_served ? rule_served(s.rule) : rule_find(s.rule);
  if (!how) usage(s.rule);
  if (images_load(&images, s.data)) return 1;
  const world_options where = {
      .scenario = s.scenario, .seed = s.seed, .clients = CLIENTS};
  if (!world_open(&w, &images, &where)) usage(s.scenario);
  r.is_corrupting = strcmp(s.scenario, "corrupt") == 0;
  run_open(&r, &w);
  how->begin(&r);
  for (uint32_t t = 1; t <= s.rounds; t++) {
    if (t == DRIFT_AT && strcmp(s.scenario, "drift") == 0) world_drift(&w);
    how->round(&r, t);
    if (t % s.every == 0 || t == s.rounds) score(&r, how, t, &c);
  }
  print(&r, &c, (double)(clock() - begun) / CLOCKS_PER_SEC);
  run_close(&r);
  world_close(&w);
  images_free(&images);
  return 0;
}

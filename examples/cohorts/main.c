/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cohorts: a thousand clients in one process share Fashion-MNIST and disagree
 * on it, in four groups that nobody knows of. A server finds the groups while a
 * model for each is trained (fl_job_options.cohorts). Shown: what it decides,
 * and what that is worth to the clients, beside one model for all (fedavg) and
 * a model for each true group (oracle), which are computed without a server.
 * Every byte between the server and its clients is that of a network; there
 * just is none.
 */
#include <err.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cohorts/cohorts.h"
#include "common/images.h"
#include "common/record.h"
#include "common/settings.h"

enum { RULES_MOST = 3, CLIENTS_LEAST = 20, CLIENTS_MOST = 100000 };

struct config {
  char data[SETTING_TEXT_BYTES], scenario[SETTING_TEXT_BYTES];
  char rule[SETTING_TEXT_BYTES], record[SETTING_TEXT_BYTES];
  char codec[SETTING_TEXT_BYTES], sketches[SETTING_TEXT_BYTES];
  char pace[SETTING_TEXT_BYTES];
  uint64_t clients, samples, participants, evaluated, rounds, every;
  uint64_t drift_round, seed;
  int compare, direct;
};

/* What a rule came to. */
struct outcome {
  const char *rule;
  figures figures;
  uint32_t leaves;
  double down; /* models sent per update, to train on and to compare */
  double asked;
  double seconds; /* of the processor */
};

/* A rule at work: `run` comes first, so that its hooks find the rest. */
struct trial {
  run run;
  const rule *rule;
  struct record *record;
  uint32_t round;
};

#define AT(member) offsetof(struct config, member)
#define SEEDS 9007199254740992.0 /* 2^53: what JSON carries exactly */

static const struct setting table[] = {
    {"data", SETTING_TEXT, AT(data), 0, 0, NULL, "DIR",
     "folder with the IDX files, gzipped or not"},
    {"scenario", SETTING_TEXT, AT(scenario), 0, 0,
     "perm|permskew|rot|drift|imbalanced|iid|disjoint", "NAME",
     "how groups differ: perm (labels; each its own), permskew (and clients "
     "have five classes each), rot (images are turned), drift (perm, and 30 % "
     "of the clients change their group), imbalanced (perm, groups of 55, 25, "
     "15 and 5 %), iid (not at all), disjoint (classes) (perm)"},
    {"rule", SETTING_TEXT, AT(rule), 0, 0, "sketch|auxo|loss|fedavg|oracle",
     "NAME",
     "how groups are found: sketch, auxo or loss; fedavg: one model; oracle: "
     "groups are known (sketch)"},
    {"codec", SETTING_TEXT, AT(codec), 0, 0, "thc|bf16|f32", "NAME",
     "how updates are encoded: thc, bf16 or f32 (thc)"},
    {"sketches", SETTING_TEXT, AT(sketches), 0, 0, "auto|lanes|floats", "NAME",
     "what updates are compared by, of sketch: lanes (values as they come, "
     "thc) or floats (decoded updates); auto is the first where it can be "
     "(auto)"},
    {"pace", SETTING_TEXT, AT(pace), 0, 0, "together|apart", "NAME",
     "rounds of the server's cohorts: together, or each by itself (together)"},
    {"direct", SETTING_FLAG, AT(direct), 0, 0, NULL, NULL,
     "no server: drive the set of cohorts and the models from here"},
    {"clients", SETTING_COUNT, AT(clients), CLIENTS_LEAST, CLIENTS_MOST, NULL,
     "N", "clients (1000)"},
    {"samples", SETTING_COUNT, AT(samples), 0, 10000, NULL, "N",
     "images of a client to train on; 0 = 60, of disjoint 40 (0)"},
    {"participants", SETTING_COUNT, AT(participants), 1, CLIENTS_MOST, NULL,
     "N", "clients that train in a round (50)"},
    {"evaluated", SETTING_COUNT, AT(evaluated), 0, CLIENTS_MOST, NULL, "N",
     "clients that only tell losses, of sketch (40)"},
    {"rounds", SETTING_COUNT, AT(rounds), 1, 1000000, NULL, "N",
     "rounds (200)"},
    {"every", SETTING_COUNT, AT(every), 1, 1000000, NULL, "N",
     "rounds from one line of the table to the next (5)"},
    {"drift-round", SETTING_COUNT, AT(drift_round), 1, 1000000, NULL, "N",
     "of drift: the round in which clients change their group (100)"},
    {"seed", SETTING_COUNT, AT(seed), 0, SEEDS, NULL, "N",
     "of all that is drawn (1)"},
    {"compare", SETTING_FLAG, AT(compare), 0, 0, NULL, NULL,
     "train with fedavg and with oracle, too, and print all three"},
    {"record", SETTING_TEXT, AT(record), 0, 0, NULL, "FILE",
     "write what happens to FILE, a JSON object a line, for plot_cohorts.py"},
};

static const struct settings settings = {
    .program_doc =
        "Find the groups of a thousand simulated clients, and train a model "
        "for each.\n"
        "A server and all clients, in one process: the whole protocol, but no "
        "sockets."
        "\v"
        "Exit status: 0 done, 1 failure, or SIGINT or SIGTERM came, 2 bad "
        "option.",
    .table = table,
    .n = sizeof table / sizeof table[0],
};

/* ---- what is seen -------------------------------------------------------- */

static void print_event(uint32_t round, const fl_cohort_event *e)
{
  const unsigned a = e->cohort, b = e->child;
  printf("%5u %7s  ", (unsigned)round, event_name(e->kind));
  switch (e->kind) {
  case FL_COHORT_TRIAL:
    printf("cohort %u may be two, %u is its other half\n", a, b);
    break;
  case FL_COHORT_SPLIT:
    printf("cohort %u is two, %u is its other half\n", a, b);
    break;
  case FL_COHORT_KEPT:
    printf("cohorts %u and %u stay: %.0f %% of %u clients do better in their "
           "own\n",
           a, b, 100 * (double)e->win, (unsigned)e->n_probes);
    break;
  case FL_COHORT_AGAIN:
    printf("cohorts %u and %u, a second look: %.0f %% of %u clients do better "
           "in their own\n",
           a, b, 100 * (double)e->win, (unsigned)e->n_probes);
    break;
  case FL_COHORT_UNDONE:
    printf("cohort %u is one again: %.0f %% of %u clients do better in their "
           "own half\n",
           a, 100 * (double)e->win, (unsigned)e->n_probes);
    break;
  case FL_COHORT_MOVED:
    printf("the clients of cohort %u do better in %u\n", b, a);
    break;
  default: printf("cohorts %u and %u are alike\n", a, b); break;
  }
}

static void record_decision(const struct trial *trial, const fl_cohort_event *e)
{
  struct record *record = trial->record;
  if (!record->file) return;
  fprintf(record->file,
          "{\"rule\": \"%s\", \"round\": %u, \"kind\": \"%s\", "
          "\"cohort\": %u, \"child\": %u, ",
          trial->rule->name, (unsigned)trial->round, event_name(e->kind),
          (unsigned)e->cohort, (unsigned)e->child);
  record_number(record, "win", (double)e->win);
  record_number(record, "lump", (double)e->lump);
  fprintf(record->file, "\"probes\": %u}\n", (unsigned)e->n_probes);
}

/* Rounds of the set are others where cohorts have rounds of their own. */
static void on_event(run *r, const fl_cohort_event *e)
{
  const struct trial *trial = (const struct trial *)r;
  print_event(trial->round, e);
  record_decision(trial, e);
}

/* Clients by cohort and true group, of those cohorts that have any. */
static void record_cohorts(FILE *file, const run *r)
{
  const char *between = "";
  fputs("\"cohorts\": {", file);
  for (uint32_t m = 0; m < COHORTS_CAP; m++) {
    uint32_t counts[COHORTS_GROUPS] = {0}, all = 0;
    for (uint32_t i = 0; i < r->w->n; i++) {
      if (r->assign[i] != m) continue;
      counts[r->w->group[i]]++;
      all++;
    }
    if (all == 0) continue;
    fprintf(file, "%s\"%u\": [%u, %u, %u, %u]", between, (unsigned)m,
            (unsigned)counts[0], (unsigned)counts[1], (unsigned)counts[2],
            (unsigned)counts[3]);
    between = ", ";
  }
  fputs("}}\n", file);
}

static void show_round(const struct trial *trial, const struct outcome *now)
{
  const figures *f = &now->figures;
  printf("%5u %7u %8.2f %11.2f\n", (unsigned)trial->round,
         (unsigned)now->leaves, 100 * f->mean, 100 * f->worst10);
  struct record *record = trial->record;
  if (!record->file) return;
  fprintf(record->file,
          "{\"rule\": \"%s\", \"round\": %u, \"kind\": \"round\", "
          "\"leaves\": %u, ",
          trial->rule->name, (unsigned)trial->round, (unsigned)now->leaves);
  record_number(record, "mean", f->mean);
  record_number(record, "worst10", f->worst10);
  record_number(record, "ari", f->ari);
  record_cohorts(record->file, &trial->run);
}

static void print_outcomes(const struct outcome *outcomes, uint32_t n)
{
  printf("\n%-8s %8s %11s %7s %7s %7s %7s %7s %8s\n", "rule", "mean, %",
         "worst 10 %", "Jain", "ARI", "leaves", "down", "asked", "seconds");
  for (uint32_t i = 0; i < n; i++) {
    const struct outcome *o = &outcomes[i];
    printf("%-8s %8.2f %11.2f %7.4f %7.3f %7u %7.2f %7.2f %8.1f\n", o->rule,
           100 * o->figures.mean, 100 * o->figures.worst10, o->figures.jain,
           o->figures.ari, (unsigned)o->leaves, o->down, o->asked, o->seconds);
  }
}

/* ---- training ------------------------------------------------------------ */

static void finish(struct outcome *outcome, const run *r, clock_t begun)
{
  const double up = r->up ? (double)r->up : 1.0;
  outcome->down = (double)r->down / up;
  outcome->asked = (double)r->eval_down / up;
  outcome->seconds = (double)(clock() - begun) / CLOCKS_PER_SEC;
}

static uint32_t codec_of(const char *name)
{
  if (strcmp(name, "f32") == 0) return FL_CODEC_F32;
  return strcmp(name, "bf16") == 0 ? FL_CODEC_BF16 : FL_CODEC_THC;
}

static uint32_t sketches_of(const char *name)
{
  if (strcmp(name, "lanes") == 0) return FL_SKETCH_LANES;
  return strcmp(name, "floats") == 0 ? FL_SKETCH_FLOATS : FL_SKETCH_AUTO;
}

/* fedavg and oracle have no server. */
static const rule *find_rule(const struct config *config, const char *name)
{
  const rule *served = config->direct ? NULL : rule_served(name);
  return served ? served : rule_find(name);
}

static void begin(struct trial *trial, const struct config *config, world *w)
{
  run *r = &trial->run;
  run_init(r);
  r->per_round = (uint32_t)config->participants;
  r->evaluated = (uint32_t)config->evaluated;
  r->on_event = on_event;
  r->codec = codec_of(config->codec);
  r->sketches = sketches_of(config->sketches);
  r->pace =
      strcmp(config->pace, "apart") == 0 ? FL_COHORT_APART : FL_COHORT_TOGETHER;
  r->rounds = (uint32_t)config->rounds;
  run_open(r, w);
  trial->rule->begin(r);
  printf("%s, %s\nround  leaves  mean, %%  worst 10 %%\n", config->scenario,
         trial->rule->name);
}

static void drift(const struct config *config, uint32_t round, world *w)
{
  if (round != config->drift_round || strcmp(config->scenario, "drift") != 0)
    return;
  printf("%5u   drift  30 %% of the clients change their group\n",
         (unsigned)round);
  world_drift(w);
}

/* 1, or 0 when it was stopped. */
static int train(const struct config *config, const struct images *images,
                 struct record *record, const fl_cancel *stop,
                 struct outcome *outcome)
{
  const clock_t begun = clock();
  const world_options where = {.scenario = config->scenario,
                               .seed = config->seed,
                               .clients = (uint32_t)config->clients,
                               .samples = (uint32_t)config->samples};
  struct trial trial = {.rule = find_rule(config, outcome->rule),
                        .record = record};
  const uint32_t rounds = (uint32_t)config->rounds;
  world w;
  if (!world_open(&w, images, &where)) errx(1, "--scenario: no such one");
  begin(&trial, config, &w);
  while (trial.round < rounds && !fl_cancel_is_requested(stop)) {
    const uint32_t t = ++trial.round;
    drift(config, t, &w);
    trial.rule->round(&trial.run, t);
    if (t % config->every != 0 && t != rounds) continue;
    outcome->figures = run_score(&trial.run, trial.rule, &outcome->leaves);
    show_round(&trial, outcome);
  }
  finish(outcome, &trial.run, begun);
  run_close(&trial.run);
  world_close(&w);
  if (trial.round == rounds) return 1;
  printf("stopped after round %u\n", (unsigned)trial.round);
  return 0;
}

/* 1, or 0 when it was stopped. */
static int train_all(const struct config *config, const struct images *images,
                     struct record *record, const fl_cancel *stop)
{
  struct outcome outcomes[RULES_MOST] = {{.rule = config->rule}};
  static const char *const others[] = {"fedavg", "oracle"};
  uint32_t n = 1;
  for (uint32_t i = 0; config->compare && i < 2; i++) {
    if (strcmp(config->rule, others[i]) != 0) outcomes[n++].rule = others[i];
  }
  for (uint32_t i = 0; i < n; i++) {
    if (!train(config, images, record, stop, &outcomes[i])) return 0;
  }
  print_outcomes(outcomes, n);
  return 1;
}

int main(int argc, char **argv)
{
  struct config config = {.data = "/usr/share/datasets/fashion-mnist",
                          .scenario = "perm",
                          .rule = "sketch",
                          .codec = "thc",
                          .sketches = "auto",
                          .pace = "together",
                          .clients = 1000,
                          .participants = 50,
                          .evaluated = 40,
                          .rounds = 200,
                          .every = 5,
                          .drift_round = 100,
                          .seed = 1};
  struct images images = {.train = {.n = 0}};
  struct record record = {.file = NULL};
  if (settings_parse(&settings, argc, argv, &config)) {
    settings_print(&settings, &config);
    return 0;
  }
  if (strcmp(config.sketches, "lanes") == 0 &&
      strcmp(config.codec, "thc") != 0) {
    warnx("--sketches: got lanes with codec %s, want thc", config.codec);
    return SETTINGS_EXIT_USAGE;
  }
  if (config.participants > config.clients) {
    warnx("--participants: got %llu, want 1..%llu, the clients",
          (unsigned long long)config.participants,
          (unsigned long long)config.clients);
    return SETTINGS_EXIT_USAGE;
  }
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
  fl_cancel *stop = stop_flag();
  int is_done = 0;
  if (stop && !images_load(&images, config.data) &&
      (!config.record[0] || !record_open(&record, config.record))) {
    is_done = train_all(&config, &images, &record, stop);
  }
  if (record_close(&record)) is_done = 0;
  images_free(&images);
  return !is_done;
}

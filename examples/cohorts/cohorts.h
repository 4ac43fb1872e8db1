/* SPDX-License-Identifier: Apache-2.0 */
/* A population of clients in four groups whose data disagree, and what a rule
 * makes of them: for the program of this folder, and for bench_cohorts. All
 * functions end the program on failure, with the reason. Random streams are
 * those of the recipe in docs/design/cohort.md. */
#ifndef EXAMPLES_COHORTS_H
#define EXAMPLES_COHORTS_H

#include <fl/client.h>
#include <fl/cohort.h>
#include <fl/server.h>
#include <fl/train.h>

#include "common/images.h"

enum {
  COHORTS_GROUPS = 4,
  COHORTS_CLASSES = 10,
  COHORTS_PIXELS = 784,
  COHORTS_HIDDEN = 64,
  COHORTS_TEST = 100, /* images of a client */
  COHORTS_CAP = FL_COHORT_MAX,
  COHORTS_WEIGHTS = COHORTS_HIDDEN * (COHORTS_PIXELS + 1) +
                    COHORTS_CLASSES * (COHORTS_HIDDEN + 1)
};

void cohorts_must(fl_status st, const char *what);
void *cohorts_get(size_t count, size_t size);

/* ---- streams (world.c) ---- */

typedef struct stream {
  uint64_t state;
} stream;
stream stream_of(uint64_t name, uint64_t seed);
uint64_t stream_next(stream *s);
uint32_t stream_below(stream *s, uint32_t n);
double stream_unit(stream *s);
/* Shuffles the first k of n items so that they are a draw of k. */
void stream_pick(stream *s, uint32_t *items, uint32_t n, uint32_t k);

/* ---- the population (world.c) ---- */

typedef struct world {
  const struct images *images;
  uint64_t seed;
  uint32_t n;       /* clients */
  uint32_t samples; /* of each, to train on */
  int is_turned;    /* by group: images; else labels, or neither */
  int is_shifted;
  uint32_t *group;                 /* [n] */
  uint8_t *x;                      /* [n, samples, pixels] */
  int32_t *y;                      /* [n, samples] */
  uint32_t *places;                /* [n, samples] in the training set */
  uint32_t *tests;                 /* [n, COHORTS_TEST] in the test set */
  uint8_t *is_corrupt;             /* [n] */
  uint8_t *turned[COHORTS_GROUPS]; /* test images by group; NULL = as they are
                                    */
} world;

typedef struct world_options {
  const char *scenario;
  uint64_t seed;
  uint32_t clients;
  uint32_t samples; /* 0: 60, of disjoint 40 */
} world_options;

/* 0 when there is no such scenario. `images` has to stay. */
int world_open(world *w, const struct images *images,
               const world_options *options);
void world_close(world *w);
/* 30 % of the clients move to the next group. */
void world_drift(world *w);
fl_dataset world_client(const world *w, uint32_t client);

/* ---- training and scores (net.c) ---- */

/* The one model all clients take turns with. */
fl_model *net_new(void);
/* Initial weights of the recipe. */
void net_draw(float *weights, uint64_t seed);
/* Two epochs from `weights` in stored order: `update` gets the difference,
 * returns the mean loss of the first epoch. */
double net_train(fl_model *net, const world *w, uint32_t client,
                 const float *weights, float *update);
/* Mean loss on the client's training images. */
double net_loss(fl_model *net, const world *w, uint32_t client,
                const float *weights);
/* Each client's accuracy on its own test images with model assign[client]. */
void net_score(fl_model *net, const world *w, float *const *models,
               const uint32_t *assign, double *accuracy);

typedef struct figures {
  double mean;
  double worst10;
  double honest; /* mean of those who are not corrupt */
  double ari;
  double jain;
} figures;
figures figures_of(const world *w, const uint32_t *assign,
                   const double *accuracy);

/* ---- a run (rules.c, set.c, serve.c) ---- */

typedef struct run run;
struct guest; /* a client of the server's */
struct run {
  world *w;
  fl_model *net;
  float *models[COHORTS_CAP]; /* NULL: none */
  float *sums[COHORTS_CAP];   /* of a round's updates */
  uint32_t counts[COHORTS_CAP];
  float *joined[COHORTS_CAP]; /* views' */
  float *update;
  float *feature; /* AUXO */
  stream participants;
  uint32_t *order; /* for picks */
  uint32_t *assign;
  uint64_t down;
  uint64_t up;
  uint64_t eval_down;
  /* options */
  int is_reference; /* the reference's rule to the letter, no EVALUATE */
  int is_corrupting;
  uint32_t per_round; /* participants */
  uint32_t evaluated; /* clients asked per round's EVALUATE phase */
  fl_cohort_options options;
  void (*on_event)(run *r, const fl_cohort_event *event); /* NULL: none */
  /* AUXO: where clients are, in `assign`; NULL: where they train next. */
  void (*place)(run *r);
  /* SKETCH, AUXO, LOSS */
  fl_cohort_set *set;
  const fl_cohort_set *seen; /* it, or the server's */
  fl_sketcher *sketcher;
  uint32_t *asked; /* order of EVALUATE phases */
  uint32_t next_asked;
  /* The same through a server and its clients. */
  uint32_t codec;    /* FL_CODEC_* */
  uint32_t sketches; /* FL_SKETCH_* */
  uint32_t pace;     /* FL_COHORT_TOGETHER, FL_COHORT_APART */
  uint32_t rounds;   /* the job's */
  fl_server *server;
  fl_model *served; /* its first model */
  struct guest *guests;
  uint64_t now;
  uint64_t bytes_down;
  uint32_t finished; /* rounds */
};

typedef struct rule {
  const char *name;
  void (*begin)(run *r);
  void (*round)(run *r, uint32_t t);
  /* What the job would ship now: models and r->assign. */
  void (*view)(run *r, float **models);
} rule;
/* NULL when there is none of that name. */
const rule *rule_find(const char *name);

/* Options and hooks are set, or all is 0: 50 participants, 40 are evaluated,
 * and the set's defaults. */
void run_init(run *r);
void run_open(run *r, world *w);
void run_close(run *r);
/* What r->assign says now, and how many models that are. */
figures run_score(run *r, const rule *how, uint32_t *leaves);

void run_model(run *r, uint32_t model, const float *weights);
void run_drop(run *r, uint32_t model);
void run_pick(run *r, uint32_t k);
/* Train `client` from a model; its update is added to the model's sum. */
double run_train(run *r, uint32_t client, uint32_t model);
/* Models move by the mean of their round's updates. */
void run_average(run *r);

extern const rule rule_sketch;
extern const rule rule_auxo;
extern const rule rule_loss;
/* The one of that name through a server; NULL when there is none. */
const rule *rule_served(const char *name);
/* Make r->update noise, or turn it around, if the client does that. */
void run_corrupt(const run *r, uint32_t client);
/* Close what serve.c has opened. */
void serve_close(run *r);

/* "trial", "kept" .. */
const char *event_name(uint32_t kind);

#endif

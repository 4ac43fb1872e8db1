/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a set of cohorts. Clients are members: 8 bytes each beside their
 * id. Cohorts are leaves (of the tree that splits make). A leaf's open round is
 * its own: reports go there, and nothing that leaves share changes before
 * fl_cohort_set_decide. */
#ifndef FLI_COHORT_H
#define FLI_COHORT_H

#include <fl/cohort.h>
#include "crypto/crypto.h"

enum {
  FLI_COHORT_EVENTS = 256, /* more than one decision has */
  FLI_COHORT_BUFFER = 256, /* sketches to seed from */
  FLI_COHORT_SEED = 100,   /* wanted for that */
  FLI_COHORT_VOTES = 200,
  FLI_COHORT_PAIR = 30, /* comparisons of two leaves */
  FLI_COHORT_TRIAL_MOST = 64,
  FLI_COHORT_NO_LEAF = 255,
  FLI_COHORT_SEEN_MOST = 31,
  FLI_COHORT_SCORE_ONE = 32,      /* scores are multiples of 1/32 */
  FLI_COHORT_BACK_MOST = 1 << 21, /* rounds, after many failures */
  FLI_COHORT_LANES = 16
};

/* Bits of a member, below `seen`. */
enum {
  FLI_MEMBER_UNKNOWN = 1,
  FLI_MEMBER_FRESH = 2, /* has not trained since its leaf was split */
  FLI_MEMBER_HERE = 4,  /* the slot is in use; else `last` is the next free */
  FLI_MEMBER_SEEN_AT = 3
};

typedef struct fli_member {
  uint8_t leaf;
  uint8_t other; /* undecided between the two; FLI_COHORT_NO_LEAF */
  int8_t score;
  uint8_t bits;
  uint32_t last;
} fli_member;

/* The reference's generator (splitmix64); state is one word. */
typedef struct fli_split_rng {
  uint64_t state;
} fli_split_rng;

typedef struct fli_vote {
  float x; /* projection */
  uint8_t before;
  uint8_t now;
} fli_vote;

/* A comparison: a client of the leaf measured leaf `other`, too. */
typedef struct fli_ratio {
  uint32_t slot;
  uint32_t other;
  float value; /* ln(loss there / loss here) */
} fli_ratio;

/* What a report leaves until the round has been decided. */
typedef struct fli_pending {
  uint32_t slot;
  uint8_t has_sketch; /* or feature */
  uint8_t is_on_trial;
  uint8_t third;   /* a leaf that is better than both halves, or NO_LEAF */
  uint8_t is_sure; /* its sketch counts for centroids */
  uint8_t half;    /* that it voted for */
  float ratio;     /* on trial */
  double loss;     /* of the trained one; NaN */
} fli_pending;

typedef struct fli_list {
  void *items;
  size_t n;
  size_t capacity;
  size_t size; /* of an item; 0 until the first */
} fli_list;

typedef struct fli_leaf {
  uint8_t is_alive;
  uint8_t has_centroids;
  uint8_t has_ended; /* wait for decide */
  uint8_t wants_seed;
  uint8_t proposes;
  uint32_t age;    /* rounds with participants */
  uint32_t round;  /* ended last */
  uint32_t open;   /* 0: none */
  uint32_t wait;   /* no geometry before this round */
  uint32_t back;   /* how long it waits after the next failure */
  uint32_t seeded; /* round of the centroids */
  uint32_t n_buffer;
  uint32_t first_row; /* oldest of the buffer */
  uint32_t n_votes;
  uint32_t first_vote; /* oldest */
  double loss;         /* trailing median; -1: none */
  double variance;
  double limit; /* of a loss, above which it is a spike; as of the last
                   decision, so that reports may look at any leaf's */
  float agreement;
  float gap;
  float *buffer;    /* FLI_COHORT_BUFFER x dim, NULL until needed; a ring */
  float *centroids; /* 2 x dim, behind the buffer */
  fli_vote votes[FLI_COHORT_VOTES];
  fli_list pending;  /* fli_pending */
  fli_list sketches; /* dim / 2 bytes, or dim floats */
  fli_list ratios;   /* fli_ratio */
  fli_list scratch;  /* floats */
  /* AUXO */
  uint32_t epoch;
  uint8_t has_halves;
} fli_leaf;

typedef struct fli_trial {
  uint8_t parent;
  uint8_t child;
  uint8_t is_extended;
  uint8_t is_scarce; /* some members wait with training: fli_is_needed */
  uint32_t begun;
  uint32_t n;
  uint32_t asked; /* since the last decision */
  float ratio[FLI_COHORT_TRIAL_MOST];
  uint8_t side[FLI_COHORT_TRIAL_MOST]; /* 1: a client of the child */
  uint8_t third[FLI_COHORT_TRIAL_MOST];
} fli_trial;

typedef struct fli_pair {
  uint32_t n; /* the last FLI_COHORT_PAIR are kept */
  float values[FLI_COHORT_PAIR];
} fli_pair;

/* AUXO: of a client towards a leaf. */
typedef struct fli_affinity {
  double r;       /* -infinity: never */
  float s;        /* half 0 if positive, 1 if negative */
  uint32_t times; /* seen there */
} fli_affinity;

struct fl_cohort_set {
  fl_context *context; /* reference */
  fl_cohort_options options;
  uint32_t splits[FL_COHORT_SPLITS_MAX];
  uint8_t key[FLI_KEY_BYTES];
  int has_key;
  uint8_t options_hash[FLI_HASH_BYTES];
  fli_split_rng rng;
  /* clients */
  fli_member *members;
  uint64_t *ids;
  size_t capacity;  /* of both */
  uint32_t n_slots; /* used or free */
  uint32_t n_clients;
  uint32_t free_slot; /* FL_COHORT_NONE */
  uint32_t *index;    /* slot + 1 by id, 0 = empty */
  size_t index_size;
  /* leaves */
  fli_leaf *leaves; /* cap */
  uint32_t n_alive;
  fli_trial trials[FL_COHORT_MAX / 2];
  uint32_t n_trials; /* oldest first */
  fli_pair *pairs;   /* cap x cap, [lower][higher] */
  fl_cohort_event events[FLI_COHORT_EVENTS];
  uint32_t n_events;
  uint32_t first_event;
  uint64_t splits_made; /* the tree's epoch: rises with each change of it */
  /* AUXO */
  fli_affinity *affinities; /* capacity x cap */
  uint8_t *assigned;        /* capacity: what the last choice said */
  double exploration;
};

/* ---- options.c ---- */

/* Fill in what is 0 and check. FL_E_OPTIONS. */
fl_status fli_cohort_check_options(fl_cohort_options *options);
/* A hash of all that a state depends on. */
void fli_cohort_hash_options(const fl_cohort_set *set,
                             uint8_t hash[FLI_HASH_BYTES]);

/* ---- vectors, numbers (geometry.c) ---- */

uint64_t fli_split_next(fli_split_rng *rng);
uint32_t fli_split_below(fli_split_rng *rng, uint32_t n);
double fli_split_unit(fli_split_rng *rng); /* [0, 1), 24 bits */

/* n is a multiple of FLI_COHORT_LANES, or is summed up to it as if there were
 * zeros behind. */
float fli_dot(const float *a, const float *b, size_t n);
float fli_distance2(const float *a, const float *b, size_t n);
/* Rows [n, dim] minus their mean, which goes to `mean`, and then of length 1.
 */
void fli_centre_rows(float *rows, uint32_t n, size_t dim, float *mean);
/* The unit vector of a packed sketch, dim numbers. */
void fli_unpack_sketch(float *out, const uint8_t *sketch, size_t dim);
/* Median of n >= 1 values, sorted then. */
double fli_median_of(double *values, uint32_t n);
/* 1 - variance within the two sides of 0 / variance; 0 when one is empty. */
double fli_gap_of(const double *values, uint32_t n);

/* ---- halves.c ---- */

typedef struct fli_rows {
  const float *values; /* [n, dim] */
  uint32_t n;
  size_t dim;
} fli_rows;
/* k-means with k = 2, the best of `starts`: centroids [2, dim], and labels of
 * the rows. `scratch` holds fli_halves_scratch bytes. */
size_t fli_halves_scratch(uint32_t n, size_t dim);
void fli_find_halves(const fli_rows *rows, uint32_t starts, fli_split_rng *rng,
                     float *centroids, uint8_t *labels, void *scratch);

/* ---- set.c ---- */

void fli_leaf_begin(fl_cohort_set *set, uint32_t leaf, uint32_t round);
void fli_leaf_end(fl_cohort_set *set, uint32_t leaf); /* it is dead */
/* As after creation, without memory taken or given back. */
void fli_leaf_renew(fli_leaf *leaf, uint32_t round, uint32_t wait,
                    uint32_t back);
fl_status fli_leaf_room(fl_cohort_set *set, fli_leaf *leaf);
void fli_list_free(fl_context *context, fli_list *list);
/* Room for `more`; the list is of items of `size`. */
fl_status fli_list_room(fl_context *context, fli_list *list, size_t more,
                        size_t size);
fl_cohort_event *fli_cohort_emit(fl_cohort_set *set, uint32_t kind,
                                 uint32_t round);
int fli_leaf_is_alive(const fl_cohort_set *set, uint32_t leaf);
uint32_t fli_first_dead(const fl_cohort_set *set); /* or FL_COHORT_NONE */

/* ---- clients.c ---- */

fl_status fli_cohort_reserve(fl_cohort_set *set, size_t clients);
fl_status fli_cohort_check_slot(const fl_cohort_set *set, uint32_t slot);
/* Rebuild the index from the ids. 0: two are the same. */
int fli_cohort_reindex(fl_cohort_set *set);
/* Bytes of index for so many clients, entries. */
size_t fli_cohort_index_size(size_t clients);

static inline int fli_member_seen(const fli_member *member)
{
  return member->bits >> FLI_MEMBER_SEEN_AT;
}

static inline void fli_member_set(fli_member *member, uint8_t bit, int is_set)
{
  member->bits = (uint8_t)(is_set ? member->bits | bit : member->bits & ~bit);
}

static inline int fli_member_is(const fli_member *member, uint8_t bit)
{
  return (member->bits & bit) != 0;
}

static inline void fli_member_reset(fli_member *member)
{
  member->score = 0;
  member->bits &= (1 << FLI_MEMBER_SEEN_AT) - 1;
}

/* ---- route.c ---- */

/* A loss above it is a spike; infinite: none is. By what is known now. */
double fli_leaf_limit(const fl_cohort_set *set, const fli_leaf *leaf);
void fli_limits_renew(fl_cohort_set *set);
/* 1: the member's trial lacks comparisons, and it should make one before it
 * trains. */
int fli_is_needed(const fl_cohort_set *set, uint32_t slot);
/* NULL: the leaf is in none. */
fli_trial *fli_trial_of(fl_cohort_set *set, uint32_t leaf);
int fli_trial_is_open(const fl_cohort_set *set, const fli_trial *trial,
                      uint32_t round);

/* ---- ticket.c ---- */

/* 1 and the member filled in, or 0. */
int fli_ticket_read(const fl_cohort_set *set, uint64_t client, uint32_t round,
                    const uint8_t *ticket, fli_member *member);

/* ---- trial.c ---- */

/* Members of the event's cohorts, as they are now. */
void fli_event_weigh(const fl_cohort_set *set, fl_cohort_event *event);
void fli_trial_gather(fl_cohort_set *set, uint32_t leaf);
void fli_trials_decide(fl_cohort_set *set);
void fli_pairs_gather(fl_cohort_set *set, uint32_t leaf);
void fli_pairs_decide(fl_cohort_set *set);

/* ---- auxo.c ---- */

fl_status fli_auxo_room(fl_cohort_set *set, size_t clients);
void fli_auxo_join(fl_cohort_set *set, uint32_t slot);
/* Bytes that deciding on the leaf's round takes; 0: it is too small to say
 * anything. Other leaves' decisions do not change it. */
size_t fli_auxo_scratch(const fl_cohort_set *set, uint32_t leaf);
/* Learn from the leaf's round. */
void fli_auxo_decide(fl_cohort_set *set, uint32_t leaf, void *scratch);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Dirichlet partition of labels (Hsu, Qi and Brown 2019, "Measuring the
 * effects of non-identical data distribution"): the samples of each class are
 * shuffled and cut among the participants in proportions drawn from a
 * Dirichlet(alpha). Nobody hands out shards: the partition is a function of
 * (labels, participants, alpha, seed), so that each participant computes its
 * own. Dirichlet draws are normalised gamma draws after Marsaglia and Tsang
 * (2000), "A simple method for generating gamma variables".
 */
#include "common/partition.h"

#include <math.h>
#include <stdlib.h>

enum { CLASSES = 256 };

/* SplitMix64 (Steele, Lea and Flood 2014): enough for drawing a partition. */
static uint64_t next_u64(uint64_t *state)
{
  uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}

/* Uniform in (0, 1), never an end point: its logarithm is finite. */
static double next_uniform(uint64_t *state)
{
  return ((double)(next_u64(state) >> 12) + 0.5) * 0x1p-52;
}

/* Uniform in 0..bound-1; bound is far below 2^32, so the bias is below
 * 2^-32. */
static uint32_t next_below(uint64_t *state, uint32_t bound)
{
  return (uint32_t)((next_u64(state) >> 32) * bound >> 32);
}

/* A standard normal draw, polar method. */
static double next_normal(uint64_t *state)
{
  for (;;) {
    double u = 2.0 * next_uniform(state) - 1.0;
    double v = 2.0 * next_uniform(state) - 1.0;
    double s = u * u + v * v;
    if (s < 1.0 && s > 0.0) return u * sqrt(-2.0 * log(s) / s);
  }
}

/* The logarithm of a Gamma(shape, 1) draw: for a small shape the draw itself
 * would round to zero. */
static double next_log_gamma(uint64_t *state, double shape)
{
  double boost = 0.0;
  if (shape < 1.0) {
    boost = log(next_uniform(state)) / shape;
    shape += 1.0;
  }
  double d = shape - 1.0 / 3.0;
  double c = 1.0 / sqrt(9.0 * d);
  for (;;) {
    double x = next_normal(state);
    double v = 1.0 + c * x;
    if (v <= 0.0) continue;
    v = v * v * v;
    if (log(next_uniform(state)) < 0.5 * x * x + d - d * v + d * log(v))
      return log(d * v) + boost;
  }
}

/* Dirichlet(alpha, ..., alpha) into p[0..n-1]. */
static void next_dirichlet(uint64_t *state, double alpha, double *p, uint32_t n)
{
  double largest = -INFINITY;
  for (uint32_t i = 0; i < n; i++) {
    p[i] = next_log_gamma(state, alpha);
    if (p[i] > largest) largest = p[i];
  }
  double sum = 0.0;
  for (uint32_t i = 0; i < n; i++) {
    p[i] = exp(p[i] - largest);
    sum += p[i];
  }
  for (uint32_t i = 0; i < n; i++)
    p[i] /= sum;
}

static void shuffle(uint64_t *state, uint32_t *items, uint32_t n)
{
  for (uint32_t i = n; i > 1; i--) {
    uint32_t j = next_below(state, i);
    uint32_t kept = items[i - 1];
    items[i - 1] = items[j];
    items[j] = kept;
  }
}

/* Hand the `n` samples of one class out; sizes[] counts per participant. */
static void deal_class(const double *p, uint32_t participants,
                       const uint32_t *samples, uint32_t n, uint32_t *owner,
                       uint32_t *sizes)
{
  double share = 0.0;
  uint32_t at = 0;
  for (uint32_t k = 0; k < participants; k++) {
    share += p[k];
    uint32_t end = k + 1 == participants ? n : (uint32_t)(share * n + 0.5);
    if (end > n) end = n;
    for (; at < end; at++) {
      owner[samples[at]] = k;
      sizes[k]++;
    }
  }
}

/* Whoever has too little gets from whoever has the most at that moment. */
static void top_up(uint32_t participants, uint32_t min_samples, uint32_t n,
                   uint32_t *owner, uint32_t *sizes)
{
  for (uint32_t k = 0; k < participants; k++) {
    while (sizes[k] < min_samples) {
      uint32_t donor = 0;
      for (uint32_t j = 1; j < participants; j++)
        if (sizes[j] > sizes[donor]) donor = j;
      uint32_t i = n - 1;
      while (owner[i] != donor)
        i--;
      owner[i] = k;
      sizes[donor]--;
      sizes[k]++;
    }
  }
}

struct workspace {
  uint32_t *owner;   /* [n] */
  uint32_t *samples; /* [n]: of one class */
  uint32_t *sizes;   /* [participants] */
  double *shares;    /* [participants] */
};

static int workspace_make(struct workspace *work, uint32_t n,
                          uint32_t participants)
{
  work->owner = calloc(n, sizeof *work->owner);
  work->samples = calloc(n, sizeof *work->samples);
  work->sizes = calloc(participants, sizeof *work->sizes);
  work->shares = calloc(participants, sizeof *work->shares);
  return work->owner && work->samples && work->sizes && work->shares;
}

static void workspace_free(struct workspace *work)
{
  free(work->owner);
  free(work->samples);
  free(work->sizes);
  free(work->shares);
}

static void deal_all(const struct partition *partition, const uint8_t *labels,
                     uint32_t n, struct workspace *work)
{
  uint64_t state = partition->seed;
  for (uint32_t label = 0; label < CLASSES; label++) {
    uint32_t in_class = 0;
    for (uint32_t i = 0; i < n; i++)
      if (labels[i] == label) work->samples[in_class++] = i;
    if (in_class == 0) continue;
    shuffle(&state, work->samples, in_class);
    next_dirichlet(&state, partition->alpha, work->shares,
                   partition->participants);
    deal_class(work->shares, partition->participants, work->samples, in_class,
               work->owner, work->sizes);
  }
  top_up(partition->participants, partition->min_samples, n, work->owner,
         work->sizes);
}

int partition_shard(const struct partition *partition, const uint8_t *labels,
                    uint32_t n, uint32_t index, uint32_t **indices,
                    uint32_t *count)
{
  uint64_t wanted = (uint64_t)partition->participants * partition->min_samples;
  if (n == 0 || wanted > n) return -1;
  struct workspace work = {0};
  int result = -2;
  if (workspace_make(&work, n, partition->participants)) {
    deal_all(partition, labels, n, &work);
    uint32_t size = work.sizes[index];
    uint32_t *shard = malloc((size ? size : 1) * sizeof *shard);
    if (shard) {
      uint32_t at = 0;
      for (uint32_t i = 0; i < n; i++)
        if (work.owner[i] == index) shard[at++] = i;
      *indices = shard;
      *count = size;
      result = 0;
    }
  }
  workspace_free(&work);
  return result;
}

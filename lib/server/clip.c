/* SPDX-License-Identifier: Apache-2.0 */
/* The clip of a round, where the job's options leave it open (THC, clip 0).
 * It follows from what the server sees anyway: the norms that this round's
 * members reported say how far the agreed ones are above theirs, the mean of
 * the last round how much the updates had in common. Both are claims: reports
 * count for no more than what was agreed, so that the spread is at least 1,
 * and a correlation is within 0..1, so that the clip stays between the ones
 * for independent and for equal updates of such norms. D0. */
#include "server/server.h"

#include <math.h>

#include "base/bytes.h"
#include "base/dmath.h"
#include "base/fpguard.h"
#include "compress/compressor.h"

enum { SUM_LANES = 8 };

static int is_open(const fli_job *job)
{
  return job->codec.codec == FL_CODEC_THC && job->codec.clip == 0.0f;
}

/* What all members that reported have, with reports cut to what was agreed. */
typedef struct norm_sums {
  double agreed; /* sum of l^2 */
  double own;    /* mean over members of sum of own^2 */
  double steep;  /* mean over members of sum of l^2 (own / l)^10 */
} norm_sums;

/* Means over blocks are means over those who train them: a member that has
 * nothing to say of a segment neither makes it shorter nor the spread wider. */
static double count_reports(const fli_job *job, uint32_t segment)
{
  double count = 0.0;
  for (uint32_t i = 0; i < job->n_members; i++) {
    const fli_member *member = &job->members[i];
    count += member->has_norm && fli_parts_has(job, member, segment);
  }
  return count;
}

/* `share` = reports in all / reports of the segment. */
static void add_report(norm_sums *sums, const fli_job *job, uint32_t slot,
                       uint32_t segment, double share)
{
  const uint8_t *report = job->reported + 2 * slot * job->n_norms;
  uint64_t first, n;
  fli_segment_norms(&job->compressor->layout, segment, &first, &n);
  for (uint64_t i = first; i < first + n; i++) {
    const double limit = (double)job->norms[i];
    double own = (double)fli_f32_from_bf16(fli_load_u16(report + 2 * i));
    if (!(limit > 0.0)) continue;
    if (own > limit) own = limit;
    const double ratio = own / limit;
    const double square = ratio * ratio;
    const double fourth = square * square;
    sums->own += share * (own * own);
    sums->steep += share * (limit * limit * (fourth * fourth * square));
  }
}

static norm_sums sum_norms(const fli_job *job)
{
  norm_sums sums = {0.0, 0.0, 0.0};
  double reports = 0.0;
  for (uint64_t i = 0; i < job->n_norms; i++)
    sums.agreed += (double)job->norms[i] * (double)job->norms[i];
  for (uint32_t i = 0; i < job->n_members; i++)
    reports += job->members[i].has_norm;
  for (uint32_t i = 0; i < job->n_members; i++) {
    if (!job->members[i].has_norm) continue;
    for (uint32_t s = 0; s < job->n_segments; s++) {
      if (!fli_parts_has(job, &job->members[i], s)) continue;
      add_report(&sums, job, i, s, reports / count_reports(job, s));
    }
  }
  if (reports > 0.0) {
    sums.own /= reports;
    sums.steep /= reports;
  }
  return sums;
}

static double spread_of(const norm_sums *sums)
{
  if (!(sums->steep > 0.0)) return 1.0;
  return fli_exp(fli_ln(sums->agreed / sums->steep) / 10.0);
}

void fli_clip_choose(fli_job *job)
{
  double correlation = 0.0, spread = 1.0;
  fli_fpguard guard;
  job->energy = 0.0;
  job->clip = fl_compressor_clip(job->compressor);
  if (!is_open(job)) return;
  fli_fpguard_enter(&guard);
  if (!job->is_public) {
    const norm_sums sums = sum_norms(job);
    spread = spread_of(&sums);
    correlation = job->correlation;
    /* A mean of different updates per segment says nothing of two clients. */
    if (fli_parts_are_equal(job)) job->energy = sums.own;
  }
  job->clip =
      fli_best_clip_for(job->compressor, job->n_wanted, correlation, spread);
  /* Clamping leaves 1 - 2 Q of a vector in its own direction. */
  const double kept = 1.0 - 2.0 * fli_normal_tail((double)job->clip * spread);
  job->energy *= kept * kept;
  fli_fpguard_leave(&guard);
}

float fli_clip_of_step(const fli_job *job)
{
  return is_open(job) ? fl_compressor_best_clip(job->compressor, 1, 0.0, 1.0)
                      : fl_compressor_clip(job->compressor);
}

int fli_clip_is_learning(const fli_job *job)
{
  return job->energy > 0.0;
}

/* The mean was multiplied by m c / sum of min(n_k, c), the updates whose norms
 * were reported by min(1, n_k / c): without it both are the same updates. */
void fli_clip_learn(fli_job *job, double square)
{
  const uint32_t count = fl_partial_count(job->partial);
  double factor = 1.0;
  /* One update says nothing of others. */
  if (!fli_clip_is_learning(job) || count < 2) return;
  if (job->weight_cap > 0) {
    factor = (double)count * (double)job->weight_cap /
             (double)fl_partial_samples(job->partial);
  }
  job->correlation =
      fli_clip_correlation(count, square / (factor * factor) / job->energy);
}

double fli_clip_square(const float *a, const float *b, uint64_t n)
{
  double lanes[SUM_LANES] = {0.0};
  for (uint64_t i = 0; i < n; i++) {
    const double difference = (double)a[i] - (b ? (double)b[i] : 0.0);
    lanes[i % SUM_LANES] += difference * difference;
  }
  for (size_t width = SUM_LANES / 2; width > 0; width /= 2) {
    for (size_t k = 0; k < width; k++)
      lanes[k] += lanes[k + width];
  }
  return lanes[0];
}

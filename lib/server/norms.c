/* SPDX-License-Identifier: Apache-2.0 */
/* Agreeing on the norms of a round. What clients report is hostile input: one
 * huge norm would stretch the common grid until nobody else's update is left
 * on it. So each report counts for at most 8 x the median of the non-zero
 * reports of its block. Announced (public) norms follow the share of
 * coordinates that did not fit. All on the bf16 grid: D0. */
#include "server/server.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "base/context.h"
#include "base/dmath.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "compress/compressor.h"
#include "server/buffered.h"

/* Times the expected share of clamped coordinates. */
#define FLI_GROW_ABOVE 4.0
/* 0x7f00 is 2^127, the largest norm that fl_scale takes. */
enum { FLI_NORM_CAP = 8, FLI_NORM_MAX_BF16 = 0x7f00 };

static int compare_u16(const void *a, const void *b)
{
  const uint16_t left = *(const uint16_t *)a;
  const uint16_t right = *(const uint16_t *)b;
  return (left > right) - (left < right);
}

/* Next bf16 value at or above v >= 0, at most the largest norm. */
static float round_up(float v)
{
  const float largest = fli_f32_from_bf16(FLI_NORM_MAX_BF16);
  return v >= largest ? largest : fli_f32_from_bf16(fli_bf16_from_f32_up(v));
}

/* Values >= 0 as bf16 patterns sort like the numbers they stand for. */
static float agree(uint16_t *values, size_t n)
{
  if (n == 0) return 0.0f;
  qsort(values, n, sizeof *values, compare_u16);
  const float median = fli_f32_from_bf16(values[(n - 1) / 2]);
  const float largest = fli_f32_from_bf16(values[n - 1]);
  const float cap = round_up(FLI_NORM_CAP * median);
  return largest < cap ? largest : cap;
}

fl_status fli_norms_agree(fl_context *context, const uint8_t *reported,
                          const fli_member *members, uint32_t n_members,
                          uint64_t n, float *agreed)
{
  fli_fpguard guard;
  uint16_t *column = fli_alloc(context, n_members, sizeof *column);
  if (!column) return fli_nomem(n_members * sizeof *column);
  fli_fpguard_enter(&guard);
  for (uint64_t block = 0; block < n; block++) {
    size_t filled = 0;
    for (uint32_t i = 0; i < n_members; i++) {
      if (!members[i].has_norm) continue;
      const uint16_t v = fli_load_u16(reported + 2 * (i * n + block));
      if (v != 0) column[filled++] = v;
    }
    agreed[block] = agree(column, filled);
  }
  fli_fpguard_leave(&guard);
  fli_free(context, column, n_members * sizeof *column);
  return FL_OK;
}

int fli_norms_publish(float *announced, const float *agreed, uint64_t n)
{
  float smallest = 0.0f;
  for (uint64_t i = 0; i < n; i++) {
    if (agreed[i] > 0.0f && (smallest == 0.0f || agreed[i] < smallest)) {
      smallest = agreed[i];
    }
  }
  /* Zero would stay zero for ever under multiplication. */
  for (uint64_t i = 0; i < n; i++) {
    announced[i] = agreed[i] > 0.0f ? agreed[i] : smallest;
  }
  return smallest > 0.0f;
}

/* Rotated coordinates of the block that begins `left` before its segment's
 * end: full, or the tail padded to a power of two of at least 256. */
static uint64_t block_size(uint64_t left)
{
  uint64_t size = 256;
  while (size < left && size < FL_THC_BLOCK)
    size *= 2;
  return size;
}

/* a Q(a) - phi(a), whose derivative is Q. */
static double tail_integral(double a)
{
  return a * fli_normal_tail(a) - fli_normal_pdf(a);
}

/* Share of a normal distribution's coordinates that count as clamped at the
 * round's clip. With a table those outside it; else those whose index is cut
 * off, which noise of up to a cell puts off: the mean of 2 Q over t..t + cell.
 */
static double expected_share(const fli_job *job)
{
  const double t = (double)job->clip;
  if (job->compressor->mode == FL_THC_TABLE) return 2.0 * fli_normal_tail(t);
  const double cell = 2.0 * t / (double)job->compressor->granularity;
  return 2.0 / cell * (tail_integral(t + cell) - tail_integral(t));
}

/* Where a member's counts are added; NULL: they are of a scale that is gone. */
static uint64_t *counts_for(fli_job *job, const fli_member *member)
{
  fli_buffered *self = job->buffered;
  if (!fli_buffered_runs(job)) return job->clamped;
  return member->task.epoch == self->epochs[self->n_epochs - 1].round
             ? self->clamped
             : NULL;
}

/* Counts are claims. Twice the threshold of growing is the most that one
 * client's can weigh, so that it takes half of the clients to make a norm
 * grow. */
void fli_norms_count(fli_job *job, const fli_member *member,
                     const fli_bytes *clamped)
{
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  const double largest = 2.0 * FLI_GROW_ABOVE * expected_share(job);
  uint64_t *counts = counts_for(job, member), block = 0;
  for (uint32_t i = 0; counts && i < job->n_segments; i++) {
    for (uint64_t at = 0; at < job->segments[i]; at += FL_THC_BLOCK) {
      const double size = (double)block_size(job->segments[i] - at);
      const uint64_t most =
          1 + (uint64_t)(largest < 1.0 ? largest * size : size);
      const uint64_t n = fli_load_u16(clamped->data + 2 * block);
      if (fli_parts_has(job, member, i)) counts[block] += n < most ? n : most;
      block++;
    }
  }
  fli_fpguard_leave(&guard);
}

static float adapt(float norm, double clamped, double coordinates, double share)
{
  const double outside = clamped / coordinates;
  if (outside > FLI_GROW_ABOVE * share) return round_up(norm * 1.5f);
  if (outside < share / 2.0) return round_up(norm * 0.9f);
  return norm;
}

void fli_norms_adapt(fli_job *job)
{
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  const double share = expected_share(job);
  const fli_buffered *buffered = job->buffered;
  const uint64_t *clamped = buffered ? buffered->clamped : job->clamped;
  uint64_t block = 0;
  for (uint32_t i = 0; i < job->n_segments; i++) {
    const uint32_t count =
        buffered ? buffered->n_seen : fli_parts_count(job, i);
    for (uint64_t at = 0; at < job->segments[i]; at += FL_THC_BLOCK) {
      const uint64_t size = block_size(job->segments[i] - at);
      if (count > 0)
        job->public_norms[block] =
            adapt(job->public_norms[block], (double)clamped[block],
                  (double)count * (double)size, share);
      block++;
    }
  }
  fli_fpguard_leave(&guard);
}

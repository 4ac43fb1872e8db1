/* SPDX-License-Identifier: Apache-2.0 */
/* All clips on a grid, next to the one that the library finds. */
#include <stdio.h>

#include "base/dmath.h"
#include "nmse.h"

static float clip_at(uint32_t i)
{
  return (float)(5 + i) / 10.0f;
}

void nmse_sweep_add(nmse_sweep *sweep, const nmse_task *task, uint64_t seed)
{
  float best = fl_compressor_best_clip(task->compressor, task->workers,
                                       task->coherence, task->spread);
  for (uint32_t i = 0; i < NMSE_CLIPS; i++) {
    nmse_figure_add(&sweep->at[i], nmse_task_error(task, clip_at(i), seed));
  }
  nmse_figure_add(&sweep->best, nmse_task_error(task, best, seed));
  nmse_figure_add(&sweep->best_clip, (double)best);
}

/* 1 / p */
static double one_in(double clip)
{
  return 0.5 / fli_normal_tail(clip);
}

void nmse_sweep_print(const nmse_sweep *sweep, const char *name)
{
  uint32_t least = 0;
  for (uint32_t i = 1; i < NMSE_CLIPS; i++)
    least = sweep->at[i].mean < sweep->at[least].mean ? i : least;
  const nmse_figure *figure = &sweep->at[least];
  printf("sweep_%s_least %.6g\n", name, figure->mean);
  printf("sweep_%s_least_se %.2g\n", name, nmse_figure_error(figure));
  printf("sweep_%s_least_clip %.1f\n", name, (double)clip_at(least));
  printf("sweep_%s_least_one_in %.4g\n", name, one_in((double)clip_at(least)));
  printf("sweep_%s_best %.6g\n", name, sweep->best.mean);
  printf("sweep_%s_best_clip %.4g\n", name, sweep->best_clip.mean);
  printf("sweep_%s_best_one_in %.4g\n", name, one_in(sweep->best_clip.mean));
  printf("sweep_%s_best_ratio %.4f\n", name, sweep->best.mean / figure->mean);
}

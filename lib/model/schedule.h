/* SPDX-License-Identifier: Apache-2.0 */
/* How a learning rate changes, update by update or round by round. */
#ifndef FLI_SCHEDULE_H
#define FLI_SCHEDULE_H

#include <stdint.h>

typedef struct fli_schedule {
  uint32_t kind; /* FL_SCHEDULE_* */
  uint32_t warmup;
  float rate;
  float factor;
  uint64_t period; /* >= 1 unless the kind is constant */
} fli_schedule;

/* The rate of update `t`, from 0. The same bits everywhere. */
float fli_schedule_at(const fli_schedule *schedule, uint64_t t);

#endif

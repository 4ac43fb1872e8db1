/* SPDX-License-Identifier: Apache-2.0 */
/* What a reader of a file says when the file is not as it should be. */
#ifndef COMMON_FAULT_H
#define COMMON_FAULT_H

#include <stddef.h>

#define FAULT_PRINTF(f, a) __attribute__((format(printf, f, a)))

/* Where to, and about which file. */
struct fault {
  const char *path;
  char *error;
  size_t error_size;
};

/* Write "PATH: " and the reason; returns -1. */
FAULT_PRINTF(2, 3)
int fault_say(const struct fault *fault, const char *format, ...);

#endif

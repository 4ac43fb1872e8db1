/* SPDX-License-Identifier: Apache-2.0 */
/* What every fuzz target shares. A target is one file with one entry point; it
 * runs under libFuzzer, or under replay_main.c over its corpus. A broken
 * promise is FUZZ_CHECK's abort, a memory error is the sanitizers' business. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#define FUZZ_CHECK(cond)                                                 \
  do {                                                                   \
    if (!(cond)) {                                                       \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #cond); \
      abort();                                                           \
    }                                                                    \
  } while (0)

/* The bytes in a block of exactly their size, so that ASan sees one read too
 * many; free() it. */
static inline uint8_t *fuzz_exact_copy(const uint8_t *data, size_t n)
{
  uint8_t *copy = malloc(n > 0 ? n : 1);
  FUZZ_CHECK(copy != NULL);
  if (n > 0) memcpy(copy, data, n);
  return copy;
}

#endif

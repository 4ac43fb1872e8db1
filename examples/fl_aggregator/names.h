/* SPDX-License-Identifier: Apache-2.0 */
/* Where in an array of structs, which begin with a text each, is the one with
 * this text? */
#ifndef FL_AGGREGATOR_NAMES_H
#define FL_AGGREGATOR_NAMES_H

#include <stddef.h>
#include <stdint.h>

struct names {
  size_t stride; /* bytes of a struct */
  uint64_t seed; /* 0: not drawn yet */
  uint32_t *heads;
  size_t n_heads; /* a power of two, or 0 */
  uint32_t *next; /* by index */
  size_t capacity;
  size_t count;
};

static const uint32_t names_none = UINT32_MAX;

void names_free(struct names *names);
/* Index, or names_none. */
uint32_t names_find(const struct names *names, const void *items,
                    const char *text);
/* Say that the struct at `index` has its text now, which no other has. 0, or
 * -1 without memory. */
int names_add(struct names *names, const void *items, uint32_t index);
/* Before its text goes. */
void names_remove(struct names *names, const void *items, uint32_t index);

#endif

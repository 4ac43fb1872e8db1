/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash table with chains of indices. Clients choose their names, so the hash
 * has a seed that they do not know.
 */
#include "fl_aggregator/names.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { FIRST = 64 };

static const char *text_of(const struct names *names, const void *items,
                           uint32_t index)
{
  return (const char *)items + index * names->stride;
}

/* FNV-1a, with its state mixed at the end: the low bits choose the head. */
static size_t head_of(const struct names *names, const char *text)
{
  uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ names->seed;
  for (; *text; text++)
    hash = (hash ^ (uint8_t)*text) * UINT64_C(0x100000001b3);
  hash = (hash ^ hash >> 32 ^ names->seed) * UINT64_C(0x9e3779b97f4a7c15);
  return (size_t)(hash >> 32) & (names->n_heads - 1);
}

void names_free(struct names *names)
{
  free(names->heads);
  free(names->next);
  *names = (struct names){.stride = names->stride};
}

uint32_t names_find(const struct names *names, const void *items,
                    const char *text)
{
  if (names->count == 0) return names_none;
  uint32_t at = names->heads[head_of(names, text)];
  while (at != names_none && strcmp(text_of(names, items, at), text) != 0)
    at = names->next[at];
  return at;
}

static void link_in(struct names *names, const void *items, uint32_t index)
{
  uint32_t *head = &names->heads[head_of(names, text_of(names, items, index))];
  names->next[index] = *head;
  *head = index;
}

/* Twice as many heads, and everybody where he belongs then. */
static int grow_heads(struct names *names, const void *items)
{
  const size_t n_old = names->n_heads;
  const size_t n = n_old ? 2 * n_old : FIRST;
  uint32_t *old = names->heads;
  uint32_t *heads = malloc(n * sizeof *heads);
  if (!heads) return -1;
  memset(heads, 0xff, n * sizeof *heads);
  names->heads = heads;
  names->n_heads = n;
  for (size_t i = 0; i < n_old; i++) {
    for (uint32_t next, at = old[i]; at != names_none; at = next) {
      next = names->next[at];
      link_in(names, items, at);
    }
  }
  free(old);
  return 0;
}

int names_add(struct names *names, const void *items, uint32_t index)
{
  if (names->seed == 0 &&
      getrandom(&names->seed, sizeof names->seed, 0) != sizeof names->seed)
    names->seed = 1;
  if (index >= names->capacity) {
    size_t capacity = 2 * ((size_t)index + FIRST / 2);
    uint32_t *next = realloc(names->next, capacity * sizeof *next);
    if (!next) return -1;
    names->next = next;
    names->capacity = capacity;
  }
  if (names->count >= names->n_heads && grow_heads(names, items) != 0)
    return -1;
  link_in(names, items, index);
  names->count++;
  return 0;
}

void names_remove(struct names *names, const void *items, uint32_t index)
{
  uint32_t *at = &names->heads[head_of(names, text_of(names, items, index))];
  while (*at != index)
    at = &names->next[*at];
  *at = names->next[index];
  names->count--;
}

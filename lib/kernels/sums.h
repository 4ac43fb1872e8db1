/* SPDX-License-Identifier: Apache-2.0 */
/* Adding packed indices of many updates to lanes: what is the same for every
 * instruction set, compiled with each one's flags. A file for one brings
 * functions for what matters: 4 bits above all.
 *
 * Updates are put in groups. One whose sum fits a byte, up to 17 updates of 4
 * bits, is summed in bytes and widened once, so that lanes are read and written
 * once per group and, a run at a time, come from the caches after the first
 * group. Where weights would leave such groups with few updates each, the sum
 * is in 16 bits, of products that still fit a byte. An update with greater
 * products is a group of its own and multiplied in lanes. */
#ifndef FLK_SUMS_H
#define FLK_SUMS_H

#include "kernels/lanes.h"

enum {
  SUM_TILE = 4096,  /* coordinates, where they are unpacked into bytes */
  SUM_UPDATES = 64, /* planned together */
  SUM_INDICES = 16, /* of up to 4 bits */
  SUM_FEW = 4       /* updates of a group: fewer are better summed in words */
};

/* Coordinates of a run, a multiple of SUM_TILE, and updates of a group of 4
 * bits, if it is not to be as many as fit. */
#ifndef SUM_RUN
#  define SUM_RUN SUM_TILE
#  define SUM_STREAMS SUM_UPDATES
#endif

/* What every product of a group fits, and what its sums fit: byte and byte,
 * byte and word, the lanes. */
typedef enum sum_kind { SUM_BYTES, SUM_WORDS, SUM_PRODUCTS } sum_kind;

typedef struct sum_group {
  size_t first;
  size_t count;
  sum_kind kind;
  int is_plain; /* every update adds its indices as they are */
} sum_group;

typedef struct sum_plan {
  const flk_packed *packed;
  size_t first; /* update */
  size_t n_groups;
  sum_group groups[SUM_UPDATES];
  /* Up to 4 bits: what every index of an update adds, if it fits a byte. */
  uint8_t tables[SUM_UPDATES][SUM_INDICES];
} sum_plan;

/* A group for a function that knows its number of bits: 1, 2 or 4. */
typedef struct sum_fields {
  const uint8_t *const *src;
  const uint8_t (*tables)[SUM_INDICES]; /* NULL: indices add themselves */
  size_t count;
  size_t skip; /* bytes of every src */
  uint32_t bits;
  sum_kind kind; /* SUM_BYTES; with 4 bits also SUM_WORDS, which has tables and
                    no u8 lanes */
} sum_fields;

/* lanes += the group's sums. n a multiple of 256. */
typedef void (*sum_fields_fn)(uint8_t *lanes, uint32_t width,
                              const sum_fields *group, size_t n);

static inline uint32_t sum_weight(const flk_packed *packed, size_t k)
{
  return packed->weights ? packed->weights[k] : 1;
}

static inline void sum_fill_table(uint8_t *table, const flk_packed *packed,
                                  uint32_t weight)
{
  for (uint32_t v = 0; v < 1u << packed->bits; v++) {
    uint32_t value = packed->values ? packed->values[v] : v;
    table[v] = (uint8_t)(value * weight);
  }
}

static inline uint32_t sum_top(const flk_packed *packed, size_t k)
{
  uint32_t last = (1u << packed->bits) - 1u;
  uint32_t value = packed->values ? packed->values[last] : last;
  return value * sum_weight(packed, k);
}

/* 1 when one more update would be too many to read at once. */
static inline int sum_is_wide(const flk_packed *packed, const sum_group *group)
{
  return SUM_STREAMS < SUM_UPDATES && packed->bits == 4 &&
         group->count == SUM_STREAMS;
}

/* 1 when groups summed in bytes would have few updates. */
static inline int sum_is_heavy(const flk_packed *packed, size_t first,
                               size_t last)
{
  uint32_t total = 0;
  for (size_t k = first; k < last; k++) {
    uint32_t top = sum_top(packed, k);
    total += top <= UINT8_MAX ? top : 0;
  }
  return total > UINT8_MAX / SUM_FEW * (last - first);
}

static inline void sum_make_plan(sum_plan *plan, const flk_packed *packed,
                                 size_t first, uint32_t width)
{
  size_t left = packed->count - first;
  size_t count = left < SUM_UPDATES ? left : SUM_UPDATES;
  int has_words = width != FLK_U8 && packed->weights && packed->bits == 4 &&
                  sum_is_heavy(packed, first, first + count);
  uint32_t room = 0;
  sum_group *group = NULL;
  plan->packed = packed;
  plan->first = first;
  plan->n_groups = 0;
  for (size_t k = 0; k < count; k++) {
    uint32_t top = sum_top(packed, first + k);
    sum_kind kind = top > UINT8_MAX ? SUM_PRODUCTS
                    : has_words     ? SUM_WORDS
                                    : SUM_BYTES;
    if (!group || kind != group->kind || top > room ||
        sum_is_wide(packed, group)) {
      group = &plan->groups[plan->n_groups++];
      *group =
          (sum_group){.first = k, .kind = kind, .is_plain = !packed->values};
      room = kind == SUM_BYTES ? UINT8_MAX : UINT16_MAX;
    }
    group->count++;
    group->is_plain &= sum_weight(packed, first + k) == 1;
    room -= kind == SUM_PRODUCTS ? 0 : top;
    if (packed->bits <= 4) {
      sum_fill_table(plan->tables[k], packed, sum_weight(packed, first + k));
    }
  }
}

static inline void sum_unpack_2(uint8_t *restrict q,
                                const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n / 4; i++) {
    q[4 * i] = src[i] & 3u;
    q[4 * i + 1] = src[i] >> 2 & 3u;
    q[4 * i + 2] = src[i] >> 4 & 3u;
    q[4 * i + 3] = src[i] >> 6;
  }
}

static inline void sum_unpack_1(uint8_t *restrict q,
                                const uint8_t *restrict src, size_t n)
{
  for (size_t i = 0; i < n / 8; i++) {
    for (size_t k = 0; k < 8; k++)
      q[8 * i + k] = src[i] >> k & 1u;
  }
}

/* Values of one update's indices, in the tile that starts at `at`: in q, or
 * where they are. */
static inline const uint8_t *sum_unpack(uint8_t *q, const sum_plan *plan,
                                        size_t k, size_t at, size_t n)
{
  const flk_packed *packed = plan->packed;
  const uint8_t *src = packed->src[plan->first + k] + packed->skip;
  src += at * packed->bits / 8;
  if (packed->bits == 8 && !packed->values) return src;
  if (packed->bits == 1) {
    sum_unpack_1(q, src, n);
  } else if (packed->bits == 2) {
    sum_unpack_2(q, src, n);
  } else {
    flk_unpack_c(q, src, n, packed->bits);
  }
  for (size_t i = 0; packed->values && i < n; i++)
    q[i] = packed->values[q[i]];
  return q;
}

static inline void sum_add_products(uint8_t *restrict lanes, uint32_t width,
                                    const uint8_t *restrict q, uint32_t weight,
                                    size_t n)
{
  if (width == FLK_U16) {
    for (size_t i = 0; i < n; i++) {
      uint8_t *p = lanes + 2 * i;
      flk_store_u16(p, (uint16_t)(flk_load_u16(p) + q[i] * weight));
    }
  } else {
    for (size_t i = 0; i < n; i++) {
      uint8_t *p = lanes + 4 * i;
      flk_store_u32(p, flk_load_u32(p) + q[i] * weight);
    }
  }
}

static inline void sum_add_bytes(uint8_t *restrict lanes, uint32_t width,
                                 const uint8_t *restrict q, size_t n)
{
  if (width == FLK_U8) {
    add_u8_u8(lanes, q, n);
  } else if (width == FLK_U16) {
    add_u16_u8(lanes, q, n);
  } else {
    add_u32_u8(lanes, q, n);
  }
}

/* One tile of what sum_add_group does. */
static inline void sum_add_tile(uint8_t *lanes, uint32_t width,
                                const sum_plan *plan, const sum_group *group,
                                size_t at, size_t n)
{
  uint8_t sum[SUM_TILE], q[SUM_TILE];
  int is_summed = 0;
  for (size_t k = group->first; k < group->first + group->count; k++) {
    uint32_t weight = sum_weight(plan->packed, plan->first + k);
    const uint8_t *values = sum_unpack(q, plan, k, at, n);
    if (group->kind != SUM_BYTES) {
      sum_add_products(lanes, width, values, weight, n);
    } else if (group->count == 1 && weight == 1) {
      sum_add_bytes(lanes, width, values, n);
    } else if (!is_summed) {
      is_summed = 1;
      for (size_t i = 0; i < n; i++)
        sum[i] = (uint8_t)(values[i] * weight);
    } else {
      for (size_t i = 0; i < n; i++)
        sum[i] = (uint8_t)(sum[i] + values[i] * weight);
    }
  }
  if (is_summed) sum_add_bytes(lanes, width, sum, n);
}

/* A group of any kind. */
static inline void sum_add_group(uint8_t *lanes, uint32_t width,
                                 const sum_plan *plan, const sum_group *group,
                                 size_t at, size_t n)
{
  if (SUM_RUN == SUM_TILE) {
    sum_add_tile(lanes, width, plan, group, at, n);
    return;
  }
  for (size_t i = 0; i < n; i += SUM_TILE) {
    const size_t tile = n - i < SUM_TILE ? n - i : SUM_TILE;
    sum_add_tile(lanes + (i << width), width, plan, group, at + i, tile);
  }
}

/* flk_table.add_packed; `fields` may be NULL. */
static inline void sum_packed(uint8_t *lanes, uint32_t width,
                              const flk_packed *packed, size_t n,
                              sum_fields_fn fields)
{
  sum_plan plan;
  uint32_t bits = packed->bits;
  int is_known = fields && (bits == 1 || bits == 2 || bits == 4);
  const size_t most = is_known ? SUM_RUN : SUM_TILE;
  for (size_t first = 0; first < packed->count; first += SUM_UPDATES) {
    sum_make_plan(&plan, packed, first, width);
    for (size_t at = 0; at < n; at += most) {
      size_t run = n - at < most ? n - at : most;
      uint8_t *to = lanes + (at << width);
      for (size_t g = 0; g < plan.n_groups; g++) {
        const sum_group *group = &plan.groups[g];
        if (group->kind == SUM_PRODUCTS || !is_known) {
          sum_add_group(to, width, &plan, group, at, run);
          continue;
        }
        sum_fields some = {.src = packed->src + first + group->first,
                           .count = group->count,
                           .skip = packed->skip + at * bits / 8,
                           .bits = bits,
                           .kind = group->kind};
        if (!group->is_plain || group->kind == SUM_WORDS) {
          some.tables = (const uint8_t(*)[SUM_INDICES])plan.tables;
          some.tables += group->first;
        }
        fields(to, width, &some, run);
      }
    }
  }
}

#endif

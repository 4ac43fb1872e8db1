/* SPDX-License-Identifier: Apache-2.0 */
/* Every table that this machine can run against the C functions, on blocks of
 * drawn sizes, offsets, bits, grids, slots and edge values. Each table's
 * results are hashed; all hashes must be equal. Bytes around outputs are part
 * of what is compared. The one argument is the number of draws. */
#include <float.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/rng.h"
#include "check.h"
#include "crypto/crypto.h"
#include "kernels/kernels.h"

enum { GUARD = 64, SEED = 815, DRAWS = 1000, SLOTS_MAX = 6, GROUP_MAX = 8 };

typedef struct draw {
  flk_grid grid;
  flk_lattice lattice;
  flk_lines group;
  size_t n;
  size_t stride; /* of what is decoded, in floats */
  size_t offset; /* of outputs, in bytes */
  uint32_t width;
  uint32_t count;
} draw;

static float source[2 * GROUP_MAX * FLK_BLOCK_MAX];
static float block[FLK_BLOCK_MAX];
static float blocks[GROUP_MAX * FLK_BLOCK_STRIDE];
static uint8_t signs[FLK_BLOCK_MAX / 8];
static uint8_t lanes[4 * FLK_BLOCK_MAX];
static uint8_t packed[FLK_BLOCK_MAX];
static uint32_t state[FLK_NOISE_LANES];
static uint16_t offsets[SLOTS_MAX];
static uint8_t memory[4 * 16 * 2 * FLK_BLOCK_MAX + 3 * GUARD];

static uint32_t below(fli_rng *rng, uint32_t n)
{
  return fli_rng_u32(rng) % n;
}

/* Mostly plain values, and now and then one at an edge. */
static float value(fli_rng *rng)
{
  static const float edges[] = {0.0f,       -0.0f,   FLT_TRUE_MIN,
                                -0x1p-130f, FLT_MIN, 0x1p40f,
                                -0x1p40f,   1.0f,    -0x1p-20f};
  if (below(rng, 50) == 0) return edges[below(rng, 9)];
  return 4.0f * fli_rng_f32(rng) - 2.0f;
}

static void draw_memory(fli_rng *rng)
{
  for (size_t i = 0; i < sizeof signs; i++)
    signs[i] = (uint8_t)fli_rng_u32(rng);
  for (size_t i = 0; i < sizeof packed; i++)
    packed[i] = (uint8_t)fli_rng_u32(rng);
  for (size_t i = 0; i < FLI_COUNT_OF(state); i++)
    state[i] = fli_rng_u32(rng) | 1u << below(rng, 32);
  for (size_t i = 0; i < FLI_COUNT_OF(offsets); i++)
    offsets[i] = (uint16_t)fli_rng_u32(rng);
  for (size_t i = 0; i < FLI_COUNT_OF(block); i++)
    block[i] = value(rng);
}

/* Lanes below 2^24. */
static void draw_lanes(fli_rng *rng, uint32_t width)
{
  for (size_t i = 0; i < FLK_BLOCK_MAX; i++) {
    uint32_t v = fli_rng_u32(rng);
    if (width == FLK_U8) lanes[i] = (uint8_t)v;
    if (width == FLK_U16) fli_store_u16(lanes + 2 * i, (uint16_t)v);
    if (width == FLK_U32) fli_store_u32(lanes + 4 * i, v >> 8);
  }
}

static draw draw_one(fli_rng *rng)
{
  draw d = {.n = (size_t)FLK_BLOCK_MIN << below(rng, 5),
            .width = below(rng, 3),
            .count = 1 + below(rng, GROUP_MAX)};
  uint32_t bits = below(rng, 2) ? 4 : 1 + below(rng, 8);
  draw_memory(rng);
  draw_lanes(rng, d.width);
  d.offset = 4 * (size_t)below(rng, 16);
  d.stride = FLK_LINE * (1 + (size_t)below(rng, 2));
  d.grid = (flk_grid){.signs = signs,
                      .scale = 0.1f + fli_rng_f32(rng),
                      .step = fli_rng_f32(rng) * 0.2f,
                      .bits = bits,
                      .offset = (uint16_t)fli_rng_u32(rng)};
  d.lattice = (flk_lattice){.signs = signs,
                            .state = below(rng, 4) ? state : NULL,
                            .offsets = offsets,
                            .n_offsets = below(rng, SLOTS_MAX),
                            .sign = below(rng, 2) ? 1 : -1,
                            .factor = below(rng, 70000),
                            .bias = (int32_t)below(rng, 1u << 30) - (1 << 29),
                            .width = d.width,
                            .step = fli_rng_f32(rng),
                            .shift = -3.0f,
                            .scale = 0.001f};
  d.group = (flk_lines){.src = source + below(rng, 16),
                        .stride = FLK_LINE * (d.count + below(rng, 3)),
                        .lines = below(rng, 100),
                        .count = d.count,
                        .weight = below(rng, 2) ? 1.0f : 0.3f};
  return d;
}

typedef struct digest {
  uint8_t bytes[FLI_HASH_BYTES];
} digest;

/* hash = H(hash, memory) of the first `used` bytes and the guards. */
static void absorb(digest *hash, size_t used)
{
  fli_hash_keyed(hash->bytes, hash->bytes, sizeof hash->bytes, memory,
                 used + 3 * GUARD);
}

static uint8_t *fresh(size_t used, size_t offset)
{
  memset(memory, 0xa5, used + 3 * GUARD);
  return memory + GUARD + offset;
}

static void encode(const flk_table *table, const draw *d, digest *hash)
{
  static float scratch[FLK_BLOCK_MAX];
  uint32_t moved[FLK_NOISE_LANES];
  size_t used = d->n * d->grid.bits / 8 + sizeof moved + 4;
  uint8_t *out = fresh(used, d->offset);
  memcpy(scratch, block, sizeof scratch);
  memcpy(moved, state, sizeof moved);
  uint32_t clamped = table->encode(out, scratch, &d->grid, moved, d->n);
  uint8_t *end = out + d->n * d->grid.bits / 8;
  for (size_t i = 0; i < GUARD - d->offset; i++)
    CHECK_EQ_U64(end[i], 0xa5);
  fli_store_u32(end, clamped);
  memcpy(end + 4, moved, sizeof moved);
  absorb(hash, used);
}

static void decode(const flk_table *table, const draw *d, digest *hash)
{
  size_t used = d->n / FLK_LINE * d->stride * sizeof(float);
  float *out = (float *)(void *)fresh(used, d->offset);
  table->decode(out, d->stride, lanes, &d->lattice, d->n);
  absorb(hash, used);
}

static void add(const flk_table *table, const draw *d, digest *hash)
{
  size_t used = d->n << d->width;
  uint8_t *out = fresh(used, d->offset + 1);
  memset(out, 3, used);
  table->add_packed(out, d->width, packed, d->n, d->grid.bits);
  absorb(hash, used);
}

static void move(const flk_table *table, const draw *d, digest *hash)
{
  memset(blocks, 0, sizeof blocks);
  table->gather(blocks, &d->group, NULL);
  fli_hash_keyed(hash->bytes, hash->bytes, sizeof hash->bytes, blocks,
                 sizeof blocks);
  size_t used = d->group.lines * d->group.stride * sizeof(float);
  float *out = (float *)(void *)fresh(used, d->offset);
  table->scatter(out, d->group.stride, source, FLK_LINE * (GROUP_MAX + 1),
                 d->group.lines, d->count);
  absorb(hash, used);
}

static int draws = DRAWS;

static digest play(const flk_table *table)
{
  digest hash = {{0}};
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 0, 0);
  for (size_t i = 0; i < FLI_COUNT_OF(source); i++)
    source[i] = value(&rng);
  for (int i = 0; i < draws; i++) {
    draw d = draw_one(&rng);
    encode(table, &d, &hash);
    decode(table, &d, &hash);
    add(table, &d, &hash);
    move(table, &d, &hash);
  }
  printf("%s ", table->name);
  for (size_t i = 0; i < 16; i++)
    printf("%02x", hash.bytes[i]);
  printf("\n");
  return hash;
}

static void all_tables_give_the_same_bytes(void)
{
  digest want = play(flk_kernels_at(0));
  for (size_t i = 1; flk_kernels_at(i); i++) {
    digest got = play(flk_kernels_at(i));
    CHECK_EQ_MEM(got.bytes, want.bytes, sizeof want.bytes);
  }
}

int main(int argc, char **argv)
{
  if (argc > 1) draws = atoi(argv[1]);
  if (fli_crypto_init() != FL_OK) return 1;
  CHECK_CASE(all_tables_give_the_same_bytes);
  return check_report();
}

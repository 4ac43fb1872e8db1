/* SPDX-License-Identifier: Apache-2.0 */
/* Every table that this machine can run against the C functions, on blocks of
 * drawn sizes, offsets, bits, grids, slots, hints and edge values. Each
 * table's results are hashed; all hashes must be equal. Bytes around outputs
 * are part of what is compared. usage: kernels-blocks [DRAWS] [--table NAME];
 * the hash of one table alone is for emulators, whose hashes a script
 * compares. */
#include <float.h>
#include <math.h>
#include <sodium.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/rng.h"
#include "check.h"
#include "kernels/kernels.h"

enum { GUARD = 64, SEED = 815, DRAWS = 1000, SLOTS_MAX = 6 };
enum {
  STRIDE_MAX = 31 * FLK_LINE,
  VECTOR = FLK_BLOCK_MAX / FLK_LINE * STRIDE_MAX
};
/* More updates than are planned together, and more than a tile. */
enum { UPDATES_MAX = 80, RUN_MAX = 3 * FLK_BLOCK_MAX, PAYLOAD_MAX = RUN_MAX };

typedef struct draw {
  flk_grid grid;
  flk_lattice lattice;
  flk_lines lines;
  flk_turn turns[FLK_GROUP_MAX];
  flk_noise noise;
  size_t from; /* of the vector, in floats */
  size_t n;
  size_t offset; /* of outputs, in bytes */
  uint32_t width;
  int is_streamed;
  const float *next; /* of the vector, or NULL */
  flk_lines squared;
  size_t n_squared; /* of one run */
  flk_packed packed;
  size_t run; /* of what is added */
  uint32_t sum_width;
} draw;

static float source[VECTOR + FLK_LINE];
static float block[FLK_BLOCK_MAX];
static float blocks[FLK_GROUP_FLOATS];
static uint8_t signs[FLK_GROUP_MAX][FLK_BLOCK_MAX / 8];
static uint8_t lanes[4 * FLK_BLOCK_MAX];
static uint32_t entries[256];
static uint8_t payload[UPDATES_MAX * 64 + PAYLOAD_MAX + 1];
static const uint8_t *runs[UPDATES_MAX];
static uint32_t weights[UPDATES_MAX];
static uint8_t values[256];
static uint16_t offsets[SLOTS_MAX];
static _Alignas(
    64) uint8_t memory[sizeof(float) * (VECTOR + FLK_LINE) + 3 * GUARD];

static uint32_t below(fli_rng *rng, uint32_t n)
{
  return fli_rng_u32(rng) % n;
}

/* Whole arrays come from SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), started
 * by the generator of everything else: ten times as fast, and more under an
 * emulator. */
static void fill(fli_rng *rng, uint8_t *dst, size_t n)
{
  uint64_t at = fli_rng_u64(rng);
  uint8_t eight[8];
  for (size_t i = 0; i < n; i += 8) {
    uint64_t z = at += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    fli_store_u64(eight, z ^ z >> 31);
    memcpy(dst + i, eight, n - i < 8 ? n - i : 8);
  }
}

/* Mostly plain values, and now and then one at an edge. */
static float value(uint32_t drawn)
{
  static const float edges[] = {0.0f,    -0.0f,    FLT_TRUE_MIN, -0x1p-130f,
                                FLT_MIN, 0x1p40f,  -0x1p40f,     1.0f,
                                -1.0f,   0x1p-20f, -0x1p-20f,    -FLT_MIN,
                                0x1p24f, -0x1p24f, 0x1p-60f,     -0x1p-149f};
  if (drawn % 64 == 0) return edges[drawn / 64 % FLI_COUNT_OF(edges)];
  return 0x1p-22f * (float)(drawn >> 8) - 2.0f;
}

static void draw_values(fli_rng *rng, float *x, size_t n)
{
  static uint8_t drawn[4 * (VECTOR + FLK_LINE)];
  fill(rng, drawn, 4 * n);
  for (size_t i = 0; i < n; i++)
    x[i] = value(fli_load_u32(drawn + 4 * i));
}

static void draw_memory(fli_rng *rng)
{
  for (size_t b = 0; b < FLK_GROUP_MAX; b++)
    fill(rng, signs[b], sizeof signs[b]);
  fill(rng, payload, sizeof payload);
  for (size_t i = 0; i < FLI_COUNT_OF(offsets); i++)
    offsets[i] = (uint16_t)fli_rng_u32(rng);
  draw_values(rng, block, FLI_COUNT_OF(block));
}

/* Lanes of 32 bits are below 2^30. */
static void draw_lanes(fli_rng *rng, uint32_t width)
{
  fill(rng, lanes, (size_t)FLK_BLOCK_MAX << width);
  for (size_t i = 0; width == FLK_U32 && i < FLK_BLOCK_MAX; i++)
    lanes[4 * i + 3] >>= 2;
}

/* Rising values 0 = T(0) < ... < T(2^bits - 1) = g, all such tables as likely
 * as each other. */
static void draw_levels(fli_rng *rng, uint8_t *levels, uint32_t bits,
                        uint32_t g)
{
  uint32_t last = (1u << bits) - 1u, j = 1;
  levels[0] = 0;
  for (uint32_t v = 1; v < g; v++) {
    if (below(rng, g - v) < last - j) levels[j++] = (uint8_t)v;
  }
  levels[last] = (uint8_t)g;
}

/* Updates, some with weights, some with a table of values, whose sum on top of
 * lanes of 3 fits the width. */
static void draw_updates(fli_rng *rng, draw *d, uint32_t bits)
{
  static const uint32_t most[] = {1, 3, 20, 300, 65535};
  static const uint64_t room[] = {UINT8_MAX - 3, UINT16_MAX - 3, UINT32_MAX};
  uint32_t most_weight = most[below(rng, 5)], top = (1u << bits) - 1u;
  uint32_t count = 1 + below(rng, below(rng, 4) ? 20 : UPDATES_MAX);
  int has_values = below(rng, 2) && top < UINT8_MAX;
  uint32_t most_value = below(rng, 2) && 8 * top < UINT8_MAX ? 8 * top : 255;
  uint32_t g = has_values ? top + below(rng, most_value - top + 1) : top;
  draw_levels(rng, values, bits, g);
  uint64_t sum = 0;
  d->sum_width = below(rng, 3);
  d->run = FLK_BLOCK_MIN * (1 + (size_t)below(rng, RUN_MAX / FLK_BLOCK_MIN));
  d->packed = (flk_packed){.src = runs,
                           .skip = below(rng, 64),
                           .weights = below(rng, 3) ? weights : NULL,
                           .bits = bits,
                           .values = has_values ? values : NULL};
  for (uint32_t k = 0; k < count; k++) {
    weights[k] = 1 + below(rng, most_weight);
    uint32_t weight = d->packed.weights ? weights[k] : 1;
    sum += (uint64_t)weight * values[top];
    if (sum > room[d->sum_width]) break;
    runs[k] = payload + below(rng, 64 * UPDATES_MAX - 64);
    d->packed.count++;
  }
}

/* A table of 2^bits values up to g. */
static void draw_table(fli_rng *rng, uint32_t bits, uint32_t g)
{
  uint8_t levels[256];
  draw_levels(rng, levels, bits, g);
  for (uint32_t j = 0; j < 1u << bits; j++) {
    uint32_t value = levels[j];
    uint32_t next = value < g ? levels[j + 1] : g + 1;
    for (uint32_t c = value; c < next; c++)
      entries[c] = (next - value) << 24 | value << 16 | j;
  }
}

static void draw_grid(fli_rng *rng, draw *d)
{
  uint32_t bits = below(rng, 2) ? 4 : 1 + below(rng, 8);
  uint32_t g = (1u << bits) - 1u;
  int has_table = below(rng, 3) == 0;
  if (has_table) {
    uint32_t most = below(rng, 2) && g < 31 ? 31 : 255;
    g += below(rng, most - g + 1);
    draw_table(rng, bits, g);
  }
  d->grid = (flk_grid){.centre = 32768.0f * (float)g + 0.5f,
                       .g = g,
                       .bits = bits,
                       .offset = (uint16_t)fli_rng_u32(rng),
                       .leave = (uint16_t)below(rng, has_table ? 2 : 3),
                       .entries = has_table ? entries : NULL};
  float size = below(rng, 8) == 0 ? 1e7f : 65536.0f / 64.0f * (float)g;
  for (size_t i = 0; i < FLK_BLOCK_MAX; i++)
    block[i] *= size / 8.0f;
}

static void draw_lines(fli_rng *rng, draw *d)
{
  size_t count = d->n == FLK_BLOCK_MAX ? 1 + below(rng, FLK_GROUP_MAX) : 1;
  size_t most = STRIDE_MAX / FLK_LINE - count + 1;
  d->lines =
      (flk_lines){.stride = FLK_LINE * (count + below(rng, (uint32_t)most)),
                  .n = d->n,
                  .count = count};
  d->from = below(rng, 2) ? 0 : below(rng, FLK_LINE);
  d->is_streamed = below(rng, 2) != 0;
  d->next = below(rng, 2) ? source + FLK_LINE * below(rng, 64) : NULL;
  for (size_t b = 0; b < count; b++)
    d->turns[b] = (flk_turn){signs[b], 0.1f + fli_rng_f32(rng)};
}

/* What lies ahead is some other group's share of the vector. */
static void draw_ahead(fli_rng *rng, draw *d)
{
  size_t count = 1 + below(rng, FLK_GROUP_MAX);
  if (below(rng, 2)) return;
  d->grid.ahead = (flk_ahead){.src = source + d->from,
                              .stride = FLK_LINE * (count + below(rng, 28)),
                              .lines = FLK_BLOCK_MAX / FLK_LINE / count,
                              .count = count};
}

static void draw_squared(fli_rng *rng, draw *d)
{
  size_t count = 1 + below(rng, FLK_NEIGHBOURS_MAX);
  uint32_t more = (uint32_t)(FLK_NEIGHBOURS_MAX - count);
  d->squared = (flk_lines){.stride = FLK_LINE * (count + below(rng, more + 1)),
                           .n = 64 * (1 + (size_t)below(rng, 64)),
                           .count = count};
  d->n_squared = below(rng, below(rng, 2) ? 100 : FLK_BLOCK_MAX + 1);
}

static draw draw_one(fli_rng *rng)
{
  draw d = {.n = (size_t)FLK_BLOCK_MIN << below(rng, 5),
            .width = below(rng, 3)};
  draw_memory(rng);
  draw_lanes(rng, d.width);
  draw_grid(rng, &d);
  draw_lines(rng, &d);
  draw_ahead(rng, &d);
  draw_squared(rng, &d);
  for (size_t i = 0; i < FLK_NOISE_LANES; i++) {
    d.noise.state[i] = fli_rng_u32(rng);
    d.noise.step[i] = fli_rng_u32(rng) | 0x10001u;
  }
  draw_updates(rng, &d, d.grid.bits);
  d.offset = 4 * (size_t)below(rng, 16);
  int has_dither = below(rng, 4) != 0;
  uint32_t shift = has_dither && (d.width == FLK_U8 || below(rng, 2))
                       ? 16
                       : 1 + below(rng, 16);
  d.lattice = (flk_lattice){.noise = has_dither ? &d.noise : NULL,
                            .offsets = offsets,
                            .n_offsets = below(rng, SLOTS_MAX),
                            .sign = below(rng, 2) ? 1 : -1,
                            .factor = below(rng, 70000),
                            .bias = (int32_t)below(rng, 1u << 30) - (1 << 29),
                            .width = d.width,
                            .shift = shift};
  return d;
}

typedef struct digest {
  crypto_hash_sha256_state state;
  uint8_t bytes[crypto_hash_sha256_BYTES];
} digest;

/* The first `used` bytes of memory and the guards. */
static void absorb(digest *hash, size_t used)
{
  crypto_hash_sha256_update(&hash->state, memory, used + 3 * GUARD);
}

static void absorb_floats(digest *hash, const float *x, size_t n)
{
  crypto_hash_sha256_update(&hash->state, (const uint8_t *)x, n * sizeof *x);
}

static void check_untouched(const void *begin, const void *end)
{
  const uint8_t *p = begin;
  size_t n = (size_t)((const uint8_t *)end - p);
  CHECK(n == 0 || (p[0] == 0xa5 && memcmp(p, p + 1, n - 1) == 0));
}

static uint8_t *fresh(size_t used, size_t offset)
{
  memset(memory, 0xa5, used + 3 * GUARD);
  return memory + GUARD + offset;
}

static void encode(const flk_table *table, draw *d, digest *hash)
{
  size_t size = d->n * d->grid.bits / 8;
  size_t kept = d->grid.leave ? d->n * sizeof(float) : 0;
  size_t used = size + kept + 4;
  static float scratch[FLK_BLOCK_MAX];
  uint8_t *out = fresh(used, d->offset);
  memcpy(scratch, block, sizeof scratch);
  d->grid.noise = &d->noise;
  uint32_t cut = table->encode(out, scratch, &d->grid, d->n);
  uint8_t *end = out + size;
  for (size_t i = 0; i < GUARD - d->offset; i++)
    CHECK_EQ_U64(end[i], 0xa5);
  fli_store_u32(end, cut);
  memcpy(end + 4, scratch, kept);
  absorb(hash, used);
}

static void decode(const flk_table *table, draw *d, digest *hash)
{
  size_t used = d->n * sizeof(float);
  if (d->lattice.noise) d->lattice.noise = &d->noise;
  float *out = (float *)(void *)fresh(used, d->offset);
  table->decode(out, lanes, &d->lattice, d->n);
  absorb(hash, used);
}

static void add(const flk_table *table, const draw *d, digest *hash)
{
  size_t used = d->run << d->sum_width;
  uint8_t *out = fresh(used, d->offset + 1);
  memset(out, 0, used);
  for (size_t i = 0; i < d->run; i++)
    out[i << d->sum_width] = 3;
  table->add_packed(out, d->sum_width, &d->packed, d->run);
  absorb(hash, used);
}

static uint64_t lane_at(const uint8_t *lane, uint32_t width)
{
  return width == FLK_U8    ? *lane
         : width == FLK_U16 ? fli_load_u16(lane)
                            : fli_load_u32(lane);
}

static uint64_t index_at(const uint8_t *src, size_t i, uint32_t bits)
{
  uint32_t index = 0;
  for (uint32_t b = 0; b < bits; b++) {
    size_t at = i * bits + b;
    index |= ((uint32_t)src[at / 8] >> (at % 8) & 1u) << b;
  }
  return index;
}

/* The C function against the definition, written out. */
static void add_as_defined(const draw *d)
{
  const flk_packed *p = &d->packed;
  uint8_t *out = memory;
  memset(out, 0, d->run << d->sum_width);
  flk_add_packed_c(out, d->sum_width, p, d->run);
  for (size_t i = 0; i < d->run; i += 1 + i % 37) {
    uint64_t want = 0;
    for (size_t k = 0; k < p->count; k++) {
      uint64_t index = index_at(p->src[k] + p->skip, i, p->bits);
      uint64_t weight = p->weights ? p->weights[k] : 1;
      want += weight * (p->values ? p->values[index] : index);
    }
    CHECK_EQ_U64(lane_at(out + (i << d->sum_width), d->sum_width), want);
  }
}

static void turn(const flk_table *table, const draw *d, digest *hash)
{
  const flk_lines *lines = &d->lines;
  const size_t size = lines->count * FLK_LINE;
  float about[FLK_GROUP_MAX];
  memset(blocks, 0xa5, sizeof blocks);
  table->rotate_in(blocks, source + d->from, lines, d->turns, d->next, about);
  const float *end = blocks;
  for (size_t b = 0; b < lines->count; b++) {
    check_untouched(end, blocks + b * FLK_BLOCK_STRIDE);
    absorb_floats(hash, blocks + b * FLK_BLOCK_STRIDE, d->n);
    end = blocks + b * FLK_BLOCK_STRIDE + d->n;
  }
  check_untouched(end, blocks + FLK_GROUP_FLOATS);
  size_t used = d->n / FLK_LINE * lines->stride * sizeof(float);
  float *out = (float *)(void *)fresh(used, 4 * d->from);
  table->rotate_out(out, blocks, lines, d->turns, d->is_streamed);
  end = (const float *)(const void *)memory;
  for (size_t j = 0; j < d->n / FLK_LINE; j++) {
    check_untouched(end, out + j * lines->stride);
    absorb_floats(hash, out + j * lines->stride, size);
    end = out + j * lines->stride + size;
  }
  check_untouched(end, memory + used + 3 * GUARD);
}

/* The bits of the sums: all are finite, and none is -0. */
static void square(const flk_table *table, const draw *d, digest *hash)
{
  const float *x = source + d->from;
  double *sums =
      (double *)(void *)fresh((d->squared.count + 1) * sizeof *sums, 0);
  sums[0] = table->sum_squares(x, d->n_squared);
  table->sum_squares_group(sums + 1, x, &d->squared);
  for (size_t b = 0; b <= d->squared.count; b++)
    CHECK(isfinite(sums[b]));
  absorb(hash, (d->squared.count + 1) * sizeof *sums);
}

static int draws = DRAWS;
static const char *only; /* a table's name */

static digest play(const flk_table *table)
{
  digest hash;
  fli_rng rng;
  crypto_hash_sha256_init(&hash.state);
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 0, 0);
  draw_values(&rng, source, FLI_COUNT_OF(source));
  for (int i = 0; i < draws; i++) {
    draw d = draw_one(&rng);
    encode(table, &d, &hash);
    decode(table, &d, &hash);
    add(table, &d, &hash);
    turn(table, &d, &hash);
    square(table, &d, &hash);
  }
  crypto_hash_sha256_final(&hash.state, hash.bytes);
  printf("%s ", table->name);
  for (size_t i = 0; i < sizeof hash.bytes; i++)
    printf("%02x", hash.bytes[i]);
  printf("\n");
  fflush(stdout);
  return hash;
}

static void sums_are_as_defined(void)
{
  fli_rng rng;
  fli_rng_init(&rng, SEED, FLI_RNG_TEST, 1, 0);
  for (int i = 0; i < draws; i++) {
    draw d = draw_one(&rng);
    add_as_defined(&d);
  }
}

static void all_tables_give_the_same_bytes(void)
{
  digest want = play(flk_kernels_at(0));
  for (size_t i = 1; flk_kernels_at(i); i++) {
    digest got = play(flk_kernels_at(i));
    CHECK_EQ_MEM(got.bytes, want.bytes, sizeof want.bytes);
  }
}

static void machine_runs_the_strongest_table(void)
{
  size_t n = 0;
  while (flk_kernels_at(n)) {
    n++;
  }
  CHECK_EQ_MEM(flk_kernels(), flk_kernels_at(n - 1), sizeof(flk_table));
}

static void one_table_stays_inside_its_outputs(void)
{
  const flk_table *table = flk_kernels_at(0);
  for (size_t i = 1; table && strcmp(table->name, only) != 0; i++)
    table = flk_kernels_at(i);
  CHECK(table != NULL);
  if (table) play(table);
}

int main(int argc, char **argv)
{
  for (int i = 1; i < argc; i++) {
    if (strcmp(argv[i], "--table") == 0 && i + 1 < argc) {
      only = argv[++i];
    } else {
      draws = atoi(argv[i]);
    }
  }
  if (only) {
    CHECK_CASE(one_table_stays_inside_its_outputs);
  } else {
    CHECK_CASE(machine_runs_the_strongest_table);
    CHECK_CASE(sums_are_as_defined);
    CHECK_CASE(all_tables_give_the_same_bytes);
  }
  return check_report();
}

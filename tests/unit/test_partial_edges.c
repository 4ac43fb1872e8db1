/* SPDX-License-Identifier: Apache-2.0 */
/* Edges that add up their clients' updates, and the root that adds up edges:
 * the bytes of one server, whatever the tree; and what an edge may not do. */
#include <criterion/criterion.h>

#include <fl/base.h>
#include "base/rng.h"
#include "compress_fixture.h"

enum { DIM = 5000, EDGES = 8, PER_EDGE = 3, SLOTS = EDGES * PER_EDGE };

static const struct {
  uint32_t codec, mode;
} kinds[] = {{FL_CODEC_F32, 0},
             {FL_CODEC_BF16, 0},
             {FL_CODEC_THC, FL_THC_UNIFORM},
             {FL_CODEC_THC, FL_THC_DITHER},
             {FL_CODEC_THC, FL_THC_TABLE}};
enum { KINDS = sizeof kinds / sizeof kinds[0] };

typedef struct world {
  cf_round r;
  cf_bytes update[SLOTS];
} world;

static void world_open(world *w, uint32_t kind)
{
  cf_open_simple(&w->r, kinds[kind].codec, kinds[kind].mode, DIM, SLOTS);
  w->r.scale.weight_cap = 10;
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    float *x = cf_normal(DIM, slot);
    cf_agree(&w->r, x, 1 + slot);
    free(x);
  }
  for (uint32_t slot = 0; slot < SLOTS; slot++) {
    float *x = cf_normal(DIM, slot);
    w->update[slot] = cf_encode_some(&w->r, slot, 1 + slot, NULL, 0, x);
    free(x);
  }
}

static void world_close(world *w)
{
  for (uint32_t slot = 0; slot < SLOTS; slot++)
    free(w->update[slot].data);
  cf_close(&w->r);
}

/* Of the slots [first, first + n). */
static cf_bytes sum_of(const world *w, uint32_t first, uint32_t n)
{
  fl_partial *partial = cf_partial(&w->r);
  for (uint32_t slot = first; slot < first + n; slot++)
    cf_must(
        fl_partial_add(partial, w->update[slot].data, w->update[slot].size));
  cf_bytes bytes = cf_sum(partial);
  fl_partial_free(partial);
  return bytes;
}

static cf_bytes edge_of(const world *w, uint32_t edge)
{
  return sum_of(w, edge * PER_EDGE, PER_EDGE);
}

static fl_status send(fl_partial *root, cf_bytes sum, uint32_t edge)
{
  return fl_partial_merge_edge(root, sum.data, sum.size, edge * PER_EDGE,
                               PER_EDGE);
}

/* Refused with this status and text, and nothing has changed. */
static void expect_refused(fl_partial *root, cf_bytes sum, uint32_t edge,
                           fl_status want, const char *text)
{
  cf_bytes before = cf_sum(root);
  cr_expect_eq(send(root, sum, edge), want, "%s", fl_last_error());
  cr_expect(strstr(fl_last_error(), text) != NULL, "%s", fl_last_error());
  cf_bytes after = cf_sum(root);
  cr_expect(cf_equal(before, after));
  free(before.data);
  free(after.data);
}

Test(partial_edges, eight_edges_and_a_root_give_the_bytes_of_one_server)
{
  for (uint32_t kind = 0; kind < KINDS; kind++) {
    world w;
    world_open(&w, kind);
    cf_bytes want = sum_of(&w, 0, SLOTS);
    fl_partial *root = cf_partial(&w.r);
    for (uint32_t i = 0; i < EDGES; i++) {
      const uint32_t edge = (i * 5 + 3) % EDGES; /* in some order */
      cf_bytes sum = edge_of(&w, edge);
      cf_must(send(root, sum, edge));
      cr_expect_eq(fl_partial_count(root), (i + 1) * PER_EDGE);
      free(sum.data);
    }
    cf_bytes got = cf_sum(root);
    cr_expect(cf_equal(got, want), "kind %u", kind);
    free(got.data);
    free(want.data);
    fl_partial_free(root);
    world_close(&w);
  }
}

/* Updates and sums are put together two by two, at random, until one is left.
 */
Test(partial_edges, any_tree_gives_the_bytes_of_one_server)
{
  for (uint64_t seed = 0; seed < 20; seed++) {
    world w;
    fli_rng rng;
    fl_partial *open[SLOTS];
    uint32_t n = SLOTS;
    world_open(&w, (uint32_t)(seed % KINDS));
    fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
    for (uint32_t i = 0; i < SLOTS; i++) {
      open[i] = cf_partial(&w.r);
      cf_must(fl_partial_add(open[i], w.update[i].data, w.update[i].size));
    }
    while (n > 1) {
      const uint32_t a = (uint32_t)(fli_rng_f64(&rng) * n);
      const uint32_t b = (a + 1 + (uint32_t)(fli_rng_f64(&rng) * (n - 1))) % n;
      cf_bytes sum = cf_sum(open[b]);
      cf_must(fl_partial_merge_edge(open[a], sum.data, sum.size, 0, SLOTS));
      free(sum.data);
      fl_partial_free(open[b]);
      open[b] = open[--n];
    }
    cf_bytes got = cf_sum(open[0]), want = sum_of(&w, 0, SLOTS);
    cr_expect(cf_equal(got, want), "seed %llu", (unsigned long long)seed);
    free(got.data);
    free(want.data);
    fl_partial_free(open[0]);
    world_close(&w);
  }
}

Test(partial_edges, an_edge_that_sends_twice_is_counted_once)
{
  world w;
  world_open(&w, 3);
  fl_partial *root = cf_partial(&w.r);
  cf_bytes sum = edge_of(&w, 2), less = sum_of(&w, 2 * PER_EDGE, 1);
  cf_must(send(root, sum, 2));
  expect_refused(root, sum, 2, FL_E_DUPLICATE, "is in both");
  expect_refused(root, less, 2, FL_E_DUPLICATE, "is in both");
  free(sum.data);
  free(less.data);
  fl_partial_free(root);
  world_close(&w);
}

Test(partial_edges, an_edge_speaks_for_its_own_slots_alone)
{
  world w;
  world_open(&w, 3);
  fl_partial *root = cf_partial(&w.r);
  cf_bytes wide = sum_of(&w, 0, PER_EDGE + 1), other = edge_of(&w, 4);
  cf_bytes below = sum_of(&w, PER_EDGE - 1, PER_EDGE);
  expect_refused(root, wide, 0, FL_E_CONFLICT,
                 "sum: slot 3, want 3 slots from 0 on alone");
  expect_refused(root, other, 5, FL_E_CONFLICT, "sum: slot 12, want 3");
  expect_refused(root, below, 1, FL_E_CONFLICT, "sum: slot 2, want 3");
  cr_expect_eq(fl_partial_merge_edge(root, other.data, other.size, 0, 0),
               FL_E_CONFLICT);
  /* A range may end behind the last slot. */
  cf_must(fl_partial_merge_edge(root, other.data, other.size, 12, UINT32_MAX));
  free(wide.data);
  free(other.data);
  free(below.data);
  fl_partial_free(root);
  world_close(&w);
}

/* A client that went to two edges: the second edge's whole sum is left out. */
Test(partial_edges, contributors_of_two_edges_overlap)
{
  world w;
  world_open(&w, 0);
  fl_partial *root = cf_partial(&w.r);
  cf_bytes first = sum_of(&w, 0, 4), second = sum_of(&w, 3, 3);
  cf_must(fl_partial_merge_edge(root, first.data, first.size, 0, 6));
  cr_expect_eq(fl_partial_merge_edge(root, second.data, second.size, 0, 6),
               FL_E_DUPLICATE);
  cr_expect_eq(fl_partial_count(root), 4);
  free(first.data);
  free(second.data);
  fl_partial_free(root);
  world_close(&w);
}

Test(partial_edges, sums_of_another_round_are_stale)
{
  world w;
  world_open(&w, 2);
  cf_bytes late = edge_of(&w, 0);
  w.r.scale.round++;
  fl_partial *root = cf_partial(&w.r);
  expect_refused(root, late, 0, FL_E_STALE, "");
  free(late.data);
  fl_partial_free(root);
  world_close(&w);
}

Test(partial_edges, a_round_goes_on_without_an_edge_that_never_answers)
{
  world w;
  world_open(&w, 3);
  fl_partial *root = cf_partial(&w.r);
  for (uint32_t edge = 0; edge + 1 < EDGES; edge++) {
    cf_bytes sum = edge_of(&w, edge);
    cf_must(send(root, sum, edge));
    free(sum.data);
  }
  cf_bytes got = cf_sum(root), want = sum_of(&w, 0, SLOTS - PER_EDGE);
  cr_expect(cf_equal(got, want));
  float *mean = cf_get(DIM * sizeof(float));
  cf_must(fl_partial_decode(root, mean, DIM));
  free(mean);
  free(got.data);
  free(want.data);
  fl_partial_free(root);
  world_close(&w);
}

Test(partial_edges, edges_without_an_update_add_nothing)
{
  world w;
  world_open(&w, 4);
  fl_partial *root = cf_partial(&w.r);
  cf_bytes empty = cf_sum(root);
  cf_must(fl_partial_merge_edge(root, empty.data, empty.size, 0, 0));
  cr_expect_eq(fl_partial_count(root), 0);
  cr_expect_eq(fl_partial_merge_edge(NULL, empty.data, empty.size, 0, 1),
               FL_E_ARGUMENT);
  cr_expect_eq(fl_partial_merge_edge(root, NULL, 1, 0, 1), FL_E_ARGUMENT);
  cr_expect_eq(fl_partial_merge_edge(root, NULL, 0, 0, 1), FL_E_TRUNCATED);
  free(empty.data);
  fl_partial_free(root);
  world_close(&w);
}

/* Two edges whose weights each fit, and together do not: 8 bits of 255 steps,
 * sums below 2^30. */
Test(partial_edges, lanes_at_their_bound_refuse_the_edge_that_is_too_much)
{
  enum { MOST = ((1 << 30) - 1) / 255, N = 256 };
  const uint32_t full = MOST / FL_MAX_LANE_WEIGHT; /* 64 */
  fl_compressor_options options;
  const uint64_t n = N;
  cf_round r;
  cf_options(&options, FL_CODEC_THC, FL_THC_UNIFORM, 8);
  cf_open(&r, NULL, &options, &n, 1, full + 2);
  float *x = cf_normal(N, 1);
  cf_agree(&r, x, 1);
  fl_partial *edge[2] = {cf_partial(&r), cf_partial(&r)};
  fl_partial *root = cf_partial(&r);
  for (uint32_t slot = 0; slot < full + 2; slot++) {
    cf_bytes update = cf_encode(&r, slot, x);
    const uint8_t *data = update.data;
    const uint32_t weight = FL_MAX_LANE_WEIGHT;
    fl_status result = FL_OK;
    cf_must(fl_partial_add_batch(edge[slot > full / 2], &data, &update.size,
                                 &weight, 1, &result));
    cf_must(result);
    free(update.data);
  }
  for (int i = 0; i < 2; i++) {
    cf_bytes sum = cf_sum(edge[i]);
    const fl_status st =
        fl_partial_merge_edge(root, sum.data, sum.size, 0, full + 2);
    cr_expect_eq(st, i == 0 ? FL_OK : FL_E_RANGE, "%s", fl_last_error());
    if (i == 1) cr_expect(strstr(fl_last_error(), "lane weight") != NULL);
    free(sum.data);
    fl_partial_free(edge[i]);
  }
  cr_expect_eq(fl_partial_count(root), full / 2 + 1);
  fl_partial_free(root);
  free(x);
  cf_close(&r);
}

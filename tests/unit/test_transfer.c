/* SPDX-License-Identifier: Apache-2.0 */
/* Payloads in chunks: whole ones arrive, repeats do no harm, gaps and lies are
 * refused, and memory follows what arrives. */
#include "wire/transfer.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/rng.h"
#include "wire/gaps.h"
#include "outgoing.h"

enum { CHUNK = 4096, MAX_TOTAL = 1 << 20 };

typedef struct link {
  fli_outgoing outgoing;
  fli_incoming incoming;
  fli_bytes frames;
  uint8_t *data;
  size_t n;
} link;

static void link_init(link *l, size_t n)
{
  memset(l, 0, sizeof *l);
  fli_incoming_init(&l->incoming, NULL);
  fli_bytes_init(&l->frames, NULL);
  l->n = n;
  l->data = malloc(n);
  for (size_t i = 0; i < n; i++)
    l->data[i] = (uint8_t)(i * 7 + i / 256);
}

static void link_free(link *l)
{
  fli_incoming_reset(&l->incoming);
  fli_bytes_free(&l->frames);
  free(l->data);
}

/* The sender's MANIFEST, parsed. */
static fli_manifest begin(link *l)
{
  fli_manifest manifest = {.kind = FLI_TRANSFER_MODEL, .loss = 0};
  fli_manifest parsed;
  fli_bytes_clear(&l->frames);
  cr_assert_eq(
      outgoing_begin(&l->outgoing, &l->frames, &manifest, l->data, l->n, CHUNK),
      FL_OK);
  cr_assert_eq(fli_parse_manifest(&parsed, l->frames.data + FLI_FRAME_HEADER,
                                  l->frames.size - FLI_FRAME_HEADER),
               FL_OK);
  return parsed;
}

/* The sender's next CHUNK, parsed; its data lives until the next call. */
static fli_chunk next(link *l)
{
  fli_chunk chunk;
  fli_bytes_clear(&l->frames);
  cr_assert_eq(fli_outgoing_next(&l->outgoing, &l->frames), FL_OK);
  cr_assert_eq(fli_parse_chunk(&chunk, l->frames.data + FLI_FRAME_HEADER,
                               l->frames.size - FLI_FRAME_HEADER),
               FL_OK);
  return chunk;
}

static void assert_arrived(const link *l)
{
  cr_assert_eq(l->incoming.is_active, 0);
  cr_assert_eq(l->incoming.data.size, l->n);
  cr_assert_eq(memcmp(l->incoming.data.data, l->data, l->n), 0);
}

Test(transfer, payloads_of_all_sizes_arrive)
{
  static const size_t sizes[] = {1,         CHUNK - 1, CHUNK,
                                 CHUNK + 1, 5 * CHUNK, 5 * CHUNK + 17};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    link l;
    size_t chunks = 0;
    int is_complete = 0;
    link_init(&l, sizes[i]);
    fli_manifest manifest = begin(&l);
    cr_assert_eq(manifest.total, sizes[i]);
    cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, MAX_TOTAL), FL_OK);
    while (l.outgoing.is_active) {
      cr_assert_eq(is_complete, 0);
      fli_chunk chunk = next(&l);
      cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete),
                   FL_OK);
      chunks++;
    }
    cr_assert_eq(is_complete, 1);
    cr_assert_eq(chunks, (sizes[i] + CHUNK - 1) / CHUNK);
    assert_arrived(&l);
    link_free(&l);
  }
}

Test(transfer, ids_are_never_used_twice)
{
  link l;
  link_init(&l, 10);
  uint64_t first = begin(&l).transfer;
  uint64_t second = begin(&l).transfer;
  cr_assert_neq(first, second);
  link_free(&l);
}

Test(transfer, repeated_chunks_do_no_harm)
{
  link l;
  int is_complete;
  link_init(&l, 2 * CHUNK);
  fli_manifest manifest = begin(&l);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, MAX_TOTAL), FL_OK);
  fli_chunk chunk = next(&l);
  for (int i = 0; i < 3; i++) {
    cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
    cr_assert_eq(is_complete, 0);
    cr_assert_eq(l.incoming.data.size, CHUNK);
  }
  chunk = next(&l);
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
  cr_assert_eq(is_complete, 1);
  assert_arrived(&l);
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete),
               FL_E_EMPTY);
  link_free(&l);
}

Test(transfer, overlapping_chunk_adds_what_is_new)
{
  link l;
  int is_complete;
  link_init(&l, 100);
  fli_manifest manifest = begin(&l);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, MAX_TOTAL), FL_OK);
  fli_chunk chunk = {manifest.transfer, 0, l.data, 60};
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
  chunk = (fli_chunk){manifest.transfer, 40, l.data + 40, 60};
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
  cr_assert_eq(is_complete, 1);
  assert_arrived(&l);
  link_free(&l);
}

/* Begin a transfer of 100 bytes of which 10 arrived, then give this chunk. */
static fl_status chunk_after_10(uint64_t id_offset, uint64_t offset, size_t n,
                                int *is_active)
{
  link l;
  int is_complete;
  link_init(&l, 100);
  fli_manifest manifest = begin(&l);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, MAX_TOTAL), FL_OK);
  fli_chunk chunk = {manifest.transfer, 0, l.data, 10};
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
  uint8_t *data = calloc(1, n);
  chunk = (fli_chunk){manifest.transfer + id_offset, offset, data, n};
  fl_status st = fli_incoming_chunk(&l.incoming, &chunk, &is_complete);
  cr_assert_eq(is_complete, 0);
  *is_active = l.incoming.is_active;
  free(data);
  link_free(&l);
  return st;
}

Test(transfer, gap_overrun_and_wrong_hash_drop_the_transfer)
{
  int is_active;
  cr_assert_eq(chunk_after_10(0, 11, 5, &is_active), FL_E_FORMAT);
  cr_assert_eq(is_active, 0);
  cr_assert_eq(chunk_after_10(0, UINT64_MAX, 5, &is_active), FL_E_FORMAT);
  cr_assert_eq(is_active, 0);
  cr_assert_eq(chunk_after_10(0, 10, 91, &is_active), FL_E_FORMAT);
  cr_assert_eq(is_active, 0);
  cr_assert_eq(chunk_after_10(0, 0, 101, &is_active), FL_E_FORMAT);
  cr_assert_eq(is_active, 0);
  cr_assert_eq(chunk_after_10(0, 10, 90, &is_active), FL_E_FORMAT);
  cr_assert_str_eq(fl_last_error(), "transfer: hash does not match");
  cr_assert_eq(is_active, 0);
}

Test(transfer, chunk_of_another_transfer_is_ignored)
{
  int is_active;
  cr_assert_eq(chunk_after_10(1, 10, 5, &is_active), FL_E_EMPTY);
  cr_assert_eq(is_active, 1);
}

Test(transfer, chunk_without_a_transfer_is_ignored)
{
  fli_incoming incoming;
  int is_complete = 1;
  fli_chunk chunk = {0, 0, (const uint8_t *)"x", 1};
  fli_incoming_init(&incoming, NULL);
  cr_assert_eq(fli_incoming_chunk(&incoming, &chunk, &is_complete), FL_E_EMPTY);
  cr_assert_eq(is_complete, 0);
}

Test(transfer, total_above_the_limit_keeps_what_was_there)
{
  link l;
  link_init(&l, 100);
  fli_manifest manifest = begin(&l);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, 100), FL_OK);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, 99), FL_E_TOO_LARGE);
  cr_assert_eq(l.incoming.is_active, 1);
  link_free(&l);
}

Test(transfer, new_manifest_replaces_the_running_transfer)
{
  link l;
  int is_complete;
  link_init(&l, 2 * CHUNK);
  fli_manifest manifest = begin(&l);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, MAX_TOTAL), FL_OK);
  fli_chunk chunk = next(&l);
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
  l.data[CHUNK] ^= 1; /* another payload */
  manifest = begin(&l);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, MAX_TOTAL), FL_OK);
  cr_assert_eq(l.incoming.data.size, 0);
  chunk = next(&l);
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
  cr_assert_eq(l.incoming.data.size, CHUNK);
  link_free(&l);
}

Test(transfer, clamped_counts_are_kept_by_value)
{
  uint8_t clamped[4] = {1, 2, 3, 4};
  fli_incoming incoming;
  fli_manifest manifest = {.total = 5, .clamped = clamped, .clamped_size = 4};
  fli_incoming_init(&incoming, NULL);
  cr_assert_eq(fli_incoming_begin(&incoming, &manifest, 5), FL_OK);
  memset(clamped, 0, sizeof clamped);
  cr_assert_null(incoming.manifest.clamped);
  cr_assert_eq(incoming.clamped.size, 4);
  cr_assert_eq(incoming.clamped.data[3], 4);
  fli_incoming_reset(&incoming);
}

Test(transfer, declared_total_costs_no_memory)
{
  fl_context *context;
  fli_incoming incoming;
  uint64_t peak;
  int is_complete;
  fli_manifest manifest = {.transfer = 1, .total = FLI_TRANSFER_MAX};
  fli_chunk chunk = {1, 0, (const uint8_t *)"0123456789", 10};
  cr_assert_eq(fl_context_new(&context, NULL), FL_OK);
  fli_incoming_init(&incoming, context);
  cr_assert_eq(fli_incoming_begin(&incoming, &manifest, UINT64_MAX), FL_OK);
  cr_assert_eq(fli_incoming_chunk(&incoming, &chunk, &is_complete), FL_OK);
  fl_context_get_memory(context, NULL, &peak);
  cr_assert_lt(peak, 4096);
  fli_incoming_reset(&incoming);
  fl_context_free(context);
}

/* ---- gaps ---------------------------------------------------------------- */

/* Tell the sender what is missing, if that is due; 1 = it was. */
static int tell(link *l)
{
  fli_missing missing;
  if (!l->incoming.is_status_due) return 0;
  fli_bytes_clear(&l->frames);
  cr_assert_eq(fli_gaps_write_status(&l->incoming, &l->frames), FL_OK);
  cr_assert_eq(fli_parse_missing(&missing, l->frames.data + FLI_FRAME_HEADER,
                                 l->frames.size - FLI_FRAME_HEADER),
               FL_OK);
  cr_assert_eq(l->incoming.is_status_due, 0);
  fli_outgoing_resend(&l->outgoing, &missing);
  return 1;
}

/* Begin with a sender whom gaps can be told. */
static fli_manifest begin_told(link *l, size_t n)
{
  link_init(l, n);
  l->incoming.knows_status = 1;
  l->incoming.note = fli_gaps_note;
  const fli_manifest manifest = begin(l);
  cr_assert_eq(fli_incoming_begin(&l->incoming, &manifest, MAX_TOTAL), FL_OK);
  return manifest;
}

Test(transfer, a_lost_chunk_alone_is_sent_again)
{
  link l;
  int is_complete = 0;
  size_t n_sent = 0;
  (void)begin_told(&l, 6 * CHUNK);
  while (!is_complete) {
    const fli_chunk chunk = next(&l);
    if (n_sent++ == 2) continue; /* lost */
    cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
    (void)tell(&l);
  }
  assert_arrived(&l);
  cr_assert_eq(n_sent, 7);
  link_free(&l);
}

Test(transfer, the_same_payload_goes_on_where_it_was)
{
  link l;
  int is_complete = 0;
  size_t n_sent = 0;
  (void)begin_told(&l, 10 * CHUNK);
  for (int i = 0; i < 6; i++) {
    const fli_chunk chunk = next(&l);
    cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
  }
  l.incoming.is_active = 0; /* the connection broke */
  const fli_manifest manifest = begin(&l);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, MAX_TOTAL), FL_OK);
  cr_assert(tell(&l));
  while (!is_complete) {
    const fli_chunk chunk = next(&l);
    n_sent++;
    cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
  }
  assert_arrived(&l);
  cr_assert_eq(n_sent, 4);
  link_free(&l);
}

/* What is kept may be of a liar: the hash finds out, and all is sent again. */
Test(transfer, a_payload_that_went_on_is_still_proved_whole)
{
  link l;
  int is_complete = 0;
  (void)begin_told(&l, 2 * CHUNK);
  fli_chunk chunk = next(&l);
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
  l.incoming.data.data[17] ^= 1;
  fli_manifest manifest = begin(&l);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, MAX_TOTAL), FL_OK);
  cr_assert(tell(&l));
  chunk = next(&l);
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete),
               FL_E_FORMAT);
  cr_assert_eq(l.incoming.data.size, 0);
  manifest = begin(&l);
  cr_assert_eq(fli_incoming_begin(&l.incoming, &manifest, MAX_TOTAL), FL_OK);
  cr_assert(!tell(&l));
  link_free(&l);
}

Test(transfer, chunks_far_ahead_are_not_kept)
{
  link l;
  int is_complete = 0;
  (void)begin_told(&l, 100 * CHUNK);
  const fli_chunk far = {l.incoming.manifest.transfer, 65 * CHUNK,
                         l.data + 65 * CHUNK, CHUNK};
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &far, &is_complete), FL_OK);
  cr_assert_eq(l.incoming.data.size, 0);
  cr_assert(l.incoming.is_status_due);
  const fli_chunk near = {l.incoming.manifest.transfer, 64 * CHUNK,
                          l.data + 64 * CHUNK, CHUNK};
  cr_assert_eq(fli_incoming_chunk(&l.incoming, &near, &is_complete), FL_OK);
  cr_assert_eq(l.incoming.data.size, 65 * CHUNK);
  link_free(&l);
}

Test(transfer, absurd_ranges_change_nothing)
{
  static const uint64_t bad[][2] = {
      {0, 0}, {5, 4}, {0, 10241}, {0, UINT64_MAX}, {10240, 10241}};
  link l;
  uint8_t range[FLI_RANGE_BYTES];
  (void)begin_told(&l, 10240);
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    fli_store_u64(range, bad[i][0]);
    fli_store_u64(range + 8, bad[i][1]);
    const fli_missing missing = {l.outgoing.transfer, range, sizeof range};
    fli_outgoing_resend(&l.outgoing, &missing);
    cr_expect_eq(l.outgoing.offset, 0u);
    cr_expect_eq(l.outgoing.limit, 10240u);
  }
  fli_store_u64(range, 7);
  fli_store_u64(range + 8, 9);
  const fli_missing other = {l.outgoing.transfer + 1, range, sizeof range};
  fli_outgoing_resend(&l.outgoing, &other);
  const fli_missing none = {l.outgoing.transfer, range, 15};
  fli_outgoing_resend(&l.outgoing, &none);
  cr_expect_eq(l.outgoing.limit, 10240u);
  link_free(&l);
}

/* One that keeps nothing behind a gap asks for all from there on. */
Test(transfer, a_receiver_without_islands_asks_from_the_gap_on)
{
  link l;
  int is_complete = 0;
  size_t n_sent = 0, n_told = 0;
  (void)begin_told(&l, 8 * CHUNK);
  l.incoming.note = NULL;
  while (!is_complete && n_sent < 100) {
    fli_missing missing;
    const fli_chunk chunk = next(&l);
    if (n_sent++ == 2) continue;
    cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK);
    if (n_sent < 5 || !l.incoming.is_status_due) continue;
    fli_bytes_clear(&l.frames);
    cr_assert_eq(fli_incoming_write_status(&l.incoming, &l.frames), FL_OK);
    cr_assert_eq(fli_parse_missing(&missing, l.frames.data + FLI_FRAME_HEADER,
                                   l.frames.size - FLI_FRAME_HEADER),
                 FL_OK);
    fli_outgoing_resend(&l.outgoing, &missing);
    n_told++;
  }
  assert_arrived(&l);
  cr_assert_eq(n_told, 1);
  cr_assert_eq(n_sent, 5 + 6);
  link_free(&l);
}

/* Chunks come in any order, twice or never; whenever the sender has nothing
 * more it is told what is missing. What is held is what a map of bytes says. */
Test(transfer, any_losses_and_any_order_end_with_the_payload)
{
  for (uint64_t seed = 0; seed < 300; seed++) {
    fli_rng rng;
    link l;
    int is_complete = 0, n_steps = 0;
    uint8_t *has;
    fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
    const size_t n = 1 + fli_rng_below(&rng, 40 * CHUNK);
    (void)begin_told(&l, n);
    has = calloc(1, n);
    while (!is_complete && n_steps++ < 5000) {
      if (!l.outgoing.is_active) l.incoming.is_status_due = 1;
      (void)tell(&l);
      fli_chunk chunk = next(&l);
      if (fli_rng_below(&rng, 3) == 0) continue;
      const size_t skip = fli_rng_below(&rng, (uint32_t)chunk.size);
      chunk.offset += skip;
      chunk.data += skip;
      chunk.size -= skip;
      const uint64_t held = l.incoming.held;
      cr_assert_eq(fli_incoming_chunk(&l.incoming, &chunk, &is_complete), FL_OK,
                   "seed %llu", (unsigned long long)seed);
      cr_assert_geq(l.incoming.held, held);
      memset(has + chunk.offset, 1, chunk.size);
      cr_assert_null(memchr(has, 0, (size_t)l.incoming.held));
    }
    cr_assert(is_complete, "seed %llu", (unsigned long long)seed);
    assert_arrived(&l);
    free(has);
    link_free(&l);
  }
}

/* ---- without memory ---- */

/* One allocation, for the context. */
static void *alloc_once(void *user, size_t size, size_t alignment)
{
  int *left = user;
  if (*left == 0) return NULL;
  --*left;
  return aligned_alloc(alignment,
                       (size + alignment - 1) / alignment * alignment);
}

static void release(void *user, void *p, size_t size, size_t alignment)
{
  (void)user;
  (void)size;
  (void)alignment;
  free(p);
}

/* The next payload is shorter, and its MANIFEST finds no memory. */
Test(transfer, a_payload_that_cannot_begin_leaves_none_to_be_resent)
{
  link l;
  fli_bytes none;
  int left = 1;
  fl_context *context = NULL;
  fl_context_options options;
  fli_manifest manifest = {.kind = FLI_TRANSFER_MODEL, .loss = 0};
  uint8_t range[FLI_RANGE_BYTES];
  link_init(&l, 10 * CHUNK);
  const fli_manifest first = begin(&l);
  while (l.outgoing.is_active)
    next(&l);
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.user = &left;
  options.alloc = alloc_once;
  options.dealloc = release;
  cr_assert_eq(fl_context_new(&context, &options), FL_OK);
  fli_bytes_init(&none, context);
  cr_assert_eq(outgoing_begin(&l.outgoing, &none, &manifest, range, 1, CHUNK),
               FL_E_NOMEM);
  const fli_missing missing = {first.transfer, range, sizeof range};
  fli_store_u64(range, l.n - 100);
  fli_store_u64(range + 8, l.n);
  fli_outgoing_resend(&l.outgoing, &missing);
  cr_expect_not(l.outgoing.is_active);
  cr_expect_neq(l.outgoing.data, range);
  fl_context_free(context);
  link_free(&l);
}

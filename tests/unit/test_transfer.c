/* SPDX-License-Identifier: Apache-2.0 */
/* Payloads in chunks: whole ones arrive, repeats do no harm, gaps and lies are
 * refused, and memory follows what arrives. */
#include "wire/transfer.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

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
  cr_assert_eq(fli_outgoing_begin(&l->outgoing, &l->frames, &manifest, l->data,
                                  l->n, CHUNK),
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

/* SPDX-License-Identifier: Apache-2.0 */
/* The byte budget, and when memory that lookups have read may be given back:
 * a lookup counts itself in under the epoch that it finds. Whoever unlinked
 * something waits until the count of either epoch was seen at 0, and starts a
 * new epoch before each wait, so that new lookups do not keep him. */
#include "embedding/embedding.h"

#include "base/context.h"

void *fli_embedding_take(fl_embedding *embedding, size_t bytes, int does_dip,
                         int *no_memory)
{
  uint64_t kept = does_dip ? 0 : embedding->reserve;
  *no_memory = 0;
  if (embedding->budget < kept + embedding->bytes_used ||
      embedding->budget - kept - embedding->bytes_used < bytes)
    return NULL;
  void *ptr = fli_alloc(embedding->context, bytes, 1);
  *no_memory = ptr == NULL;
  if (ptr) embedding->bytes_used += bytes;
  return ptr;
}

void fli_embedding_give(fl_embedding *embedding, void *ptr, size_t bytes)
{
  if (!ptr) return;
  fli_free(embedding->context, ptr, bytes);
  embedding->bytes_used -= bytes;
}

void fli_embedding_retire(fl_embedding *embedding, void *ptr, size_t bytes)
{
  fli_readers *readers = embedding->readers;
  for (int i = 0; i < 2; i++) {
    uint32_t old = atomic_fetch_add(&readers->epoch, 1) & 1;
    while (atomic_load(&readers->n[old]) != 0) {
    }
  }
  fli_embedding_give(embedding, ptr, bytes);
}

uint32_t fli_readers_enter(fli_readers *readers)
{
  uint32_t epoch = atomic_load(&readers->epoch) & 1;
  atomic_fetch_add(&readers->n[epoch], 1);
  /* What is read next must not be from before the count was there to be seen:
   * the writer unlinks first and then looks at it. Loads that acquire may go
   * before an increment, on ARM for one. */
  atomic_thread_fence(memory_order_seq_cst);
  return epoch;
}

void fli_readers_leave(fli_readers *readers, uint32_t epoch)
{
  atomic_fetch_sub(&readers->n[epoch], 1);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks of memory that the system is asked to back with huge pages, and
 * blocks in them. A block has a header of 64 bytes before it and knows its
 * neighbours, so that free ones grow together; free blocks are listed by the
 * upper bit of their size. What is small, or has to be aligned by more than a
 * line, comes from the C library. A chunk goes back when nothing is in it. */
#ifndef _GNU_SOURCE
#  define _GNU_SOURCE /* madvise, MAP_ANONYMOUS */
#endif
#include "adapters/host/pages.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

enum {
  LINE = 64,
  SMALL = 4096,
  N_LISTS = 64,
  PAGE = 2 << 20,
  CHUNK_MAX = 64 << 20 /* unless one block is larger */
};

typedef struct block {
  size_t bytes;         /* header included */
  struct block *before; /* in memory; NULL: first of its chunk */
  struct block *next;   /* of the list, when it is free */
  struct block *last;
  int is_free;
  int is_end; /* of its chunk */
} block;

struct fli_host_pages {
  pthread_mutex_t lock;
  size_t bytes;
  block *lists[N_LISTS];
};

_Static_assert(sizeof(block) <= LINE, "a header is a line");

static int list_of(size_t bytes)
{
  int list = 0;
  while (bytes >>= 1)
    list++;
  return list;
}

static void link_block(fli_host_pages *pages, block *b)
{
  block **list = &pages->lists[list_of(b->bytes)];
  b->is_free = 1;
  b->last = NULL;
  b->next = *list;
  if (b->next) b->next->last = b;
  *list = b;
}

static void unlink_block(fli_host_pages *pages, block *b)
{
  b->is_free = 0;
  if (b->next) b->next->last = b->last;
  if (b->last) {
    b->last->next = b->next;
  } else {
    pages->lists[list_of(b->bytes)] = b->next;
  }
}

static block *after(const block *b)
{
  return b->is_end ? NULL : (block *)(void *)((uint8_t *)b + b->bytes);
}

/* ---- chunks -------------------------------------------------------------- */

/* Address space is taken a page larger, for a chunk begins where a huge page
 * does; what is beside it goes back at once. */
static uint8_t *map_chunk(size_t bytes)
{
  uint8_t *start = mmap(NULL, bytes + PAGE, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (start == MAP_FAILED) return NULL;
  size_t before = (PAGE - (uintptr_t)start % PAGE) % PAGE;
  if (before > 0) (void)munmap(start, before);
  (void)munmap(start + before + bytes, PAGE - before);
#ifdef MADV_HUGEPAGE
  (void)madvise(start + before, bytes, MADV_HUGEPAGE); /* or ordinary ones */
#endif
  return start + before;
}

/* An eighth of what there is, so that little is taken for little. */
static block *add_chunk(fli_host_pages *pages, size_t least)
{
  size_t bytes = pages->bytes / 8;
  if (bytes > CHUNK_MAX) bytes = CHUNK_MAX;
  if (bytes < least) bytes = least;
  bytes = (bytes + PAGE - 1) / PAGE * PAGE;
  block *b = (block *)(void *)map_chunk(bytes);
  if (!b) return NULL;
  *b = (block){.bytes = bytes, .is_end = 1};
  pages->bytes += bytes;
  link_block(pages, b);
  return b;
}

/* ---- blocks -------------------------------------------------------------- */

static block *find_block(fli_host_pages *pages, size_t bytes)
{
  for (int list = list_of(bytes); list < N_LISTS; list++) {
    for (block *b = pages->lists[list]; b; b = b->next) {
      if (b->bytes >= bytes) return b;
    }
  }
  return add_chunk(pages, bytes);
}

/* What a block has too much becomes one of its own. */
static void split(fli_host_pages *pages, block *b, size_t bytes)
{
  if (b->bytes - bytes < SMALL) return;
  block *rest = (block *)(void *)((uint8_t *)b + bytes);
  *rest = (block){.bytes = b->bytes - bytes, .before = b, .is_end = b->is_end};
  b->bytes = bytes;
  b->is_end = 0;
  if (after(rest)) after(rest)->before = rest;
  link_block(pages, rest);
}

/* `b` takes what is behind it. */
static void join(block *b)
{
  const block *behind = after(b);
  b->bytes += behind->bytes;
  b->is_end = behind->is_end;
  if (after(b)) after(b)->before = b;
}

static void give_back(fli_host_pages *pages, block *b)
{
  if (after(b) && after(b)->is_free) {
    unlink_block(pages, after(b));
    join(b);
  }
  if (b->before && b->before->is_free) {
    b = b->before;
    unlink_block(pages, b);
    join(b);
  }
  if (b->before || !b->is_end) {
    link_block(pages, b);
    return;
  }
  pages->bytes -= b->bytes;
  (void)munmap(b, b->bytes);
}

static int is_ours(size_t bytes, size_t alignment)
{
  return bytes >= SMALL && alignment <= LINE;
}

/* ---- inside of libfl-host ------------------------------------------------ */

fl_status fli_host_pages_new(fli_host_pages **out)
{
  fli_host_pages *pages = calloc(1, sizeof *pages);
  if (!pages) return FL_E_NOMEM;
  if (pthread_mutex_init(&pages->lock, NULL) != 0) {
    free(pages);
    return FL_E_NOMEM;
  }
  *out = pages;
  return FL_OK;
}

void fli_host_pages_free(fli_host_pages *pages)
{
  if (!pages) return;
  (void)pthread_mutex_destroy(&pages->lock);
  free(pages);
}

void *fli_host_pages_alloc(fli_host_pages *pages, size_t bytes,
                           size_t alignment)
{
  if (bytes > SIZE_MAX / 2) return NULL;
  if (!is_ours(bytes, alignment)) {
    /* aligned_alloc of C11 wants a multiple of the alignment. */
    return aligned_alloc(alignment,
                         (bytes + alignment - 1) / alignment * alignment);
  }
  const size_t need = (bytes + LINE - 1) / LINE * LINE + LINE;
  (void)pthread_mutex_lock(&pages->lock);
  block *b = find_block(pages, need);
  if (b) {
    unlink_block(pages, b);
    split(pages, b, need);
  }
  (void)pthread_mutex_unlock(&pages->lock);
  return b ? (uint8_t *)b + LINE : NULL;
}

void fli_host_pages_dealloc(fli_host_pages *pages, void *ptr, size_t bytes,
                            size_t alignment)
{
  if (!ptr) return;
  if (!is_ours(bytes, alignment)) {
    free(ptr);
    return;
  }
  (void)pthread_mutex_lock(&pages->lock);
  give_back(pages, (block *)(void *)((uint8_t *)ptr - LINE));
  (void)pthread_mutex_unlock(&pages->lock);
}

size_t fli_host_pages_bytes(fli_host_pages *pages)
{
  (void)pthread_mutex_lock(&pages->lock);
  size_t bytes = pages->bytes;
  (void)pthread_mutex_unlock(&pages->lock);
  return bytes;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of libfl-host in huge pages: blocks are apart from each other and
 * aligned, whatever is given back between, and nothing stays. */
#include "check.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "adapters/host/pages.h"
#include "base/compiler.h"
#include "base/rng.h"

enum { HELD = 200, TURNS = 5000, THREADS = 3, LINE = 64 };
enum { MIB = 1 << 20 };

typedef struct held {
  uint8_t *bytes;
  size_t n;
  uint8_t mark;
} held;

static fli_host_pages *new_pages(void)
{
  fli_host_pages *pages = NULL;
  CHECK_OK(fli_host_pages_new(&pages));
  if (!pages) exit(1);
  return pages;
}

/* Few large ones, many small ones, of any size. */
static size_t size_of(fli_rng *rng)
{
  uint64_t kind = fli_rng_below(rng, 16);
  if (kind == 0) return 1 + (size_t)fli_rng_below(rng, 3 * MIB);
  if (kind < 8) return 1 + (size_t)fli_rng_below(rng, 64 * 1024);
  return 4000 + (size_t)fli_rng_below(rng, 4096);
}

static int is_marked(const held *h)
{
  for (size_t i = 0; i < h->n; i += i + 64 < h->n ? 64 : h->n - i) {
    if (h->bytes[i] != h->mark) return 0;
  }
  return h->bytes[h->n - 1] == h->mark;
}

static void drop(fli_host_pages *pages, held *h)
{
  if (!h->bytes) return;
  CHECK(is_marked(h));
  fli_host_pages_dealloc(pages, h->bytes, h->n, LINE);
  h->bytes = NULL;
}

static void use(fli_host_pages *pages, uint64_t seed)
{
  static _Thread_local held all[HELD];
  fli_rng rng;
  fli_rng_init(&rng, seed, FLI_RNG_TEST, 0, 0);
  for (int turn = 0; turn < TURNS; turn++) {
    held *h = &all[fli_rng_below(&rng, HELD)];
    drop(pages, h);
    h->n = size_of(&rng);
    h->mark = (uint8_t)fli_rng_u64(&rng);
    h->bytes = fli_host_pages_alloc(pages, h->n, LINE);
    CHECK(h->bytes != NULL && (uintptr_t)h->bytes % LINE == 0);
    if (!h->bytes) exit(1);
    memset(h->bytes, h->mark, h->n);
  }
  for (size_t i = 0; i < HELD; i++)
    drop(pages, &all[i]);
}

static void blocks_are_apart_and_nothing_stays(void)
{
  fli_host_pages *pages = new_pages();
  for (uint64_t seed = 1; seed <= 3; seed++) {
    use(pages, seed);
    CHECK_EQ_U64(fli_host_pages_bytes(pages), 0);
  }
  fli_host_pages_free(pages);
}

typedef struct user {
  fli_host_pages *pages;
  uint64_t seed;
} user;

static void *use_some(void *arg)
{
  const user *u = arg;
  use(u->pages, u->seed);
  return NULL;
}

static void threads_share_them(void)
{
  pthread_t threads[THREADS];
  user users[THREADS];
  fli_host_pages *pages = new_pages();
  for (uint64_t i = 0; i < THREADS; i++) {
    users[i] = (user){pages, 10 + i};
    if (pthread_create(&threads[i], NULL, use_some, &users[i]) != 0) exit(1);
  }
  for (size_t i = 0; i < THREADS; i++)
    pthread_join(threads[i], NULL);
  CHECK_EQ_U64(fli_host_pages_bytes(pages), 0);
  fli_host_pages_free(pages);
}

/* Little is taken for little, and large blocks are hardly more than they
 * are. */
static void what_is_held_is_what_is_used(void)
{
  fli_host_pages *pages = new_pages();
  uint8_t *blocks[256];
  blocks[0] = fli_host_pages_alloc(pages, 5000, LINE);
  CHECK_EQ_U64(fli_host_pages_bytes(pages), 2 * MIB);
  for (size_t i = 1; i < FLI_COUNT_OF(blocks); i++)
    blocks[i] = fli_host_pages_alloc(pages, 540672, LINE);
  CHECK(fli_host_pages_bytes(pages) < 256 * 540672 * 5 / 4);
  for (size_t i = 1; i < FLI_COUNT_OF(blocks); i++)
    fli_host_pages_dealloc(pages, blocks[i], 540672, LINE);
  CHECK_EQ_U64(fli_host_pages_bytes(pages), 2 * MIB);
  fli_host_pages_dealloc(pages, blocks[0], 5000, LINE);
  CHECK_EQ_U64(fli_host_pages_bytes(pages), 0);
  fli_host_pages_free(pages);
}

static void too_much_and_odd_alignments_are_the_c_librarys(void)
{
  fli_host_pages *pages = new_pages();
  CHECK(fli_host_pages_alloc(pages, SIZE_MAX - 100, LINE) == NULL);
  CHECK(fli_host_pages_alloc(pages, SIZE_MAX / 2 - 4096, LINE) == NULL);
  uint8_t *block = fli_host_pages_alloc(pages, 10000, 4096);
  CHECK(block != NULL && (uintptr_t)block % 4096 == 0);
  CHECK_EQ_U64(fli_host_pages_bytes(pages), 0);
  fli_host_pages_dealloc(pages, block, 10000, 4096);
  fli_host_pages_dealloc(pages, NULL, 10000, LINE);
  fli_host_pages_free(pages);
}

int main(void)
{
  CHECK_CASE(blocks_are_apart_and_nothing_stays);
  CHECK_CASE(threads_share_them);
  CHECK_CASE(what_is_held_is_what_is_used);
  CHECK_CASE(too_much_and_odd_alignments_are_the_c_librarys);
  return check_report();
}

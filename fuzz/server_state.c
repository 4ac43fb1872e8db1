/* SPDX-License-Identifier: Apache-2.0 */
/* A server's saved state of any version that is read. Header and hash are put
 * right, so that the parser behind them is reached. What is accepted is saved
 * as the present version, comes back as the same bytes, and lives through an
 * hour; what is refused says why. Memory follows what arrived. */
#include "fuzz.h"

#include <fl/server.h>

#include "base/bytes.h"
#include "crypto/crypto.h"
#include "server/state.h"
#include "wire/container.h"

enum { HEADER = 20, LEAST = HEADER + FLI_HASH_BYTES };

static void seal(uint8_t *state, size_t n)
{
  enum { VERSIONS = FLI_SERVER_STATE_VERSION - FLI_SERVER_STATE_FIRST + 1 };
  const uint32_t version = fli_load_u32(state + 8);
  memcpy(state, "FLS1", 4);
  fli_store_u32(state + 4, FLI_STATE_SERVER);
  if (version < FLI_SERVER_STATE_FIRST || version > FLI_SERVER_STATE_VERSION)
    fli_store_u32(state + 8, FLI_SERVER_STATE_FIRST + version % VERSIONS);
  fli_store_u64(state + 12, n - LEAST);
  fli_hash(state + n - FLI_HASH_BYTES, state, n - FLI_HASH_BYTES);
}

static fl_server *restore(const uint8_t *state, size_t n)
{
  fl_server *server = NULL;
  fl_buffer *buffer = NULL;
  fl_reader reader;
  FUZZ_CHECK(fl_buffer_new(&buffer, NULL) == FL_OK);
  FUZZ_CHECK(fl_buffer_append(buffer, state, n) == FL_OK);
  FUZZ_CHECK(fl_buffer_as_reader(buffer, &reader) == FL_OK);
  const fl_status st = fl_server_restore(&server, NULL, NULL, &reader);
  FUZZ_CHECK((st == FL_OK) == (server != NULL));
  FUZZ_CHECK(server || strlen(fl_last_error()) > 0);
  fl_buffer_free(buffer);
  return server;
}

static fl_buffer *save(const fl_server *server)
{
  fl_buffer *buffer = NULL;
  fl_writer writer;
  FUZZ_CHECK(fl_buffer_new(&buffer, NULL) == FL_OK);
  FUZZ_CHECK(fl_buffer_as_writer(buffer, &writer) == FL_OK);
  FUZZ_CHECK(fl_server_save(server, &writer) == FL_OK);
  return buffer;
}

static void live(fl_server *server)
{
  fl_server_event event;
  FUZZ_CHECK(fl_server_event_init(&event, sizeof event) == FL_OK);
  FUZZ_CHECK(fl_server_tick(server, 1) == FL_OK);
  FUZZ_CHECK(fl_server_tick(server, UINT64_C(3600000000000)) == FL_OK);
  while (fl_server_poll(server, &event) == FL_OK) {
  }
  fl_buffer_free(save(server));
}

/* What a server saves of what it was restored from is always the same. */
static void come_back(const fl_server *server)
{
  const uint8_t *first = NULL, *second = NULL;
  size_t n = 0, n_second = 0;
  fl_buffer *saved = save(server);
  FUZZ_CHECK(fl_buffer_get(saved, &first, &n) == FL_OK);
  FUZZ_CHECK(fli_load_u32(first + 8) == FLI_SERVER_STATE_VERSION);
  fl_server *other = restore(first, n);
  FUZZ_CHECK(other != NULL);
  fl_buffer *again = save(other);
  FUZZ_CHECK(fl_buffer_get(again, &second, &n_second) == FL_OK);
  FUZZ_CHECK(n == n_second && memcmp(first, second, n) == 0);
  fl_buffer_free(again);
  fl_buffer_free(saved);
  fl_server_free(other);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  if (n < LEAST) return 0;
  uint8_t *state = fuzz_exact_copy(data, n);
  seal(state, n);
  fl_server *server = restore(state, n);
  if (server) {
    come_back(server);
    live(server);
  }
  fl_server_free(server);
  free(state);
  return 0;
}

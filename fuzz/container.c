/* SPDX-License-Identifier: Apache-2.0 */
/* The envelope of saved states. The first byte says in which steps the stream
 * gives its bytes, and its top bit asks for a right hash at the end, which no
 * mutation would ever find. What is accepted is written to the same bytes. */
#include "fuzz.h"

#include "crypto/crypto.h"
#include "wire/container.h"

enum { VERSION_MAX = 2, MAX_SIZE = 1 << 16 };

typedef struct source {
  const uint8_t *at;
  size_t left;
  size_t step;
} source;

static fl_status source_read(void *user, void *buf, size_t n, size_t *got)
{
  source *s = user;
  if (n > s->step) n = s->step;
  if (n > s->left) n = s->left;
  if (n > 0) memcpy(buf, s->at, n);
  s->at += n;
  s->left -= n;
  *got = n;
  return FL_OK;
}

static fl_status sink_write(void *user, const void *buf, size_t n)
{
  return fli_bytes_append(user, buf, n);
}

static void check_written(const uint8_t *data, uint32_t version,
                          const fli_bytes *payload, size_t consumed)
{
  fli_bytes out;
  fli_bytes_init(&out, NULL);
  fl_writer writer = {sink_write, &out};
  FUZZ_CHECK(fli_container_write(&writer, FLI_STATE_CLIENT, version, payload) ==
             FL_OK);
  FUZZ_CHECK(out.size == consumed);
  FUZZ_CHECK(memcmp(out.data, data, consumed) == 0);
  fli_bytes_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
  fli_bytes payload;
  uint32_t version;
  if (n == 0) return 0;
  uint8_t mode = *data++;
  n--;
  uint8_t *copy = fuzz_exact_copy(data, n);
  if ((mode & 0x80) && n >= FLI_HASH_BYTES)
    fli_hash(copy + n - FLI_HASH_BYTES, copy, n - FLI_HASH_BYTES);
  source s = {copy, n, 1 + (size_t)(mode & 0x7f)};
  fl_reader reader = {source_read, &s};
  fli_bytes_init(&payload, NULL);
  fl_status st = fli_container_read(&reader, FLI_STATE_CLIENT, VERSION_MAX,
                                    MAX_SIZE, &version, &payload);
  if (st == FL_OK) {
    check_written(copy, version, &payload, n - s.left);
  } else {
    FUZZ_CHECK(payload.size == 0);
  }
  fli_bytes_free(&payload);
  free(copy);
  return 0;
}

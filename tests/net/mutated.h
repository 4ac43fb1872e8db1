/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions as they were recorded, and what can be done to one on its way: bits
 * flipped, frames cut, repeated, exchanged, left out, or put in from another
 * session, values that are valid and absurd, and updates that lie under a hash
 * that is right. */
#ifndef MUTATED_H
#define MUTATED_H

#include <math.h>
#include <stdlib.h>

#include "base/bytes.h"
#include "base/compiler.h"
#include "base/error.h"
#include "base/rng.h"
#include "check.h"
#include "crypto/crypto.h"
#include "wire/messages.h"

enum { MU_FRAMES = 128, MU_POOL = 256, MU_KINDS = 9 };

typedef struct mu_frame {
  uint8_t *data;
  size_t n;
} mu_frame;

/* What one client said from its HELLO on. */
typedef struct mu_session {
  mu_frame frames[MU_FRAMES];
  size_t n;
} mu_session;

static const char *const mu_kinds[MU_KINDS] = {
    "bits flipped", "cut short",    "repeated",   "exchanged",   "left out",
    "spliced in",   "absurd value", "other head", "false update"};

static inline void mu_append(mu_session *s, size_t at, const uint8_t *data,
                             size_t n)
{
  if (s->n == MU_FRAMES || at > s->n) return;
  memmove(s->frames + at + 1, s->frames + at, (s->n - at) * sizeof *s->frames);
  s->frames[at].data = malloc(n > 0 ? n : 1);
  s->frames[at].n = n;
  if (n > 0) memcpy(s->frames[at].data, data, n);
  s->n++;
}

static inline void mu_remove(mu_session *s, size_t at)
{
  free(s->frames[at].data);
  s->n--;
  memmove(s->frames + at, s->frames + at + 1, (s->n - at) * sizeof *s->frames);
}

static inline void mu_clear(mu_session *s)
{
  while (s->n > 0)
    mu_remove(s, s->n - 1);
}

static inline void mu_copy(mu_session *to, const mu_session *from)
{
  to->n = 0;
  for (size_t i = 0; i < from->n; i++)
    mu_append(to, i, from->frames[i].data, from->frames[i].n);
}

/* Cut what one send gave into frames. */
static inline void mu_record(mu_session *s, const uint8_t *data, size_t n)
{
  while (n >= FLI_FRAME_HEADER) {
    const size_t size = FLI_FRAME_HEADER + (size_t)fli_load_u32(data);
    CHECK(size <= n);
    if (size > n) return;
    mu_append(s, s->n, data, size);
    data += size;
    n -= size;
  }
}

static inline int mu_type(const mu_frame *frame)
{
  return frame->n >= FLI_FRAME_HEADER ? frame->data[5] : 0;
}

static inline void mu_replace(mu_frame *frame, fli_bytes *bytes)
{
  if (bytes->size == 0) return;
  free(frame->data);
  frame->data = malloc(bytes->size);
  frame->n = bytes->size;
  memcpy(frame->data, bytes->data, bytes->size);
}

/* ---- frames of all sessions so far, to be put in elsewhere --------------- */

typedef struct mu_pool {
  mu_frame frames[MU_POOL];
  size_t n;
  size_t next;
} mu_pool;

static inline void mu_pool_add(mu_pool *pool, const mu_session *s)
{
  for (size_t i = 0; i < s->n; i++) {
    mu_frame *to = &pool->frames[pool->next];
    pool->next = (pool->next + 1) % MU_POOL;
    if (pool->n < MU_POOL) pool->n++;
    free(to->data);
    to->n = s->frames[i].n;
    to->data = malloc(to->n);
    memcpy(to->data, s->frames[i].data, to->n);
  }
}

static inline void mu_pool_free(mu_pool *pool)
{
  for (size_t i = 0; i < pool->n; i++)
    free(pool->frames[i].data);
}

/* ---- values -------------------------------------------------------------- */

static inline uint64_t mu_absurd(fli_rng *rng)
{
  static const uint64_t values[] = {0,
                                    1,
                                    2,
                                    255,
                                    65535,
                                    65536,
                                    UINT32_MAX,
                                    UINT64_C(1) << 40,
                                    UINT64_C(1) << 48,
                                    INT64_MAX,
                                    UINT64_MAX - 1,
                                    UINT64_MAX};
  return values[fli_rng_below(rng, FLI_COUNT_OF(values))];
}

static inline double mu_absurd_f64(fli_rng *rng)
{
  static const double values[] = {0,    -0.0, -1,     1e-320, 1e30,
                                  1e38, 1e39, -1e300, 1e308,  1e-45};
  const uint32_t i = fli_rng_below(rng, FLI_COUNT_OF(values) + 2);
  if (i < FLI_COUNT_OF(values)) return values[i];
  return i == FLI_COUNT_OF(values) ? (double)NAN : (double)INFINITY;
}

static inline void mu_absurd_hello(fli_hello *m, fli_rng *rng)
{
  static const char *const jobs[] = {"", "another", "mutations", "\x7f"};
  switch (fli_rng_below(rng, 9)) {
  case 0: m->version_min = (uint32_t)mu_absurd(rng); break;
  case 1: m->version_max = (uint32_t)mu_absurd(rng); break;
  case 2: m->client_id[0] = (char)(0x21 + fli_rng_below(rng, 94)); break;
  case 3: strcpy(m->job, jobs[fli_rng_below(rng, FLI_COUNT_OF(jobs))]); break;
  case 4: m->capabilities = mu_absurd(rng); break;
  case 5: m->samples = mu_absurd(rng); break;
  case 6: m->depth = (uint32_t)mu_absurd(rng); break;
  case 7:
    m->has_schema = 1;
    m->schema[fli_rng_below(rng, FLI_HASH_BYTES)] ^= 1;
    break;
  default:
    m->has_token = m->has_model = 1;
    m->model_version = mu_absurd(rng);
    m->token[fli_rng_below(rng, FLI_TOKEN_BYTES)] ^= 1;
  }
}

static inline void mu_absurd_manifest(fli_manifest *m, fli_rng *rng)
{
  switch (fli_rng_below(rng, 10)) {
  case 0: m->transfer = mu_absurd(rng); break;
  case 1: m->kind = (uint32_t)mu_absurd(rng); break;
  case 2: m->total = mu_absurd(rng); break;
  case 3: m->chunk_size = (uint32_t)mu_absurd(rng); break;
  case 4: m->round = mu_absurd(rng); break;
  case 5: m->attempt = (uint32_t)mu_absurd(rng); break;
  case 6: m->loss = mu_absurd_f64(rng); break;
  case 7: m->slices_size = (uint32_t)mu_absurd(rng); break;
  case 8:
    m->has_report = 1;
    m->report_module = (uint32_t)mu_absurd(rng);
    m->report_value = mu_absurd_f64(rng);
    break;
  default: m->hash[fli_rng_below(rng, FLI_HASH_BYTES)] ^= 0x80;
  }
}

static inline void mu_absurd_metrics(fli_metrics *m, fli_rng *rng)
{
  switch (fli_rng_below(rng, 5)) {
  case 0: m->loss = mu_absurd_f64(rng); break;
  case 1: m->count = mu_absurd(rng); break;
  case 2: m->round = mu_absurd(rng); break;
  case 3: m->model_version = mu_absurd(rng); break;
  default: m->is_probe = !m->is_probe; m->cohort = (uint32_t)mu_absurd(rng);
  }
}

/* A norm that is on no grid, or larger than anything; or another round's. */
static inline void mu_absurd_norm(fli_norm *m, uint8_t *norms, fli_rng *rng)
{
  static const uint16_t values[] = {0x7f80, 0x7fc0, 0x8000, 0xbf80,
                                    0x7f7f, 0x7f00, 0x0001, 0};
  memcpy(norms, m->norms, m->norms_size);
  m->norms = norms;
  switch (fli_rng_below(rng, 4)) {
  case 0: m->samples = mu_absurd(rng); break;
  case 1: m->round = mu_absurd(rng); break;
  case 2: m->norms_size -= fli_rng_below(rng, 3); break;
  default:
    fli_store_u16(norms + 2 * fli_rng_below(rng, (uint32_t)m->norms_size / 2),
                  values[fli_rng_below(rng, FLI_COUNT_OF(values))]);
  }
}

/* "Not this time", to the round that a NORM is for. */
static inline void mu_decline_instead(fli_bytes *out, const uint8_t *body,
                                      size_t size)
{
  fli_norm norm;
  if (fli_parse_norm(&norm, body, size) != FL_OK) return;
  const fli_decline decline = {.round = norm.round, .attempt = norm.attempt};
  (void)fli_write_decline(out, FLI_MSG_DECLINE, &decline);
}

/* What is missing of a transfer that a chunk is of, as nobody would say it. */
static inline void mu_status_instead(fli_bytes *out, const uint8_t *body,
                                     size_t size, fli_rng *rng)
{
  uint8_t ranges[3 * FLI_RANGE_BYTES];
  fli_chunk chunk;
  if (fli_parse_chunk(&chunk, body, size) != FL_OK) return;
  for (size_t i = 0; i < sizeof ranges; i += 8)
    fli_store_u64(ranges + i, fli_rng_below(rng, 2) ? mu_absurd(rng)
                                                    : fli_rng_below(rng, 9000));
  const fli_missing missing = {chunk.transfer, ranges,
                               fli_rng_below(rng, sizeof ranges + 1)};
  (void)fli_write_missing(out, &missing);
}

#define MU_ABSURD(name, change)                              \
  do {                                                       \
    fli_##name m;                                            \
    if (fli_parse_##name(&m, body, size) == FL_OK) {         \
      change;                                                \
      if (fli_write_##name(&out, &m) != FL_OK) out.size = 0; \
    }                                                        \
  } while (0)

static inline void mu_absurd_welcome(fli_welcome *m, fli_rng *rng)
{
  switch (fli_rng_below(rng, 5)) {
  case 0: m->codec = fli_rng_below(rng, 6); break;
  case 1: m->bits = (uint32_t)mu_absurd(rng); break;
  case 2: m->granularity = (uint32_t)mu_absurd(rng); break;
  case 3: m->clip = (float)mu_absurd_f64(rng); break;
  default: m->schema[0] ^= 1;
  }
}

static inline void mu_absurd_plan(fli_plan *m, fli_rng *rng)
{
  switch (fli_rng_below(rng, 8)) {
  case 0: m->round = mu_absurd(rng); break;
  case 1: m->slot = (uint32_t)mu_absurd(rng); break;
  case 2: m->slots = (uint32_t)mu_absurd(rng); break;
  case 3: m->weight_cap = mu_absurd(rng); break;
  case 4: m->first_active = (uint32_t)mu_absurd(rng); break;
  case 5: m->learning_rate = (float)mu_absurd_f64(rng); break;
  case 6: m->model_version = mu_absurd(rng); break;
  default: m->scale_mode = fli_rng_below(rng, 4);
  }
}

/* Same message, one value absurd; no change where that cannot be written. */
static inline void mu_make_absurd(mu_frame *frame, fli_rng *rng)
{
  uint8_t norms[4096];
  const uint8_t *body = frame->data + FLI_FRAME_HEADER;
  const size_t size = frame->n - FLI_FRAME_HEADER;
  fli_decline decline;
  fli_bytes out;
  fli_bytes_init(&out, NULL);
  switch (mu_type(frame)) {
  case FLI_MSG_HELLO: MU_ABSURD(hello, mu_absurd_hello(&m, rng)); break;
  case FLI_MSG_MANIFEST:
    MU_ABSURD(manifest, mu_absurd_manifest(&m, rng));
    break;
  case FLI_MSG_METRICS: MU_ABSURD(metrics, mu_absurd_metrics(&m, rng)); break;
  case FLI_MSG_NORM:
    if (fli_rng_below(rng, 4) == 0) {
      mu_decline_instead(&out, body, size);
      break;
    }
    MU_ABSURD(norm, if (m.norms_size >= 4 && m.norms_size <= sizeof norms)
                        mu_absurd_norm(&m, norms, rng));
    break;
  case FLI_MSG_CHUNK:
    if (fli_rng_below(rng, 4) == 0) {
      mu_status_instead(&out, body, size, rng);
      break;
    }
    MU_ABSURD(chunk, if (fli_rng_below(rng, 2)) m.offset = mu_absurd(rng);
              else m.transfer = mu_absurd(rng));
    break;
  case FLI_MSG_WELCOME: MU_ABSURD(welcome, mu_absurd_welcome(&m, rng)); break;
  case FLI_MSG_PLAN: MU_ABSURD(plan, mu_absurd_plan(&m, rng)); break;
  case FLI_MSG_ACK: MU_ABSURD(ack, m.reason = (uint32_t)mu_absurd(rng)); break;
  case FLI_MSG_WAIT: MU_ABSURD(wait, m.wait_ms = mu_absurd(rng)); break;
  case FLI_MSG_EVALUATE:
    MU_ABSURD(evaluate, m.model_version = mu_absurd(rng));
    break;
  case FLI_MSG_DONE: MU_ABSURD(done, m.model_version = mu_absurd(rng)); break;
  case FLI_MSG_GET_SLICE:
    MU_ABSURD(get_slice, if (fli_rng_below(rng, 2)) m.round = mu_absurd(rng);
              else m.attempt = (uint32_t)mu_absurd(rng));
    break;
  default: /* from elsewhere: "not this time", or "I leave" */
    decline = (fli_decline){.round = mu_absurd(rng),
                            .attempt = (uint32_t)mu_absurd(rng)};
    (void)fli_write_decline(
        &out, fli_rng_below(rng, 2) ? FLI_MSG_DECLINE : FLI_MSG_BYE, &decline);
  }
  fli_clear_error();
  mu_replace(frame, &out);
  fli_bytes_free(&out);
}

/* ---- an update that lies, under a hash that is right --------------------- */

static inline int mu_find(const mu_session *s, int type)
{
  for (size_t i = 0; i < s->n; i++)
    if (mu_type(&s->frames[i]) == type) return (int)i;
  return -1;
}

/* All chunks are one payload: change some bytes, mostly of its header, and say
 * that this is it. */
static inline void mu_false_update(mu_session *s, fli_rng *rng)
{
  const int at = mu_find(s, FLI_MSG_MANIFEST);
  fli_hasher hasher;
  fli_manifest manifest;
  fli_bytes out;
  if (at < 0) return;
  mu_frame *head = &s->frames[at];
  if (fli_parse_manifest(&manifest, head->data + FLI_FRAME_HEADER,
                         head->n - FLI_FRAME_HEADER) != FL_OK)
    return;
  fli_hasher_init(&hasher);
  for (size_t i = 0; i < s->n; i++) {
    mu_frame *frame = &s->frames[i];
    const size_t skip = FLI_FRAME_HEADER + FLI_CHUNK_HEADER;
    if (mu_type(frame) != FLI_MSG_CHUNK || frame->n <= skip) continue;
    size_t n = frame->n - skip;
    if (fli_rng_below(rng, 3) > 0 && n > 88) n = 88;
    for (uint32_t k = fli_rng_below(rng, 3) + 1; k > 0; k--)
      frame->data[skip + fli_rng_below(rng, (uint32_t)n)] =
          (uint8_t)fli_rng_u32(rng);
    fli_hasher_update(&hasher, frame->data + skip, frame->n - skip);
  }
  fli_hasher_final(&hasher, manifest.hash);
  fli_bytes_init(&out, NULL);
  if (fli_write_manifest(&out, &manifest) == FL_OK) mu_replace(head, &out);
  fli_bytes_free(&out);
}

/* ---- one mutation ---------------------------------------------------------
 */

static inline void mu_flip(mu_frame *frame, fli_rng *rng)
{
  for (uint32_t k = 1 + fli_rng_below(rng, 8); k > 0; k--)
    frame->data[fli_rng_below(rng, (uint32_t)frame->n)] ^=
        (uint8_t)(1u << fli_rng_below(rng, 8));
}

/* In a block of its new size, so that ASan sees one read too many. */
static inline void mu_cut(mu_frame *frame, size_t n)
{
  uint8_t *data = malloc(n > 0 ? n : 1);
  if (n > 0) memcpy(data, frame->data, n);
  free(frame->data);
  frame->data = data;
  frame->n = n;
}

static inline void mu_other_head(mu_frame *frame, fli_rng *rng)
{
  if (frame->n < FLI_FRAME_HEADER) return;
  switch (fli_rng_below(rng, 4)) {
  case 0: frame->data[5] = (uint8_t)fli_rng_below(rng, 40); break;
  case 1: frame->data[4] = (uint8_t)fli_rng_below(rng, 4); break;
  case 2: fli_store_u32(frame->data, (uint32_t)mu_absurd(rng)); break;
  default: fli_store_u32(frame->data, (uint32_t)(frame->n + 64)); break;
  }
}

/* One of MU_KINDS. */
static inline void mu_mutate(mu_session *s, const mu_pool *pool, int kind,
                             fli_rng *rng)
{
  if (s->n == 0) return;
  const size_t at = fli_rng_below(rng, (uint32_t)s->n);
  const size_t other = fli_rng_below(rng, (uint32_t)s->n);
  mu_frame *frame = &s->frames[at];
  const mu_frame whole = *frame;
  const mu_frame *foreign =
      &pool->frames[fli_rng_below(rng, pool->n > 0 ? (uint32_t)pool->n : 1)];
  if (frame->n < FLI_FRAME_HEADER) return;
  switch (kind) {
  case 0: mu_flip(frame, rng); break;
  case 1: mu_cut(frame, fli_rng_below(rng, (uint32_t)frame->n)); break;
  case 2: mu_append(s, other, whole.data, whole.n); break;
  case 3:
    *frame = s->frames[other];
    s->frames[other] = whole;
    break;
  case 4: mu_remove(s, at); break;
  case 5:
    if (pool->n > 0) mu_append(s, at + 1, foreign->data, foreign->n);
    break;
  case 6: mu_make_absurd(frame, rng); break;
  case 7: mu_other_head(frame, rng); break;
  default: mu_false_update(s, rng); break;
  }
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The client's handle: making it, moving bytes in and out, borrowing what it
 * holds. Nothing here knows the meaning of a message (session.c) or of time
 * (poll.c).
 *
 * Whatever goes wrong with the server's bytes ends in the same place: the
 * stream is void and HELLO is said again, because the server's answer to HELLO
 * is complete. */
#include "client/paged.h"

#include <math.h>
#include <string.h>

#include "base/compiler.h"
#include "base/context.h"
#include "base/error.h"
#include "base/options.h"

enum { MIN_FRAME = 4 << 10 };
#define MAX_WEIGHTS (UINT64_C(1) << 40)

static const fl_client_options default_options = {
    .max_frame_size = FLI_FRAME_MAX_BODY,
    .samples = 1,
    .retry_ns = UINT64_C(10000000000),
    .max_retries = 10,
    .chunk_size = 256 << 10,
    .max_weights = UINT64_C(1) << 28,
};

fl_status fli_client_null(const char *function)
{
  return fli_error(FL_E_ARGUMENT, "%s: NULL argument", function);
}

/* Copy a text of up to 64 printable ASCII bytes; NULL counts as "". */
static fl_status copy_name(char out[FLI_ID_BYTES], const char *text,
                           const char *what)
{
  size_t n = 0;
  for (; text && text[n]; n++) {
    if (n >= FL_CLIENT_ID_BYTES)
      return fli_error(FL_E_ARGUMENT, "%s: got more than %d bytes", what,
                       FL_CLIENT_ID_BYTES);
    if (text[n] < 0x20 || text[n] > 0x7e)
      return fli_error(FL_E_ARGUMENT, "%s: not printable ASCII at byte %zu",
                       what, n);
  }
  memset(out, 0, FLI_ID_BYTES);
  if (n > 0) memcpy(out, text, n);
  return FL_OK;
}

static fl_status check_options(const fl_client_options *o)
{
  if (o->max_frame_size < MIN_FRAME || o->max_frame_size > FLI_FRAME_MAX_BODY)
    return fli_error(FL_E_OPTIONS, "max_frame_size: got %u, want %d..%d",
                     o->max_frame_size, MIN_FRAME, FLI_FRAME_MAX_BODY);
  if (o->chunk_size < FLI_CHUNK_MIN || o->chunk_size > FLI_CHUNK_MAX)
    return fli_error(FL_E_OPTIONS, "chunk_size: got %u, want %d..%d",
                     o->chunk_size, FLI_CHUNK_MIN, FLI_CHUNK_MAX);
  if (o->samples < 1 || o->samples > FLI_CLIENT_MAX_SAMPLES)
    return fli_error(FL_E_OPTIONS, "samples: got %llu, want 1..2^40",
                     (unsigned long long)o->samples);
  if (o->retry_ns < 1)
    return fli_error(FL_E_OPTIONS, "retry_ns: got 0, want >= 1");
  if (o->max_weights < 1 || o->max_weights > MAX_WEIGHTS)
    return fli_error(FL_E_OPTIONS, "max_weights: got %llu, want 1..2^40",
                     (unsigned long long)o->max_weights);
  if (!o->client_id || !o->client_id[0])
    return fli_error(FL_E_ARGUMENT, "client_id: missing");
  return FL_OK;
}

fl_status fli_client_make(fl_client **out, fl_context *context,
                          const fl_client_options *options)
{
  fl_status st = FL_OK;
  fl_client_options loaded = default_options;
  FLI_TRY(
      fli_options_load(&loaded, sizeof loaded, options, "fl_client_options"));
  FLI_TRY(check_options(&loaded));
  fl_client *client = fli_alloc(context, 1, sizeof *client);
  if (!client) return fli_nomem(sizeof *client);
  client->context = fli_context_ref(context);
  fli_bytes_init(&client->description, context);
  fli_bytes_init(&client->sent, context);
  fli_bytes_init(&client->encoded.clamped, context);
  fli_bytes_init(&client->freeze_plan, context);
  fli_bytes_init(&client->slices_plan, context);
  fli_bytes_init(&client->sparse, context);
  fli_incoming_init(&client->incoming, context);
  fli_frame_parser_init(&client->parser, context, loaded.max_frame_size);
  client->options = loaded;
  client->options.model = NULL;
  client->pause_ns = loaded.retry_ns;
  st = fli_crypto_init();
  if (st == FL_OK) st = copy_name(client->id, loaded.client_id, "client_id");
  if (st == FL_OK) st = copy_name(client->job, loaded.job, "job");
  if (st == FL_OK)
    st = copy_name(client->device_class, loaded.device_class, "device_class");
  client->options.client_id = client->id;
  client->options.job = client->job;
  client->options.device_class = client->device_class;
  if (st == FL_OK && loaded.paged) st = loaded.paged->paging->attach(client);
  if (st == FL_OK && loaded.model) st = fli_client_learn(client, loaded.model);
  if (st != FL_OK) {
    fl_client_free(client);
    return st;
  }
  *out = client;
out:
  return st;
}

void fli_client_resync(fl_client *client)
{
  if (client->link != FLI_LINK_HELLO_DUE) client->has_said_hello = 1;
  client->incoming.is_active = 0; /* what has come of it stays */
  client->is_model_awaited = 0;
  client->outgoing.is_active = 0;
  client->due = 0;
  client->has_missed = 0;
  client->link = FLI_LINK_HELLO_DUE;
}

void fli_client_double_pause(fl_client *client)
{
  uint64_t retry = client->options.retry_ns;
  uint64_t longest = retry > UINT64_MAX / 8 ? UINT64_MAX : 8 * retry;
  uint64_t left = longest - client->pause_ns;
  client->pause_ns += left < client->pause_ns ? left : client->pause_ns;
}

void fli_client_raise(fl_client *client, uint32_t event)
{
  client->events |= FLI_EVENT_BIT(event);
}

void fli_client_copy_text(char out[FLI_TEXT_BYTES], const char *text)
{
  size_t n = strlen(text);
  if (n >= FLI_TEXT_BYTES) n = FLI_TEXT_BYTES - 1;
  memcpy(out, text, n);
  out[n] = 0;
}

void fli_client_abort(fl_client *client, uint32_t reason, const char *text)
{
  fli_client_resync(client);
  fli_client_forget_trained(client);
  client->phase = FLI_PHASE_ABORTED;
  client->is_waiting = 0;
  client->has_new_wait = 0;
  client->aborted_reason = reason;
  fli_client_copy_text(client->text, text);
  fli_client_raise(client, FL_CLIENT_ABORTED);
}

static void break_stream(fl_client *client)
{
  fli_frame_parser_reset(&client->parser);
  if (!fli_client_is_over(client)) fli_client_resync(client);
}

static FLI_NOINLINE fl_status note_failure(fl_client *client, fl_status st)
{
  if (client->paging) client->paging->failed(client, st);
  return st;
}

fl_status fl_client_options_init(fl_client_options *options, size_t size)
{
  fli_clear_error();
  return fli_options_init(options, size, &default_options,
                          sizeof default_options);
}

fl_status fl_train_result_init(fl_train_result *result, size_t size)
{
  const fl_train_result defaults = {.loss = (double)NAN,
                                    .report_value = (double)NAN};
  fli_clear_error();
  return fli_options_init(result, size, &defaults, sizeof defaults);
}

fl_status fl_score_init(fl_score *score, size_t size)
{
  const fl_score defaults = {0};
  fli_clear_error();
  return fli_options_init(score, size, &defaults, sizeof defaults);
}

fl_status fl_client_event_init(fl_client_event *event, size_t size)
{
  const fl_client_event defaults = {.text = ""};
  fli_clear_error();
  return fli_options_init(event, size, &defaults, sizeof defaults);
}

fl_status fl_client_new(fl_client **out, fl_context *context,
                        const fl_client_options *options)
{
  fli_clear_error();
  if (!out || !options) return fli_client_null("fl_client_new");
  return fli_client_make(out, context, options);
}

void fl_client_free(fl_client *client)
{
  if (!client) return;
  fl_context *context = client->context;
  fli_client_forget_trained(client);
  fli_free(context, client->scale_norms,
           (size_t)client->n_norms * sizeof *client->scale_norms);
  fli_client_drop_feedback(client);
  fl_compressor_free(client->compressor);
  if (client->has_canonical) fli_canonical_free(&client->canonical);
  fli_client_drop_probe(client);
  fli_free(context, client->segments,
           client->n_segments * sizeof *client->segments);
  fli_free(context, client->modules,
           client->n_segments * sizeof *client->modules);
  fli_free(context, client->mask, client->n_segments);
  fli_bytes_free(&client->freeze_plan);
  fli_client_free_slices(client);
  fli_bytes_free(&client->description);
  fli_incoming_reset(&client->incoming);
  fli_frame_parser_free(&client->parser);
  fli_bytes_free(&client->sent);
  fli_wipe(client->token, sizeof client->token);
  if (client->signer) client->signer->free(client);
  if (client->paging) client->paging->detach(client);
  fli_free(context, client, sizeof *client);
  fli_context_unref(context);
}

fl_status fl_client_recv(fl_client *client, const uint8_t *data, size_t n)
{
  fli_clear_error();
  if (!client || (!data && n > 0)) return fli_client_null("fl_client_recv");
  if (fli_client_is_over(client) || n == 0) return FL_OK;
  client->is_touched = 1;
  client->spent += n;
  fli_frame_feed(&client->parser, data, n);
  for (;;) {
    fli_frame frame;
    fl_status st = fli_frame_next(&client->parser, &frame);
    if (st == FL_E_EMPTY) break;
    if (st == FL_OK) st = fli_client_on_frame(client, &frame);
    if (st != FL_OK) {
      break_stream(client);
      return note_failure(client, st);
    }
    if (client->is_stream_void || fli_client_is_over(client)) {
      client->is_stream_void = 0;
      fli_frame_parser_reset(&client->parser);
      break;
    }
  }
  fli_clear_error();
  return FL_OK;
}

fl_status fl_client_send(fl_client *client, const uint8_t **data, size_t *n)
{
  fli_clear_error();
  if (!client || !data || !n) return fli_client_null("fl_client_send");
  fli_bytes_clear(&client->sent);
  fl_status st = FL_OK;
  if (!fli_client_is_over(client)) st = fli_client_write_due(client);
  client->has_failed = st != FL_OK;
  if (st != FL_OK) return note_failure(client, st);
  *data = client->sent.data;
  *n = client->sent.size;
  client->spent += *n;
  if (*n > 0) client->is_touched = 1;
  return FL_OK;
}

fl_status fl_client_disconnected(fl_client *client)
{
  fli_clear_error();
  if (!client) return fli_client_null("fl_client_disconnected");
  break_stream(client);
  return FL_OK;
}

fl_status fl_client_get_description(const fl_client *client,
                                    const uint8_t **data, size_t *n)
{
  fli_clear_error();
  if (!client || !data || !n)
    return fli_client_null("fl_client_get_description");
  if (!client->has_schema)
    return fli_error(FL_E_EMPTY, "description: the server has not sent it");
  *data = client->description.data;
  *n = client->description.size;
  return FL_OK;
}

fl_status fl_client_copy_weights(const fl_client *client, float *weights,
                                 uint64_t count, uint64_t *version)
{
  fli_clear_error();
  if (!client || (!weights && count > 0))
    return fli_client_null("fl_client_copy_weights");
  if (!client->has_canonical || !client->canonical.is_valid)
    return fli_error(FL_E_EMPTY, "weights: no model is held");
  if (weights && count != client->n_weights)
    return fli_error(FL_E_DIM, "weights: got %llu values, want %llu",
                     (unsigned long long)count,
                     (unsigned long long)client->n_weights);
  if (weights && client->paging) {
    const fl_status st = client->paging->copy(client, weights);
    if (st != FL_OK) return st;
  } else if (weights)
    memcpy(weights, client->canonical.weights,
           (size_t)client->n_weights * sizeof *weights);
  if (version) *version = client->canonical.version;
  return FL_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of the job's embedding, asked for before training, and what training has
 * changed in them, kept beside the trained update. A plan is known by its
 * bytes: what was begun or trained for the same ones is still good. */
#include "client/client.h"

#include "base/error.h"
#include "embedding/slice_use.h"

static const fli_rows rows = {.detach = fli_slice_client_detach,
                              .is_ready = fli_slice_is_ready,
                              .begin = fl_slice_client_begin,
                              .request = fl_slice_client_request,
                              .take = fl_slice_client_take,
                              .update = fl_slice_client_update};

fl_status fl_client_attach_slices(fl_client *client, fl_slice_client *slices)
{
  fli_clear_error();
  if (!client)
    return fli_error(FL_E_ARGUMENT, "fl_client_attach_slices: NULL argument");
  if (slices && client->paging)
    return fli_error(FL_E_CONFLICT, "slices: the client's model is paged");
  if (slices && (client->slices || !fli_slice_client_attach(slices)))
    return fli_error(FL_E_STATE, "slices: client or slices have one already");
  if (client->slices) client->rows->detach(client->slices);
  client->slices = slices;
  client->rows = &rows;
  client->slices_begun = 0;
  /* What a plan said before is for whoever was attached then. */
  client->slices_id = 0;
  return FL_OK;
}

void fli_client_free_slices(fl_client *client)
{
  if (client->slices) client->rows->detach(client->slices);
  fli_bytes_free(&client->slices_plan);
  fli_bytes_free(&client->sparse);
}

static uint64_t id_of(const uint8_t *plan, size_t n)
{
  uint8_t hash[FLI_HASH_BYTES];
  if (n == 0) return 0;
  fli_hash(hash, plan, n);
  return fli_hash_id(hash) | 1u;
}

fl_status fli_client_reserve_slices(fl_client *client, const fli_plan *plan)
{
  return fli_bytes_reserve(&client->slices_plan, plan->slices_size);
}

void fli_client_keep_slices(fl_client *client, const fli_plan *plan)
{
  const size_t n = client->slices ? plan->slices_size : 0;
  uint64_t id = id_of(plan->slices, n);
  if (plan->has_control) id = fli_hash_id(plan->control_hash) | 1u;
  if (id != client->slices_id) client->slices_begun = 0;
  client->slices_id = id;
  fli_bytes_clear(&client->slices_plan);
  (void)fli_bytes_append(&client->slices_plan, plan->slices, n);
}

int fli_client_has_sparse(const fl_client *client)
{
  return client->slices_id == 0 || client->sparse_id == client->slices_id;
}

/* A plan for other tables than ours will not get better. */
static fl_status begin(fl_client *client)
{
  const fl_status st = client->rows->begin(
      client->slices, client->slices_plan.data, client->slices_plan.size);
  if (st == FL_E_SCHEMA)
    fli_client_abort(client, FL_REJECT_SCHEMA, fl_last_error());
  else if (st == FL_E_LIMIT)
    fli_client_abort(client, FL_REJECT_TOO_LARGE, fl_last_error());
  else if (st != FL_OK)
    return st;
  client->slices_begun = st == FL_OK;
  client->sparse_id = 0;
  fli_bytes_free(&client->sparse);
  return FL_OK;
}

fl_status fli_client_want_slices(fl_client *client)
{
  fl_status st = FL_OK;
  if (client->slices_id == 0 || !client->slices) return FL_OK;
  if (!client->slices_begun) st = begin(client);
  if (st != FL_OK || fli_client_is_over(client)) return st;
  if (client->rows->is_ready(client->slices)) return FL_OK;
  client->phase = FLI_PHASE_MODEL;
  client->demand = FLI_DEMAND_PLAN;
  client->due |= FLI_DUE_GET_SLICE;
  return FL_OK;
}

int fli_client_awaits_slices(const fl_client *client)
{
  return (client->due & FLI_DUE_GET_SLICE) != 0;
}

fl_status fli_client_write_get_slice(fl_client *client)
{
  fl_status st = FL_OK;
  fl_buffer *request = NULL;
  fli_get_slice message = {.round = client->plan.round,
                           .attempt = client->plan.attempt};
  if (!client->slices) return FL_OK;
  FLI_TRY(fl_buffer_new(&request, client->context));
  FLI_TRY(client->rows->request(client->slices, request));
  FLI_TRY(fl_buffer_get(request, &message.request, &message.request_size));
  FLI_TRY(fli_write_get_slice(&client->sent, &message));
out:
  fl_buffer_free(request);
  return st == FL_E_EMPTY ? FL_OK : st;
}

fl_status fli_client_on_slice(fl_client *client, const fli_frame *frame)
{
  fl_status st = FL_OK;
  fli_slice_msg message;
  FLI_TRY(fli_parse_slice_msg(&message, frame->body, frame->size));
  if (!client->slices || !client->slices_begun ||
      client->phase != FLI_PHASE_MODEL || client->demand != FLI_DEMAND_PLAN ||
      message.round != client->plan.round ||
      message.attempt != client->plan.attempt)
    return FL_OK;
  st = client->rows->take(client->slices, message.answer, message.answer_size);
  if (st == FL_E_STALE) return FL_OK; /* a repeat */
  FLI_TRY(st);
  client->due |= FLI_DUE_GET_SLICE;
  if (!client->rows->is_ready(client->slices)) return FL_OK;
  client->due &= ~(uint32_t)FLI_DUE_GET_SLICE;
  st = fli_client_continue(client);
out:
  return st;
}

fl_status fli_client_take_sparse(fl_client *client)
{
  fl_status st = FL_OK;
  fl_buffer *update = NULL;
  const uint8_t *data;
  size_t n;
  if (client->slices_id == 0) { /* what was sent with another plan is over */
    client->sparse_id = 0;
    fli_bytes_clear(&client->sparse);
  }
  /* What a submission before this one has left is still good. */
  if (client->slices_id == 0 || !client->slices_begun) return FL_OK;
  FLI_TRY(fl_buffer_new(&update, client->context));
  FLI_TRY(client->rows->update(client->slices, client->plan.seed, update));
  client->slices_begun = 0;
  FLI_TRY(fl_buffer_get(update, &data, &n));
  FLI_TRY(fli_bytes_append(&client->sparse, data, n));
  client->sparse_id = client->slices_id;
out:
  fl_buffer_free(update);
  return st;
}

size_t fli_client_sparse_size(const fl_client *client)
{
  if (client->slices_id == 0 || client->sparse_id != client->slices_id)
    return 0;
  return client->sparse.size;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Probes: models of other cohorts, whose loss on the data at hand the server
 * asks for before a round. They lie beside the model of the client's own
 * cohort, one at a time, and the host sees them as something to score only;
 * when a plan names the one that lies there, it becomes the client's own
 * without another download. */
#include "client/client.h"

#include <math.h>
#include <string.h>

#include "base/error.h"

void fli_client_drop_probe(fl_client *client)
{
  if (client->has_probe) fli_canonical_free(&client->probe);
  client->has_probe = 0;
}

static int probe_is(const fl_client *client, uint64_t version,
                    const uint8_t hash[FLI_HASH_BYTES])
{
  return client->has_probe && client->probe.is_valid &&
         client->probe.version == version &&
         memcmp(client->probe_hash, hash, FLI_HASH_BYTES) == 0;
}

fl_status fli_client_take_probe(fl_client *client)
{
  const fli_incoming *incoming = &client->incoming;
  fl_status st = FL_OK;
  if (!client->has_probe)
    st = fli_canonical_init(&client->probe, client->context, client->n_weights);
  if (st != FL_OK) return st;
  client->has_probe = 1;
  st = fli_canonical_set(&client->probe, incoming->manifest.model_version,
                         incoming->data.data, incoming->data.size);
  if (st != FL_OK) return st;
  fli_canonical_hash(&client->probe, client->probe_hash);
  return FL_OK;
}

int fli_client_has_models(const fl_client *client)
{
  const fli_plan *plan = &client->plan;
  return fli_client_holds(client, plan->model_version, plan->model_hash) &&
         (!plan->has_control ||
          probe_is(client, plan->model_version, plan->control_hash));
}

const fli_canonical *fli_client_scored(const fl_client *client)
{
  const fli_evaluate *asked = &client->evaluate;
  if (fli_client_holds(client, asked->model_version, asked->model_hash))
    return &client->canonical;
  if (asked->is_probe &&
      probe_is(client, asked->model_version, asked->model_hash))
    return &client->probe;
  return NULL;
}

fl_status fli_client_enter_cohort(fl_client *client, const fli_plan *plan)
{
  fl_status st = FL_OK;
  client->has_cohort = plan->has_cohort;
  client->cohort = plan->cohort;
  if (!fli_client_holds(client, plan->model_version, plan->model_hash) &&
      probe_is(client, plan->model_version, plan->model_hash)) {
    /* A full copy that is coming in is written to memory of the model that is
     * about to go. */
    if (client->incoming.is_lent) {
      fli_incoming_reset(&client->incoming);
      client->is_model_awaited = 0;
      client->due &= ~(uint32_t)FLI_DUE_GET_MODEL;
    }
    const fli_canonical own = client->canonical;
    client->canonical = client->probe;
    client->probe = own;
    st = fli_client_model_changed(client);
  }
  if (!plan->has_control) fli_client_drop_probe(client);
  return st;
}

int fli_client_is_elsewhere(const fl_client *client,
                            const fli_manifest *manifest)
{
  return manifest->has_cohort &&
         (!client->has_cohort || client->cohort != manifest->cohort);
}

fl_evaluate_fn fli_client_evaluator(const fl_client *client)
{
  if (client->evaluate.is_probe && client->options.measure)
    return client->options.measure;
  return client->options.evaluate;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* What the device has and what it may spend. A client that never says either
 * does not bring this file along: lib/client knows the budget by a table. */
#include "client/client.h"

#include "base/error.h"

/* ---- conditions ---- */

static int is_on_plan(const fl_client *client)
{
  switch (client->phase) {
  case FLI_PHASE_MODEL: return client->demand == FLI_DEMAND_PLAN;
  case FLI_PHASE_TRAIN:
  case FLI_PHASE_NORM: return 1;
  /* What was sent in whole costs nothing more. */
  case FLI_PHASE_UPDATE:
    return client->outgoing.is_active || (client->due & FLI_DUE_UPDATE) ||
           !fli_client_is_sent(client);
  default: return 0;
  }
}

fl_status fl_client_set_conditions(fl_client *client, uint32_t conditions)
{
  fli_clear_error();
  if (!client)
    return fli_error(FL_E_ARGUMENT, "fl_client_set_conditions: NULL argument");
  if (conditions & ~(uint32_t)FL_CONDITION_ALL)
    return fli_error(FL_E_ARGUMENT, "conditions: got %x, want FL_CONDITION_*",
                     conditions);
  client->lacks &= FLI_LACKS_BYTES;
  client->lacks |= FL_CONDITION_ALL & ~conditions;
  if (is_on_plan(client) && (client->plan.demands & client->lacks))
    fli_client_forgo(client, "conditions do not hold any more");
  return FL_OK;
}

/* ---- budget ---- */

/* The most that a plan may cost: its model in whole, if that is not held, the
 * longest update, and a control in both directions. */
static uint64_t cost_of_plan(const fl_client *client)
{
  const fli_plan *plan = &client->plan;
  const uint64_t model = client->n_weights * sizeof(float);
  const int is_held =
      fli_client_holds(client, plan->model_version, plan->model_hash);
  return fl_compressor_max_update_size(client->compressor) +
         (is_held ? 0 : model) + (plan->has_control ? 2 * model : 0);
}

static int allow(const fl_client *client, int is_plan)
{
  const uint64_t most = client->daily_bytes, spent = client->spent;
  const uint64_t left = spent < most ? most - spent : 0;
  return left > 0 && (!is_plan || cost_of_plan(client) <= left);
}

static const fli_limits limits = {.allow = allow};

fl_status fl_client_set_budget(fl_client *client, uint64_t daily_bytes,
                               uint64_t day)
{
  fli_clear_error();
  if (!client)
    return fli_error(FL_E_ARGUMENT, "fl_client_set_budget: NULL argument");
  /* Said again, it changes nothing; otherwise the next plan tells. */
  if (client->day != day || client->daily_bytes != daily_bytes)
    client->lacks &= ~(uint32_t)FLI_LACKS_BYTES;
  if (client->day != day) client->spent = 0;
  client->day = day;
  client->daily_bytes = daily_bytes;
  client->limits = daily_bytes > 0 ? &limits : NULL;
  return FL_OK;
}

uint64_t fl_client_get_spent(const fl_client *client)
{
  return client ? client->spent : 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "net/client_view.h"

#include "client/client.h"

uint64_t client_view_most_bytes(const fl_client *client)
{
  const uint64_t w = client->n_weights;
  uint64_t n = 2048 + client->description.size + 2 * client->n_norms +
               client->codec.n_table;
  if (client->has_canonical) n += 4 * w;
  if (client->trained.is_valid) n += 4 * w + client->sparse.size;
  if (client->feedback) n += 8 * w;
  return n;
}

int client_view_is_done(const fl_client *client)
{
  return client->phase == FLI_PHASE_DONE;
}

int client_view_wants_poll(const fl_client *client)
{
  return client->events != 0 || client->phase == FLI_PHASE_TRAIN ||
         client->phase == FLI_PHASE_EVALUATE;
}

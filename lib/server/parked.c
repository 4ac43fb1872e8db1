/* SPDX-License-Identifier: Apache-2.0 */
/* What has come of an upload whose connection ended, until its client is back:
 * it says MANIFEST again, is told what is missing, and sends only that. It is
 * kept with the client's part in the round, and goes with it; its bytes count
 * as staged, and give way to any upload that moves. */
#include "server/server.h"

#include <string.h>

#include "base/context.h"

struct fli_parked {
  fli_parked *previous, *next;
  fli_member *member;
  fli_incoming incoming;
};

void fli_parked_keep(fli_peer *peer)
{
  fl_server *server = peer->server;
  fli_member *member = fli_member_of(peer->participant);
  fli_incoming *incoming = &peer->incoming;
  if (!member || member->parked || member->is_out || member->is_counted) return;
  if (!incoming->is_active || incoming->data.size < FLI_CHUNK_MIN) return;
  fli_parked *parked = fli_alloc(server->context, 1, sizeof *parked);
  if (!parked) return;
  parked->member = member;
  parked->incoming = *incoming;
  parked->incoming.is_active = 0;
  parked->next = server->parked;
  if (server->parked) server->parked->previous = parked;
  server->parked = parked;
  member->parked = parked;
  fli_incoming_init(incoming, server->context);
  incoming->knows_status = parked->incoming.knows_status;
  incoming->note = parked->incoming.note;
  fli_peer_drop_upload(peer);
  server->staged += parked->incoming.manifest.total;
}

static void remove_parked(fl_server *server, fli_parked *parked)
{
  server->staged -= parked->incoming.manifest.total;
  parked->member->parked = NULL;
  if (parked->previous)
    parked->previous->next = parked->next;
  else
    server->parked = parked->next;
  if (parked->next) parked->next->previous = parked->previous;
  fli_incoming_reset(&parked->incoming);
  fli_free(server->context, parked, sizeof *parked);
}

int fli_parked_take(fli_peer *peer, fli_member *member,
                    const fli_manifest *manifest)
{
  fli_parked *parked = member->parked;
  if (!parked) return 0;
  const fli_manifest *known = &parked->incoming.manifest;
  const int is_same =
      known->total == manifest->total &&
      memcmp(known->hash, manifest->hash, sizeof known->hash) == 0;
  if (is_same) {
    const int knows_status = peer->incoming.knows_status;
    fli_incoming_reset(&peer->incoming);
    peer->incoming = parked->incoming;
    peer->incoming.knows_status = knows_status;
    fli_bytes_init(&parked->incoming.data, peer->server->context);
    fli_bytes_init(&parked->incoming.clamped, peer->server->context);
  }
  fli_parked_drop(peer->server, member);
  return is_same;
}

void fli_parked_drop(fl_server *server, fli_member *member)
{
  if (member->parked) remove_parked(server, member->parked);
}

void fli_parked_drop_all(fl_server *server)
{
  while (server->parked)
    remove_parked(server, server->parked);
}

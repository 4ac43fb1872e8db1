/* SPDX-License-Identifier: Apache-2.0 */
/* Peer numbers in order: a crit-bit tree (D. J. Bernstein; also known as
 * PATRICIA) whose inner nodes count the leaves below that have something to be
 * sent, and those that may send it whatever is not committed yet. Finding,
 * inserting, removing, marking ready and stepping to the next ready number take
 * at most 64 steps each, whatever numbers the host chooses and however many
 * peers there are; the order is that of the numbers. */
#include "server/server.h"

#include <assert.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"

static uint32_t bit_of(uint64_t number, uint32_t bit)
{
  return (uint32_t)(number >> bit) & 1u;
}

/* `number` with bit `bit` and all below it cleared. */
static uint64_t prefix_of(uint64_t number, uint32_t bit)
{
  return number >> bit >> 1 << bit << 1;
}

static int is_leaf(const fli_peer_node *node)
{
  return !node->child[0];
}

static uint32_t highest_bit(uint64_t value)
{
  uint32_t bit = 0;
  while (value >>= 1)
    bit++;
  return bit;
}

static void replace_child(fli_peer_table *table, fli_peer_node *parent,
                          const fli_peer_node *old, fli_peer_node *node)
{
  node->parent = parent;
  if (!parent) {
    table->root = node;
  } else {
    parent->child[parent->child[1] == old] = node;
  }
}

static void add_ready(fli_peer_node *node, uint32_t kind, int delta)
{
  for (; node; node = node->parent) {
    node->n_ready[kind] = (uint32_t)((int64_t)node->n_ready[kind] + delta);
  }
}

/* The leaf that a walk along the bits of `number` ends at. */
static fli_peer_node *walk(const fli_peer_table *table, uint64_t number)
{
  fli_peer_node *node = table->root;
  while (node && !is_leaf(node))
    node = node->child[bit_of(number, node->bit)];
  return node;
}

fli_peer *fli_peer_table_find(const fli_peer_table *table, uint64_t number)
{
  const fli_peer_node *node = walk(table, number);
  return node && node->prefix == number ? node->peer : NULL;
}

fl_status fli_peer_table_insert(fli_peer_table *table, fli_peer *peer)
{
  fli_peer_node *leaf = &peer->leaf;
  fli_peer_node *nearest = walk(table, peer->number);
  leaf->prefix = peer->number;
  leaf->peer = peer;
  if (!nearest) {
    table->root = leaf;
    table->count = 1;
    return FL_OK;
  }
  assert(nearest->prefix != peer->number);
  const uint32_t bit = highest_bit(nearest->prefix ^ peer->number);
  fli_peer_node *inner = fli_alloc(table->context, 1, sizeof *inner);
  if (!inner) return fli_nomem(sizeof *inner);
  fli_peer_node *at = table->root;
  while (!is_leaf(at) && at->bit > bit) {
    at = at->child[bit_of(peer->number, at->bit)];
  }
  inner->bit = bit;
  inner->prefix = prefix_of(peer->number, bit);
  memcpy(inner->n_ready, at->n_ready, sizeof inner->n_ready);
  replace_child(table, at->parent, at, inner);
  inner->child[bit_of(peer->number, bit)] = leaf;
  inner->child[!bit_of(peer->number, bit)] = at;
  leaf->parent = inner;
  at->parent = inner;
  table->count++;
  return FL_OK;
}

void fli_peer_table_remove(fli_peer_table *table, fli_peer *peer)
{
  fli_peer_node *leaf = &peer->leaf;
  fli_peer_node *inner = leaf->parent;
  fli_peer_table_set_ready(peer, FLI_READY_ANY, 0);
  fli_peer_table_set_ready(peer, FLI_READY_MIDWAY, 0);
  if (!inner) {
    table->root = NULL;
  } else {
    fli_peer_node *sibling = inner->child[inner->child[0] == leaf];
    replace_child(table, inner->parent, inner, sibling);
    fli_free(table->context, inner, sizeof *inner);
  }
  leaf->parent = NULL;
  table->count--;
}

void fli_peer_table_set_ready(fli_peer *peer, uint32_t kind, int is_ready)
{
  const int delta = (is_ready != 0) - (int)peer->leaf.n_ready[kind];
  if (delta != 0) add_ready(&peer->leaf, kind, delta);
}

static fli_peer *lowest_ready(const fli_peer_node *node, uint32_t kind)
{
  while (!is_leaf(node))
    node = node->child[node->child[0]->n_ready[kind] == 0];
  return node->peer;
}

fli_peer *fli_peer_table_next_ready(const fli_peer_table *table, uint32_t kind,
                                    uint64_t from)
{
  const fli_peer_node *node = table->root;
  const fli_peer_node *above = NULL; /* nearest ready subtree to the right */
  while (node && !is_leaf(node)) {
    const uint64_t prefix = prefix_of(from, node->bit);
    if (prefix != node->prefix) break;
    const uint32_t side = bit_of(from, node->bit);
    if (side == 0 && node->child[1]->n_ready[kind] > 0) above = node->child[1];
    node = node->child[side];
  }
  if (node && node->prefix >= from && node->n_ready[kind] > 0) {
    return lowest_ready(node, kind);
  }
  return above ? lowest_ready(above, kind) : NULL;
}

fli_peer *fli_peer_table_any(const fli_peer_table *table)
{
  const fli_peer_node *node = walk(table, 0);
  return node ? node->peer : NULL;
}

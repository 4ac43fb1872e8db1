/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes per client and round, as the sockets counted them. */
#ifndef FL_AGGREGATOR_LEDGER_H
#define FL_AGGREGATOR_LEDGER_H

#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "fl_aggregator/names.h"

struct account {
  char client_id[72];
  uint64_t round_up; /* client to server, bytes, since the round began */
  uint64_t round_down;
  uint64_t total_up;
  uint64_t total_down;
  int is_counted; /* its update is in this round's sum */
};

struct ledger {
  struct account *accounts;
  size_t n;
  size_t capacity;
  struct names names;
  uint64_t total_up; /* everything, traffic of no client included */
  uint64_t total_down;
};

enum { LEDGER_NOBODY = -1 };

void ledger_free(struct ledger *ledger);
/* Index of the client's account, made when new; LEDGER_NOBODY without
 * memory. */
int ledger_find(struct ledger *ledger, const char *client_id);
/* Book on an account, or only on the totals. Booking on a client what was
 * booked on nobody before: ledger_assign. */
void ledger_add(struct ledger *ledger, int account, uint64_t up, uint64_t down);
void ledger_assign(struct ledger *ledger, int account, uint64_t up,
                   uint64_t down);
/* {"<client>": {"up": n, "down": n, "counted": bool}, ...} of the round (or
 * the whole run), without clients that took no part. */
json_t *ledger_round(const struct ledger *ledger);
json_t *ledger_totals(const struct ledger *ledger);
void ledger_begin_round(struct ledger *ledger);

/* Payload bytes that a TCP socket has received and taken for sending so far.
 * 0; -1 when the kernel does not say (errno; ENOSYS: too old). */
int tcp_bytes(int fd, uint64_t *received, uint64_t *sent);
/* Bytes that the other end has taken, so that nobody counts what waits here;
 * 0 when the kernel does not say. */
uint64_t tcp_acked(int fd);

#endif

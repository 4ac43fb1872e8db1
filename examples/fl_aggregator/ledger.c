/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What federated training costs is bytes, so they are counted where they pass
 * and not where somebody believes to have made them: Linux keeps them per
 * socket (TCP_INFO). That includes request lines, headers and control
 * messages, and leaves out TCP/IP headers and retransmissions: on a loaded
 * machine even loopback repeats a segment now and then, and a figure that
 * depends on this compares nothing. Sent includes what still waits in the
 * socket, so that a sample right after a write is exact. The kernel counts a
 * FIN as a byte received, as it takes a number of the sequence; we do not.
 */
#include "fl_aggregator/ledger.h"

#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* States of a TCP socket after a FIN has come (or, CLOSED, a reset: then the
 * last byte may go uncounted). No header that goes together with
 * <linux/tcp.h> has their names. */
enum { TIME_WAIT = 6, CLOSED, CLOSE_WAIT, LAST_ACK, CLOSING = 11 };

/* Ids are free where enrolment is open. */
enum { accounts_most = 1 << 20 };

void ledger_free(struct ledger *ledger)
{
  free(ledger->accounts);
  names_free(&ledger->names);
  memset(ledger, 0, sizeof *ledger);
}

int ledger_find(struct ledger *ledger, const char *client_id)
{
  ledger->names.stride = sizeof *ledger->accounts;
  const uint32_t found =
      names_find(&ledger->names, ledger->accounts, client_id);
  if (found != names_none) return (int)found;
  if (ledger->n >= accounts_most) return LEDGER_NOBODY;
  if (ledger->n == ledger->capacity) {
    size_t capacity = ledger->capacity ? 2 * ledger->capacity : 16;
    struct account *grown = realloc(ledger->accounts, capacity * sizeof *grown);
    if (!grown) return LEDGER_NOBODY;
    ledger->accounts = grown;
    ledger->capacity = capacity;
  }
  struct account *account = &ledger->accounts[ledger->n];
  memset(account, 0, sizeof *account);
  strncpy(account->client_id, client_id, sizeof account->client_id - 1);
  if (names_add(&ledger->names, ledger->accounts, (uint32_t)ledger->n) != 0)
    return LEDGER_NOBODY;
  return (int)ledger->n++;
}

void ledger_assign(struct ledger *ledger, int account, uint64_t up,
                   uint64_t down)
{
  if (account == LEDGER_NOBODY) return;
  struct account *to = &ledger->accounts[account];
  to->round_up += up;
  to->round_down += down;
  to->total_up += up;
  to->total_down += down;
}

void ledger_add(struct ledger *ledger, int account, uint64_t up, uint64_t down)
{
  ledger->total_up += up;
  ledger->total_down += down;
  ledger_assign(ledger, account, up, down);
}

json_t *ledger_round(const struct ledger *ledger)
{
  json_t *clients = json_object();
  for (size_t i = 0; i < ledger->n; i++) {
    const struct account *account = &ledger->accounts[i];
    if (!account->round_up && !account->round_down && !account->is_counted)
      continue;
    json_object_set_new(clients, account->client_id,
                        json_pack("{s:I,s:I,s:b}", "up",
                                  (json_int_t)account->round_up, "down",
                                  (json_int_t)account->round_down, "counted",
                                  account->is_counted));
  }
  return clients;
}

json_t *ledger_totals(const struct ledger *ledger)
{
  json_t *clients = json_object();
  for (size_t i = 0; i < ledger->n; i++) {
    const struct account *account = &ledger->accounts[i];
    json_object_set_new(clients, account->client_id,
                        json_pack("{s:I,s:I}", "up",
                                  (json_int_t)account->total_up, "down",
                                  (json_int_t)account->total_down));
  }
  return clients;
}

void ledger_begin_round(struct ledger *ledger)
{
  for (size_t i = 0; i < ledger->n; i++) {
    ledger->accounts[i].round_up = 0;
    ledger->accounts[i].round_down = 0;
    ledger->accounts[i].is_counted = 0;
  }
}

int tcp_bytes(int fd, uint64_t *received, uint64_t *sent)
{
  struct tcp_info info;
  socklen_t n = sizeof info;
  memset(&info, 0, sizeof info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0) return -1;
  if (n < offsetof(struct tcp_info, tcpi_bytes_retrans) +
              sizeof info.tcpi_bytes_retrans) {
    errno = ENOSYS;
    return -1;
  }
  int has_fin = info.tcpi_state == TIME_WAIT || info.tcpi_state == CLOSED ||
                info.tcpi_state == CLOSE_WAIT || info.tcpi_state == LAST_ACK ||
                info.tcpi_state == CLOSING;
  *received = info.tcpi_bytes_received;
  if (has_fin && *received > 0) --*received;
  *sent =
      info.tcpi_bytes_sent - info.tcpi_bytes_retrans + info.tcpi_notsent_bytes;
  return 0;
}

uint64_t tcp_acked(int fd)
{
  struct tcp_info info;
  socklen_t n = sizeof info;
  memset(&info, 0, sizeof info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &n) != 0) return 0;
  return info.tcpi_bytes_acked;
}

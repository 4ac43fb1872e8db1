/* SPDX-License-Identifier: Apache-2.0 */
/* One session with an aggregator over HTTP. */
#ifndef FL_PARTICIPANT_TRANSPORT_H
#define FL_PARTICIPANT_TRANSPORT_H

#include <signal.h>
#include <stddef.h>
#include <stdint.h>

#include <curl/curl.h>

enum transport_result {
  TRANSPORT_OK = 0,
  TRANSPORT_BROKEN,  /* no connection, no such session, going down: try anew */
  TRANSPORT_REFUSED, /* the aggregator does not want this request at all */
  TRANSPORT_STOPPED  /* *stop was raised */
};

struct transport {
  CURL *curl;
  struct curl_slist *headers;
  struct curl_slist *hasty_headers; /* of a request that is not the last part */
  const char *server;
  const volatile sig_atomic_t *stop;
  char session[33]; /* hexadecimal */
  int is_open;      /* the aggregator knows the session */
  int has_answered; /* something spoke HTTP, some time */
  uint8_t *reply;
  size_t reply_size;
  size_t reply_capacity;
  char error[CURL_ERROR_SIZE]; /* why it was BROKEN or REFUSED */
};

/* `server` is borrowed. `ca`: a PEM file that https:// goes by, "" = the
 * system's. 0, or -1 with a line on stderr. */
int transport_open(struct transport *transport, const char *server,
                   const char *ca, const volatile sig_atomic_t *stop);
void transport_close(struct transport *transport);
/* Begin another session with the next exchange. */
void transport_renew(struct transport *transport);
/* Send bytes (n may be 0) and wait for the answer, reply_size bytes at reply,
 * valid until the next call. `has_more`: other bytes follow, whatever it is, so
 * that it need not be waited for. */
enum transport_result transport_exchange(struct transport *transport,
                                         const uint8_t *data, size_t n,
                                         int has_more);

#endif

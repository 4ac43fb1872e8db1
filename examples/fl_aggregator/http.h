/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP side: sessions, long polls, /healthz, /metrics. */
#ifndef FL_AGGREGATOR_HTTP_H
#define FL_AGGREGATOR_HTTP_H

#include <stdint.h>

#include <microhttpd.h>

#include "fl_aggregator/run.h"
#include "fl_aggregator/secrets.h"

struct http {
  struct run *run;
  const struct config *config;
  struct MHD_Daemon *daemon;
  int epoll;               /* readable when http_run has something to do */
  struct request *waiting; /* held requests, oldest first */
  struct request *last_waiting;
  struct request *fresh; /* of those, the first that http_answer has not seen */
  uint64_t now_ns;       /* as of the last http_run */
  uint32_t requests;     /* begun and not completed */
  uint64_t silence_ns;   /* allowed to a connection that has a session */
  uint64_t refused_ns;   /* when the log last told of a wrong token */
  uint64_t rested_ns;    /* not before: look for whom there is something */
  int is_scan_due;       /* as soon as that is over */
  uint64_t swept_ns;     /* when all connections were looked at */
  struct token admin;
  struct token metrics;
  int has_news; /* a request came in after time was passed */
  int is_draining;
};

/* Listen. 0, or -1 with a line on stderr; http_stop is fine after both. */
int http_start(struct http *http, const struct config *config, struct run *run);
uint16_t http_port(const struct http *http);
/* Read and write what the sockets are ready for; feeds the server. */
void http_run(struct http *http, uint64_t now_ns);
/* Answer the held requests whose sessions have something to be sent or have
 * waited long enough; forget sessions that are gone. */
void http_answer(struct http *http, uint64_t now_ns);
/* When http_answer wants to be called at the latest; UINT64_MAX = never. */
uint64_t http_next_deadline(const struct http *http);
/* Take no new connections and no new requests; release the held ones. */
void http_drain(struct http *http);
/* 1 when every client has left. */
int http_is_deserted(const struct http *http);
void http_stop(struct http *http);

#endif

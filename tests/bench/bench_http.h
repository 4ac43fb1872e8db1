/* SPDX-License-Identifier: Apache-2.0 */
/* One session with an aggregator over a socket that does not block: a request
 * at a time, the connection kept. */
#ifndef BENCH_HTTP_H
#define BENCH_HTTP_H

#include <stddef.h>
#include <stdint.h>

struct http_link {
  int fd;
  uint32_t number; /* of the session */
  uint32_t n_answers;
  int status; /* of the last answer */
  uint8_t *out;
  size_t out_size, out_capacity;
  size_t out_at;  /* sent so far; out_size = all of it */
  int has_header; /* of the request in `out` */
  uint8_t *in;
  size_t in_size, in_capacity;
  const uint8_t *body; /* of an answer that is whole */
  size_t body_size;
  size_t answer_size; /* with its headers */
};

/* Connect to the port on loopback. 0, or -1 and errno. */
int http_open(struct http_link *link, uint16_t port, uint32_t number);
void http_close(struct http_link *link);
int http_is_open(const struct http_link *link);
/* Begin a request; then add to its body, and send. -1: no memory. */
void http_begin(struct http_link *link);
int http_add(struct http_link *link, const uint8_t *data, size_t n);
/* As much as the socket takes; 0, or -1 and errno. */
int http_send(struct http_link *link);
/* 1: an answer of status 200 or 204 is whole; 0: not yet; -1: anything else. */
int http_receive(struct http_link *link);
/* The answer has been read. */
void http_take(struct http_link *link);

#endif

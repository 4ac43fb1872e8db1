/* SPDX-License-Identifier: Apache-2.0 */
/* As little HTTP/1.1 as an aggregator's answers need: a status, and a body that
 * has a Content-Length or comes in chunks. */
#include "bench_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER_ROOM = 160, READ_ROOM = 4096 };

static int grow(uint8_t **bytes, size_t *capacity, size_t wanted)
{
  if (wanted <= *capacity) return 0;
  uint8_t *grown = realloc(*bytes, 2 * wanted);
  if (!grown) return -1;
  *bytes = grown;
  *capacity = 2 * wanted;
  return 0;
}

int http_open(struct http_link *link, uint16_t port, uint32_t number)
{
  const struct sockaddr_in to = {
      .sin_family = AF_INET,
      .sin_port = htons(port),
      .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
  };
  const int on = 1;
  memset(link, 0, sizeof *link);
  link->number = number;
  link->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (link->fd < 0) return -1;
  (void)setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  if (connect(link->fd, (const struct sockaddr *)&to, sizeof to) == 0 ||
      errno == EINPROGRESS)
    return 0;
  return -1;
}

void http_close(struct http_link *link)
{
  if (link->fd > 0) close(link->fd);
  free(link->out);
  free(link->in);
  memset(link, 0, sizeof *link);
}

int http_is_open(const struct http_link *link)
{
  char byte;
  const ssize_t got =
      recv(link->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT | MSG_TRUNC);
  return got > 0 || (got < 0 && errno == EAGAIN);
}

void http_begin(struct http_link *link)
{
  /* The header is put before the body, when its length is known. */
  link->out_size = HEADER_ROOM;
  link->has_header = 0;
}

int http_add(struct http_link *link, const uint8_t *data, size_t n)
{
  if (grow(&link->out, &link->out_capacity, link->out_size + n) != 0) return -1;
  if (n > 0) memcpy(link->out + link->out_size, data, n);
  link->out_size += n;
  return 0;
}

/* The whole of it ends where the body begins. */
static void put_header(struct http_link *link)
{
  char header[HEADER_ROOM];
  const int n = snprintf(header, sizeof header,
                         "%s /fl/v1/session/%032x HTTP/1.1\r\nHost: a\r\n"
                         "Content-Length: %zu\r\n\r\n",
                         link->n_answers == 0 ? "PUT" : "POST", link->number,
                         link->out_size - HEADER_ROOM);
  link->out_at = HEADER_ROOM - (size_t)n;
  memcpy(link->out + link->out_at, header, (size_t)n);
  link->has_header = 1;
}

int http_send(struct http_link *link)
{
  if (!link->has_header) put_header(link);
  while (link->out_at < link->out_size) {
    const ssize_t sent = send(link->fd, link->out + link->out_at,
                              link->out_size - link->out_at, MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent < 0 && (errno == EAGAIN || errno == ENOTCONN)) return 0;
    if (sent < 0) return -1;
    link->out_at += (size_t)sent;
  }
  return 0;
}

/* A body in chunks, from `begin` on: 1 when it is whole, and moved together. */
static int join_chunks(struct http_link *link, size_t begin)
{
  for (int is_whole = 0;; is_whole = 1) {
    size_t at = begin, size = 0;
    for (size_t n = 1; n > 0; at += n + 2) {
      const char *line = (const char *)link->in + at;
      const char *end = memmem(line, link->in_size - at, "\r\n", 2);
      if (!end) return 0;
      n = strtoull(line, NULL, 16);
      at += (size_t)(end + 2 - line);
      if (link->in_size - at < n || link->in_size - at - n < 2) return 0;
      if (is_whole) memmove(link->in + begin + size, link->in + at, n);
      size += n;
    }
    link->body_size = size;
    link->answer_size = at;
    if (is_whole) return 1;
  }
}

/* 1: the answer at the front of `in` is whole. */
static int parse(struct http_link *link)
{
  static const char length[] = "content-length:";
  static const char coding[] = "transfer-encoding: chunked";
  int is_coded = 0;
  const char *text = (const char *)link->in;
  const char *end = memmem(text, link->in_size, "\r\n\r\n", 4);
  size_t body = 0;
  if (!end) return 0;
  if (sscanf(text, "HTTP/1.1 %3d", &link->status) != 1) return -1;
  if (link->status != 200 && link->status != 204) return -1;
  for (const char *line = text; line < end;) {
    const char *next = memmem(line, (size_t)(end + 2 - line), "\r\n", 2);
    if (strncasecmp(line, length, sizeof length - 1) == 0)
      body = strtoull(line + sizeof length - 1, NULL, 10);
    if (strncasecmp(line, coding, sizeof coding - 1) == 0) is_coded = 1;
    line = next + 2;
  }
  const size_t header = (size_t)(end + 4 - text);
  if (is_coded && !join_chunks(link, header)) return 0;
  if (link->in_size - header < body) return 0;
  link->body = link->in + header;
  if (!is_coded) {
    link->body_size = body;
    link->answer_size = header + body;
  }
  link->n_answers++;
  return 1;
}

int http_receive(struct http_link *link)
{
  for (;;) {
    const int is_whole = link->in_size > 0 ? parse(link) : 0;
    if (is_whole != 0) return is_whole;
    if (grow(&link->in, &link->in_capacity, link->in_size + READ_ROOM) != 0)
      return -1;
    const ssize_t got =
        recv(link->fd, link->in + link->in_size, READ_ROOM - 1, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EAGAIN || errno == ENOTCONN ? 0 : -1;
    if (got == 0) return -1;
    link->in_size += (size_t)got;
    link->in[link->in_size] = 0;
  }
}

void http_take(struct http_link *link)
{
  link->in_size -= link->answer_size;
  memmove(link->in, link->in + link->answer_size, link->in_size);
  link->body = NULL;
  link->body_size = link->answer_size = 0;
}

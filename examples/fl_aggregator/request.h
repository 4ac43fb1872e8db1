/* SPDX-License-Identifier: Apache-2.0 */
/* One HTTP request on a session, between its headers and its answer. */
#ifndef FL_AGGREGATOR_REQUEST_H
#define FL_AGGREGATOR_REQUEST_H

#include "fl_aggregator/http.h"

enum request_state {
  REQUEST_FEEDING = 1, /* the body comes in */
  REQUEST_WAITING,     /* suspended */
  REQUEST_RELEASED,    /* to be answered with what is there */
  REQUEST_ADMIN        /* of no session: see admin.c */
};

struct admin_action;

/* Bytes of the server that are not on their way yet. */
struct part {
  uint8_t *bytes;
  size_t n;
  size_t at; /* those before are */
};

struct request {
  struct http *http;
  struct MHD_Connection *connection;
  struct link *link;
  enum request_state state;
  uint64_t size;      /* of the body so far */
  uint64_t acked;     /* on the connection, before the answer */
  uint64_t window_ns; /* since when window_bytes are all that passed */
  uint64_t window_bytes;
  uint64_t waiting_since_ns;
  const struct admin_action *action;
  char *body;       /* of an action, as far as it came; NULL = nothing */
  struct part part; /* of the answer */
  int is_hasty;     /* does not wait for something to be said */
  /* A later request of the session took its place: nothing is said here, or
   * nothing more. */
  int is_superseded;
  struct request *next;
  struct request *previous;
};

/* The state of a request that has begun, of no session yet; NULL without
 * memory. */
struct request *request_new(struct http *http,
                            struct MHD_Connection *connection);
/* Callbacks of libmicrohttpd; `user` is the struct http. */
enum MHD_Result request_handle(void *user, struct MHD_Connection *connection,
                               const char *url, const char *method,
                               const char *version, const char *upload,
                               size_t *upload_size, void **state);
void request_completed(void *user, struct MHD_Connection *connection,
                       void **state, enum MHD_RequestTerminationCode code);
/* Let a held request be answered. */
void request_release(struct request *request);

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What an operator may do from outside: POST /admin/<action>, with a token. */
#ifndef FL_AGGREGATOR_ADMIN_H
#define FL_AGGREGATOR_ADMIN_H

#include "fl_aggregator/request.h"

enum { ADMIN_BODY_MAX = 4096 };

/* 1 when the path is the admin's. */
int admin_is(const char *url);
/* From the headers of a request: refuse it, or make its state. */
enum MHD_Result admin_begin(struct http *http,
                            struct MHD_Connection *connection, const char *url,
                            const char *method, void **state);
/* A part of the body; n = 0: that was all, act and answer. */
enum MHD_Result admin_feed(struct request *request, const char *data, size_t n);
/* 1 when the request may see /metrics; 0: it was answered, with *result. */
int admin_lets_see_metrics(struct http *http, struct MHD_Connection *connection,
                           enum MHD_Result *result);

#endif

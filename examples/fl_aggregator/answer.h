/* SPDX-License-Identifier: Apache-2.0 */
/* The answer to a request on a session: what the server has for the peer. */
#ifndef FL_AGGREGATOR_ANSWER_H
#define FL_AGGREGATOR_ANSWER_H

#include "fl_aggregator/request.h"

/* Queue the answer to a request that was released. */
enum MHD_Result answer_session(struct request *request);
/* Another request of the session has begun, or is answered: the answer that is
 * under way, if there is one, ends with the message that it is at. */
void answer_supersede(struct session *session);
/* The request is over: give up what was not sent of its answer. */
void answer_end(struct request *request);

enum MHD_Result reply(struct MHD_Connection *connection, unsigned code,
                      const char *type, struct MHD_Response *response);
/* With a static text. */
enum MHD_Result reply_text(struct MHD_Connection *connection, unsigned code,
                           const char *text);

#endif

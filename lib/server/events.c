/* SPDX-License-Identifier: Apache-2.0 */
/* The event queue: a list of nodes that own their text, so that an event
 * outlives whatever it speaks of. A host that does not poll must not let peers
 * fill its memory: from FLI_EVENTS_MAX on, events about single peers are only
 * counted, and the count is reported as one event when the queue is empty.
 * Events about rounds and jobs always go in: they are a handful per round. */
#include "server/server.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/options.h"
#include "server/cohorts.h"

enum { FLI_EVENTS_MAX = 16384 };

static void event_free(fli_events *events, fli_event *event)
{
  if (event) fli_free(events->context, event, event->size);
}

/* What may come as often as somebody else likes: peers, or a full disk. */
static int may_repeat(uint32_t kind)
{
  return kind == FL_SERVER_CLIENT_JOINED || kind == FL_SERVER_CLIENT_RETURNED ||
         kind == FL_SERVER_PEER_REJECTED || kind == FL_SERVER_UPDATE_ACCEPTED ||
         kind == FL_SERVER_CLIENT_LOST || kind == FL_SERVER_STORE_FAILED;
}

static void events_push(fli_events *events, const fl_server_event *body,
                        const char *client_id, const char *text)
{
  const size_t text_size = strlen(text) + 1;
  const size_t size = sizeof(fli_event) + text_size;
  fli_event *event = fli_alloc(events->context, 1, size);
  if (!event) {
    events->dropped++;
    return;
  }
  event->size = size;
  event->body = *body;
  memcpy(event + 1, text, text_size);
  snprintf(event->client_id, sizeof event->client_id, "%s", client_id);
  if (events->last) {
    events->last->next = event;
  } else {
    events->first = event;
  }
  events->last = event;
  events->count++;
}

void fli_events_init(fli_events *events, fl_context *context)
{
  memset(events, 0, sizeof *events);
  events->context = context;
}

void fli_events_free(fli_events *events)
{
  event_free(events, events->taken);
  while (events->first) {
    fli_event *next = events->first->next;
    event_free(events, events->first);
    events->first = next;
  }
  fli_events_init(events, events->context);
}

fl_server_event fli_event_blank(uint32_t kind)
{
  fl_server_event event;
  memset(&event, 0, sizeof event);
  event.struct_size = (uint32_t)sizeof event;
  event.kind = kind;
  event.peer = UINT64_MAX;
  event.client_id = "";
  event.text = "";
  event.loss = NAN;
  event.value = NAN;
  event.threshold = NAN;
  event.raw = NAN;
  event.cohort = event.child = FL_COHORT_NONE;
  return event;
}

fl_server_event fli_event_of(const fli_job *job, uint32_t kind)
{
  fl_server_event event = fli_event_blank(kind);
  event.job = job->index;
  event.cohort = fli_cohort_of(job);
  return event;
}

void fli_events_add(fli_events *events, const fl_server_event *event,
                    const char *client_id, const char *format, ...)
{
  char text[FLI_TEXT_BYTES];
  va_list args;
  if (events->count >= FLI_EVENTS_MAX && may_repeat(event->kind)) {
    events->dropped++;
    return;
  }
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  events_push(events, event, client_id, text);
}

fl_status fli_events_poll(fli_events *events, fl_server_event *event)
{
  const fl_server_event none = {.client_id = "", .text = ""};
  /* A struct that cannot be filled must not cost the event. */
  const fl_status st =
      fli_options_store(event, &none, sizeof none, "fl_server_event");
  if (st != FL_OK) return st;
  if (!events->first && events->dropped) {
    const uint64_t dropped = events->dropped;
    fl_server_event lost = fli_event_blank(FL_SERVER_PEER_REJECTED);
    lost.reason = FL_REJECT_LIMIT;
    events->dropped = 0;
    fli_events_add(events, &lost, "",
                   "events: got %llu more than were kept; poll more often",
                   (unsigned long long)dropped);
  }
  event_free(events, events->taken);
  events->taken = events->first;
  if (!events->taken) return FL_E_EMPTY;
  events->first = events->taken->next;
  if (!events->first) events->last = NULL;
  events->count--;
  events->taken->body.client_id = events->taken->client_id;
  events->taken->body.text = (const char *)(events->taken + 1);
  return fli_options_store(event, &events->taken->body, sizeof *event,
                           "fl_server_event");
}

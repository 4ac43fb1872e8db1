/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file protocol.h
 * What client and server have in common for the host's eyes: the protocol's
 * version and the reasons for refusals. The wire itself:
 * docs/design/protocol.md.
 */
#ifndef FL_PROTOCOL_H
#define FL_PROTOCOL_H

#include <fl/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Versions of the wire protocol this library speaks. */
FL_API uint32_t fl_protocol_version_min(void);
FL_API uint32_t fl_protocol_version_max(void);

/** Where a round's scale comes from. */
enum {
  FL_SCALE_EXCHANGED = 1, /**< clients report norms each round */
  FL_SCALE_PUBLIC = 2     /**< norms announced with the plan; THC only */
};

/** What a device may have, as its host sees it, and a job may demand. */
enum {
  FL_CONDITION_CHARGING = 1,  /**< on mains */
  FL_CONDITION_UNMETERED = 2, /**< its network costs nothing by the byte */
  FL_CONDITION_IDLE = 4,      /**< nobody uses it */
  FL_CONDITION_ALL = 7
};

/** Why a peer or a message of it was refused. One table: name, number, text */
#define FL_REJECT_TABLE(X)                                             \
  X(FL_REJECT_NONE, 0, "not rejected")                                 \
  X(FL_REJECT_FORMAT, 1, "malformed message")                          \
  X(FL_REJECT_TOO_LARGE, 2, "message or model too large")              \
  X(FL_REJECT_VERSION, 3, "no protocol version in common")             \
  X(FL_REJECT_SCHEMA, 4, "the model's schema is another one")          \
  X(FL_REJECT_UNKNOWN_JOB, 5, "no such job")                           \
  X(FL_REJECT_ID_IN_USE, 6, "the client id is in use by another peer") \
  X(FL_REJECT_STALE, 7, "belongs to another round")                    \
  X(FL_REJECT_DUPLICATE, 8, "already counted")                         \
  X(FL_REJECT_RANGE, 9, "a value is out of range")                     \
  X(FL_REJECT_STATE, 10, "message not expected now")                   \
  X(FL_REJECT_NOT_SELECTED, 11, "not a participant of this round")     \
  X(FL_REJECT_LIMIT, 12, "the server is at a limit")                   \
  X(FL_REJECT_VANISHED, 13, "the connection was lost")                 \
  X(FL_REJECT_DEADLINE, 14, "missed the deadline")                     \
  X(FL_REJECT_DECLINED, 15, "the client declined")                     \
  X(FL_REJECT_NO_ANSWER, 16, "the server does not answer")             \
  X(FL_REJECT_STOPPED, 17, "the job was stopped")                      \
  X(FL_REJECT_SIGNATURE, 18, "a signature is missing or wrong")        \
  X(FL_REJECT_NOT_ENROLLED, 19, "not enrolled")                        \
  X(FL_REJECT_KEY, 20, "another key is wanted")                        \
  X(FL_REJECT_REPLAY, 21, "older than what was counted")               \
  X(FL_REJECT_RATE, 22, "too many messages")                           \
  X(FL_REJECT_BANNED, 23, "banned")                                    \
  X(FL_REJECT_FORGOTTEN, 24, "has left, and is forgotten")

enum {
#define FL_REJECT_ENUM_(name, number, text) name = number,
  FL_REJECT_TABLE(FL_REJECT_ENUM_)
#undef FL_REJECT_ENUM_
};
/** "FL_REJECT_SCHEMA"; "FL_REJECT_?" when unknown. Static text. */
FL_API const char *fl_reject_name(uint32_t reason);
/** The reason's one-line meaning. Static text. */
FL_API const char *fl_reject_text(uint32_t reason);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* The public facts of the protocol: its versions, and the names and texts of
 * the reasons for refusals, both made from the one table in fl/protocol.h so
 * that a reason cannot lack either. */
#include <fl/protocol.h>
#include <stddef.h>

#include "base/compiler.h"
#include "wire/frame.h"

/* All names and texts in one piece, and where they begin: pointers would be
 * relocated in every client. */
#define MEMBERS(name, number, text)    \
  char name_of_##number[sizeof #name]; \
  char text_of_##number[sizeof text];
#define BYTES(name, number, text) #name, text,
#define PLACES(name, number, text)                 \
  [number] = {offsetof(strings, name_of_##number), \
              offsetof(strings, text_of_##number)},
typedef struct strings {
  FL_REJECT_TABLE(MEMBERS)
} strings;
static const strings all = {FL_REJECT_TABLE(BYTES)};
static const struct {
  uint16_t name, text;
} places[] = {FL_REJECT_TABLE(PLACES)};
#undef MEMBERS
#undef BYTES
#undef PLACES

uint32_t fl_protocol_version_min(void)
{
  return FLI_PROTOCOL_MIN;
}

uint32_t fl_protocol_version_max(void)
{
  return FLI_PROTOCOL_MAX;
}

const char *fl_reject_name(uint32_t code)
{
  return code < FLI_COUNT_OF(places) ? (const char *)&all + places[code].name
                                     : "FL_REJECT_?";
}

const char *fl_reject_text(uint32_t code)
{
  return code < FLI_COUNT_OF(places) ? (const char *)&all + places[code].text
                                     : "unknown reason";
}

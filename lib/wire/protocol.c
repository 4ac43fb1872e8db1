/* SPDX-License-Identifier: Apache-2.0 */
/* The public facts of the protocol: its versions, and the names and texts of
 * the reasons for refusals, both made from the one table in fl/protocol.h so
 * that a reason cannot lack either. */
#include <fl/protocol.h>

#include "base/compiler.h"
#include "wire/frame.h"

typedef struct reason {
  const char *name;
  const char *text;
} reason;

#define REASON(name, number, text) [number] = {#name, text},
static const reason reasons[] = {FL_REJECT_TABLE(REASON)};
#undef REASON

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
  return code < FLI_COUNT_OF(reasons) ? reasons[code].name : "FL_REJECT_?";
}

const char *fl_reject_text(uint32_t code)
{
  return code < FLI_COUNT_OF(reasons) ? reasons[code].text : "unknown reason";
}

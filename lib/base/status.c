/* SPDX-License-Identifier: Apache-2.0 */
/* Names and texts of the status codes, all made from the one table in
 * fl/base.h, and the functions by which a binding mirrors that table. */
#include <fl/base.h>

#include "base/compiler.h"

/* Texts are in the row itself: pointers to them would have to be relocated. */
typedef struct status_row {
  fl_status status;
  char name[18];
  char text[46];
} status_row;

#define STATUS_FITS(status, number, meaning)                          \
  _Static_assert(sizeof #status <= sizeof((status_row *)0)->name &&   \
                     sizeof meaning <= sizeof((status_row *)0)->text, \
                 #status ": name or text is longer than its place");
FL_STATUS_TABLE(STATUS_FITS)
#undef STATUS_FITS

static const status_row status_table[] = {
#define STATUS_ROW(name, number, text) {name, #name, text},
    FL_STATUS_TABLE(STATUS_ROW)
#undef STATUS_ROW
};

static const status_row *find_row(fl_status status)
{
  for (size_t i = 0; i < FLI_COUNT_OF(status_table); i++) {
    if (status_table[i].status == status) return &status_table[i];
  }
  return NULL;
}

const char *fl_status_name(fl_status status)
{
  const status_row *row = find_row(status);
  return row ? row->name : "FL_E_?";
}

const char *fl_status_text(fl_status status)
{
  const status_row *row = find_row(status);
  return row ? row->text : "unknown status";
}

uint32_t fl_status_count(void)
{
  return (uint32_t)FLI_COUNT_OF(status_table);
}

fl_status fl_status_at(uint32_t index)
{
  if (index >= FLI_COUNT_OF(status_table)) return FL_E_INTERNAL;
  return status_table[index].status;
}

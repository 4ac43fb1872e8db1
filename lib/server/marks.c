/* SPDX-License-Identifier: Apache-2.0 */
#include "server/marks.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/context.h"

enum { MARKS_FIRST = 16 };

static size_t home_of(const fli_marks *marks,
                      const uint8_t name[FLI_NAME_BYTES])
{
  return (size_t)fli_load_u64(name) & (marks->capacity - 1);
}

static fli_mark *place(const fli_marks *marks,
                       const uint8_t name[FLI_NAME_BYTES])
{
  size_t i = home_of(marks, name);
  while (marks->slots[i].is_there &&
         memcmp(marks->slots[i].name, name, FLI_NAME_BYTES) != 0) {
    i = (i + 1) & (marks->capacity - 1);
  }
  return &marks->slots[i];
}

void fli_marks_free(fli_marks *marks)
{
  fli_free(marks->context, marks->slots,
           marks->capacity * sizeof *marks->slots);
  marks->slots = NULL;
  marks->capacity = 0;
  marks->count = 0;
}

fli_mark *fli_marks_find(const fli_marks *marks,
                         const uint8_t name[FLI_NAME_BYTES])
{
  if (marks->count == 0) return NULL;
  fli_mark *mark = place(marks, name);
  return mark->is_there ? mark : NULL;
}

/* At most three quarters full. */
int fli_marks_reserve(fli_marks *marks, uint32_t more)
{
  const size_t want = (size_t)marks->count + more;
  if (want <= marks->capacity / 4 * 3) return 1;
  fli_marks grown = *marks;
  if (!grown.capacity) grown.capacity = MARKS_FIRST;
  while (want > grown.capacity / 4 * 3)
    grown.capacity *= 2;
  grown.slots = fli_alloc(marks->context, grown.capacity, sizeof *grown.slots);
  if (!grown.slots) return 0;
  for (size_t i = 0; i < marks->capacity; i++) {
    if (marks->slots[i].is_there)
      *place(&grown, marks->slots[i].name) = marks->slots[i];
  }
  fli_free(marks->context, marks->slots,
           marks->capacity * sizeof *marks->slots);
  *marks = grown;
  return 1;
}

fli_mark *fli_marks_add(fli_marks *marks, const uint8_t name[FLI_NAME_BYTES])
{
  fli_mark *mark = fli_marks_find(marks, name);
  if (mark) return mark;
  if (!fli_marks_reserve(marks, 1)) return NULL;
  mark = place(marks, name);
  memset(mark, 0, sizeof *mark);
  memcpy(mark->name, name, FLI_NAME_BYTES);
  mark->is_there = 1;
  marks->count++;
  return mark;
}

/* Those behind it move up, so that nobody's search ends at the hole. */
void fli_marks_remove(fli_marks *marks, fli_mark *mark)
{
  const size_t mask = marks->capacity - 1;
  size_t hole = (size_t)(mark - marks->slots);
  size_t i = (hole + 1) & mask;
  for (; marks->slots[i].is_there; i = (i + 1) & mask) {
    const size_t home = home_of(marks, marks->slots[i].name);
    if (((i - home) & mask) < ((i - hole) & mask)) continue;
    marks->slots[hole] = marks->slots[i];
    hole = i;
  }
  memset(&marks->slots[hole], 0, sizeof marks->slots[hole]);
  marks->count--;
}

static int compare_names(const void *a, const void *b)
{
  const fli_mark *const *left = a;
  const fli_mark *const *right = b;
  return memcmp((*left)->name, (*right)->name, FLI_NAME_BYTES);
}

const fli_mark **fli_marks_sorted(const fli_marks *marks)
{
  size_t n = 0;
  const fli_mark **sorted =
      fli_alloc(marks->context, marks->count, sizeof *sorted);
  if (!sorted) return NULL;
  for (size_t i = 0; i < marks->capacity; i++) {
    if (marks->slots[i].is_there) sorted[n++] = &marks->slots[i];
  }
  qsort(sorted, n, sizeof *sorted, compare_names);
  return sorted;
}

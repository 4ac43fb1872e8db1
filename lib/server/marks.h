/* SPDX-License-Identifier: Apache-2.0 */
/* A set of names (client ids, keys), each with a few words about it: the list
 * of those allowed, and of those banned. Names are hashes keyed by the server's
 * secret: nobody can choose ones that collide, and who has left is not in here
 * by name. Open addressing; entries move when others are added or removed. */
#ifndef FLI_MARKS_H
#define FLI_MARKS_H

#include <fl/base.h>

enum { FLI_NAME_BYTES = 16 };

typedef struct fli_mark {
  uint8_t name[FLI_NAME_BYTES];
  uint8_t owner[FLI_NAME_BYTES]; /* the id that a key is for */
  uint64_t until_ns;             /* bans */
  uint8_t is_there;
  uint8_t has_owner;
  uint8_t is_taken; /* the owner is the first that came */
} fli_mark;

typedef struct fli_marks {
  fl_context *context;
  fli_mark *slots;
  size_t capacity; /* 0 or a power of two */
  uint32_t count;
} fli_marks;

void fli_marks_free(fli_marks *marks);
/* NULL when it is not there. Valid until the set changes. */
fli_mark *fli_marks_find(const fli_marks *marks,
                         const uint8_t name[FLI_NAME_BYTES]);
/* Have memory for so many more; 0: there is none. */
int fli_marks_reserve(fli_marks *marks, uint32_t more);
/* Find or add; NULL: no memory. */
fli_mark *fli_marks_add(fli_marks *marks, const uint8_t name[FLI_NAME_BYTES]);
void fli_marks_remove(fli_marks *marks, fli_mark *mark);
/* Those there, by name, whatever they were added in: for a snapshot. Free with
 * count * sizeof(fli_mark *). NULL: no memory. */
const fli_mark **fli_marks_sorted(const fli_marks *marks);

#endif

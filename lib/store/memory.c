/* SPDX-License-Identifier: Apache-2.0 */
/* The store in memory: entries sorted by key, each one immutable block, and a
 * list of what changed since the last commit, newest last. A rollback walks it
 * backwards: it gives blocks back to where they were, in room that is still
 * there, so that it needs no memory. An insert moves the pointers behind it,
 * 8 bytes each: meant for some 10^5 keys. */
#include <fl/store.h>

#include <string.h>

#include "base/context.h"
#include "base/error.h"
#include "base/size.h"

typedef struct entry {
  uint8_t *value; /* behind the key, in the same block */
  size_t n;
  size_t key_size;
  size_t block; /* bytes of all of it */
  uint8_t key[];
} entry;

/* One of the two is NULL when the key came or went. */
typedef struct change {
  entry *before;
  entry *after;
} change;

typedef struct memory {
  fl_store store;
  fl_context *context;
  entry **entries;
  size_t n;
  size_t capacity;
  change *changes;
  size_t n_changes;
  size_t change_capacity;
  int is_broken; /* a change failed: see fl_store */
} memory;

static int compare(const void *a, size_t a_size, const void *b, size_t b_size)
{
  const size_t shared = a_size < b_size ? a_size : b_size;
  const int order = shared > 0 ? memcmp(a, b, shared) : 0;
  if (order != 0) return order;
  return (a_size > b_size) - (a_size < b_size);
}

/* First place whose key is not below; *is_there: it is the key. */
static size_t find(const memory *self, const void *key, size_t key_size,
                   int *is_there)
{
  size_t low = 0, high = self->n;
  *is_there = 0;
  while (low < high) {
    const size_t middle = low + (high - low) / 2;
    const entry *at = self->entries[middle];
    const int order = compare(at->key, at->key_size, key, key_size);
    if (order == 0) *is_there = 1;
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

static void insert(memory *self, size_t place, entry *added)
{
  memmove(self->entries + place + 1, self->entries + place,
          (self->n - place) * sizeof *self->entries);
  self->entries[place] = added;
  self->n++;
}

static void take_out(memory *self, size_t place)
{
  memmove(self->entries + place, self->entries + place + 1,
          (self->n - place - 1) * sizeof *self->entries);
  self->n--;
}

static void entry_free(memory *self, entry *dropped)
{
  if (dropped) fli_free(self->context, dropped, dropped->block);
}

static entry *entry_new(memory *self, const void *key, size_t key_size,
                        const void *value, size_t n)
{
  size_t block = sizeof(entry) + key_size;
  if (!fli_add_size(block, n, &block)) return NULL;
  entry *made = fli_alloc(self->context, 1, block);
  if (!made) return NULL;
  made->key_size = key_size;
  made->n = n;
  made->block = block;
  made->value = made->key + key_size;
  memcpy(made->key, key, key_size);
  if (n > 0) memcpy(made->value, value, n);
  return made;
}

/* Room for one more change and one more entry. */
static fl_status make_room(memory *self)
{
  void *items = self->changes;
  fl_status st = fli_grow(self->context, &items, &self->change_capacity,
                          self->n_changes + 1, sizeof *self->changes);
  if (st != FL_OK) return st;
  self->changes = items;
  items = self->entries;
  /* It never shrinks: a rollback finds room for what was taken out. */
  st = fli_grow(self->context, &items, &self->capacity, self->n + 1,
                sizeof *self->entries);
  if (st == FL_OK) self->entries = items;
  return st;
}

static void note(memory *self, entry *before, entry *after)
{
  self->changes[self->n_changes++] = (change){.before = before, .after = after};
}

static fl_status memory_put(void *user, const void *key, size_t key_size,
                            const void *value, size_t n)
{
  memory *self = user;
  int is_there = 0;
  /* First: the key may be one that the store lent. */
  entry *made = entry_new(self, key, key_size, value, n);
  if (!made || make_room(self) != FL_OK) {
    entry_free(self, made);
    self->is_broken = 1;
    return FL_E_NOMEM;
  }
  const size_t place = find(self, made->key, key_size, &is_there);
  note(self, is_there ? self->entries[place] : NULL, made);
  if (is_there) {
    self->entries[place] = made;
  } else {
    insert(self, place, made);
  }
  return FL_OK;
}

static fl_status memory_remove(void *user, const void *key, size_t key_size)
{
  memory *self = user;
  int is_there = 0;
  const size_t place = find(self, key, key_size, &is_there);
  if (!is_there) return FL_OK;
  if (make_room(self) != FL_OK) {
    self->is_broken = 1;
    return FL_E_NOMEM;
  }
  note(self, self->entries[place], NULL);
  take_out(self, place);
  return FL_OK;
}

static fl_status memory_get(void *user, const void *key, size_t key_size,
                            const void **value, size_t *n)
{
  const memory *self = user;
  int is_there = 0;
  const size_t place = find(self, key, key_size, &is_there);
  if (!is_there) return FL_E_NOT_FOUND;
  *value = self->entries[place]->value;
  *n = self->entries[place]->n;
  return FL_OK;
}

static fl_status memory_next(void *user, const void *after, size_t after_size,
                             const void **key, size_t *key_size)
{
  const memory *self = user;
  int is_there = 0;
  size_t place = find(self, after, after_size, &is_there);
  if (is_there) place++;
  if (place == self->n) return FL_E_EMPTY;
  *key = self->entries[place]->key;
  *key_size = self->entries[place]->key_size;
  return FL_OK;
}

static void undo(memory *self, const change *last)
{
  const entry *named = last->before ? last->before : last->after;
  int is_there = 0;
  const size_t place = find(self, named->key, named->key_size, &is_there);
  if (last->before && last->after) {
    self->entries[place] = last->before;
  } else if (last->before) {
    insert(self, place, last->before);
  } else {
    take_out(self, place);
  }
  entry_free(self, last->after);
}

static fl_status memory_rollback(void *user)
{
  memory *self = user;
  while (self->n_changes > 0)
    undo(self, &self->changes[--self->n_changes]);
  self->is_broken = 0;
  return FL_OK;
}

static fl_status memory_commit(void *user)
{
  memory *self = user;
  if (self->is_broken) return FL_E_STATE;
  for (size_t i = 0; i < self->n_changes; i++)
    entry_free(self, self->changes[i].before);
  self->n_changes = 0;
  return FL_OK;
}

static void memory_free(void *user)
{
  memory *self = user;
  fl_context *context = self->context;
  (void)memory_rollback(self);
  for (size_t i = 0; i < self->n; i++)
    entry_free(self, self->entries[i]);
  fli_free(context, self->entries, self->capacity * sizeof *self->entries);
  fli_free(context, self->changes,
           self->change_capacity * sizeof *self->changes);
  fli_free(context, self, sizeof *self);
  fli_context_unref(context);
}

fl_status fl_store_memory_new(fl_store **out, fl_context *context)
{
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "fl_store_memory_new: out is NULL");
  memory *self = fli_alloc(context, 1, sizeof *self);
  if (!self) return fli_nomem(sizeof *self);
  self->context = fli_context_ref(context);
  self->store = (fl_store){
      .struct_size = (uint32_t)sizeof self->store,
      .user = self,
      .put = memory_put,
      .get = memory_get,
      .remove = memory_remove,
      .next = memory_next,
      .commit = memory_commit,
      .rollback = memory_rollback,
      .free = memory_free,
  };
  *out = &self->store;
  return FL_OK;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The host's hooks: memory, log, clock, loops, storage, references. */
#include <criterion/criterion.h>
#include <fenv.h>
#include <stdlib.h>
#include <string.h>

#include "base/context.h"
#include "base/error.h"

typedef struct host_state {
  size_t blocks;
  size_t last_alignment;
  size_t bytes;
  uint32_t lines;
  uint32_t last_level;
  char last_line[1024];
  uint64_t items;
  fl_status loop_status;
} host_state;

static void *state_alloc(void *user, size_t size, size_t alignment)
{
  host_state *state = user;
  state->blocks++;
  state->bytes += size;
  state->last_alignment = alignment;
  return aligned_alloc(alignment, (size + alignment - 1) & ~(alignment - 1));
}

static void state_dealloc(void *user, void *ptr, size_t size, size_t alignment)
{
  host_state *state = user;
  (void)alignment;
  state->blocks--;
  state->bytes -= size;
  free(ptr);
}

static void state_log(void *user, uint32_t level, const char *text)
{
  host_state *state = user;
  state->lines++;
  state->last_level = level;
  strncpy(state->last_line, text, sizeof state->last_line - 1);
}

static fl_status state_loop(void *user, uint64_t count, fl_task_fn task,
                            void *arg)
{
  host_state *state = user;
  for (uint64_t i = count; i > 0; i--) {
    task(arg, i - 1);
    state->items++;
  }
  return state->loop_status;
}

static void set_item(void *arg, uint64_t index)
{
  uint32_t *items = arg;
  items[index]++;
}

static fl_context *new_context(fl_context_options *options)
{
  fl_context *context = NULL;
  cr_assert_eq(fl_context_new(&context, options), FL_OK);
  return context;
}

static fl_context_options default_options(host_state *state)
{
  fl_context_options options;
  cr_assert_eq(fl_context_options_init(&options, sizeof options), FL_OK);
  options.user = state;
  return options;
}

static uint64_t bytes_now(const fl_context *context)
{
  uint64_t bytes = 0;
  cr_assert_eq(fl_context_get_memory(context, &bytes, NULL), FL_OK);
  return bytes;
}

Test(context, blocks_are_aligned_and_zeroed)
{
  for (size_t n = 1; n < 300; n += 7) {
    uint8_t *block = fli_alloc(NULL, n, 1);
    cr_assert_not_null(block);
    cr_assert_eq((uintptr_t)block % FLI_ALIGNMENT, 0);
    for (size_t i = 0; i < n; i++) {
      cr_assert_eq(block[i], 0);
    }
    memset(block, 0xff, n);
    fli_free(NULL, block, n);
  }
}

Test(context, empty_blocks_are_unique_and_accounted)
{
  fl_context *context = new_context(NULL);
  void *a = fli_alloc(context, 0, 8);
  void *b = fli_alloc(context, 8, 0);
  cr_assert_not_null(a);
  cr_assert_not_null(b);
  cr_assert_neq(a, b);
  fli_free(context, a, 0);
  fli_free(context, b, 0);
  cr_assert_eq(bytes_now(context), 0);
  fl_context_free(context);
}

Test(context, size_overflow_is_no_memory)
{
  cr_assert_null(fli_alloc(NULL, SIZE_MAX, 2));
  cr_assert_null(fli_alloc(NULL, SIZE_MAX / 2, 3));
  cr_assert_null(fli_alloc(NULL, SIZE_MAX, 1));
}

Test(context, hooks_get_the_size_and_alignment_they_gave)
{
  host_state state = {0};
  fl_context_options options = default_options(&state);
  options.alloc = state_alloc;
  options.dealloc = state_dealloc;
  fl_context *context = new_context(&options);
  size_t own = state.bytes;
  void *block = fli_alloc(context, 3, 10);
  cr_assert_eq(state.bytes, own + 30);
  cr_assert_eq(state.last_alignment, FLI_ALIGNMENT);
  cr_assert_eq(bytes_now(context), 30);
  fli_free(context, block, 30);
  cr_assert_eq(state.bytes, own);
  fl_context_free(context);
  cr_assert_eq(state.blocks, 0);
  cr_assert_eq(state.bytes, 0);
}

Test(context, peak_is_the_most_ever_held)
{
  fl_context *context = new_context(NULL);
  void *a = fli_alloc(context, 100, 1);
  void *b = fli_alloc(context, 50, 1);
  fli_free(context, a, 100);
  void *c = fli_alloc(context, 20, 1);
  uint64_t now;
  uint64_t peak;
  cr_assert_eq(fl_context_get_memory(context, &now, &peak), FL_OK);
  cr_assert_eq(now, 70);
  cr_assert_eq(peak, 150);
  fli_free(context, b, 50);
  fli_free(context, c, 20);
  fl_context_free(context);
}

Test(context, cap_is_exact_and_a_refused_block_costs_nothing)
{
  fl_context_options options = default_options(NULL);
  options.memory_cap = 100;
  fl_context *context = new_context(&options);
  void *a = fli_alloc(context, 60, 1);
  cr_assert_not_null(a);
  cr_assert_null(fli_alloc(context, 41, 1));
  void *b = fli_alloc(context, 40, 1);
  cr_assert_not_null(b);
  uint64_t peak = 0;
  cr_assert_eq(fl_context_get_memory(context, NULL, &peak), FL_OK);
  cr_assert_eq(peak, 100);
  fli_free(context, a, 60);
  fli_free(context, b, 40);
  cr_assert_eq(bytes_now(context), 0);
  fl_context_free(context);
}

Test(context, realloc_keeps_content_and_zeroes_the_rest)
{
  fl_context *context = new_context(NULL);
  uint8_t *block = fli_realloc(context, NULL, 0, 3);
  cr_assert_not_null(block);
  memcpy(block, "abc", 3);
  block = fli_realloc(context, block, 3, 100);
  cr_assert_eq(memcmp(block, "abc", 3), 0);
  for (size_t i = 3; i < 100; i++) {
    cr_assert_eq(block[i], 0);
  }
  block = fli_realloc(context, block, 100, 2);
  cr_assert_eq(memcmp(block, "ab", 2), 0);
  cr_assert_eq(bytes_now(context), 2);
  fli_free(context, block, 2);
  fl_context_free(context);
}

Test(context, failed_realloc_leaves_the_old_block)
{
  fl_context_options options = default_options(NULL);
  options.memory_cap = 64;
  fl_context *context = new_context(&options);
  char *text = fli_strdup(context, "still here");
  cr_assert_null(fli_realloc(context, text, 11, 1000));
  cr_assert_str_eq(text, "still here");
  fli_free(context, text, 11);
  fl_context_free(context);
}

Test(context, grow_doubles_and_keeps_items)
{
  void *items = NULL;
  size_t capacity = 0;
  size_t changes = 0;
  for (uint32_t i = 0; i < 1000; i++) {
    size_t before = capacity;
    cr_assert_eq(fli_grow(NULL, &items, &capacity, i + 1, sizeof i), FL_OK);
    cr_assert_geq(capacity, i + 1);
    changes += capacity != before;
    ((uint32_t *)items)[i] = i;
  }
  cr_assert_leq(changes, 8);
  for (uint32_t i = 0; i < 1000; i++) {
    cr_assert_eq(((uint32_t *)items)[i], i);
  }
  fli_free(NULL, items, capacity * sizeof(uint32_t));
}

Test(context, grow_overflow_changes_nothing)
{
  void *items = NULL;
  size_t capacity = 0;
  cr_assert_eq(fli_grow(NULL, &items, &capacity, SIZE_MAX / 4, 8), FL_E_NOMEM);
  cr_assert_eq(fli_grow(NULL, &items, &capacity, SIZE_MAX, 1), FL_E_NOMEM);
  cr_assert_null(items);
  cr_assert_eq(capacity, 0);
}

Test(context, log_passes_levels_up_to_its_own)
{
  host_state state = {0};
  fl_context_options options = default_options(&state);
  options.log = state_log;
  fl_context *context = new_context(&options);
  fli_log(context, FL_LOG_INFO, "not seen");
  cr_assert_eq(state.lines, 0);
  fli_log(context, FL_LOG_WARNING, "peer %d", 7);
  cr_assert_eq(state.lines, 1);
  cr_assert_eq(state.last_level, FL_LOG_WARNING);
  cr_assert_str_eq(state.last_line, "peer 7");
  fli_log(NULL, FL_LOG_ERROR, "nobody listens");
  fl_context_free(context);
}

Test(context, log_line_is_one_line_and_is_cut)
{
  host_state state = {0};
  char longer[2000];
  memset(longer, 'y', sizeof longer - 1);
  longer[sizeof longer - 1] = '\0';
  fl_context_options options = default_options(&state);
  options.log = state_log;
  fl_context *context = new_context(&options);
  fli_log(context, FL_LOG_ERROR, "a\nb\r\x1b[0m\x7f");
  cr_assert_str_eq(state.last_line, "a b  [0m ");
  fli_log(context, FL_LOG_ERROR, "%s", longer);
  cr_assert_eq(strlen(state.last_line), 511);
  fl_context_free(context);
}

Test(context, loop_runs_every_item_once_with_and_without_a_hook)
{
  host_state state = {0};
  uint32_t items[100] = {0};
  fl_context_options options = default_options(&state);
  options.parallel_for = state_loop;
  fl_context *context = new_context(&options);
  cr_assert_eq(fli_parallel_for(context, 100, set_item, items), FL_OK);
  cr_assert_eq(state.items, 100);
  cr_assert_eq(fli_parallel_for(NULL, 100, set_item, items), FL_OK);
  cr_assert_eq(fli_parallel_for(context, 0, set_item, items), FL_OK);
  for (size_t i = 0; i < 100; i++) {
    cr_assert_eq(items[i], 2);
  }
  fl_context_free(context);
}

/* volatile: the quotient must be made here and now, in the mode that is set;
 * compilers move plain arithmetic across calls that set it. */
static double third(void)
{
  volatile double one = 1;
  volatile double three = 3;
  volatile double quotient = one / three;
  return quotient;
}

/* Like a thread whose rounding mode some other library has changed. */
static fl_status rounding_loop(void *user, uint64_t count, fl_task_fn task,
                               void *arg)
{
  (void)user;
  double nearest = third();
  fesetround(FE_UPWARD);
  for (uint64_t i = 0; i < count; i++) {
    task(arg, i);
  }
  double after = third();
  fesetround(FE_TONEAREST);
  return after > nearest ? FL_OK : FL_E_STATE;
}

static void note_third(void *arg, uint64_t index)
{
  double *thirds = arg;
  thirds[index] = third();
}

Test(context, loop_items_round_to_nearest_on_the_hosts_threads)
{
  double thirds[3] = {0};
  fl_context_options options = default_options(NULL);
  options.parallel_for = rounding_loop;
  fl_context *context = new_context(&options);
  cr_assert_eq(fli_parallel_for(context, 3, note_third, thirds), FL_OK);
  for (size_t i = 0; i < 3; i++) {
    cr_assert_eq(thirds[i], third());
  }
  fl_context_free(context);
}

Test(context, failure_of_the_loop_hook_is_a_callback_error)
{
  host_state state = {.loop_status = FL_E_IO};
  uint32_t items[2] = {0};
  fl_context_options options = default_options(&state);
  options.parallel_for = state_loop;
  fl_context *context = new_context(&options);
  cr_assert_eq(fli_parallel_for(context, 2, set_item, items), FL_E_CALLBACK);
  cr_assert_not_null(strstr(fl_last_error(), "FL_E_IO"));
  fl_context_free(context);
}

/* Every other item, and then a status. */
static fl_status lazy_loop(void *user, uint64_t count, fl_task_fn task,
                           void *arg)
{
  const host_state *state = user;
  for (uint64_t i = 0; i < count; i += 2) {
    task(arg, i);
  }
  return state->loop_status;
}

Test(context, what_the_hook_leaves_out_is_done_by_the_caller)
{
  static const uint64_t counts[] = {0, 1, 2, 255, 256, 257, 600};
  for (size_t i = 0; i < 2 * FLI_COUNT_OF(counts); i++) {
    host_state state = {.loop_status = i % 2 ? FL_OK : FL_E_IO};
    uint32_t items[600] = {0};
    fl_context_options options = default_options(&state);
    options.parallel_for = lazy_loop;
    fl_context *context = new_context(&options);
    fli_parallel_all(context, counts[i / 2], set_item, items);
    for (uint64_t j = 0; j < 600; j++) {
      cr_assert_eq(items[j], j < counts[i / 2], "item %d", (int)j);
    }
    cr_assert_str_eq(fl_last_error(), "");
    fl_context_free(context);
  }
}

Test(context, lives_as_long_as_its_last_handle)
{
  host_state state = {0};
  fl_context_options options = default_options(&state);
  options.alloc = state_alloc;
  options.dealloc = state_dealloc;
  fl_context *context = new_context(&options);
  fl_buffer *buffer = NULL;
  cr_assert_eq(fl_buffer_new(&buffer, context), FL_OK);
  fl_context_free(context);
  cr_assert_eq(fl_buffer_append(buffer, "x", 1), FL_OK);
  cr_assert_eq(state.blocks, 3);
  fl_buffer_free(buffer);
  cr_assert_eq(state.blocks, 0);
}

Test(context, null_references_are_fine)
{
  cr_assert_null(fli_context_ref(NULL));
  fli_context_unref(NULL);
  fl_context_free(NULL);
  fli_free(NULL, NULL, 100);
}

static fl_status no_size(void *user, const char *name, uint64_t *size)
{
  (void)user, (void)name, (void)size;
  return FL_E_NOT_FOUND;
}

static fl_status no_read(void *user, const char *name, uint64_t offset,
                         void *buf, size_t n)
{
  (void)user, (void)name, (void)offset, (void)buf, (void)n;
  return FL_E_NOT_FOUND;
}

static fl_status no_write(void *user, const char *name, const void *buf,
                          size_t n)
{
  (void)user, (void)name, (void)buf, (void)n;
  return FL_E_IO;
}

static fl_status no_remove(void *user, const char *name)
{
  (void)user, (void)name;
  return FL_OK;
}

static fl_status no_sync(void *user)
{
  (void)user;
  return FL_OK;
}

static fl_status no_map(void *user, const char *name, const void **data,
                        size_t *n)
{
  (void)user, (void)name, (void)data, (void)n;
  return FL_E_IO;
}

static fl_status no_map_write(void *user, const char *name, uint64_t n,
                              void **data, int32_t *is_new)
{
  (void)user, (void)name, (void)n, (void)data, (void)is_new;
  return FL_E_IO;
}

static fl_storage sample_storage(void)
{
  fl_storage storage = {.struct_size = sizeof storage,
                        .size = no_size,
                        .read = no_read,
                        .write = no_write,
                        .remove = no_remove,
                        .sync = no_sync};
  return storage;
}

Test(context, storage_is_copied)
{
  fl_storage storage = sample_storage();
  fl_context_options options = default_options(NULL);
  options.storage = &storage;
  fl_context *context = new_context(&options);
  storage.read = NULL;
  const fl_storage *copy = fli_context_storage(context);
  cr_assert_not_null(copy);
  cr_assert_neq(copy, &storage);
  cr_assert_not_null(copy->read);
  cr_assert_null(fli_context_storage(NULL));
  fl_context_free(context);
}

/* Whatever lies behind the struct of that time is not looked at. */
Test(context, storage_of_a_host_from_before_map_write_has_none)
{
  fl_storage storage = sample_storage();
  fl_context_options options = default_options(NULL);
  options.storage = &storage;
  storage.struct_size = offsetof(fl_storage, map_write);
  storage.map_write = no_map_write;
  fl_context *context = new_context(&options);
  cr_assert_null(fli_context_storage(context)->map_write);
  cr_assert_null(fli_context_storage(context)->advise);
  fl_context_free(context);
}

Test(context, storage_with_missing_hooks_is_refused)
{
  fl_context *context = NULL;
  fl_context_options options = default_options(NULL);
  fl_storage storage = sample_storage();
  options.storage = &storage;
  storage.write = NULL;
  cr_assert_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  storage = sample_storage();
  storage.map = no_map;
  cr_assert_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  storage = sample_storage();
  storage.map_write = no_map_write;
  cr_assert_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  storage = sample_storage();
  storage.struct_size = 0;
  cr_assert_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  cr_assert_null(context);
}

Test(context, alloc_without_dealloc_is_refused)
{
  fl_context *context = NULL;
  fl_context_options options = default_options(NULL);
  options.alloc = state_alloc;
  cr_assert_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  options.alloc = NULL;
  options.dealloc = state_dealloc;
  cr_assert_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  cr_assert_null(context);
}

Test(context, unknown_log_level_is_refused)
{
  fl_context *context = NULL;
  fl_context_options options = default_options(NULL);
  options.log_level = 0;
  cr_assert_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  options.log_level = FL_LOG_DEBUG + 1;
  cr_assert_eq(fl_context_new(&context, &options), FL_E_OPTIONS);
  cr_assert_null(context);
}

Test(context, null_arguments_are_refused)
{
  cr_assert_eq(fl_context_new(NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_context_get_memory(NULL, NULL, NULL), FL_E_ARGUMENT);
  cr_assert_eq(fl_context_options_init(NULL, 100), FL_E_OPTIONS);
}

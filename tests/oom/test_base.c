/* SPDX-License-Identifier: Apache-2.0 */
/* Allocation failures in the context's helpers and in fl_buffer. */
#include "oom.h"

#include "base/context.h"
#include "base/error.h"

static fl_status use_buffer(fl_context *context, void *arg)
{
  static const char text[] = "some bytes that do not fit into eight";
  (void)arg;
  fl_buffer *buffer = NULL;
  fl_reader reader;
  fl_status st = FL_OK;
  FLI_TRY(fl_buffer_new(&buffer, context));
  FLI_TRY(fl_buffer_as_reader(buffer, &reader));
  FLI_TRY(fl_buffer_append(buffer, text, 4));
  for (size_t i = 0; i < 20; i++) {
    st = fl_buffer_append(buffer, text, sizeof text);
    if (st == FL_OK) continue;
    /* by the stream, which leaves the error's text alone */
    uint8_t content[sizeof text * 20 + 4];
    size_t n = 0;
    CHECK_OK(reader.read(reader.user, content, sizeof content, &n));
    CHECK_EQ_U64(n, 4 + i * sizeof text);
    CHECK_EQ_MEM(content, text, 4);
    goto out;
  }
out:
  fl_buffer_free(buffer);
  return st;
}

static fl_status use_helpers(fl_context *context, void *arg)
{
  (void)arg;
  fl_status st = FL_OK;
  void *items = NULL;
  size_t capacity = 0;
  uint8_t *block = NULL;
  size_t block_bytes = 0;
  char *text = fli_strdup(context, "peer-7");
  if (!text) return fli_nomem(7);
  FLI_TRY(fli_grow(context, &items, &capacity, 3, sizeof(uint64_t)));
  FLI_TRY(fli_grow(context, &items, &capacity, 100, sizeof(uint64_t)));
  block = fli_realloc(context, NULL, 0, 10);
  if (!block) st = fli_nomem(10);
  if (block) block_bytes = 10;
  if (block) {
    uint8_t *grown = fli_realloc(context, block, 10, 1000);
    if (grown) block_bytes = 1000;
    if (grown) block = grown;
    if (!grown) st = fli_nomem(1000);
  }
out:
  fli_free(context, block, block_bytes);
  fli_free(context, items, capacity * sizeof(uint64_t));
  fli_free(context, text, strlen(text) + 1);
  return st;
}

static void buffer_keeps_content_when_append_fails(void)
{
  oom_loop(use_buffer, NULL);
}

static void helpers_give_everything_back(void)
{
  oom_loop(use_helpers, NULL);
}

static void context_without_memory_is_not_made(void)
{
  oom_heap heap = {.fail_at = 1};
  fl_context *context = NULL;
  CHECK_STATUS(oom_context(&context, &heap), FL_E_NOMEM);
  CHECK(context == NULL);
  CHECK(strlen(fl_last_error()) > 0);
  CHECK_EQ_U64(heap.live_blocks, 0);
}

int main(void)
{
  CHECK_CASE(buffer_keeps_content_when_append_fails);
  CHECK_CASE(helpers_give_everything_back);
  CHECK_CASE(context_without_memory_is_not_made);
  return check_report();
}

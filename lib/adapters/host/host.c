/* SPDX-License-Identifier: Apache-2.0 */
/* Puts thread pool, clock, log and storage behind one context. Uses libfl by
 * its public functions only, like any host; so it checks its option struct
 * itself, and leaves no text for fl_last_error. Entropy stays with the core's
 * default. */
#define _POSIX_C_SOURCE 200809L
#include "adapters/host/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "adapters/options.h"

static const fl_host_options host_defaults = {
    .struct_size = sizeof(fl_host_options),
    .threads = 1,
};

static fl_status host_parallel_for(void *user, uint64_t count, fl_task_fn task,
                                   void *arg)
{
  fl_host *host = user;
  fli_host_pool_run(host->pool, count, task, arg);
  return FL_OK;
}

static fl_status host_start(void *user, fl_task_fn task, void *arg, void **job)
{
  fl_host *host = user;
  fli_host_job *made = NULL;
  fl_status st = fli_host_pool_start(host->pool, task, arg, &made);
  if (st == FL_OK) *job = made;
  return st;
}

static void host_finish(void *user, void *job)
{
  fl_host *host = user;
  fli_host_pool_finish(host->pool, job);
}

static void *host_alloc(void *user, size_t bytes, size_t alignment)
{
  fl_host *host = user;
  return fli_host_pages_alloc(host->pages, bytes, alignment);
}

static void host_dealloc(void *user, void *ptr, size_t bytes, size_t alignment)
{
  fl_host *host = user;
  fli_host_pages_dealloc(host->pages, ptr, bytes, alignment);
}

static uint64_t host_now(void *user)
{
  (void)user;
  return fl_host_now();
}

static void host_log(void *user, uint32_t level, const char *text)
{
  static const char *const names[] = {"", "error", "warning", "info", "debug"};
  (void)user;
  const char *name = level <= FL_LOG_DEBUG ? names[level] : "";
  fprintf(stderr, "libfl %s: %s\n", name, text);
}

/* An older host's struct is shorter, a newer one's has a zero tail. */
static fl_status load_options(fl_host_options *local,
                              const fl_host_options *options)
{
  *local = host_defaults;
  const fl_status st = fli_adapter_options_load(local, sizeof *local, options);
  if (st != FL_OK) return st;
  if (local->log_level > FL_LOG_DEBUG) return FL_E_OPTIONS;
  if (local->threads > FLI_HOST_THREADS_MAX) return FL_E_OPTIONS;
  if (local->huge_pages > 1) return FL_E_OPTIONS;
  return FL_OK;
}

static uint32_t count_cpus(void)
{
  long count = sysconf(_SC_NPROCESSORS_ONLN);
  if (count < 1) return 1;
  return count < FLI_HOST_THREADS_MAX ? (uint32_t)count : FLI_HOST_THREADS_MAX;
}

static fl_status make_context(fl_host *host, const fl_host_options *options)
{
  fl_context_options hooks;
  fl_status st = fl_context_options_init(&hooks, sizeof hooks);
  if (st != FL_OK) return st;
  hooks.user = host;
  hooks.now = host_now;
  hooks.memory_cap = options->memory_cap;
  if (options->log_level != 0) {
    hooks.log = host_log;
    hooks.log_level = options->log_level;
  }
  if (host->pages) {
    hooks.alloc = host_alloc;
    hooks.dealloc = host_dealloc;
  }
  if (host->pool) {
    hooks.parallel_for = host_parallel_for;
    hooks.start = host_start;
    hooks.finish = host_finish;
  }
  if (host->storage) hooks.storage = &host->hooks;
  return fl_context_new(&host->context, &hooks);
}

fl_status fl_host_options_init(fl_host_options *options, size_t size)
{
  return fli_adapter_options_init(options, size, &host_defaults,
                                  sizeof host_defaults);
}

fl_status fl_host_new(fl_host **out, const fl_host_options *options)
{
  if (!out) return FL_E_ARGUMENT;
  fl_host_options local;
  fl_status st = load_options(&local, options);
  if (st != FL_OK) return st;
  fl_host *host = calloc(1, sizeof *host);
  if (!host) return FL_E_NOMEM;
  uint32_t threads = local.threads ? local.threads : count_cpus();
  if (local.huge_pages) st = fli_host_pages_new(&host->pages);
  if (st == FL_OK && threads > 1) st = fli_host_pool_new(&host->pool, threads);
  if (st == FL_OK && local.storage_path) {
    st = fli_host_storage_new(&host->storage, local.storage_path);
    if (st == FL_OK) fli_host_storage_hooks(host->storage, &host->hooks);
  }
  if (st == FL_OK) st = make_context(host, &local);
  if (st != FL_OK) {
    fl_host_free(host);
    return st;
  }
  *out = host;
  return FL_OK;
}

void fl_host_free(fl_host *host)
{
  if (!host) return;
  fl_context_free(host->context);
  fli_host_pool_free(host->pool);
  fli_host_storage_free(host->storage);
  fli_host_pages_free(host->pages);
  free(host);
}

fl_context *fl_host_context(fl_host *host)
{
  return host ? host->context : NULL;
}

uint64_t fl_host_now(void)
{
  struct timespec now;
  if (clock_gettime(CLOCK_MONOTONIC, &now) != 0) return 0;
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

const fl_storage *fl_host_storage(fl_host *host)
{
  return host && host->storage ? &host->hooks : NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/* The controller beside a model, with its cache, as a host would have them. */
#include "kgt.h"

#include <stdio.h>

fl_freeze_options kgt_freeze_options(const kgt_bench *bench, uint64_t steps,
                                     uint32_t criterion)
{
  fl_freeze_options options;
  kgt_must(fl_freeze_options_init(&options, sizeof options), "options");
  options.criterion = criterion;
  options.steps_per_epoch = bench->steps_per_epoch;
  options.total_steps = steps;
  options.is_pretrained = 1;
  return options;
}

fl_freeze_options kgt_idle_options(const kgt_bench *bench, uint32_t criterion)
{
  fl_freeze_options options = kgt_freeze_options(bench, 1, criterion);
  options.hold = UINT64_C(1) << 32;
  return options;
}

void kgt_control_open(kgt_control *control, const kgt_bench *bench,
                      fl_model *model, const fl_freeze_options *options,
                      uint64_t n_kept)
{
  fl_freeze_attach_options attach;
  *control = (kgt_control){0};
  kgt_must(
      fl_freeze_new(&control->freeze, bench->context, KGT_MODULES, options),
      "controller");
  kgt_must(fl_freeze_attach_options_init(&attach, sizeof attach), "attaching");
  if (n_kept > 0) {
    kgt_must(fl_cache_new(&control->cache, bench->context, NULL), "cache");
  }
  attach.cache = control->cache;
  attach.n_samples = n_kept;
  kgt_must(fl_freeze_attach(control->freeze, model, &attach), "attaching");
}

uint64_t kgt_control_poll(kgt_control *control)
{
  fl_freeze_event event;
  uint64_t evaluations = 0;
  kgt_must(fl_freeze_event_init(&event, sizeof event), "events");
  while (fl_freeze_poll(control->freeze, &event) == FL_OK) {
    evaluations += event.kind == FL_FREEZE_EVALUATED;
    if (event.kind == FL_FREEZE_CACHE_OFF) {
      fprintf(stderr, "bench_kgt: no cache: %s\n", event.text);
    }
  }
  return evaluations;
}

int kgt_control_has_hit(kgt_control *control)
{
  fl_cache_status status;
  uint64_t before = control->hits;
  kgt_must(fl_cache_status_init(&status, sizeof status), "cache");
  kgt_must(fl_cache_get_status(control->cache, &status), "cache");
  control->hits = status.hits;
  return status.hits > before;
}

void kgt_control_close(kgt_control *control)
{
  kgt_must(fl_freeze_detach(control->freeze), "detaching");
  fl_freeze_free(control->freeze);
  fl_cache_free(control->cache);
}

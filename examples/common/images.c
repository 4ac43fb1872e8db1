/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Around a training: data in, weights out, and a clean end when somebody
 * presses Ctrl-C.
 */
#include "common/images.h"

#include <err.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "common/stored.h"

enum { PIXELS = 28 * 28, CLASSES = 10 };

static fl_cancel *stop;

static int load_part(struct idx_set *set, const char *dir, const char *prefix)
{
  char error[2048];
  if (idx_load(set, dir, prefix, error, sizeof error)) {
    warnx("data: %s", error);
    return -1;
  }
  if (set->sample_size != PIXELS) {
    warnx("%s/%s-*: got %u values per image, want %d", dir, prefix,
          set->sample_size, PIXELS);
    return -1;
  }
  for (uint32_t i = 0; i < set->n; i++) {
    if (set->labels[i] < CLASSES) continue;
    warnx("%s/%s-*: label %u is %u, want 0..%d", dir, prefix, i, set->labels[i],
          CLASSES - 1);
    return -1;
  }
  return 0;
}

int images_load(struct images *images, const char *dir)
{
  memset(images, 0, sizeof *images);
  return load_part(&images->train, dir, "train") ||
                 load_part(&images->test, dir, "t10k")
             ? -1
             : 0;
}

void images_free(struct images *images)
{
  idx_free(&images->train);
  idx_free(&images->test);
}

fl_host *host_open(uint64_t threads, const char *storage)
{
  fl_host *host = NULL;
  fl_host_options options;
  fl_host_options_init(&options, sizeof options);
  options.threads = (uint32_t)threads;
  options.storage_path = storage;
  fl_status st = fl_host_new(&host, &options);
  if (st != FL_OK)
    warnx("%s: %s", storage ? storage : "threads", fl_status_text(st));
  return host;
}

static void on_signal(int number)
{
  (void)number;
  fl_cancel_request(stop);
}

fl_cancel *stop_flag(void)
{
  struct sigaction action = {.sa_handler = on_signal,
                             .sa_flags = (int)SA_RESETHAND};
  if (fl_cancel_new(&stop) != FL_OK) {
    warnx("out of memory");
    return NULL;
  }
  sigaction(SIGINT, &action, NULL); /* a second one ends the process at once */
  sigaction(SIGTERM, &action, NULL);
  return stop;
}

fl_status accuracy_of(fl_model *model, const fl_dataset *data, double *share)
{
  fl_evaluation evaluation;
  fl_evaluation_init(&evaluation, sizeof evaluation);
  fl_status st = fl_model_evaluate(model, data, &evaluation);
  if (st == FL_OK)
    *share = (double)evaluation.correct / (double)evaluation.count;
  return st;
}

/* Runs of trained tensors of one module, as fl_model_copy_segments has them,
 * from the first active module on; their number. */
static uint32_t find_segments(const fl_model *model, uint64_t *segments)
{
  uint32_t n = 0;
  uint32_t module = 0;
  fl_tensor_info tensor;
  fl_tensor_info_init(&tensor, sizeof tensor);
  for (uint32_t i = 0; fl_model_get_tensor(model, i, &tensor) == FL_OK; i++) {
    if (!tensor.is_trainable || tensor.module < fl_model_first_active(model))
      continue;
    if (n == 0 || tensor.module != module) segments[n++] = 0;
    module = tensor.module;
    segments[n - 1] += tensor.count;
  }
  return n;
}

fl_status update_size(const fl_model *model, uint64_t *size)
{
  uint64_t *segments = malloc(fl_model_segment_count(model) * sizeof *segments);
  fl_compressor *compressor = NULL;
  if (!segments) return FL_E_NOMEM;
  uint32_t n = find_segments(model, segments);
  fl_status st = fl_compressor_new(&compressor, NULL, NULL, segments, n);
  if (st == FL_OK) *size = fl_compressor_max_update_size(compressor);
  fl_compressor_free(compressor);
  free(segments);
  return st;
}

static fl_status write_weights(const fl_writer *writer, void *user)
{
  return fl_model_save_weights(user, writer);
}

static fl_status read_weights(const fl_reader *reader, void *user)
{
  return fl_model_load_weights(user, reader, 0, NULL);
}

int weights_save(fl_model *model, const char *path)
{
  struct stored stored;
  if (stored_open(&stored, path)) return -1;
  fl_status st = stored_save(&stored, write_weights, model);
  if (st != FL_OK) warnx("%s: not saved: %s", path, stored.error);
  stored_close(&stored);
  return st == FL_OK ? 0 : -1;
}

int weights_load(fl_model *model, const char *path)
{
  struct stored stored;
  if (stored_open(&stored, path)) return -1;
  fl_status st = stored_load(&stored, read_weights, model);
  if (st != FL_OK) warnx("%s: %s", path, stored.error);
  stored_close(&stored);
  return st == FL_OK ? 0 : -1;
}

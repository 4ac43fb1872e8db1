/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A folder of models. A file is there whole or not at all, on the disk before
 * its name is; `latest.safetensors` is a link that is replaced as a whole, too.
 * What cannot be written is told and forgotten: the training goes on, and the
 * folder is opened anew for the next version.
 */
#include "fl_aggregator/publish.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fl/weights.h>

static const char latest[] = "latest.safetensors";

enum { MAX_NOTES = 8, NOTE_BYTES = 32, PATH_BYTES = SETTING_TEXT_BYTES + 64 };

struct notes {
  fl_weights_note items[MAX_NOTES];
  char texts[MAX_NOTES][NOTE_BYTES];
  uint32_t n;
};

struct saved {
  const fl_model *model;
  const struct notes *notes;
};

void publish_close(struct publish *publish)
{
  if (publish->file.host) stored_close(&publish->file);
}

static void name_of(uint64_t version, char name[STORED_NAME_MAX + 1])
{
  snprintf(name, STORED_NAME_MAX + 1, "model-%08" PRIu64 ".safetensors",
           version);
}

/* The version of a file of ours; 0 = it is none. */
static uint64_t version_of(const char *name)
{
  char again[STORED_NAME_MAX + 1];
  if (strncmp(name, "model-", 6) != 0) return 0;
  const uint64_t version = strtoull(name + 6, NULL, 10);
  name_of(version, again);
  return strcmp(name, again) == 0 ? version : 0;
}

/* Numbers of the round, as text; one that is not known is left out. */
static void take_notes(struct notes *notes, const json_t *row)
{
  static const char *const names[] = {"version",    "round",    "accepted",
                                      "train_loss", "accuracy", "loss"};
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    const json_t *value = json_object_get(row, names[i]);
    char *text = notes->texts[notes->n];
    if (json_is_integer(value))
      snprintf(text, NOTE_BYTES, "%" JSON_INTEGER_FORMAT,
               json_integer_value(value));
    else if (json_is_real(value))
      snprintf(text, NOTE_BYTES, "%.9g", json_real_value(value));
    else
      continue;
    notes->items[notes->n++] = (fl_weights_note){names[i], text};
  }
}

static fl_status save(const fl_writer *writer, void *user)
{
  const struct saved *saved = user;
  return fl_model_save_weights_with(saved->model, saved->notes->items,
                                    saved->notes->n, writer);
}

static int fail(struct publish *publish, const char *what, const char *why)
{
  snprintf(publish->error, sizeof publish->error, "%.100s: %.140s", what, why);
  return -1;
}

/* A symbolic link to the file, made aside and renamed. */
static int point_to(struct publish *publish, const char *folder,
                    const char *name)
{
  char aside[PATH_BYTES], path[PATH_BYTES];
  snprintf(aside, sizeof aside, "%s/.latest.part", folder);
  snprintf(path, sizeof path, "%s/%s", folder, latest);
  (void)unlink(aside);
  if (symlink(name, aside) == 0 && rename(aside, path) == 0) return 0;
  return fail(publish, latest, strerror(errno));
}

/* Those of versions `keep` or more before this one; a later one is of a run
 * that was taken back, and will be replaced. */
static void remove_old(const char *folder, uint64_t version, uint64_t keep)
{
  DIR *all = opendir(folder);
  for (struct dirent *at = all ? readdir(all) : NULL; at; at = readdir(all)) {
    const uint64_t old = version_of(at->d_name);
    if (old > 0 && old + keep <= version)
      (void)unlinkat(dirfd(all), at->d_name, 0);
  }
  if (all) closedir(all);
}

static int open_folder(struct publish *publish, const char *folder)
{
  fl_host_options options;
  if (publish->file.host && access(folder, W_OK) == 0) return 0;
  publish_close(publish);
  fl_host_options_init(&options, sizeof options);
  options.storage_path = folder;
  errno = 0;
  const fl_status st = fl_host_new(&publish->file.host, &options);
  if (st == FL_OK) return 0;
  publish->file.host = NULL;
  return fail(publish, folder, errno ? strerror(errno) : fl_status_text(st));
}

const char *publish_model(struct publish *publish, const struct config *config,
                          const fl_model *model, const json_t *row)
{
  struct notes notes = {.n = 0};
  const struct saved saved = {.model = model, .notes = &notes};
  const uint64_t version =
      (uint64_t)json_integer_value(json_object_get(row, "version"));
  if (open_folder(publish, config->models) != 0) return NULL;
  take_notes(&notes, row);
  name_of(version, publish->file.name);
  if (stored_save(&publish->file, save, (void *)&saved) != FL_OK) {
    fail(publish, publish->file.name, publish->file.error);
    publish_close(publish);
    return NULL;
  }
  if (point_to(publish, config->models, publish->file.name) != 0) return NULL;
  remove_old(config->models, version, config->keep_models);
  return publish->file.name;
}

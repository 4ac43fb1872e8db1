/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The smallest useful client: it trains on the images of two IDX files and
 * talks to its server over standard input and output, which an app replaces by
 * its own transport. Its trainer is the library's (train_fl.c) or the host's
 * (train_own.c); tests/size measures what of libfl ends up in each of them.
 *
 * usage: minimal-client ID IMAGES LABELS
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "minimal_client/train.h"

enum { MAX_BYTES = 1 << 28, MAX_WAIT_MS = 1000, MS = 1000000 };

struct file {
  uint8_t *bytes;
  size_t n; /* 0 when it cannot be read */
};

static struct file load(const char *path)
{
  struct file loaded = {.bytes = malloc(MAX_BYTES)}; /* what is not used of it
                                                        takes no memory */
  FILE *file = fopen(path, "rb");
  if (file && loaded.bytes) loaded.n = fread(loaded.bytes, 1, MAX_BYTES, file);
  if (file) fclose(file);
  return loaded;
}

static uint64_t now_ns(void)
{
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int write_all(const uint8_t *data, size_t n)
{
  while (n > 0) {
    ssize_t done = write(STDOUT_FILENO, data, n);
    if (done <= 0) return -1;
    data += done;
    n -= (size_t)done;
  }
  return 0;
}

/* One turn: send what there is, wait for bytes or time. 0, or -1: no server. */
static int exchange(fl_client *client)
{
  static uint8_t bytes[65536];
  const uint8_t *data;
  size_t n;
  while (fl_client_send(client, &data, &n) == FL_OK && n > 0)
    if (write_all(data, n)) return -1;
  uint64_t now = now_ns();
  uint64_t until = now;
  fl_client_next_timeout(client, &until);
  uint64_t wait_ms = until > now ? (until - now) / MS + 1 : 0;
  struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
  if (poll(&input, 1, wait_ms < MAX_WAIT_MS ? (int)wait_ms : MAX_WAIT_MS) <= 0)
    return 0;
  ssize_t got = read(STDIN_FILENO, bytes, sizeof bytes);
  if (got <= 0) return -1;
  return fl_client_recv(client, bytes, (size_t)got) == FL_OK ? 0 : -1;
}

static int run(fl_client *client)
{
  const uint8_t *description;
  size_t n;
  fl_client_event event;
  fl_client_event_init(&event, sizeof event);
  for (;;) {
    fl_client_poll(client, now_ns(), &event); /* trains when asked to */
    if (event.kind == FL_CLIENT_DONE) return 0;
    if (event.kind == FL_CLIENT_ABORTED) return -1;
    if (event.kind == FL_CLIENT_JOINED &&
        (fl_client_get_description(client, &description, &n) != FL_OK ||
         trainer_describe(description, n)))
      return -1;
    if (event.kind == FL_CLIENT_IDLE && exchange(client)) return -1;
  }
}

int main(int argc, char **argv)
{
  if (argc != 4) {
    fprintf(stderr, "usage: minimal-client ID IMAGES LABELS\n");
    return 2;
  }
  struct file images = load(argv[2]);
  struct file labels = load(argv[3]);
  fl_client_options options;
  fl_client *client = NULL;
  fl_client_options_init(&options, sizeof options);
  options.client_id = argv[1];
  options.train = trainer_train;
  options.samples =
      trainer_open(images.bytes, images.n, labels.bytes, labels.n);
  int failed = options.samples == 0 ||
               fl_client_new(&client, NULL, &options) != FL_OK || run(client);
  if (failed) fprintf(stderr, "%s: failed: %s\n", argv[1], fl_last_error());
  fl_client_free(client);
  trainer_close();
  free(images.bytes);
  free(labels.bytes);
  return failed;
}

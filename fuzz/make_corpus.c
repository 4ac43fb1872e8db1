/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the seeds of frames, reader, container, and those in sum_seeds.c,
 * weight_seeds.c, model_seeds.c, freeze_seeds.c, embedding_seeds.c and
 * slice_seeds.c: one of each message, and the lies that a parser must not
 * believe. The same program always writes the same files, so the folder in the
 * repository can be checked against it.
 *
 *   make_corpus FOLDER           write FOLDER/<target>/<name>
 *   make_corpus --check FOLDER   exit 1 when one is missing or different
 *
 * The folders of the targets have to exist. */
#include "fuzz.h"

#include "seeds.h"
#include "wire/container.h"
#include "wire_messages.h"

typedef struct seed {
  const char *name;
  const char *bytes;
  size_t n;
} seed;

#define SEED(name, text)        \
  {                             \
    name, text, sizeof text - 1 \
  }

/* Behind the byte that says "in one piece" or how to cut. */
static const seed frame_seeds[] = {
    SEED("empty", "\x00"),
    SEED("cut-header", "\x00\x03\x00\x00"),
    SEED("cut-body", "\x00\x09\x00\x00\x00\x01\x15\x00\x00\x81\x01"),
    SEED("length-4-gib", "\x00\xff\xff\xff\xff\x01\x21\x00\x00\x81\x01"),
    SEED("control-2-mib", "\x00\x00\x00\x20\x00\x01\x01\x00\x00\x81\x01"),
    SEED("version-2", "\x00\x03\x00\x00\x00\x02\x15\x00\x00\x81\x01\x05"),
    SEED("flags", "\x00\x03\x00\x00\x00\x01\x15\x01\x00\x81\x01\x05"),
    SEED("unknown-type", "\x00\x03\x00\x00\x00\x01\x63\x00\x00\x81\x01\x05"),
    SEED("no-msgpack", "\x00\x04\x00\x00\x00\x01\x15\x00\x00GET "),
    SEED("unused-tag", "\x00\x03\x00\x00\x00\x01\x15\x00\x00\x81\x01\xc1"),
    SEED("no-map", "\x00\x03\x00\x00\x00\x01\x15\x00\x00\x92\x01\x05"),
    SEED("key-twice", "\x00\x05\x00\x00\x00\x01\x15\x00\x00\x82\x01\x05\x01"
                      "\x05"),
    SEED("key-unknown", "\x00\x05\x00\x00\x00\x01\x15\x00\x00\x82\x01\x05\x09"
                        "\xc0"),
    SEED("key-critical", "\x00\x06\x00\x00\x00\x01\x15\x00\x00\x82\x01\x05"
                         "\xcc\x80\xc0"),
    SEED("text-4-gib", "\x00\x0a\x00\x00\x00\x01\x15\x00\x00\x82\x01\x05\x02"
                       "\xdb\xff\xff\xff\xff\x61"),
    SEED("text-beyond", "\x00\x06\x00\x00\x00\x01\x15\x00\x00\x82\x01\x05\x02"
                        "\xa9\x61"),
    SEED("bytes-4-gib", "\x00\x0d\x00\x00\x00\x01\x02\x00\x00\x84\x01\x03\x02"
                        "\x01\x03\xc6\xff\xff\xff\xfe\x00\x40"),
    SEED("bytes-beyond", "\x00\x0b\x00\x00\x00\x01\x02\x00\x00\x84\x01\x03\x02"
                         "\x01\x03\xc4\x40\x80\x3f\x00"),
    SEED("nested-9", "\x00\x0e\x00\x00\x00\x01\x15\x00\x00\x82\x01\x05\x09\x91"
                     "\x91\x91\x91\x91\x91\x91\x91\x91\xc0"),
    SEED("array-4-gib", "\x00\x09\x00\x00\x00\x01\x15\x00\x00\x82\x01\x05\x09"
                        "\xdd\xff\xff\xff\xff"),
    SEED("negative", "\x00\x03\x00\x00\x00\x01\x15\x00\x00\x81\x01\xff"),
    SEED("loss-nan", "\x00\x11\x00\x00\x00\x01\x03\x00\x00\x85\x01\x01\x02\x01"
                     "\x03\xca\x7f\xc0\x00\x00\x04\x01\x05\x01"),
    SEED("chunk-without-data", "\x00\x10\x00\x00\x00\x01\x21\x00\x00\x01\x00"
                               "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
                               "\x00\x00\x00"),
};

static const seed reader_seeds[] = {
    SEED("nil", "\xc0"),
    SEED("bools", "\x92\xc2\xc3"),
    SEED("unused", "\xc1"),
    SEED("small-integers", "\x94\x00\x7f\xe0\xff"),
    SEED("unsigned", "\x94\xcc\x80\xcd\x01\x00\xce\x00\x01\x00\x00\xcf\x00\x00"
                     "\x00\x01\x00\x00\x00\x00"),
    SEED("signed", "\x94\xd0\x80\xd1\x80\x00\xd2\x80\x00\x00\x00\xd3\x80\x00"
                   "\x00\x00\x00\x00\x00\x00"),
    SEED("floats", "\x93\xca\x3f\xc0\x00\x00\xcb\x40\x09\x21\xfb\x54\x44\x2d"
                   "\x18\xca\x7f\xc0\x00\x01"),
    SEED("strings", "\x94\xa1"
                    "a\xd9\x01"
                    "b\xda\x00\x01"
                    "c\xdb\x00\x00\x00\x01"
                    "d"),
    SEED("bytes", "\x93\xc4\x01\x01\xc5\x00\x01\x02\xc6\x00\x00\x00\x01\x03"),
    SEED("empty-views", "\x93\xc4\x00\x24\xa0"),
    SEED("fixed-ext", "\x93\xd4\x01\x02\xd5\x01\x02\x03\xd6\x01\x02\x03\x04"
                      "\x05"),
    SEED("wide-ext", "\x92\xd7\x01\x00\x00\x00\x00\x00\x00\x00\x00\xd8\x02\x00"
                     "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
                     "\x00"),
    SEED("ext", "\x93\xc7\x01\x05\x09\xc8\x00\x01\x05\x09\xc9\x00\x00\x00\x01"
                "\x05\x09"),
    SEED("ext-empty", "\xc7\x00\x05"),
    SEED("ext-4-gib", "\xc9\xff\xff\xff\xff\x05\x00"),
    SEED("array-16", "\xdc\x00\x03\x01\x02\x03"),
    SEED("array-32", "\xdd\x00\x00\x00\x02\x01\x02"),
    SEED("map-16", "\xde\x00\x01\x01\x02"),
    SEED("map-32", "\xdf\x00\x00\x00\x01\x01\xa1x"),
    SEED("map-in-map", "\x82\x01\x81\x02\x93\x01\x02\x03\x04\x80"),
    SEED("nested-8", "\x91\x91\x91\x91\x91\x91\x91\x91\xc0"),
    SEED("nested-9", "\x91\x91\x91\x91\x91\x91\x91\x91\x91\xc0"),
    SEED("array-4-gib", "\xdd\xff\xff\xff\xff\x01"),
    SEED("map-4-gib", "\xdf\xff\xff\xff\xff\x01"),
    SEED("array-beyond", "\x95\x01\x02"),
    SEED("map-beyond", "\x83\x01\x02\x03"),
    SEED("string-beyond", "\xa5"
                          "ab"),
    SEED("bytes-beyond", "\xc4\x05\x01"),
    SEED("cut-number", "\xcf\x01\x02"),
    SEED("extra", "\x01\x02"),
};

static int is_check;
static int is_different;

void seeds_put(const char *folder, const char *target, const char *name,
               const void *data, size_t n)
{
  char path[4096];
  snprintf(path, sizeof path, "%s/%s/%s", folder, target, name);
  FILE *file = fopen(path, is_check ? "rb" : "wb");
  uint8_t *old = malloc(n + 1);
  FUZZ_CHECK(old != NULL);
  int is_good = file != NULL;
  if (is_good && is_check) {
    is_good = fread(old, 1, n + 1, file) == n && memcmp(old, data, n) == 0;
  } else if (is_good) {
    is_good = fwrite(data, 1, n, file) == n;
  }
  if (file && fclose(file) != 0) is_good = 0;
  free(old);
  if (!is_good) {
    fprintf(stderr, "%s: %s\n", path,
            is_check ? "missing or different" : "cannot be written");
    is_different = 1;
  }
}

static void put_all(const char *folder, const char *target, const seed *seeds,
                    size_t n)
{
  for (size_t i = 0; i < n; i++)
    seeds_put(folder, target, seeds[i].name, seeds[i].bytes, seeds[i].n);
}

/* Each sample in one piece, and all of them in a stream cut to pieces. */
static void put_samples(const char *folder)
{
  fli_bytes all, one;
  fli_bytes_init(&all, NULL);
  fli_bytes_init(&one, NULL);
  FUZZ_CHECK(fli_bytes_append(&all, "\x07", 1) == FL_OK);
  for (uint32_t i = 0; i < WIRE_SAMPLES; i++) {
    char name[64];
    fli_bytes_clear(&one);
    FUZZ_CHECK(fli_bytes_append(&one, "", 1) == FL_OK);
    FUZZ_CHECK(wire_sample(i, &one) == FL_OK);
    FUZZ_CHECK(wire_sample(i, &all) == FL_OK);
    snprintf(name, sizeof name, "sample-%s", wire_sample_name(i));
    seeds_put(folder, "frames", name, one.data, one.size);
    /* the same body, for the reader */
    seeds_put(folder, "reader", name, one.data + 1 + FLI_FRAME_HEADER,
              one.size - 1 - FLI_FRAME_HEADER);
  }
  seeds_put(folder, "frames", "sample-all-in-pieces", all.data, all.size);
  fli_bytes_free(&all);
  fli_bytes_free(&one);
}

/* A state of kind CLIENT, version 1, with one byte changed (0 = none) and its
 * end cut off. Mode: the steps, and 0x80 to make the hash right. */
typedef struct state_seed {
  const char *name;
  const char *text;
  uint8_t mode;
  size_t changed_at;
  uint8_t changed_to;
  size_t cut;
} state_seed;

static const state_seed state_seeds[] = {
    {"state", "weights and counters", 0x1f, 0, 0, 0},
    {"in-single-bytes", "weights and counters", 0x00, 0, 0, 0},
    {"empty", "", 0x1f, 0, 0, 0},
    {"cut", "weights and counters", 0x1f, 0, 0, 5},
    {"wrong-hash", "weights and counters", 0x1f, 30, 0, 0},
    {"other-payload", "weights and counters", 0x9f, 30, 0, 0},
    {"wrong-magic", "weights", 0x9f, 1, 'G', 0},
    {"wrong-kind", "weights", 0x9f, 5, FLI_STATE_SERVER, 0},
    {"version-3", "weights", 0x9f, 9, 3, 0},
    {"version-0", "weights", 0x9f, 9, 0, 0},
    {"size-beyond", "weights", 0x9f, 13, 200, 0},
    {"size-huge", "weights", 0x9f, 20, 0x7f, 0},
};

static fl_status append(void *user, const void *buf, size_t n)
{
  return fli_bytes_append(user, buf, n);
}

static void put_state(const char *folder, const state_seed *state)
{
  fli_bytes payload, out;
  fli_bytes_init(&payload, NULL);
  fli_bytes_init(&out, NULL);
  fl_writer writer = {append, &out};
  FUZZ_CHECK(fli_bytes_append(&out, &state->mode, 1) == FL_OK);
  FUZZ_CHECK(fli_bytes_append(&payload, state->text, strlen(state->text)) ==
             FL_OK);
  FUZZ_CHECK(fli_container_write(&writer, FLI_STATE_CLIENT, 1, &payload) ==
             FL_OK);
  if (state->changed_at) out.data[state->changed_at] = state->changed_to;
  seeds_put(folder, "container", state->name, out.data, out.size - state->cut);
  fli_bytes_free(&payload);
  fli_bytes_free(&out);
}

int main(int argc, char **argv)
{
  is_check = argc == 3 && strcmp(argv[1], "--check") == 0;
  if (argc != 2 + is_check) {
    fprintf(stderr, "usage: make_corpus [--check] FOLDER\n");
    return 2;
  }
  const char *folder = argv[argc - 1];
  put_all(folder, "frames", frame_seeds, FLI_COUNT_OF(frame_seeds));
  put_all(folder, "reader", reader_seeds, FLI_COUNT_OF(reader_seeds));
  put_samples(folder);
  for (size_t i = 0; i < FLI_COUNT_OF(state_seeds); i++)
    put_state(folder, &state_seeds[i]);
  seeds_put_sessions(folder);
  seeds_put_sums(folder);
  seeds_put_files(folder);
  seeds_put_models(folder);
  seeds_put_caches(folder);
  seeds_put_freezes(folder);
  seeds_put_cohorts(folder);
  seeds_put_embeddings(folder);
  seeds_put_slices(folder);
  seeds_put_strategies(folder);
  return is_different;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reader of the rows that recommender/prepare.py writes. The file's sizes are
 * compared with each other and with its real size before memory is asked for,
 * and every value with its field, so that nobody has to check them again.
 */
#include "common/clicks.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/fault.h"

enum {
  VERSION = 1,
  HEAD_BYTES = 48,
  FIELD_BYTES = 24,
  HEADERS_MAX = HEAD_BYTES + CLICKS_FIELDS_MAX * FIELD_BYTES
};

struct source {
  FILE *file;
  struct fault fault;
};

static uint32_t get_u32(const uint8_t *p)
{
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
         (uint32_t)p[3] << 24;
}

static uint64_t get_u64(const uint8_t *p)
{
  return get_u32(p) | (uint64_t)get_u32(p + 4) << 32;
}

static int get_bytes(const struct source *source, void *into, size_t n)
{
  size_t got = fread(into, 1, n, source->file);
  if (got == n) return 0;
  if (ferror(source->file))
    return fault_say(&source->fault, "%s", strerror(errno));
  return fault_say(&source->fault, "ends too early, want %zu bytes more",
                   n - got);
}

static int is_name(const char *name)
{
  size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");
  return n > 0 && name[n] == 0;
}

static int take_field(const struct source *source, struct clicks *clicks,
                      uint32_t index, const uint8_t *bytes)
{
  struct clicks_field *field = &clicks->fields[index];
  uint64_t n_values = get_u64(bytes + CLICKS_NAME_BYTES);
  memcpy(field->name, bytes, CLICKS_NAME_BYTES);
  field->name[CLICKS_NAME_BYTES] = 0;
  if (!is_name(field->name))
    return fault_say(&source->fault, "field %u: no name of a-z 0-9 _", index);
  if (n_values < 1 || n_values > UINT32_MAX)
    return fault_say(&source->fault,
                     "field %s: got %" PRIu64 " values, want 1..%u",
                     field->name, n_values, UINT32_MAX);
  field->n_values = (uint32_t)n_values;
  return 0;
}

/* What the first bytes say of the sizes, against each other and the file's. */
static int check_sizes(const struct source *source, const struct clicks *clicks,
                       uint64_t said)
{
  struct stat state;
  uint64_t size = HEAD_BYTES + (uint64_t)clicks->n_fields * FIELD_BYTES +
                  clicks->n_rows * (4 * (uint64_t)clicks->n_fields + 1);
  if (clicks->n_train > clicks->n_rows)
    return fault_say(&source->fault, "%" PRIu64 " rows to train on of %" PRIu64,
                     clicks->n_train, clicks->n_rows);
  if (clicks->customer_field >= clicks->n_fields &&
      clicks->customer_field != CLICKS_NO_FIELD)
    return fault_say(&source->fault, "customers are field %u of %u",
                     clicks->customer_field, clicks->n_fields);
  if (fstat(fileno(source->file), &state) != 0)
    return fault_say(&source->fault, "%s", strerror(errno));
  if (!S_ISREG(state.st_mode))
    return fault_say(&source->fault, "is not a file");
  if (said != size || (uint64_t)state.st_size != size)
    return fault_say(&source->fault,
                     "got %" PRIu64 " bytes, says %" PRIu64 ", want %" PRIu64
                     " for its rows",
                     (uint64_t)state.st_size, said, size);
  if (size > SIZE_MAX / 2)
    return fault_say(&source->fault, "too large for this machine");
  return 0;
}

static int read_head(const struct source *source, struct clicks *clicks)
{
  uint8_t head[HEADERS_MAX];
  if (get_bytes(source, head, HEAD_BYTES) != 0) return -1;
  if (memcmp(head, "FLCLICKS", 8) != 0)
    return fault_say(&source->fault, "is no file of prepare.py");
  if (get_u32(head + 8) != VERSION)
    return fault_say(&source->fault, "version: got %u, want %d",
                     get_u32(head + 8), VERSION);
  clicks->n_fields = get_u32(head + 12);
  clicks->n_rows = get_u64(head + 16);
  clicks->n_train = get_u64(head + 24);
  clicks->customer_field = get_u32(head + 32);
  if (clicks->n_fields < 1 || clicks->n_fields > CLICKS_FIELDS_MAX)
    return fault_say(&source->fault, "fields: got %u, want 1..%d",
                     clicks->n_fields, CLICKS_FIELDS_MAX);
  if (clicks->n_rows < 1 || clicks->n_rows > UINT32_MAX)
    return fault_say(&source->fault, "rows: got %" PRIu64 ", want 1..%u",
                     clicks->n_rows, UINT32_MAX);
  if (check_sizes(source, clicks, get_u64(head + 40)) != 0 ||
      get_bytes(source, head + HEAD_BYTES,
                (size_t)clicks->n_fields * FIELD_BYTES) != 0)
    return -1;
  for (uint32_t i = 0; i < clicks->n_fields; i++) {
    const uint8_t *bytes = head + HEAD_BYTES + i * FIELD_BYTES;
    if (take_field(source, clicks, i, bytes) != 0) return -1;
  }
  return 0;
}

/* The values lie in memory as in the file: little-endian. */
static int check_values(const struct source *source, struct clicks *clicks)
{
  uint32_t *value = clicks->values;
  for (uint64_t row = 0; row < clicks->n_rows; row++) {
    for (uint32_t i = 0; i < clicks->n_fields; i++, value++) {
      *value = get_u32((const uint8_t *)value);
      if (*value >= clicks->fields[i].n_values)
        return fault_say(
            &source->fault, "row %" PRIu64 ", %s: got %u, want below %u", row,
            clicks->fields[i].name, *value, clicks->fields[i].n_values);
    }
    if (clicks->labels[row] > 1)
      return fault_say(&source->fault,
                       "row %" PRIu64 ": got label %u, want 0 or 1", row,
                       clicks->labels[row]);
  }
  return 0;
}

static int read_all(const struct source *source, struct clicks *clicks)
{
  if (read_head(source, clicks) != 0) return -1;
  size_t n = (size_t)clicks->n_rows;
  clicks->values = malloc(n * clicks->n_fields * sizeof *clicks->values);
  clicks->labels = malloc(n);
  if (!clicks->values || !clicks->labels)
    return fault_say(&source->fault, "out of memory for %zu rows", n);
  if (get_bytes(source, clicks->values, n * clicks->n_fields * 4) != 0 ||
      get_bytes(source, clicks->labels, n) != 0)
    return -1;
  return check_values(source, clicks);
}

int clicks_load(struct clicks *clicks, const char *path, char *error,
                size_t error_size)
{
  struct clicks loaded = {0};
  struct source source = {
      .fault = {.path = path, .error = error, .error_size = error_size}};
  source.file = fopen(path, "rb");
  if (!source.file) return fault_say(&source.fault, "%s", strerror(errno));
  int result = read_all(&source, &loaded);
  (void)fclose(source.file);
  if (result == 0) {
    *clicks = loaded;
  } else {
    clicks_free(&loaded);
  }
  return result;
}

void clicks_free(struct clicks *clicks)
{
  free(clicks->values);
  free(clicks->labels);
  free(clicks->truth);
  memset(clicks, 0, sizeof *clicks);
}

void clicks_ids(const struct clicks *clicks, const uint32_t *rows, uint64_t n,
                uint64_t *ids)
{
  for (uint64_t i = 0; i < n; i++) {
    const uint32_t *values =
        clicks->values + (uint64_t)rows[i] * clicks->n_fields;
    for (uint32_t f = 0; f < clicks->n_fields; f++)
      *ids++ = clicks_id(f, values[f]);
  }
}

uint64_t clicks_count_values(const struct clicks *clicks)
{
  uint64_t sum = 0;
  for (uint32_t i = 0; i < clicks->n_fields; i++)
    sum += clicks->fields[i].n_values;
  return sum;
}

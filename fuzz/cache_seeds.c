/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of cache_file: blobs of all kinds, whose header and checksums the
 * target makes right. */
#include "seeds.h"

#include "fuzz.h"

#include "base/bytes.h"
#include "base/compiler.h"

enum { SEALED = 4, SIZED = 8, HEADED = 16, SUMMED = 32 };
enum { HEADER = 256, BITMAP = 64, SLOT = 64, SAMPLES = 9 };

/* Nine samples of 5 values; bytes of the bitmap, of the first number of every
 * row (I8: the scale) and of what else is in slots. */
typedef struct cache_seed {
  const char *name;
  uint8_t choice; /* see cache_file.c; bits 0..1: 0 = f32, 1 = f16, 2 = i8 */
  uint8_t bitmap;
  uint32_t first;
  uint8_t fill;
  size_t n; /* bytes of the blob */
} cache_seed;

enum { WHOLE = HEADER + BITMAP + SAMPLES * SLOT };

static const cache_seed seeds[] = {
    {"f32", SUMMED, 0xff, 0x3f800000, 0x3e, WHOLE},
    {"f16", SUMMED | 1, 0xff, 0x3c003c00, 0x3c, WHOLE},
    {"i8", SUMMED | 2, 0xff, 0x3f800000, 0x7f, WHOLE},
    {"f32-nan", SUMMED, 0xff, 0x7fc00000, 0x3e, WHOLE},
    {"f32-infinite", SUMMED, 0xff, 0xff800000, 0x3e, WHOLE},
    {"f16-infinite", SUMMED | 1, 0xff, 0x7c007c00, 0xfc, WHOLE},
    {"i8-scale-nan", SUMMED | 2, 0xff, 0x7fffffff, 1, WHOLE},
    {"i8-scale-infinite", SUMMED | 2, 0xff, 0x7f800000, 1, WHOLE},
    {"i8-scale-huge", SUMMED | 2, 0xff, 0x7f7fffff, 0x80, WHOLE},
    {"i8-scale-negative", SUMMED | 2, 0xff, 0xbf800000, 0x80, WHOLE},
    {"some", SUMMED, 0x55, 0x3f800000, 0x3e, WHOLE},
    {"none", SUMMED, 0, 0x3f800000, 0x3e, WHOLE},
    {"wrong-sums", HEADED, 0xff, 0x3f800000, 0x3e, WHOLE},
    {"sealed-f32", HEADED | SEALED, 0xff, 0x3f800000, 0x3e, 2 * WHOLE},
    {"sealed-f16", HEADED | SEALED | 1, 0xff, 0, 0, 2 * WHOLE},
    {"sealed-i8", HEADED | SEALED | 2, 0xff, 0, 0xff, 2 * WHOLE},
    {"foreign", SIZED, 0xff, 0x3f800000, 0x3e, WHOLE},
    {"other-size", 0, 0xff, 0x3f800000, 0x3e, WHOLE},
    {"cut-header", 0, 0xff, 0, 0, HEADER - 1},
    {"cut-bitmap", SUMMED, 0xff, 0, 0x3e, HEADER + 1},
    {"empty", 0, 0, 0, 0, 0},
};

static void put_cache(const char *folder, const cache_seed *seed)
{
  enum { ROWS_AT = HEADER + BITMAP, CHOICE = 3 };
  static uint8_t file[CHOICE + 2 * WHOLE];
  uint8_t *blob = file + CHOICE;
  memset(file, seed->fill, sizeof file);
  file[0] = seed->choice;
  file[1] = SAMPLES - 1;
  file[2] = 4;
  memcpy(blob, "FLCACHE", 8);
  memset(blob + HEADER, seed->bitmap, BITMAP);
  /* Behind its checksum; sealed slots are longer, but never right anyway. */
  size_t slot = seed->choice & 3 ? 24 : 32;
  for (size_t at = ROWS_AT; at + slot <= 2 * WHOLE; at += slot)
    fli_store_u32(blob + at + 8, seed->first);
  seeds_put(folder, "cache_file", seed->name, file, CHOICE + seed->n);
}

void seeds_put_caches(const char *folder)
{
  for (size_t i = 0; i < FLI_COUNT_OF(seeds); i++)
    put_cache(folder, &seeds[i]);
}

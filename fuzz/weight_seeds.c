/* SPDX-License-Identifier: Apache-2.0 */
/* Seeds of safetensors and idx: good files of both kinds, and the lies that
 * their readers must not believe. */
#include "seeds.h"

#include "fuzz.h"

#include "base/bytes.h"
#include "base/compiler.h"

/* Behind the mode: the header's size, the header, and zeros for data. */
typedef struct weight_seed {
  const char *name;
  uint8_t mode; /* see safetensors.c */
  const char *header;
  size_t n; /* bytes of data */
} weight_seed;

enum { STRICT = 0x1f, MISSING = 0x3f, EXTRA = 0x5f, BOTH = 0x7f };

#define ENTRY(name, dtype, shape, offsets)                  \
  "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":[" shape \
  "],\"data_offsets\":[" offsets "]}"
#define W ENTRY("w", "F32", "2,3", "0,24")
#define MEAN ENTRY("mean", "F32", "2", "24,32")
#define B ENTRY("b", "F32", "3", "32,44")
#define S ENTRY("s", "F32", "", "44,48")
#define HEX16 "0123456789abcdef"

static const weight_seed weight_seeds[] = {
    {"good", STRICT, "{" W "," MEAN "," B "," S "}   ", 48},
    {"in-single-bytes", 0, "{" W "," MEAN "," B "," S "}", 48},
    {"metadata", STRICT,
     "{\"__metadata__\":{\"format\":\"pt\",\"libfl_schema\":\"" HEX16 HEX16
         HEX16 HEX16 "\"}," W "," MEAN "," B "," S "}",
     48},
    {"all-dtypes", BOTH,
     "{" ENTRY("w", "F16", "2,3", "0,12") "," ENTRY("b", "BF16", "3", "12,18") "," ENTRY(
         "s", "F64", "",
         "18,26") "," ENTRY("x", "BOOL", "1",
                            "26,27") "," ENTRY("y", "F8_E4M3", "1",
                                               "27,28") "," ENTRY("z", "I64",
                                                                  "1",
                                                                  "28,36") "}",
     36},
    {"other-order", BOTH,
     "{ \"b\" : { \"shape\" : [ 3 ] , \"data_offsets\":[4,16],\"dtype\":"
     "\"F32\"},\n" ENTRY("\\u0073", "F32", "", "0,4") "}",
     16},
    {"missing", STRICT, "{" W "," MEAN "}", 32},
    {"missing-may", MISSING, "{" W "," MEAN "}", 32},
    {"extra", STRICT,
     "{" W "," MEAN "," B "," S "," ENTRY("x", "U8", "2", "48,50") "}", 50},
    {"extra-may", EXTRA,
     "{" W "," MEAN "," B "," S "," ENTRY("x", "U8", "2", "48,50") "}", 50},
    {"empty-tensors", EXTRA,
     "{" W "," MEAN "," B "," S
     "," ENTRY("x", "U8", "0", "0,0") "," ENTRY("y", "U8", "5,0", "48,48") "}",
     48},
    {"none", BOTH, "{}", 0},
    {"shape", BOTH, "{" ENTRY("w", "F32", "3,2", "0,24") "}", 24},
    {"many-dims", BOTH, "{" ENTRY("w", "F32", "1,1,1,1,1,1,1,2,3", "0,24") "}",
     24},
    {"gap", BOTH, "{" W "," ENTRY("b", "F32", "3", "25,37") "}", 37},
    {"overlap", BOTH, "{" W "," ENTRY("b", "F32", "3", "12,24") "}", 24},
    {"huge", BOTH,
     "{" W
     "," ENTRY("x", "U8", "1152921504606846976", "24,1152921504606847000") "}",
     24},
    {"product-wraps", BOTH,
     "{" ENTRY("w", "F32", "4294967296,4294967296", "0,0") "}", 0},
    {"above-2-64", BOTH,
     "{" ENTRY("w", "F32", "18446744073709551616", "0,0") "}", 0},
    {"name-twice", BOTH, "{" W "," ENTRY("\\u0077", "F32", "0", "24,24") "}",
     24},
    {"field-twice", BOTH, "{\"w\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}", 0},
    {"utf8", BOTH,
     "{" W "," ENTRY("\xe2\x82\xac\\ud834\\udd1e", "U8", "0", "24,24") "}", 24},
    {"half-pair", BOTH, "{" ENTRY("\\ud834", "U8", "0", "0,0") "}", 0},
    {"deep", BOTH, "{\"w\":[[[[[[[[1]]]]]]]]}", 0},
    {"no-commas", BOTH, "{\"w\" \"x\" {} []}", 0},
    {"cut-data", STRICT, "{" W "," MEAN "," B "," S "}", 40},
    {"goes-on", STRICT, "{" W "," MEAN "," B "," S "}", 49},
};

static void put_weights(const char *folder, const weight_seed *seed)
{
  uint8_t file[1024] = {seed->mode};
  size_t length = strlen(seed->header);
  FUZZ_CHECK(9 + length + seed->n <= sizeof file);
  fli_store_u64(file + 1, length);
  memcpy(file + 9, seed->header, length);
  seeds_put(folder, "safetensors", seed->name, file, 9 + length + seed->n);
}

/* Behind the number of bytes that are images: images, then labels. */
#define IMAGES "\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x02\x01\x02\x03\x04"
#define LABELS "\0\0\x08\x01\0\0\0\x02\x07\xff"
#define IDX_SEED(name, text)    \
  {                             \
    name, text, sizeof text - 1 \
  }

static const struct {
  const char *name;
  const char *bytes;
  size_t n;
} idx_seeds[] = {
    IDX_SEED("good", "\0\x14" IMAGES LABELS),
    IDX_SEED("images-only", "\0\x14" IMAGES),
    IDX_SEED("labels-twice", "\0\x0a" LABELS LABELS),
    IDX_SEED("images-for-labels", "\0\x14" IMAGES IMAGES),
    IDX_SEED("one-label", "\0\x14" IMAGES "\0\0\x08\x01\0\0\0\x01\x07"),
    IDX_SEED("cut", "\0\x13\0\0\x08\x03\0\0\0\x02\0\0\0\x01\0\0\0\x02"
                    "\x01\x02\x03"),
    IDX_SEED("cut-header", "\0\x06\0\0\x08\x03\0\0" LABELS),
    IDX_SEED("goes-on", "\0\x15" IMAGES "\x05" LABELS),
    IDX_SEED("float32", "\0\x0c\0\0\x0d\x01\0\0\0\x01\0\0\0\0" LABELS),
    IDX_SEED("gzip", "\0\x0a\x1f\x8b\x08\0\0\0\0\0\0\x03" LABELS),
    IDX_SEED("no-dims", "\0\x05\0\0\x08\0\x01" LABELS),
    IDX_SEED("nine-dims", "\0\x06\0\0\x08\x09\0\0" LABELS),
    IDX_SEED("dim-0", "\0\x08\0\0\x08\x01\0\0\0\0" LABELS),
    IDX_SEED("product-wraps", "\0\x10\0\0\x08\x03\xff\xff\xff\xff\xff\xff\xff"
                              "\xff\xff\xff\xff\xff" LABELS),
};

void seeds_put_files(const char *folder)
{
  for (size_t i = 0; i < FLI_COUNT_OF(idx_seeds); i++)
    seeds_put(folder, "idx", idx_seeds[i].name, idx_seeds[i].bytes,
              idx_seeds[i].n);
  /* A size without a header, and one that is a lie. */
  seeds_put(folder, "safetensors", "size-only", "\x1f\x02\0\0\0\0\0\0\0", 9);
  seeds_put(folder, "safetensors", "size-2-60", "\x1f\0\0\0\0\0\0\0\x10{}", 11);
  for (size_t i = 0; i < FLI_COUNT_OF(weight_seeds); i++)
    put_weights(folder, &weight_seeds[i]);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Making compressors: options, layout, the id under which updates of equal
 * compressors find each other, and the rotation's signs. A compressor never
 * changes after it was made; sums keep a reference to theirs. */
#include "compress/compressor.h"

#include "base/compiler.h"
#include "base/context.h"
#include "base/error.h"
#include "base/fpguard.h"
#include "base/options.h"
#include "compress/update.h"
#include "compress/table.h"

static const fl_compressor_options compressor_defaults = {
    .struct_size = sizeof(fl_compressor_options),
    .codec = FL_CODEC_THC,
    .thc_mode = FL_THC_DITHER,
    .bits = 4,
};

static const fli_codec *const codecs[] = {&fli_codec_f32, &fli_codec_bf16,
                                          &fli_codec_thc};

static const fli_codec *find_codec(uint32_t id)
{
  for (size_t i = 0; i < FLI_COUNT_OF(codecs); i++) {
    if (codecs[i]->id == id) return codecs[i];
  }
  return NULL;
}

static void set_id(fl_compressor *compressor, const uint8_t seed[FL_SEED_BYTES])
{
  static const char purpose[] = "fl compressor 2";
  fli_hasher hasher;
  fli_hasher_init(&hasher);
  fli_hasher_update(&hasher, purpose, sizeof purpose);
  fli_hasher_u64(&hasher, compressor->codec->id);
  fli_hasher_u64(&hasher, compressor->mode);
  fli_hasher_u64(&hasher, compressor->bits);
  fli_hasher_u64(&hasher, compressor->granularity);
  if (compressor->values)
    fli_hasher_update(&hasher, compressor->values,
                      (size_t)1 << compressor->bits);
  if (compressor->codec->is_rotated) {
    fli_hasher_update(&hasher, seed, FL_SEED_BYTES);
  }
  const fli_layout *layout = &compressor->layout;
  fli_hasher_u64(&hasher, layout->n_segments);
  for (uint32_t i = 0; i < layout->n_segments; i++) {
    fli_hasher_u64(&hasher, layout->segments[i].n);
  }
  uint8_t hash[FLI_HASH_BYTES];
  fli_hasher_final(&hasher, hash);
  compressor->id = fli_hash_id(hash);
}

static fl_status make_signs(fl_compressor *compressor,
                            const uint8_t seed[FL_SEED_BYTES])
{
  if (!compressor->codec->is_rotated) return FL_OK;
  /* At most 2 bytes for a coordinate, far from what the layout allows. */
  compressor->signs_size =
      (size_t)compressor->layout.n_units * (FLI_UNIT_MAX / 8);
  compressor->signs = fli_alloc(compressor->context, compressor->signs_size, 1);
  if (!compressor->signs) return fli_nomem(compressor->signs_size);
  fli_rotation_signs(compressor->signs, compressor->layout.n_units, seed);
  return FL_OK;
}

typedef struct compressor_parts {
  const uint64_t *segment_sizes;
  uint32_t n_segments;
  const fli_chooser *chooser;
} compressor_parts;

static fl_status compressor_make(fl_compressor **out, fl_context *context,
                                 const fl_compressor_options *given,
                                 const compressor_parts *parts)
{
  fl_status st = FL_OK;
  fl_compressor_options options = compressor_defaults;
  fl_compressor *compressor = NULL;
  FLI_TRY(
      fli_options_load(&options, sizeof options, given, "compressor options"));
  FLI_TRY(fli_crypto_init());
  const fli_codec *codec = find_codec(options.codec);
  if (!codec) {
    return fli_error(FL_E_OPTIONS, "codec: got %u, want FL_CODEC_*",
                     options.codec);
  }
  compressor = fli_alloc(context, 1, sizeof *compressor);
  if (!compressor) return fli_nomem(sizeof *compressor);
  compressor->context = fli_context_ref(context);
  atomic_init(&compressor->references, 1);
  compressor->codec = codec;
  compressor->chooser = parts->chooser;
  compressor->kernels = flk_kernels();
  FLI_TRY(codec->configure(compressor, &options));
  FLI_TRY(fli_layout_init(&compressor->layout, context, parts->segment_sizes,
                          parts->n_segments, codec->is_rotated));
  set_id(compressor, options.rotation_seed);
  FLI_TRY(make_signs(compressor, options.rotation_seed));
  *out = compressor;
  compressor = NULL;
out:
  fl_compressor_free(compressor);
  return st;
}

fl_compressor *fli_compressor_ref(const fl_compressor *compressor)
{
  /* Const for everybody but the reference count. */
  fl_compressor *shared = (fl_compressor *)(uintptr_t)compressor;
  atomic_fetch_add_explicit(&shared->references, 1, memory_order_relaxed);
  return shared;
}

void fli_compressor_lend_table(const fl_compressor *compressor,
                               fl_compressor_options *options)
{
  if (!compressor->values) return;
  options->granularity = compressor->granularity;
  options->n_table = 1u << compressor->bits;
  options->table = compressor->values;
}

fl_status fl_compressor_options_init(fl_compressor_options *options,
                                     size_t size)
{
  return fli_options_init(options, size, &compressor_defaults,
                          sizeof compressor_defaults);
}

static fl_status make_guarded(fl_compressor **out, fl_context *context,
                              const fl_compressor_options *options,
                              const compressor_parts *parts)
{
  fli_clear_error();
  if (!out) return fli_error(FL_E_ARGUMENT, "compressor: out is NULL");
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  fl_status st = compressor_make(out, context, options, parts);
  fli_fpguard_leave(&guard);
  return st;
}

fl_status fl_compressor_new(fl_compressor **out, fl_context *context,
                            const fl_compressor_options *options,
                            const uint64_t *segment_sizes, uint32_t n_segments)
{
  static const fli_chooser chooser = {.clip = fli_best_clip_for,
                                      .table = fli_table_choose};
  const compressor_parts parts = {segment_sizes, n_segments, &chooser};
  return make_guarded(out, context, options, &parts);
}

fl_status fli_compressor_agreed(fl_compressor **out, fl_context *context,
                                const fl_compressor_options *options,
                                const uint64_t *segment_sizes,
                                uint32_t n_segments)
{
  const compressor_parts parts = {segment_sizes, n_segments, NULL};
  return make_guarded(out, context, options, &parts);
}

void fl_compressor_free(fl_compressor *compressor)
{
  if (!compressor) return;
  if (atomic_fetch_sub(&compressor->references, 1) > 1) return;
  fl_context *context = compressor->context;
  fli_free(context, compressor->signs, compressor->signs_size);
  fli_free(context, compressor->entries, FLI_TABLE_ENTRIES * sizeof(uint32_t));
  if (compressor->values)
    fli_free(context, compressor->values, (size_t)1 << compressor->bits);
  fli_layout_free(&compressor->layout);
  fli_free(context, compressor, sizeof *compressor);
  fli_context_unref(context);
}

uint64_t fl_compressor_dim(const fl_compressor *compressor)
{
  return compressor ? compressor->layout.dim : 0;
}

uint64_t fl_compressor_norm_count(const fl_compressor *compressor)
{
  if (!compressor) return 0;
  const fli_layout *layout = &compressor->layout;
  return layout->is_rotated ? layout->n_units : layout->n_segments;
}

float fl_compressor_clip(const fl_compressor *compressor)
{
  return compressor ? compressor->clip : 0.0f;
}

uint32_t fl_compressor_granularity(const fl_compressor *compressor)
{
  return compressor ? compressor->granularity : 0;
}

fl_status fl_compressor_copy_table(const fl_compressor *compressor,
                                   uint8_t *table, uint32_t n)
{
  fli_clear_error();
  if (!compressor || !table)
    return fli_error(FL_E_ARGUMENT, "fl_compressor_copy_table: NULL argument");
  if (compressor->granularity == 0)
    return fli_error(FL_E_STATE, "table: codec %s has none, want THC",
                     compressor->codec->name);
  uint32_t want = 1u << compressor->bits;
  if (n != want)
    return fli_error(FL_E_DIM, "table: got %u values, want %u", n, want);
  for (uint32_t j = 0; j < n; j++)
    table[j] = compressor->values ? compressor->values[j] : (uint8_t)j;
  return FL_OK;
}

float fl_compressor_best_clip(const fl_compressor *compressor, uint32_t workers,
                              double coherence, double spread)
{
  if (!compressor || compressor->granularity == 0) return 0.0f;
  fli_fpguard guard;
  fli_fpguard_enter(&guard);
  float clip = fli_best_clip_for(
      compressor, workers, fli_clip_correlation(workers, coherence), spread);
  fli_fpguard_leave(&guard);
  return clip;
}

uint64_t fl_compressor_max_update_size(const fl_compressor *compressor)
{
  if (!compressor) return 0;
  const fli_layout *layout = &compressor->layout;
  uint64_t coordinates = 0;
  for (uint32_t i = 0; i < layout->n_segments; i++) {
    const fli_segment *s = &layout->segments[i];
    coordinates += s->n_full * FLI_UNIT_MAX + s->tail_padded;
  }
  return fli_update_front(layout->n_segments) +
         coordinates * compressor->bits / 8;
}

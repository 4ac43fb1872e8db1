/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file weights.h
 * A model's tensors as a safetensors file, the format of PyTorch's tools:
 * 8 bytes of size, a header in JSON, the values. The core has no files: a host
 * gives streams (fl_buffer, fl_host_file_create, its own), borrowed for the
 * call. Names and shapes decide what fits; modules and flags do not.
 */
#ifndef FL_WEIGHTS_H
#define FL_WEIGHTS_H

#include <fl/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What fl_model_load_weights lets pass. */
enum {
  FL_LOAD_ALLOW_MISSING = 1, /**< tensors that the file has not: they stay */
  FL_LOAD_ALLOW_EXTRA = 2    /**< tensors that the model has not: skipped */
};

/** Of which schema the file says that it is (fl_model_copy_schema). */
enum {
  FL_LOAD_SCHEMA_NONE = 0, /**< it does not say: not written by libfl */
  FL_LOAD_SCHEMA_SAME = 1,
  FL_LOAD_SCHEMA_OTHER = 2 /**< as to modules, flags, order or more tensors */
};

typedef struct fl_load_report {
  uint32_t struct_size;
  uint32_t schema;      /**< set by the call: FL_LOAD_SCHEMA_* */
  uint32_t n_loaded;    /**< set by the call: tensors taken from the file */
  uint32_t n_missing;   /**< set by the call: the model's, left as they were */
  uint32_t n_extra;     /**< set by the call: the file's, skipped */
  uint32_t n_converted; /**< set by the call: taken, and not stored as F32 */
  /** Optional, caller's, [capacity]: 1 for each tensor that was taken, else
   * 0. */
  uint8_t *is_loaded;
  uint32_t capacity; /**< with is_loaded: at least fl_model_tensor_count */
  uint32_t reserved;
} fl_load_report;
/** Set the defaults. FL_E_OPTIONS. */
FL_API fl_status fl_load_report_init(fl_load_report *report, size_t size);

/** Write all tensors, trained or not, as float32, in order of declaration, with
 * the schema hash in the metadata ("libfl_schema"). The optimiser is not in it:
 * see fl_model_save_checkpoint.
 *
 * @return FL_OK; FL_E_NOT_FINITE names the tensor, and FL_E_CONFLICT: a tensor
 * is called "__metadata__", which the format keeps to itself: nothing is
 * written; FL_E_NOMEM; FL_E_IO: the writer failed, and has a part of the file.
 * Ownership: none moves.  Thread-safety: reads the model only.
 * Determinism: D0, the same tensors give the same bytes. */
FL_API fl_status fl_model_save_weights(const fl_model *model,
                                       const fl_writer *writer);

/** Text about a model, for its file's metadata. */
typedef struct fl_weights_note {
  const char *name; /**< 1..64 bytes; not "format" or "libfl_schema" */
  const char *text; /**< 0..1024 bytes; printable ASCII, as the name */
} fl_weights_note;
/** As fl_model_save_weights, with notes in the metadata beside the schema, in
 * their order. `notes` may be NULL when there are none; at most 64. And
 * FL_E_ARGUMENT: a name or a text is none of these, or a name is there
 * twice. */
FL_API fl_status fl_model_save_weights_with(const fl_model *model,
                                            const fl_weights_note *notes,
                                            uint32_t n_notes,
                                            const fl_writer *writer);

/** Set tensors, by name, from a safetensors file; hostile bytes are fine. All
 * or nothing: after an error the model is as before (some of the stream is
 * read). Optimiser and gathered gradients always stay as they are.
 *
 * Without flags every tensor of the model has to be there, and no other. At
 * least one has to be there whatever the flags. F32, F16, BF16 and F64 are
 * taken and become float32. Offsets have to cover the data without a gap or an
 * overlap, and the stream has to end there: it is read to its end. Memory: the
 * values taken, and a small multiple of the header that arrived.
 *
 * @param flags  FL_LOAD_ALLOW_*, or 0; others are FL_E_ARGUMENT.
 * @param report  NULL, or what was found; untouched on failure.
 * @return FL_OK; FL_E_SCHEMA: a tensor is missing or too many; FL_E_DIM: a
 * shape; FL_E_UNSUPPORTED: a dtype; FL_E_NOT_FINITE: a value (F64: one that
 * float32 cannot hold, too); FL_E_FORMAT, FL_E_RANGE, FL_E_TRUNCATED: malformed
 * bytes; FL_E_TOO_LARGE: a header above 16 MiB, or more than 65536 tensors or 8
 * dimensions; FL_E_SIZE: the report's capacity; FL_E_NOMEM; FL_E_IO: the reader
 * failed.
 * Ownership: none moves.  Thread-safety: one thread per model.
 * Determinism: D0. */
FL_API fl_status fl_model_load_weights(fl_model *model, const fl_reader *reader,
                                       uint32_t flags, fl_load_report *report);

#ifdef __cplusplus
}
#endif
#endif

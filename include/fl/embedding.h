/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file embedding.h
 * Embedding tables that fit a byte budget, and keep fitting while they train
 * (FIITED: Luo et al., 2024, arXiv 2401.04408). Ids are any 64-bit numbers;
 * nothing says beforehand how many there are. A row of `dim` values is cut
 * into `chunks` chunks, and each chunk of each id is kept or pruned by its
 * own utility, the sum of |gradient| x accesses, which decays. What is pruned
 * reads as zeros.
 *
 *   fl_embedding_new(&e, context, &options);          byte_budget = 8 MiB
 *   fl_embedding_add_table(e, &table_options, &t);    dim 16, 4 chunks
 *   for every batch:
 *     fl_embedding_forward(e, t, &bags, out);         [n_bags, dim]
 *     ... the model behind it, forward and backward ...
 *     fl_embedding_backward(e, t, &bags, gradient, rate);
 *     every 50..1000 batches: fl_embedding_adjust(e, &report);
 *
 * Metadata counts: tables, hash buckets, utilities, accumulators, sketch and
 * free space are all within the budget, which is never exceeded, at no moment
 * (the batch's own scratch apart: up to 80 bytes for each id of the largest
 * batch and table, see fl_embedding_statistics). At most 2^25 rows of all
 * tables together can have the same number of bytes.
 *
 * Thread-safety: one call at a time per fl_embedding, but for
 * fl_embedding_lookup, of which any number may run beside each other and
 * beside one of the others, fl_embedding_free and fl_embedding_add_table
 * excepted (a row that is trained meanwhile may read as a mix of before and
 * after, never as that of another id). The calling thread waits for such
 * lookups before it gives memory back, for as long as 512 ids take.
 * Determinism: D1, and the same bits for any number of the host's threads;
 * which ids and chunks are kept is a function of seed, secret, ids and
 * gradients.
 */
#ifndef FL_EMBEDDING_H
#define FL_EMBEDDING_H

#include <fl/train.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_embedding fl_embedding;

enum { FL_EMBEDDING_MAX_CHUNKS = 4, FL_EMBEDDING_MAX_TABLES = 64 };

/** How values are kept. */
enum {
  FL_EMBEDDING_F32 = 1,
  FL_EMBEDDING_BF16 = 2, /**< half; stochastic rounding on update */
  FL_EMBEDDING_I8 = 3    /**< a quarter, a scale per chunk */
};

/** What becomes of a bag's rows. */
enum {
  FL_EMBEDDING_SUM = 1,
  FL_EMBEDDING_MEAN = 2 /**< by the number of ids (weights do not count);
                             an empty bag is zeros */
};

enum {
  FL_EMBEDDING_SGD = 1,
  /** One accumulator per row: mean square of the summed gradient. */
  FL_EMBEDDING_ROW_ADAGRAD = 2
};

typedef struct fl_embedding_options {
  uint32_t struct_size;
  uint32_t optimiser;   /**< FL_EMBEDDING_*; default ROW_ADAGRAD */
  uint64_t byte_budget; /**< everything, all tables; 0 = no bound (default) */
  uint64_t seed;        /**< of first values and of what is sampled */
  /** 16 bytes that mix ids before they are hashed, so that nobody can choose
   * ids that collide; NULL = from the context's entropy. Saved with it. Ties
   * between equal utilities depend on it. */
  const uint8_t *secret;
  float epsilon;         /**< of AdaGrad; default 1e-8 */
  float initial_square;  /**< of AdaGrad; default 0 */
  float decay;           /**< of utilities per adjust, .01..1; default .98 */
  float hysteresis;      /**< >= 1: a chunk returns with this x threshold;
                              default 1.3 */
  uint32_t sample_every; /**< of how many rows one is sampled for the
                              threshold; default 16 */
  /** Rank tables against each other: one threshold for all, utilities over
   * each table's 95th percentile; `share` and `prune_from` of tables say
   * nothing then. 0 (default): each table keeps its share. */
  uint32_t is_global;
  /** Ids evicted since the last version that are remembered for deltas, 16
   * bytes each; default 0: no deltas. */
  uint64_t tombstones;
} fl_embedding_options;
FL_API fl_status fl_embedding_options_init(fl_embedding_options *options,
                                           size_t size);

typedef struct fl_embedding_table_options {
  uint32_t struct_size;
  uint32_t dim;       /**< 4..1024, a multiple of 4 x chunks */
  uint32_t chunks;    /**< 1, 2 or 4; default 0: 4 where dim allows */
  uint32_t precision; /**< default F32 */
  /** Counters (bytes) of the sketch that ranks ids without a chunk, as 2 rows
   * of half as many; 0 = none: such ids are forgotten after each batch.
   * Default FL_AUTO: 1/50 of the budget over the number of tables so far. */
  uint64_t sketch_counters;
  uint64_t prune_from;  /**< ids: smaller tables are not pruned while there is
                             room elsewhere; default 65536 */
  float share;          /**< of the budget, relative to the other tables;
                             default 1 */
  float init_scale;     /**< standard deviation of first values; default .01 */
  uint32_t admit_after; /**< 0..255: in that many batches (by the sketch) an
                             id has to be before it gets chunks; default 1 */
  uint32_t keep_for;    /**< 0..3 adjusts for which a new row is not
                             pruned; default 0 */
} fl_embedding_table_options;
FL_API fl_status fl_embedding_table_options_init(
    fl_embedding_table_options *options, size_t size);

/** Make a store without tables. `options` may be NULL: no budget. FL_E_LIMIT:
 * the budget is too small for the handle; FL_E_ENTROPY.
 * Ownership: the caller frees it; it keeps the context alive. */
FL_API fl_status fl_embedding_new(fl_embedding **out, fl_context *context,
                                  const fl_embedding_options *options);
FL_API void fl_embedding_free(fl_embedding *embedding);
/** Add a table; *table numbers them from 0. FL_E_DIM: the shape; FL_E_LIMIT: 64
 * tables, or the budget is too small: there would never be a row in it, or in
 * the share of one that is there. Tables may be added at any time. */
FL_API fl_status fl_embedding_add_table(
    fl_embedding *embedding, const fl_embedding_table_options *options,
    uint32_t *table);

/** Ids in bags, as torch.nn.EmbeddingBag takes them; borrowed for a call. */
typedef struct fl_embedding_bags {
  uint32_t struct_size;
  uint32_t mode;       /**< FL_EMBEDDING_SUM (default), MEAN */
  const uint64_t *ids; /**< [n_ids]; any value, also twice in a bag */
  uint64_t n_ids;
  const uint64_t *offsets; /**< [n_bags], where each begins, not falling, the
                                first 0; NULL = bags of n_ids / n_bags each */
  uint64_t n_bags;
  const float *weights; /**< [n_ids], finite; NULL = 1 */
} fl_embedding_bags;
FL_API fl_status fl_embedding_bags_init(fl_embedding_bags *bags, size_t size);

/* ---- lookups and training ------------------------------------------------ */

/** Read: out[n_bags, dim]. Unknown ids and pruned chunks are zeros. Nothing
 * changes, no memory is taken. Of bags that are not as they should be:
 * FL_E_DIM (no bag for ids, or not the same number for each), FL_E_RANGE
 * (offsets), FL_E_NOT_FINITE (weights), FL_E_TOO_LARGE (2^31 ids or bags);
 * FL_E_NOT_FOUND: no such table.
 * Thread-safety: any number at once, see above. */
FL_API fl_status fl_embedding_lookup(const fl_embedding *embedding,
                                     uint32_t table,
                                     const fl_embedding_bags *bags, float *out);
/** The same in training: ids that are new get all their chunks while there is
 * room. FL_E_NOMEM: the host had none; rows that came before stay. */
FL_API fl_status fl_embedding_forward(fl_embedding *embedding, uint32_t table,
                                      const fl_embedding_bags *bags,
                                      float *out);
/** Update the rows of these bags. gradient: [n_bags, dim], of the loss by the
 * output; rate: 0..1e9, so that rows stay finite. Gradients of the same id are
 * summed first, each in the order of the batch. FL_E_NOT_FINITE: the rate, a
 * gradient, or an id's sum of them, with a row or without one; nothing changed.
 * A row whose sum has a square above float32 is left as it is, and such a sum
 * is worth nothing to an id without a row. */
FL_API fl_status fl_embedding_backward(fl_embedding *embedding, uint32_t table,
                                       const fl_embedding_bags *bags,
                                       const float *gradient, float rate);

typedef struct fl_embedding_report {
  uint32_t struct_size;
  uint32_t reserved;
  uint64_t evicted;   /**< chunks */
  uint64_t grown;     /**< chunks */
  uint64_t rows_lost; /**< ids that hold nothing any more */
  uint64_t rows_gained;
  uint64_t bytes_moved; /**< to keep blocks full */
  uint64_t blocks_returned;
} fl_embedding_report;
FL_API fl_status fl_embedding_report_init(fl_embedding_report *report,
                                          size_t size);
/** Give the budget to the chunks that are worth most: what ids without a chunk
 * and pruned chunks are worth against the lowest of those that are kept.
 * Without a budget there is nothing to do. `report` may be NULL. FL_E_NOMEM: it
 * did what it could without, and all is in order. */
FL_API fl_status fl_embedding_adjust(fl_embedding *embedding,
                                     fl_embedding_report *report);

/* ---- as a layer of a model --------------------------------------------- */

typedef struct fl_embedding_attach_options {
  uint32_t struct_size;
  uint32_t table; /**< of all fields; default 0 */
  /** [n_tables] the table of each field, several of which may share one; NULL,
   * the default: `table` for all of them. Borrowed for the call. */
  const uint32_t *tables;
  uint32_t n_tables; /**< as many as the layer has fields; 0 without */
  float rate;        /**< of the rows, 0..1e9; default FL_RATE_SCHEDULED: the
                          step's */
} fl_embedding_attach_options;
FL_API fl_status fl_embedding_attach_options_init(
    fl_embedding_attach_options *options, size_t size);
/** Have the rows of the model's sparse embedding
 * (fl_model_builder_sparse_embedding) here: its steps call fl_embedding_forward
 * and _backward, its scores fl_embedding_lookup. Any number of models may be
 * attached. The same id in two fields of a table is the same row: where that is
 * not meant, fields have tables of their own, or ids tell fields apart.
 *
 * The host calls fl_embedding_adjust, between steps, in a progress callback for
 * one. Rows are no part of the model's checkpoints and weights; they are saved
 * with the embedding. Rows of tables of their own take scratch of 4 bytes per
 * value of the largest batch, and 8 per id.
 *
 * `options` NULL = defaults. FL_E_ARGUMENT: NULL; FL_E_NOT_FOUND: the model has
 * no sparse embedding, the embedding no such table; FL_E_DIM: a table's dim is
 * not the layer's width, n_tables is not the number of fields; FL_E_STATE: the
 * model has an embedding already, or is in the middle of a step; FL_E_OPTIONS;
 * FL_E_NOMEM. Ownership: none moves; whichever is freed first is detached.
 * Thread-safety: a step of the model is a call on the embedding, too; a score
 * is one of fl_embedding_lookup, but for the model's own. Determinism: D1. */
FL_API fl_status
fl_embedding_attach(fl_embedding *embedding, fl_model *model,
                    const fl_embedding_attach_options *options);
/** Give the model up; it cannot be trained or scored then. FL_E_STATE: is not
 * attached to it, or in the middle of a step. */
FL_API fl_status fl_embedding_detach(fl_embedding *embedding, fl_model *model);

/* ---- rows ---------------------------------------------------------------- */

/** How many ids of a table hold at least one chunk. 0: no such table. */
FL_API uint64_t fl_embedding_row_count(const fl_embedding *embedding,
                                       uint32_t table);
/** Copy the ids that hold a chunk, in no particular order; (ids, capacity,
 * &needed) as everywhere. FL_E_NOT_FOUND: no such table; FL_E_SIZE. */
FL_API fl_status fl_embedding_copy_ids(const fl_embedding *embedding,
                                       uint32_t table, uint64_t *ids,
                                       uint64_t capacity, uint64_t *needed);
/** Copy one row: values[dim], zeros where a chunk is pruned; *mask: bit k set
 * for chunk k. Either may be NULL. FL_E_NOT_FOUND: the id has no chunk. */
FL_API fl_status fl_embedding_copy_row(const fl_embedding *embedding,
                                       uint32_t table, uint64_t id,
                                       float *values, uint32_t *mask);

/* ---- statistics ---------------------------------------------------------- */

typedef struct fl_embedding_statistics {
  uint32_t struct_size;
  uint32_t n_tables;
  uint64_t byte_budget;   /**< 0: none */
  uint64_t bytes_used;    /**< of it: what follows, up to bytes_fixed */
  uint64_t bytes_values;  /**< of chunks that ids hold */
  uint64_t bytes_squares; /**< AdaGrad's, of rows */
  uint64_t bytes_entries; /**< buckets of ids, utilities in them; free
                               places, too */
  uint64_t bytes_sketch;  /**< sketches and candidates */
  uint64_t bytes_free;    /**< of blocks: extents that nobody has */
  uint64_t bytes_fixed;   /**< handle, tables, lists of blocks, tombstones */
  uint64_t bytes_scratch; /**< of batches, outside of the budget */
  uint64_t rows;          /**< ids that hold a chunk */
  uint64_t chunks;
  uint64_t rows_by_chunks[FL_EMBEDDING_MAX_CHUNKS]; /**< 1, 2, 3, 4 chunks */
  uint64_t steps; /**< calls of fl_embedding_backward */
  uint64_t adjusts;
  uint64_t evicted; /**< chunks; all adjusts since the handle was made, as
                         the next three; not saved */
  uint64_t grown;
  uint64_t rows_lost;
  uint64_t rows_gained;
  uint64_t ids_asked; /**< by fl_embedding_forward; not saved, nor is
                           the next one */
  uint64_t ids_hit;   /**< that had a row before */
  uint32_t dim;       /**< of one table: values of a row; of all: 0 */
  uint32_t reserved;
} fl_embedding_statistics;
FL_API fl_status
fl_embedding_statistics_init(fl_embedding_statistics *statistics, size_t size);
/** Of one table, or with FL_AUTO of all. Bytes of values, squares, entries,
 * sketch, scratch, rows, chunks and ids are the table's, all else is of the
 * whole. FL_E_NOT_FOUND: no such table. */
FL_API fl_status
fl_embedding_get_statistics(const fl_embedding *embedding, uint32_t table,
                            fl_embedding_statistics *statistics);

/* ---- saving -------------------------------------------------------------- */

/** Write everything: rows, accumulators, utilities, sketches, secret. Loaded
 * again, training goes on with the same bits as without a break. There is no
 * second copy: what the writer takes comes from the tables, a few KiB at a
 * time. Begins a new version. FL_E_IO: the version is the old one.
 * Determinism: D1 (a function of what is in it). */
FL_API fl_status fl_embedding_save(fl_embedding *embedding,
                                   const fl_writer *writer);
/** Make a handle of what was saved. byte_budget: 0 = the saved one; else it
 * bounds what the bytes can make this call take, and stays the budget (tables
 * of a store that had none get sketches by default). With 0 this call takes no
 * more than 96 MiB and 64 bytes for each that it has read.
 * FL_E_FORMAT, FL_E_TRUNCATED, FL_E_VERSION, FL_E_RANGE, FL_E_NOT_FINITE,
 * FL_E_TOO_LARGE: damaged or foreign; FL_E_LIMIT: does not fit; FL_E_IO. */
FL_API fl_status fl_embedding_load(fl_embedding **out, fl_context *context,
                                   const fl_reader *reader,
                                   uint64_t byte_budget);
/** The version that was saved, loaded or reached by a delta last; never 0 when
 * there is one. Two handles of the same version had the same rows then. */
FL_API uint64_t fl_embedding_version(const fl_embedding *embedding);
/** Write what has changed since version `since`, which has to be the last one:
 * rows and evicted ids. Begins a new version. FL_E_STALE: it is another one;
 * FL_E_STATE: more ids were evicted than options.tombstones (save it whole);
 * FL_E_IO: the version is the old one. */
FL_API fl_status fl_embedding_save_delta(fl_embedding *embedding,
                                         uint64_t since,
                                         const fl_writer *writer);
/** Change rows as a delta says. For handles that serve: rows, accumulators and
 * utilities become those of the sender; sketches and candidates stay. What the
 * handle trained itself since its version is lost in the rows that the delta
 * has. FL_E_STALE: the delta is of another version; FL_E_SCHEMA: other tables;
 * FL_E_FORMAT, FL_E_TRUNCATED, FL_E_VERSION, FL_E_RANGE, FL_E_NOT_FINITE:
 * damaged; nothing changed so far. FL_E_LIMIT, when the delta is larger than
 * the budget: nothing changed either. FL_E_LIMIT, FL_E_NOMEM else: there was no
 * room half way, the handle is of no version (0), only a whole one helps. */
FL_API fl_status fl_embedding_apply_delta(fl_embedding *embedding,
                                          const fl_reader *reader);

#ifdef __cplusplus
}
#endif
#endif

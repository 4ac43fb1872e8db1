/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of make_corpus. */
#ifndef FUZZ_SEEDS_H
#define FUZZ_SEEDS_H

#include <stddef.h>

/* Write FOLDER/TARGET/NAME, or compare it with these bytes. */
void seeds_put(const char *folder, const char *target, const char *name,
               const void *data, size_t n);
/* Seeds of thc_decode, thc_aggregate, thc_merge and feedback. */
void seeds_put_sums(const char *folder);
/* Seeds of safetensors and idx. */
void seeds_put_files(const char *folder);
/* Seeds of freeze_plan and freeze_state. */
void seeds_put_freezes(const char *folder);
/* Seeds of model_description and checkpoint. */
void seeds_put_models(const char *folder);
/* Seeds of cache_file. */
void seeds_put_caches(const char *folder);
/* Seeds of cohort_state and cohort_ticket. */
void seeds_put_cohorts(const char *folder);
/* Seeds of strategy_state. */
void seeds_put_strategies(const char *folder);
/* Seeds of embedding_load and embedding_delta. */
void seeds_put_embeddings(const char *folder);
/* Some of frames, client_session and server_session. */
void seeds_put_sessions(const char *folder);
/* Seeds of slice and sparse_update. */
void seeds_put_slices(const char *folder);

#endif

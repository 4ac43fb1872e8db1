/* SPDX-License-Identifier: Apache-2.0 */
/* libfl-mpi under a real mpirun, with any number of ranks: every case runs on
 * all of them at once. Rank 0 reports; a failure anywhere fails the case. */
#include "check.h"

#include <fl/mpi.h>
#include <stdlib.h>
#include <string.h>

enum { DIM = 10000, PER_RANK = 3, SLOTS_MAX = 64, ROOM = 1 << 16 };

static fl_mpi *mpi;
static uint32_t rank, ranks, slots;
static fl_context *context;
static fl_compressor *compressor;
static float norms[8];
static uint64_t n_norms;
static uint8_t updates[SLOTS_MAX][ROOM];
static size_t sizes[SLOTS_MAX];

static fl_scale scale_of(uint64_t round)
{
  fl_scale scale;
  CHECK_OK(fl_scale_init(&scale, sizeof scale));
  scale.slots = slots;
  scale.round = round;
  scale.norms = norms;
  scale.n_norms = n_norms;
  return scale;
}

static void draw(uint32_t slot, float *x)
{
  for (uint32_t i = 0; i < DIM; i++)
    x[i] = (float)((int32_t)((i * 7 + slot * 131) % 255) - 127) * 0x1p-6f;
}

/* Everybody knows everybody's updates, to compare with. */
static void set_up(uint32_t codec)
{
  static float x[DIM];
  const uint64_t dim = DIM;
  fl_compressor_options options;
  fl_encode_options own;
  float mine[8];
  CHECK_OK(fl_compressor_options_init(&options, sizeof options));
  options.codec = codec;
  CHECK_OK(fl_compressor_new(&compressor, context, &options, &dim, 1));
  n_norms = fl_compressor_norm_count(compressor);
  memset(norms, 0, sizeof norms);
  fl_scale scale = scale_of(1);
  for (uint32_t k = rank; k < slots; k += ranks) {
    draw(k, x);
    CHECK_OK(
        fl_compressor_measure(compressor, &scale, 1, x, DIM, mine, n_norms));
    CHECK_OK(fl_norms_merge(norms, mine, n_norms));
  }
  CHECK_OK(fl_mpi_merge_norms(mpi, norms, n_norms));
  CHECK_OK(fl_encode_options_init(&own, sizeof own));
  for (uint32_t k = 0; k < slots; k++) {
    own.slot = k;
    draw(k, x);
    CHECK_OK(fl_compressor_encode(compressor, &scale, &own, x, DIM, updates[k],
                                  ROOM, &sizes[k], NULL));
  }
}

static void tear_down(void)
{
  fl_compressor_free(compressor);
  compressor = NULL;
}

static fl_partial *new_sum(uint64_t round)
{
  fl_partial *partial = NULL;
  const fl_scale scale = scale_of(round);
  CHECK_OK(fl_partial_new(&partial, compressor, &scale));
  return partial;
}

static uint8_t *bytes_of(const fl_partial *partial, size_t *n)
{
  CHECK_OK(fl_partial_copy_sum(partial, NULL, 0, n));
  uint8_t *bytes = malloc(*n);
  if (!bytes) abort();
  CHECK_OK(fl_partial_copy_sum(partial, bytes, *n, n));
  return bytes;
}

static void check_sum_of_all(const fl_partial *partial)
{
  size_t got_size, want_size;
  fl_partial *whole = new_sum(1);
  for (uint32_t k = 0; k < slots; k++)
    CHECK_OK(fl_partial_add(whole, updates[k], sizes[k]));
  uint8_t *got = bytes_of(partial, &got_size);
  uint8_t *want = bytes_of(whole, &want_size);
  CHECK_EQ_U64(got_size, want_size);
  if (got_size == want_size) CHECK_EQ_MEM(got, want, got_size);
  free(got);
  free(want);
  fl_partial_free(whole);
}

static void ranks_give_the_bytes_of_one_process(void)
{
  static const uint32_t codecs[] = {FL_CODEC_F32, FL_CODEC_BF16, FL_CODEC_THC};
  for (size_t c = 0; c < 3; c++) {
    set_up(codecs[c]);
    fl_partial *partial = new_sum(1);
    for (uint32_t k = rank; k < slots; k += ranks)
      CHECK_OK(fl_partial_add(partial, updates[k], sizes[k]));
    CHECK_OK(fl_mpi_reduce(mpi, partial));
    CHECK_EQ_STR(fl_mpi_last_error(), "");
    if (rank == 0) check_sum_of_all(partial);
    fl_partial_free(partial);
    tear_down();
  }
}

/* All updates on the last rank. */
static void ranks_without_updates_take_part(void)
{
  set_up(FL_CODEC_THC);
  fl_partial *partial = new_sum(1);
  for (uint32_t k = 0; rank == ranks - 1 && k < slots; k++)
    CHECK_OK(fl_partial_add(partial, updates[k], sizes[k]));
  CHECK_OK(fl_mpi_reduce(mpi, partial));
  if (rank == 0) check_sum_of_all(partial);
  fl_partial_free(partial);
  tear_down();
}

static void sums_that_share_a_slot_are_refused_everywhere(void)
{
  set_up(FL_CODEC_THC);
  fl_partial *partial = new_sum(1);
  CHECK_OK(fl_partial_add(partial, updates[1], sizes[1]));
  const fl_status want = ranks > 1 ? FL_E_DUPLICATE : FL_OK;
  CHECK_STATUS(fl_mpi_reduce(mpi, partial), want);
  if (ranks > 1) {
    CHECK(strncmp(fl_mpi_last_error(), "rank ", 5) == 0);
    CHECK(strstr(fl_mpi_last_error(), "in both") != NULL);
  }
  fl_partial_free(partial);
  tear_down();
}

static void sums_of_another_round_are_refused_everywhere(void)
{
  set_up(FL_CODEC_F32);
  fl_partial *partial = new_sum(rank == ranks - 1 ? 2 : 1);
  const fl_status want = ranks > 1 ? FL_E_STALE : FL_OK;
  CHECK_STATUS(fl_mpi_reduce(mpi, partial), want);
  fl_partial_free(partial);
  tear_down();
}

/* One rank's memory ends, in the first or in a later step of the tree. */
static void want_of_memory_on_one_rank_is_everybodys(void)
{
  fl_context *whole = context, *capped = NULL;
  fl_context_options options;
  uint64_t held = 0;
  CHECK_OK(fl_context_options_init(&options, sizeof options));
  options.memory_cap = UINT64_C(1) << 40;
  CHECK_OK(fl_context_new(&capped, &options));
  context = capped;
  set_up(FL_CODEC_F32);
  fl_partial *probe = new_sum(1);
  CHECK_OK(fl_context_get_memory(capped, &held, NULL));
  fl_partial_free(probe);
  tear_down();
  fl_context_free(capped);
  options.memory_cap = rank == 0 ? held + 4 * DIM : UINT64_C(1) << 40;
  CHECK_OK(fl_context_new(&capped, &options));
  context = capped;
  set_up(FL_CODEC_F32);
  fl_partial *partial = new_sum(1);
  if (rank > 0) CHECK_OK(fl_partial_add(partial, updates[rank], sizes[rank]));
  CHECK_STATUS(fl_mpi_reduce(mpi, partial), ranks > 1 ? FL_E_NOMEM : FL_OK);
  fl_partial_free(partial);
  tear_down();
  fl_context_free(capped);
  context = whole;
}

static void a_missing_sum_is_told_to_all(void)
{
  set_up(FL_CODEC_THC);
  fl_partial *partial = rank == ranks - 1 ? NULL : new_sum(1);
  CHECK_STATUS(fl_mpi_reduce(mpi, partial), FL_E_ARGUMENT);
  CHECK(strstr(fl_mpi_last_error(), "sum: got NULL") != NULL);
  fl_partial_free(partial);
  tear_down();
}

static void norms_are_the_maxima_of_all(void)
{
  float values[4] = {0, 1, 2, 3};
  values[rank % 4] = 8;
  CHECK_OK(fl_mpi_merge_norms(mpi, values, 4));
  for (uint32_t i = 0; i < 4; i++)
    CHECK_EQ_F64(values[i], i < ranks ? 8.0 : (double)i);
  CHECK_OK(fl_mpi_merge_norms(mpi, NULL, 0));
}

static void bad_norms_are_refused_everywhere_and_change_nothing(void)
{
  float values[2] = {1, rank == ranks - 1 ? -1.0f : 2.0f};
  CHECK_STATUS(fl_mpi_merge_norms(mpi, values, 2), FL_E_RANGE);
  CHECK_EQ_F64(values[0], 1.0);
  CHECK_STATUS(fl_mpi_merge_norms(mpi, NULL, 2), FL_E_ARGUMENT);
  if (ranks == 1) return;
  values[1] = 2.0f;
  CHECK_STATUS(fl_mpi_merge_norms(mpi, values, rank == 0 ? 1 : 2), FL_E_DIM);
  CHECK_EQ_F64(values[1], 2.0);
}

static void bytes_of_any_size_are_everywhere(void)
{
  static const size_t lengths[] = {0, 1, 4 << 20, (9 << 20) + 5};
  fl_buffer *buffer = NULL;
  CHECK_OK(fl_buffer_new(&buffer, context));
  for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
    const size_t n = lengths[i];
    uint8_t *want = malloc(n + 1);
    if (!want) abort();
    for (size_t k = 0; k < n; k++)
      want[k] = (uint8_t)(k * 31 + i);
    fl_buffer_clear(buffer);
    if (rank == 0) {
      CHECK_OK(fl_buffer_append(buffer, want, n));
    } else {
      CHECK_OK(fl_buffer_append(buffer, "old", 3));
    }
    CHECK_OK(fl_mpi_broadcast(mpi, buffer));
    const uint8_t *got = NULL;
    size_t size = 1;
    CHECK_OK(fl_buffer_get(buffer, &got, &size));
    CHECK_EQ_U64(size, n);
    if (size == n && n > 0) CHECK_EQ_MEM(got, want, n);
    free(want);
  }
  CHECK_STATUS(fl_mpi_broadcast(mpi, rank == ranks - 1 ? NULL : buffer),
               FL_E_ARGUMENT);
  fl_buffer_free(buffer);
}

static void agreeing_names_who_failed_and_why(void)
{
  CHECK_OK(fl_mpi_agree(mpi, FL_OK, NULL));
  CHECK_EQ_STR(fl_mpi_last_error(), "");
  const fl_status own = rank == ranks - 1 ? FL_E_IO : FL_OK;
  CHECK_STATUS(fl_mpi_agree(mpi, own, "the disk is full"), FL_E_IO);
  char want[64];
  snprintf(want, sizeof want, "rank %u: the disk is full", ranks - 1);
  CHECK_EQ_STR(fl_mpi_last_error(), want);
}

static void arguments_are_checked(void)
{
  fl_mpi *other = NULL;
  CHECK_STATUS(fl_mpi_new(NULL, MPI_COMM_WORLD), FL_E_ARGUMENT);
  CHECK_STATUS(fl_mpi_new(&other, MPI_COMM_NULL), FL_E_ARGUMENT);
  CHECK_STATUS(fl_mpi_reduce(NULL, NULL), FL_E_ARGUMENT);
  CHECK_STATUS(fl_mpi_broadcast(NULL, NULL), FL_E_ARGUMENT);
  CHECK_STATUS(fl_mpi_merge_norms(NULL, NULL, 0), FL_E_ARGUMENT);
  CHECK_STATUS(fl_mpi_agree(NULL, FL_OK, NULL), FL_E_ARGUMENT);
  CHECK_EQ_U64(fl_mpi_rank(NULL), 0);
  CHECK_EQ_U64(fl_mpi_size(NULL), 1);
  fl_mpi_free(NULL);
}

/* The case failed when it failed on any rank. */
static void gather(void)
{
  unsigned own = atomic_load(&check_totals.failures), all = 0;
  MPI_Allreduce(&own, &all, 1, MPI_UNSIGNED, MPI_SUM, MPI_COMM_WORLD);
  atomic_store(&check_totals.failures, all);
}

#define COLLECTIVE_CASE(name) \
  do {                        \
    name();                   \
    gather();                 \
    check_end_case(#name);    \
  } while (0)

int main(int argc, char **argv)
{
  CHECK_STATUS(fl_mpi_new(&mpi, MPI_COMM_WORLD), FL_E_STATE);
  if (MPI_Init(&argc, &argv) != MPI_SUCCESS) return 1;
  CHECK_OK(fl_mpi_new(&mpi, MPI_COMM_WORLD));
  CHECK_OK(fl_context_new(&context, NULL));
  rank = fl_mpi_rank(mpi);
  ranks = fl_mpi_size(mpi);
  slots = ranks * PER_RANK;
  if (slots > SLOTS_MAX) return 1;
  gather();
  check_end_case("without_mpi_there_is_nothing_to_take_part_in");
  COLLECTIVE_CASE(ranks_give_the_bytes_of_one_process);
  COLLECTIVE_CASE(ranks_without_updates_take_part);
  COLLECTIVE_CASE(sums_that_share_a_slot_are_refused_everywhere);
  COLLECTIVE_CASE(sums_of_another_round_are_refused_everywhere);
  COLLECTIVE_CASE(want_of_memory_on_one_rank_is_everybodys);
  COLLECTIVE_CASE(a_missing_sum_is_told_to_all);
  COLLECTIVE_CASE(norms_are_the_maxima_of_all);
  COLLECTIVE_CASE(bad_norms_are_refused_everywhere_and_change_nothing);
  COLLECTIVE_CASE(bytes_of_any_size_are_everywhere);
  COLLECTIVE_CASE(agreeing_names_who_failed_and_why);
  COLLECTIVE_CASE(arguments_are_checked);
  fl_context_free(context);
  fl_mpi_free(mpi);
  const int is_bad = rank == 0 ? check_report() : 0;
  MPI_Finalize();
  return is_bad;
}

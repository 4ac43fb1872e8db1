/* SPDX-License-Identifier: Apache-2.0 */
/* A test program without a framework, for what runs under TSan, MSan and
 * emulators: kernels, golden, oom, threads and net tests. A failed check
 * prints where and marks its case as failed; the case goes on. Checks may be
 * made by any thread.
 *
 *   static void adds_up(void) { CHECK_EQ_U64(1 + 1, 2); }
 *   int main(void) { CHECK_CASE(adds_up); return check_report(); }
 */
#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <fl/base.h>

typedef struct check_state {
  unsigned passed;
  unsigned failed;
  atomic_uint failures; /* of the running case */
} check_state;

static check_state check_totals;

static inline void check_fail(const char *file, int line)
{
  atomic_fetch_add(&check_totals.failures, 1);
  fprintf(stderr, "%s:%d: ", file, line);
}

/* Count what happened since the last call as one case. */
static inline void check_end_case(const char *name)
{
  if (atomic_exchange(&check_totals.failures, 0) == 0) {
    check_totals.passed++;
    return;
  }
  check_totals.failed++;
  fprintf(stderr, "FAILED %s\n", name);
}

/* Print "N passed, N failed"; the exit status of main. */
static inline int check_report(void)
{
  if (atomic_load(&check_totals.failures) > 0) check_end_case("between cases");
  printf("%u passed, %u failed\n", check_totals.passed, check_totals.failed);
  return check_totals.failed > 0 || check_totals.passed == 0;
}

static inline void check_true(int is_true, const char *text, const char *file,
                              int line)
{
  if (is_true) return;
  check_fail(file, line);
  fprintf(stderr, "not so: %s\n", text);
}

static inline void check_eq_u64(uint64_t got, uint64_t want, const char *text,
                                const char *file, int line)
{
  if (got == want) return;
  check_fail(file, line);
  fprintf(stderr,
          "%s: got %" PRIu64 " (0x%" PRIx64 "), want %" PRIu64 " (0x%" PRIx64
          ")\n",
          text, got, got, want, want);
}

static inline void check_eq_i64(int64_t got, int64_t want, const char *text,
                                const char *file, int line)
{
  if (got == want) return;
  check_fail(file, line);
  fprintf(stderr, "%s: got %" PRId64 ", want %" PRId64 "\n", text, got, want);
}

/* Same bits, so that -0 and NaN are told apart too. */
static inline void check_eq_f64(double got, double want, const char *text,
                                const char *file, int line)
{
  if (memcmp(&got, &want, sizeof got) == 0) return;
  check_fail(file, line);
  fprintf(stderr, "%s: got %.17g (%a), want %.17g (%a)\n", text, got, got, want,
          want);
}

static inline void check_eq_str(const char *got, const char *want,
                                const char *text, const char *file, int line)
{
  if (strcmp(got, want) == 0) return;
  check_fail(file, line);
  fprintf(stderr, "%s: got \"%s\", want \"%s\"\n", text, got, want);
}

static inline void check_eq_mem(const void *got, const void *want, size_t n,
                                const char *text, const char *file, int line)
{
  const unsigned char *a = got, *b = want;
  for (size_t i = 0; i < n; i++) {
    if (a[i] == b[i]) continue;
    check_fail(file, line);
    fprintf(stderr, "%s: byte %zu of %zu: got 0x%02x, want 0x%02x\n", text, i,
            n, a[i], b[i]);
    return;
  }
}

static inline void check_status(fl_status got, fl_status want, const char *text,
                                const char *file, int line)
{
  if (got == want) return;
  check_fail(file, line);
  fprintf(stderr, "%s: got %s (%s), want %s\n", text, fl_status_name(got),
          fl_last_error(), fl_status_name(want));
}

#define CHECK(cond) check_true((cond) != 0, #cond, __FILE__, __LINE__)
#define CHECK_EQ_U64(got, want) \
  check_eq_u64((uint64_t)(got), (uint64_t)(want), #got, __FILE__, __LINE__)
#define CHECK_EQ_I64(got, want) \
  check_eq_i64((int64_t)(got), (int64_t)(want), #got, __FILE__, __LINE__)
#define CHECK_EQ_F64(got, want) \
  check_eq_f64((double)(got), (double)(want), #got, __FILE__, __LINE__)
#define CHECK_EQ_STR(got, want) \
  check_eq_str((got), (want), #got, __FILE__, __LINE__)
#define CHECK_EQ_MEM(got, want, n) \
  check_eq_mem((got), (want), (n), #got, __FILE__, __LINE__)
#define CHECK_STATUS(got, want) \
  check_status((got), (want), #got, __FILE__, __LINE__)
#define CHECK_OK(call) CHECK_STATUS(call, FL_OK)

/* Run one case: a function without arguments. */
#define CHECK_CASE(name)   \
  do {                     \
    name();                \
    check_end_case(#name); \
  } while (0)

#endif

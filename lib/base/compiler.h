/* SPDX-License-Identifier: Apache-2.0 */
/* The only place for compiler extensions outside kernel files. */
#ifndef FLI_COMPILER_H
#define FLI_COMPILER_H

#if defined(__GNUC__)
#  define FLI_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#  define FLI_NODISCARD __attribute__((warn_unused_result))
#  define FLI_NOINLINE __attribute__((noinline))
#else
#  define FLI_PRINTF(fmt, args)
#  define FLI_NODISCARD
#  define FLI_NOINLINE
#endif

/* Products of 64-bit numbers, where the compiler has them. */
#ifdef __SIZEOF_INT128__
#  define FLI_HAS_WIDE 1
__extension__ typedef unsigned __int128 fli_wide;
#endif

/* A function that reads what another thread may be writing, and finds out
 * afterwards whether it did: not for the thread sanitizer. */
#if defined(__GNUC__)
#  define FLI_UNWATCHED __attribute__((no_sanitize_thread))
#  define FLI_READS_RACING FLI_UNWATCHED FLI_NOINLINE
#else
#  define FLI_UNWATCHED
#  define FLI_READS_RACING
#endif

/* Soon to be read; into the second level cache. The first level has few lines
 * under way at once: a random line is there in 9 ns, in the second in 5 (Zen
 * 4). */
#if defined(__GNUC__)
#  define FLI_PREFETCH(address) __builtin_prefetch(address, 0, 2)
#else
#  define FLI_PREFETCH(address) ((void)(address))
#endif

/* In a loop that looks for what another thread does. */
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
#  define FLI_PAUSE() __builtin_ia32_pause()
#elif defined(__GNUC__) && defined(__aarch64__)
#  define FLI_PAUSE() __asm__ volatile("yield")
#else
#  define FLI_PAUSE() ((void)0)
#endif

#define FLI_THREAD_LOCAL _Thread_local
#define FLI_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Before a loop: how often its body is repeated, 1 for not at all. */
#define FLI_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#  define FLI_UNROLL(times) FLI_PRAGMA(unroll times)
#else
#  define FLI_UNROLL(times) FLI_PRAGMA(GCC unroll times)
#endif

#endif

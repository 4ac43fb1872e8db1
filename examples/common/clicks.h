/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of categorical fields with a label 0 or 1 (clicked, bought), from a file
 * that recommender/prepare.py wrote or made up. */
#ifndef EXAMPLES_CLICKS_H
#define EXAMPLES_CLICKS_H

#include <stddef.h>
#include <stdint.h>

enum { CLICKS_FIELDS_MAX = 64, CLICKS_NAME_BYTES = 16 };
#define CLICKS_NO_FIELD UINT32_MAX

struct clicks_field {
  char name[CLICKS_NAME_BYTES + 1];
  uint32_t n_values; /* >= 1 */
};

struct clicks {
  uint32_t n_fields;       /* 1..CLICKS_FIELDS_MAX */
  uint32_t customer_field; /* which one says whose row it is, or
                              CLICKS_NO_FIELD */
  uint64_t n_rows;         /* below 2^32 */
  uint64_t n_train;        /* the first ones, in the order of time */
  struct clicks_field fields[CLICKS_FIELDS_MAX];
  uint32_t *values; /* [n_rows, n_fields], each below its field's n_values */
  uint8_t *labels;  /* [n_rows] */
  float *truth;     /* [n_rows], made-up rows only: the log-odds that labels
                       were drawn by; else NULL */
};

/* Load a file; its format is in prepare.py --help. Returns 0, or -1 with
 * `error` saying "path: what, got X, want Y". Free with clicks_free. */
int clicks_load(struct clicks *clicks, const char *path, char *error,
                size_t error_size);

struct clicks_recipe {
  uint64_t seed;
  uint64_t n_rows;  /* 1..2^32 - 1 */
  uint64_t n_train; /* <= n_rows */
  uint32_t n_fields;
  uint32_t customers; /* values of field 0, all about as frequent */
  uint32_t n_values;  /* of field 1; fields 2 and 3 have 1/4 and 1/16 of it
                         (16 or more), field 4 as many as 1, and so on */
  double exponent;    /* of Zipf's law for fields from 1 on, 0..4 */
  double strength;    /* standard deviation of the log-odds' two parts */
};

/* Make rows up. Every value has a bias and a vector of 4 numbers; the log-odds
 * are -1, the biases and the products of all pairs of vectors: what a
 * factorisation machine can learn, and no model can beat the AUC of `truth`.
 * Same recipe, same rows, as far as the machines' pow and exp agree. Returns 0,
 * or -1 when the recipe is out of range or memory is out. */
int clicks_make(struct clicks *clicks, const struct clicks_recipe *recipe);

void clicks_free(struct clicks *clicks);

/* A value as an id: one table for all fields. */
static inline uint64_t clicks_id(uint32_t field, uint32_t value)
{
  return (uint64_t)field << 32 | value;
}

/* The ids of n rows, [n, n_fields]. */
void clicks_ids(const struct clicks *clicks, const uint32_t *rows, uint64_t n,
                uint64_t *ids);

/* Values of all fields together. */
uint64_t clicks_count_values(const struct clicks *clicks);

#endif

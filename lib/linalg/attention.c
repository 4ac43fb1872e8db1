/* SPDX-License-Identifier: Apache-2.0 */
/* Attention in square blocks of queries x keys, one head of one sample at a
 * time, after FlashAttention (T. Dao et al., 2022): the softmax goes along with
 * running maxima and totals, and backward makes the weights anew from the two,
 * so that memory does not grow with the square of the tokens. Short sequences
 * are one block. The products are register tiles (kernels/nn) on the layers'
 * own arrays; only the queries, and in backward the outputs' derivatives, are
 * transposed, because scores lie with one key per row: softmax is then vertical
 * and the weights serve as left sides of products in either direction.
 *
 *   S = K Q^T log2(e) / sqrt(width), W = 2^(S - greatest) / total, Y = W^T V
 *   dV = W dY, dW = V dY^T, dS = W (dW - dots), dots = rows of Y times dY,
 *   dQ = dS^T K / sqrt(width), dK = dS Q / sqrt(width) */
#include "linalg/attention.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/compiler.h"
#include "kernels/nn/nn.h"
#include "linalg/sizes.h"
#include "linalg/tiles.h"

enum {
  BLOCK_MAX = 64,      /* tokens: scores of 16 KB stay in the first cache */
  BLOCK_MAX_WIDE = 32, /* ... of heads wider than NARROW_MAX */
  NARROW_MAX = 128,
  LINE = 16,            /* floats of a line of the caches */
  AHEAD_MAX = 32 * 1024 /* floats of samples that are fetched ahead */
};

/* Of what is not used by every product: see multiply. */
typedef enum skip {
  SKIP_COLUMNS,     /* rows are keys, columns queries that may not see them */
  SKIP_DEPTH_BEGIN, /* rows are keys, the sum goes over queries */
  SKIP_DEPTH_END    /* rows are queries, the sum goes over keys */
} skip;

/* c = beta c + alpha a b, all row-major but a. */
typedef struct product {
  const float *a;
  size_t a_row;
  size_t a_step;
  const float *b;
  size_t b_row;
  float *c;
  size_t c_row;
  size_t rows;
  size_t columns;
  size_t depth;
  float alpha;
  float beta;
} product;

/* One head of one sample; rows of q, k, v are `row` floats apart, those of y
 * and dy `width`. */
typedef struct head {
  const flk_nn_table *nn;
  const fli_attention *attention;
  float scale;  /* of scores */
  size_t width; /* of all heads */
  size_t row;
  const float *q;
  const float *k;
  const float *v;
  float *y;
  const float *dy;
  float *dq;
  float *dk;
  float *dv;
  int are_totals_kept;
  float *greatest; /* [kept_row] if are_totals_kept, else of a block */
  float *total;
  /* scratch, of a block */
  float *queries; /* transposed */
  float *douts;   /* transposed */
  float *scores;
  float *dscores;
  float *factor;
  float *dots;
  float *panel; /* a right side's rows of whole panels */
} head;

typedef struct token_block {
  size_t begin;
  size_t n;
} token_block;

/* A block of queries and one of keys that they see. */
typedef struct pair {
  token_block queries;
  token_block keys;
  size_t visible; /* as in flk_scores */
} pair;

static size_t kept_row(const fli_attention *attention)
{
  return fli_round_up(attention->tokens, FLK_VECTOR_MAX);
}

static size_t panel_row(const fli_attention *attention)
{
  return fli_round_up(attention->head_width, FLK_VECTOR_MAX);
}

/* Only what is seen: key r by query c where r < c + visible (flk_scores). */
static void multiply(const flk_nn_table *nn, const product *p, skip skipped,
                     size_t visible)
{
  flk_tile tile = {.a_row = (ptrdiff_t)p->a_row,
                   .a_step = (ptrdiff_t)p->a_step,
                   .b_step = (ptrdiff_t)p->b_row,
                   .n_segments = 1,
                   .depth = p->depth,
                   .c_row = (ptrdiff_t)p->c_row,
                   .alpha = p->alpha,
                   .beta = p->beta};
  for (size_t j = 0; j < p->columns; j += tile.columns) {
    int panel = fli_tile_panel(nn, p->columns - j);
    tile.columns = nn->width[panel];
    if (tile.columns > p->columns - j) tile.columns = p->columns - j;
    size_t n_rows = 0;
    for (size_t i = 0; i < p->rows; i += n_rows) {
      n_rows = fli_tile_rows(nn, p->rows - i, 1);
      /* the first query that sees key i */
      size_t first = i < visible ? 0 : i - visible + 1;
      size_t begin = 0;
      if (skipped == SKIP_COLUMNS && first >= j + tile.columns) break;
      if (skipped == SKIP_DEPTH_BEGIN) {
        begin = first;
        tile.depth = p->depth - begin;
      } else if (skipped == SKIP_DEPTH_END) {
        size_t end = i + n_rows - 1 + visible;
        tile.depth = fli_min_size(end, p->depth);
      }
      tile.a[0] = p->a + i * p->a_row + begin * p->a_step;
      tile.b = p->b + begin * p->b_row + j;
      tile.c[0] = p->c + i * p->c_row + j;
      fli_tile_run(nn, &tile, n_rows, panel);
    }
  }
}

/* Rows of a right side: in their place if whole panels of them may be read,
 * else a copy. */
static void set_right(const head *h, product *p, const float *src,
                      size_t src_row, size_t n)
{
  const flk_nn_table *nn = h->nn;
  size_t d = h->attention->head_width;
  size_t narrowest = nn->width[FLK_PANEL_HALF];
  if (narrowest == 0) narrowest = nn->width[FLK_PANEL_ONE];
  p->b = src;
  p->b_row = src_row;
  if (fli_round_up(d, narrowest) == d) return;
  p->b = h->panel;
  p->b_row = panel_row(h->attention);
  for (size_t i = 0; i < n; i++) {
    float *row = h->panel + i * p->b_row;
    memcpy(row, src + i * src_row, d * sizeof *row);
    memset(row + d, 0, (p->b_row - d) * sizeof *row);
  }
}

static token_block block_at(const fli_attention *attention, size_t begin)
{
  size_t left = attention->tokens - begin;
  return (token_block){begin, fli_min_size(left, attention->block)};
}

/* The end of the keys that a block of queries sees. */
static size_t keys_end(const fli_attention *attention, token_block queries)
{
  return attention->is_causal ? queries.begin + queries.n : attention->tokens;
}

static pair pair_at(const head *h, token_block queries, size_t keys_begin)
{
  const fli_attention *attention = h->attention;
  pair p = {.queries = queries, .keys = block_at(attention, keys_begin)};
  p.visible = attention->is_causal ? queries.begin - keys_begin + 1 : p.keys.n;
  return p;
}

/* Whole vectors of queries. */
static size_t columns_of(const head *h, token_block queries)
{
  return fli_round_up(queries.n, h->nn->width[FLK_PANEL_ONE]);
}

/* A block of queries, or of derivatives like them, as right side of scores. */
static void transpose_rows(const head *h, const float *src, size_t src_row,
                           token_block queries, float *dst)
{
  h->nn->pack_transposed(&(flk_pack){.src = src + queries.begin * src_row,
                                     .step = (ptrdiff_t)src_row,
                                     .depth = h->attention->head_width,
                                     .columns = queries.n,
                                     .width = columns_of(h, queries),
                                     .dst = dst});
}

/* c[key][query] = alpha times keys or values times transposed rows */
static void multiply_to_scores(const head *h, const pair *at, product *p,
                               const float *left)
{
  p->a = left + at->keys.begin * h->row;
  p->a_row = h->row;
  p->a_step = 1;
  p->b_row = columns_of(h, at->queries);
  p->rows = at->keys.n;
  p->columns = p->b_row;
  p->depth = h->attention->head_width;
  multiply(h->nn, p, SKIP_COLUMNS, at->visible);
}

/* c[query] = c + alpha weights^T values, or dscores^T keys */
static void multiply_to_queries(const head *h, const pair *at, product *p,
                                const float *right)
{
  p->c += at->queries.begin * p->c_row;
  p->a_row = 1;
  p->rows = at->queries.n;
  p->columns = h->attention->head_width;
  p->depth = at->keys.n;
  p->beta = at->keys.begin == 0 ? 0.0f : 1.0f;
  set_right(h, p, right + at->keys.begin * h->row, h->row, p->depth);
  multiply(h->nn, p, SKIP_DEPTH_END, at->visible);
}

/* c[key] = c + alpha weights dy, or dscores queries */
static void multiply_to_keys(const head *h, const pair *at, product *p,
                             const float *right, size_t right_row)
{
  /* the first block of queries that sees these keys */
  int is_first = h->attention->is_causal ? at->queries.begin == at->keys.begin
                                         : at->queries.begin == 0;
  p->c += at->keys.begin * h->row;
  p->c_row = h->row;
  p->a_step = 1;
  p->rows = at->keys.n;
  p->columns = h->attention->head_width;
  p->depth = at->queries.n;
  p->beta = is_first ? 0.0f : 1.0f;
  set_right(h, p, right + at->queries.begin * right_row, right_row, p->depth);
  multiply(h->nn, p, SKIP_DEPTH_BEGIN, at->visible);
}

static void make_scores(const head *h, const pair *at)
{
  product p = {.b = h->queries,
               .c = h->scores,
               .c_row = h->attention->block,
               .alpha = 1.44269504f * h->scale};
  multiply_to_scores(h, at, &p, h->k);
}

static void multiply_values(const head *h, const pair *at)
{
  product p = {.a = h->scores,
               .a_step = h->attention->block,
               .c = h->y,
               .c_row = h->width,
               .alpha = 1.0f};
  multiply_to_queries(h, at, &p, h->v);
}

/* The totals of a block of queries: kept ones have all tokens' places. */
static void set_totals(const head *h, token_block queries, flk_scores *s)
{
  size_t begin = h->are_totals_kept ? queries.begin : 0;
  s->greatest = h->greatest + begin;
  s->total = h->total + begin;
  s->factor = h->factor;
}

/* Block by block; what was summed is put in proportion to the greatest. */
static void forward_blocks(const head *h, token_block queries)
{
  size_t end = keys_end(h->attention, queries);
  size_t d = h->attention->head_width;
  float *y = h->y + queries.begin * h->width;
  flk_scores s = {
      .n_queries = queries.n, .scores = h->scores, .row = h->attention->block};
  set_totals(h, queries, &s);
  for (size_t k = 0; k < end; k += h->attention->block) {
    pair at = pair_at(h, queries, k);
    make_scores(h, &at);
    s.n_keys = at.keys.n;
    s.visible = at.visible;
    s.is_first = k == 0;
    s.is_last = k + at.keys.n == end;
    h->nn->attention.softmax(&s);
    if (k > 0) h->nn->attention.scale_rows(y, h->width, queries.n, d, s.factor);
    multiply_values(h, &at);
  }
  h->nn->attention.scale_rows(y, h->width, queries.n, d, s.total);
}

static void backward_pair(const head *h, const pair *at)
{
  size_t row = h->attention->block;
  flk_scores s = {.n_keys = at->keys.n,
                  .n_queries = at->queries.n,
                  .visible = at->visible,
                  .scores = h->scores,
                  .row = row,
                  .dscores = h->dscores,
                  .dots = h->dots};
  set_totals(h, at->queries, &s);
  make_scores(h, at);
  product dweights = {
      .b = h->douts, .c = h->dscores, .c_row = row, .alpha = 1.0f};
  multiply_to_scores(h, at, &dweights, h->v);
  h->nn->attention.softmax_back(&s);
  product dv = {.a = h->scores, .a_row = row, .c = h->dv, .alpha = 1.0f};
  multiply_to_keys(h, at, &dv, h->dy, h->width);
  product dk = {.a = h->dscores, .a_row = row, .c = h->dk, .alpha = h->scale};
  multiply_to_keys(h, at, &dk, h->q, h->row);
  product dq = {.a = h->dscores,
                .a_step = row,
                .c = h->dq,
                .c_row = h->row,
                .alpha = h->scale};
  multiply_to_queries(h, at, &dq, h->k);
}

static void forward_head(const head *h)
{
  const fli_attention *attention = h->attention;
  for (size_t q = 0; q < attention->tokens; q += attention->block) {
    token_block queries = block_at(attention, q);
    transpose_rows(h, h->q, h->row, queries, h->queries);
    forward_blocks(h, queries);
  }
}

static void backward_head(const head *h)
{
  const fli_attention *attention = h->attention;
  for (size_t q = 0; q < attention->tokens; q += attention->block) {
    token_block queries = block_at(attention, q);
    transpose_rows(h, h->q, h->row, queries, h->queries);
    transpose_rows(h, h->dy, h->width, queries, h->douts);
    h->nn->attention.row_dots(h->y + q * h->width, h->dy + q * h->width,
                              h->width, queries.n, attention->head_width,
                              h->dots);
    size_t end = keys_end(attention, queries);
    for (size_t k = 0; k < end; k += attention->block) {
      pair at = pair_at(h, queries, k);
      backward_pair(h, &at);
    }
  }
}

static float *take(float **from, size_t n)
{
  float *at = *from;
  *from += n;
  return at;
}

static void set_scratch(head *h, float *scratch)
{
  const fli_attention *attention = h->attention;
  size_t block = attention->block;
  size_t beyond = (uintptr_t)scratch / sizeof *scratch % LINE;
  if (beyond > 0) scratch += LINE - beyond;
  h->queries = take(&scratch, attention->head_width * block);
  h->douts = take(&scratch, attention->head_width * block);
  h->scores = take(&scratch, block * block);
  h->dscores = take(&scratch, block * block);
  h->greatest = take(&scratch, block);
  h->total = take(&scratch, block);
  h->factor = take(&scratch, block);
  h->dots = take(&scratch, block);
  h->panel = scratch;
}

/* Head `index` of a sample of the range. */
static void set_head(head *h, const fli_attention_range *range, size_t sample,
                     size_t index)
{
  const fli_attention *attention = h->attention;
  size_t in = sample * attention->tokens * h->row;
  size_t out = sample * attention->tokens * h->width;
  in += index * attention->head_width;
  out += index * attention->head_width;
  h->q = range->qkv + in;
  h->k = h->q + h->width;
  h->v = h->k + h->width;
  h->y = range->y + out;
  if (range->dqkv) {
    h->dy = range->dy + out;
    h->dq = range->dqkv + in;
    h->dk = h->dq + h->width;
    h->dv = h->dk + h->width;
  }
  if (!range->kept) return;
  size_t of_head = attention->n_kept / attention->heads;
  float *kept = range->kept + sample * attention->n_kept + index * of_head;
  h->greatest = kept;
  h->total = kept + kept_row(attention);
  h->are_totals_kept = 1;
}

/* Of the next sample the share of head `index`, so that it comes from memory
 * while this one is computed. */
static void fetch_ahead(const head *h, const fli_attention_range *range,
                        size_t sample, size_t index)
{
  const fli_attention *attention = h->attention;
  size_t n_out = attention->tokens * h->width;
  const struct {
    const float *at;
    size_t n;
  } arrays[] = {{range->qkv, 3 * n_out},
                {range->y, n_out},
                {range->kept, attention->n_kept},
                {range->dy, n_out},
                {range->dqkv, 3 * n_out}};
  if (8 * n_out + attention->n_kept > AHEAD_MAX) return;
  for (size_t i = 0; i < FLI_COUNT_OF(arrays); i++) {
    if (!arrays[i].at) continue;
    const float *next = arrays[i].at + (sample + 1) * arrays[i].n;
    size_t end = arrays[i].n * (index + 1) / attention->heads;
    size_t begin = arrays[i].n * index / attention->heads;
    h->nn->attention.fetch(next + begin, end - begin);
  }
}

static void for_each_head(const fli_attention *attention,
                          const fli_attention_range *range,
                          void (*run)(const head *))
{
  head h = {.nn = flk_nn(), .attention = attention};
  h.width = attention->heads * attention->head_width;
  h.row = 3 * h.width;
  h.scale = 1.0f / sqrtf((float)attention->head_width);
  set_scratch(&h, range->scratch);
  for (size_t sample = 0; sample < range->n; sample++) {
    for (size_t i = 0; i < attention->heads; i++) {
      if (sample + 1 < range->n) fetch_ahead(&h, range, sample, i);
      set_head(&h, range, sample, i);
      run(&h);
    }
  }
}

void fli_attention_init(fli_attention *attention)
{
  size_t tokens = attention->tokens;
  size_t d = attention->head_width;
  assert(tokens > 0 && attention->heads > 0 && d > 0);
  size_t most = d > NARROW_MAX ? BLOCK_MAX_WIDE : BLOCK_MAX;
  size_t n_blocks = fli_divide_up(tokens, most);
  size_t block = fli_round_up(fli_divide_up(tokens, n_blocks), FLK_VECTOR_MAX);
  attention->block = block;
  attention->n_kept = attention->heads * 2 * kept_row(attention);
  /* LINE: to begin with a whole one */
  attention->n_scratch = LINE + 2 * d * block + 2 * block * block + 4 * block +
                         block * panel_row(attention);
}

void fli_attention_forward(const fli_attention *attention,
                           const fli_attention_range *range)
{
  fli_attention_range forward = *range;
  forward.dy = NULL;
  forward.dqkv = NULL;
  for_each_head(attention, &forward, forward_head);
}

void fli_attention_backward(const fli_attention *attention,
                            const fli_attention_range *range)
{
  assert(range->kept && range->dy && range->dqkv);
  for_each_head(attention, range, backward_head);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Checkpoints: all that training goes on from, as one saved state. {1: schema,
 * 2: values (trained and fixed), 3: optimiser's options, 4: first active
 * module, 5: updates, 6, 7: arrays of the optimiser's state, 8: place in a fit,
 * 9: batches gathered since the last update, 10: their gradient, 11: a byte per
 * tensor, 1 = its module is frozen, if any from the first active one on is}.
 * Read as a whole, into memory of its own, before anything of the model
 * changes. */
#include <fl/train.h>

#include <string.h>

#include "base/compiler.h"
#include "base/error.h"
#include "model/model.h"
#include "wire/container.h"

enum {
  VERSION = 1,
  KEY_SCHEMA = 1,
  KEY_VALUES = 2,
  KEY_OPTIMISER = 3,
  KEY_FIRST_ACTIVE = 4,
  KEY_UPDATES = 5,
  KEY_STATE = 6, /* and 7 */
  KEY_PLACE = 8,
  KEY_N_BATCHES = 9,
  KEY_GRADIENT = 10,
  KEY_FROZEN = 11,
  OTHER_BYTES = 4096 /* all but the arrays */
};

/* What a checkpoint is read into. */
typedef struct loaded {
  float *values;
  size_t n_values;
  fl_optimiser_options options;
  uint32_t first_active;
  fli_optimiser optimiser; /* options are checked, state is there */
  uint64_t updates;
  uint32_t n_states;
  fli_fit_place place;
  uint32_t n_batches;
  float *gradient;
  size_t n_gradient;
  uint8_t frozen[FLI_MAX_TENSORS]; /* a byte per tensor */
  uint32_t fields;                 /* bits of the keys that were there */
} loaded;

/* ---- options ------------------------------------------------------------- */

static void write_options(fli_msg_writer *writer, const fl_optimiser_options *o)
{
  fli_writer_u64(writer, KEY_OPTIMISER);
  fli_writer_map(writer, 14);
  fli_field_u64(writer, 1, o->kind);
  fli_field_f32(writer, 2, o->learning_rate);
  fli_field_f32(writer, 3, o->momentum);
  fli_field_u64(writer, 4, o->nesterov);
  fli_field_f32(writer, 5, o->beta1);
  fli_field_f32(writer, 6, o->beta2);
  fli_field_f32(writer, 7, o->epsilon);
  fli_field_f32(writer, 8, o->weight_decay);
  fli_field_f32(writer, 9, o->clip_norm);
  fli_field_u64(writer, 10, o->accumulate);
  fli_field_u64(writer, 11, o->schedule);
  fli_field_u64(writer, 12, o->warmup);
  fli_field_f32(writer, 13, o->factor);
  fli_field_u64(writer, 14, o->period);
}

static void read_options(fli_msg_reader *reader, fl_optimiser_options *o)
{
  float *floats[] = {
      NULL,      NULL,        &o->learning_rate, &o->momentum,  NULL, &o->beta1,
      &o->beta2, &o->epsilon, &o->weight_decay,  &o->clip_norm, NULL, NULL,
      NULL,      &o->factor};
  uint32_t *words[] = {
      NULL, &o->kind, NULL, NULL,           &o->nesterov, NULL,       NULL,
      NULL, NULL,     NULL, &o->accumulate, &o->schedule, &o->warmup, NULL};
  uint32_t key = 0;
  *o = fli_optimiser_defaults;
  for (fli_fields f = fli_fields_begin(reader); fli_fields_next(&f, &key);) {
    if (key < FLI_COUNT_OF(floats) && floats[key]) {
      *floats[key] = fli_reader_f32(reader);
    } else if (key < FLI_COUNT_OF(words) && words[key]) {
      *words[key] = fli_reader_u32(reader);
    } else if (key == 14) {
      o->period = fli_reader_u64(reader);
    } else {
      fli_fields_unknown(&f);
    }
  }
}

/* ---- writing ------------------------------------------------------------- */

static void write_place(fli_msg_writer *writer, const fli_fit_place *place)
{
  fli_writer_u64(writer, KEY_PLACE);
  fli_writer_map(writer, 3);
  fli_field_u64(writer, 1, place->epoch);
  fli_field_u64(writer, 2, place->step_in_epoch);
  fli_field_u64(writer, 3, place->seed);
}

static fl_status write_payload(const fl_model *model, fli_bytes *payload)
{
  fli_msg_writer writer;
  const fli_optimiser *optimiser = &model->optimiser;
  const fli_workspace *w = &model->workspace;
  uint32_t n_states = fli_optimiser_arrays(&optimiser->options);
  fli_writer_init(&writer, payload);
  uint8_t frozen[FLI_MAX_TENSORS];
  int has_frozen = 0;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    frozen[i] = (uint8_t)model->tensors[i].is_frozen;
    has_frozen |= frozen[i];
  }
  fli_writer_map(&writer, 6 + n_states + (w->n_batches > 0 ? 2 : 0) +
                              (uint32_t)has_frozen);
  fli_field_bin(&writer, KEY_SCHEMA, model->schema, sizeof model->schema);
  fli_field_floats(&writer, KEY_VALUES, model->values,
                   (size_t)(model->n_weights + model->n_fixed));
  write_options(&writer, &optimiser->options);
  fli_field_u64(&writer, KEY_FIRST_ACTIVE, model->first_active);
  fli_field_u64(&writer, KEY_UPDATES, optimiser->updates);
  for (uint32_t i = 0; i < n_states; i++) {
    fli_field_floats(&writer, KEY_STATE + i, optimiser->state[i],
                     (size_t)optimiser->n);
  }
  write_place(&writer, &model->place);
  if (w->n_batches > 0) {
    fli_field_u64(&writer, KEY_N_BATCHES, w->n_batches);
    fli_field_floats(&writer, KEY_GRADIENT, w->gradient, (size_t)w->n_gradient);
  }
  if (has_frozen) {
    fli_field_bin(&writer, KEY_FROZEN, frozen, model->n_tensors);
  }
  return fli_writer_status(&writer);
}

/* ---- reading ------------------------------------------------------------- */

static void read_schema(const fl_model *model, fli_msg_reader *reader)
{
  uint8_t schema[FL_HASH_BYTES];
  fli_reader_bin_exact(reader, schema, sizeof schema, "checkpoint's schema");
  if (fli_reader_status(reader) != FL_OK) return;
  if (memcmp(schema, model->schema, sizeof schema) != 0) {
    fli_reader_fail(reader, FL_E_SCHEMA, "checkpoint's model");
  }
}

static void read_place(fli_msg_reader *reader, fli_fit_place *place)
{
  uint32_t key = 0;
  for (fli_fields f = fli_fields_begin(reader); fli_fields_next(&f, &key);) {
    switch (key) {
    case 1: place->epoch = fli_reader_u32(reader); break;
    case 2: place->step_in_epoch = fli_reader_u64(reader); break;
    case 3: place->seed = fli_reader_u64(reader); break;
    default: fli_fields_unknown(&f); break;
    }
  }
}

/* Keys ascend: options and first module are known when state comes, and then
 * how long it is. */
static fl_status prepare_state(fl_model *model, loaded *l)
{
  fl_status st = FL_OK;
  uint64_t first = fli_model_first_weight(model, l->first_active);
  if (first == model->n_weights && model->n_weights > 0) {
    return fli_error(FL_E_FORMAT, "checkpoint: no module is trained");
  }
  l->n_gradient = (size_t)(model->n_weights - first);
  st = fli_optimiser_init(&l->optimiser, model->context, &l->options, first,
                          l->n_gradient);
  return st == FL_E_OPTIONS ? FL_E_FORMAT : st;
}

static void read_gradient(fl_model *model, loaded *l, fli_msg_reader *reader)
{
  if (l->gradient || l->n_batches == 0) {
    fli_reader_fail(reader, FL_E_FORMAT, "checkpoint's gradient");
    return;
  }
  l->gradient = fli_alloc(model->context, l->n_gradient, sizeof *l->gradient);
  if (!l->gradient) {
    fli_reader_fail(reader, FL_E_NOMEM, "checkpoint's gradient");
    return;
  }
  fli_reader_floats(reader, l->gradient, l->n_gradient,
                    "checkpoint's gradient");
}

static void read_state(loaded *l, uint32_t index, fli_msg_reader *reader)
{
  if (!l->optimiser.state[index]) {
    fli_reader_fail(reader, FL_E_FORMAT, "checkpoint's optimiser state");
    return;
  }
  fli_reader_floats(reader, l->optimiser.state[index], (size_t)l->optimiser.n,
                    "checkpoint's optimiser state");
  l->n_states++;
}

/* Something of the first active module is trained, or that were another. */
static void read_frozen(const fl_model *model, loaded *l,
                        fli_msg_reader *reader)
{
  int is_right = 0;
  fli_reader_bin_exact(reader, l->frozen, model->n_tensors,
                       "checkpoint's frozen modules");
  if (fli_reader_status(reader) != FL_OK) return;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    const fli_tensor *tensor = &model->tensors[i];
    if (l->frozen[i] > 1) {
      is_right = 0;
      break;
    }
    is_right |= !l->frozen[i] && tensor->is_trainable &&
                tensor->module == l->first_active;
  }
  if (!is_right) {
    fli_reader_fail(reader, FL_E_FORMAT, "checkpoint's frozen modules");
  }
}

static fl_status read_field(fl_model *model, loaded *l, uint32_t key,
                            fli_fields *fields)
{
  fli_msg_reader *reader = fields->reader;
  if (key < 32) l->fields |= 1u << key;
  switch (key) {
  case KEY_SCHEMA: read_schema(model, reader); break;
  case KEY_VALUES:
    fli_reader_floats(reader, l->values, l->n_values, "checkpoint's weights");
    break;
  case KEY_OPTIMISER: read_options(reader, &l->options); break;
  case KEY_FIRST_ACTIVE:
    l->first_active = fli_reader_u32(reader);
    if (fli_reader_status(reader) == FL_OK) return prepare_state(model, l);
    break;
  case KEY_UPDATES: l->updates = fli_reader_u64(reader); break;
  case KEY_STATE:
  case KEY_STATE + 1: read_state(l, key - KEY_STATE, reader); break;
  case KEY_PLACE: read_place(reader, &l->place); break;
  case KEY_N_BATCHES: l->n_batches = fli_reader_u32(reader); break;
  case KEY_GRADIENT: read_gradient(model, l, reader); break;
  case KEY_FROZEN: read_frozen(model, l, reader); break;
  default: fli_fields_unknown(fields); break;
  }
  return FL_OK;
}

static fl_status check_finite(const float *values, uint64_t n, const char *name)
{
  return fli_values_check(values, n, "checkpoint: ", name);
}

static fl_status check_moments(const fli_optimiser *optimiser)
{
  fl_status st = FL_OK;
  for (size_t i = 0; i < FLI_COUNT_OF(optimiser->state); i++) {
    FLI_TRY(check_finite(optimiser->state[i], optimiser->n, "moments"));
  }
out:
  return st;
}

/* Roots of sums of squares are taken. */
static fl_status check_squares(const fli_optimiser *optimiser)
{
  uint32_t kind = optimiser->options.kind;
  const float *values =
      kind == FL_OPTIMISER_ADAGRAD ? optimiser->state[0] : optimiser->state[1];
  for (uint64_t i = 0; values && i < optimiser->n; i++) {
    if (values[i] >= 0.0f) continue;
    return fli_error(FL_E_FORMAT, "checkpoint: a sum of squares is negative");
  }
  return FL_OK;
}

/* What no load would take is not written: it might replace a good one. */
static fl_status check_saved(const fl_model *model)
{
  fl_status st = FL_OK;
  const fli_workspace *w = &model->workspace;
  FLI_TRY(check_finite(model->values, model->n_weights + model->n_fixed,
                       "weights"));
  FLI_TRY(check_moments(&model->optimiser));
  if (w->n_batches > 0) {
    FLI_TRY(check_finite(w->gradient, w->n_gradient, "gradients"));
  }
out:
  return st;
}

static fl_status check(const loaded *l)
{
  const uint32_t wanted = 1u << KEY_SCHEMA | 1u << KEY_VALUES |
                          1u << KEY_OPTIMISER | 1u << KEY_FIRST_ACTIVE |
                          1u << KEY_UPDATES | 1u << KEY_PLACE;
  const fli_optimiser *optimiser = &l->optimiser;
  fl_status st = FL_OK;
  if ((l->fields & wanted) != wanted ||
      l->n_states != fli_optimiser_arrays(&optimiser->options) ||
      (l->n_batches > 0) != (l->gradient != NULL)) {
    return fli_error(FL_E_FORMAT, "checkpoint: a field is missing");
  }
  FLI_TRY(check_finite(l->values, l->n_values, "weights"));
  FLI_TRY(check_moments(optimiser));
  FLI_TRY(check_squares(optimiser));
  FLI_TRY(check_finite(l->gradient, l->n_gradient, "gradients"));
out:
  return st == FL_E_NOT_FINITE ? FL_E_FORMAT : st;
}

static fl_status read_payload(fl_model *model, const fli_bytes *payload,
                              loaded *l)
{
  fl_status st = FL_OK;
  fli_msg_reader reader;
  uint32_t key = 0;
  fli_reader_init(&reader, payload->data, payload->size);
  for (fli_fields f = fli_fields_begin(&reader); fli_fields_next(&f, &key);) {
    FLI_TRY(read_field(model, l, key, &f));
  }
  FLI_TRY(fli_reader_finish(&reader));
  FLI_TRY(check(l));
out:
  return st;
}

/* Nothing can fail here. The old optimiser is left in `l`, to be freed. */
static void take(fl_model *model, loaded *l)
{
  fli_optimiser optimiser = model->optimiser;
  /* The host may have borrowed the weights: they stay where they are. */
  memcpy(model->values, l->values, l->n_values * sizeof *l->values);
  model->n_writes++;
  model->optimiser = l->optimiser;
  model->optimiser.updates = l->updates;
  l->optimiser = optimiser;
  model->place = l->place;
  for (uint32_t i = 0; i < model->n_tensors; i++) {
    model->tensors[i].is_frozen = l->frozen[i];
  }
  (void)fli_model_mark(model, l->first_active);
  fli_workspace_forget(model);
  if (l->n_batches == 0) return;
  model->workspace.gradient = l->gradient;
  model->workspace.n_gradient = l->n_gradient;
  model->workspace.n_batches = l->n_batches;
  l->gradient = NULL;
}

/* Most that a checkpoint of this model can take: values, two moments and a
 * gradient. */
static uint64_t max_size(const fl_model *model)
{
  return 16 * (model->n_weights + model->n_fixed) + model->n_tensors +
         OTHER_BYTES;
}

fl_status fl_model_load_checkpoint(fl_model *model, const fl_reader *reader)
{
  fl_status st = FL_OK;
  loaded l = {0};
  fli_bytes payload;
  uint32_t version = 0;
  fli_clear_error();
  if (!model || !reader || !reader->read) {
    return fli_error(FL_E_ARGUMENT, "checkpoint: model or reader is NULL");
  }
  st = fli_model_check_idle(model);
  if (st != FL_OK) return st;
  fli_bytes_init(&payload, model->context);
  FLI_TRY(fli_container_read(reader, FLI_STATE_MODEL, VERSION, max_size(model),
                             &version, &payload));
  l.n_values = (size_t)(model->n_weights + model->n_fixed);
  l.values = fli_alloc(model->context, l.n_values, sizeof *l.values);
  if (!l.values) {
    st = fli_nomem(l.n_values * sizeof *l.values);
    goto out;
  }
  FLI_TRY(read_payload(model, &payload, &l));
  take(model, &l);
out:
  fli_bytes_free(&payload);
  fli_free(model->context, l.values, l.n_values * sizeof *l.values);
  fli_free(model->context, l.gradient, l.n_gradient * sizeof *l.gradient);
  fli_optimiser_free(&l.optimiser, model->context);
  return st;
}

fl_status fl_model_save_checkpoint(const fl_model *model,
                                   const fl_writer *writer)
{
  fl_status st = FL_OK;
  fli_bytes payload;
  fli_clear_error();
  if (!model || !writer || !writer->write) {
    return fli_error(FL_E_ARGUMENT, "checkpoint: model or writer is NULL");
  }
  if (model->n_weights + model->n_fixed > UINT32_MAX / sizeof(float)) {
    return fli_error(FL_E_TOO_LARGE,
                     "checkpoint: the model has more than 2^30 values");
  }
  fli_bytes_init(&payload, model->context);
  FLI_TRY(check_saved(model));
  FLI_TRY(write_payload(model, &payload));
  FLI_TRY(fli_container_write(writer, FLI_STATE_MODEL, VERSION, &payload));
out:
  fli_bytes_free(&payload);
  return st;
}

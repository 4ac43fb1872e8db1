/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file client.h
 * One participant of a federated training, without sockets, threads or clock.
 * The host moves bytes and passes time:
 *
 *   loop:
 *     fl_client_send  -> bytes for the server (POST them, write them, ...)
 *     fl_client_recv  <- bytes of the server
 *     fl_client_poll(now) -> event; on NEED_TRAIN train and call
 *                            fl_client_submit_weights (or _update)
 *
 * With a `train` callback in the options, poll trains by itself. Lost,
 * repeated or reordered messages are mended by the client: when nothing came
 * back in time it says HELLO again and the server answers with where it is.
 * After a transport broke in the middle of a message, call
 * fl_client_disconnected.
 *
 * Same inputs, same outputs: D0, apart from what the trainer returns.
 */
#ifndef FL_CLIENT_H
#define FL_CLIENT_H

#include <fl/base.h>
#include <fl/channel.h>
#include <fl/freeze.h>
#include <fl/model.h>
#include <fl/paged.h>
#include <fl/protocol.h>
#include <fl/slices.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fl_client fl_client;

enum { FL_CLIENT_ID_BYTES = 64 };

/** What to train, and from where. Pointers are the client's, valid during the
 * callback, or until the next call on the client for an event. */
typedef struct fl_train_task {
  uint32_t struct_size;
  uint32_t epochs;
  uint32_t batch_size;
  float learning_rate;
  uint64_t seed;  /**< for this client and round */
  uint64_t round; /**< from 1 */
  uint64_t model_version;
  const float *weights; /**< flat weights to start from */
  uint64_t n_weights;
  /** Modules below need no training: they are frozen, or deeper than this
   * client can afford (fl_client_options.max_depth). Their part of what comes
   * back is ignored and not sent. See fl_model_set_first_active. */
  uint32_t first_active;
  /** What the job freezes by, and so wants a report of: FL_FREEZE_GRADNORM or
   * FL_FREEZE_PLASTICITY; 0 = nothing. */
  uint32_t freeze_reports;
  const uint8_t *freeze_plan; /**< for fl_freeze_follow; NULL = none */
  size_t freeze_plan_size;
  /** The job that the freeze plan names, FL_HASH_BYTES; NULL = none. */
  const uint8_t *freeze_job;
  uint32_t cohort; /**< whose model it is; 0 in jobs without cohorts */
  /** NEED_EVALUATE: 1 = before a round the server wants to know the loss of
   * this model on the data that the client trains on, to find the client's
   * cohort: score.loss is what counts. */
  uint32_t is_probe;
  /** FedProx: add prox_mu (local weights - `weights`) to every gradient, as
   * fl_local_gradient does. 0 = nothing. */
  float prox_mu;
  uint32_t reserved_prox;
  /** SCAFFOLD: the server's control, for fl_local_begin; what fl_local_end then
   * gives belongs into fl_train_result.control_change. NULL = another strategy.
   */
  const float *control;
  /** Where the weights are, when the client's model is paged: `weights` is NULL
   * then (fl/paged.h). */
  fl_paged *paged;
} fl_train_task;

/** Let a controller follow a task's freeze plan, whatever it followed before:
 * at the beginning of every round, with one controller for all of them, made
 * with criterion SERVER (steps_per_epoch 1 will do) for the modules of the
 * model, and attached to it or not:
 *
 *   fl_freeze_follow(freeze, task, samples);
 *   train: fl_freeze_begin_step says from which module on, as always
 *   fl_freeze_take_report(freeze, &report) -> fl_train_result
 *
 * It measures what the task wants to know during task->epochs times `samples`
 * (1..2^40) samples. A plan that is of another job than the last one, or older,
 * for that job was begun afresh, begins it anew, with the defaults but for
 * max_frozen, preset, rows, refresh and allowed; so does a task that measures
 * something else, or in another number of steps. Without a plan nothing is
 * frozen by one, and nothing is measured. Modules in front of
 * task->first_active are not trained (fl_freeze_request.first_active), and of a
 * front module among them nothing is asked for.
 *
 * FL_E_STATE: another criterion; FL_E_RANGE: first_active is no module;
 * FL_E_ARGUMENT, FL_E_NOMEM, and what fl_freeze_apply_plan says of plans that
 * are none: all is as before. */
FL_API fl_status fl_freeze_follow(fl_freeze *freeze, const fl_train_task *task,
                                  uint64_t samples);

/** What came out of training. Exactly one of `weights` (trained) and `update`
 * (trained - start) is set, `n` long, flat; neither, and n is not read, when
 * the model is paged. */
typedef struct fl_train_result {
  uint32_t struct_size;
  uint32_t reserved;
  const float *weights;
  const float *update;
  uint64_t n;
  uint64_t samples; /**< trained on; 0 = as said in the options */
  double loss;      /**< mean training loss; NaN = unknown */
  /** What fl_freeze_take_report gave: the front module and its value. One that
   * is not finite, or negative, says nothing; default NaN. */
  double report_value;
  uint32_t report_module;
  uint32_t reserved_report;
  /** SCAFFOLD: how the client's control has changed, `n` long; required where
   * the task has a control (FL_E_ARGUMENT), else not read. */
  const float *control_change;
} fl_train_result;
FL_API fl_status fl_train_result_init(fl_train_result *result, size_t size);

/** A trainer: train on `task`, fill `result` with memory that lives until the
 * next call of the trainer. A status other than FL_OK declines the round.
 * Neither trainer nor evaluator may use the client that calls it. */
typedef fl_status (*fl_train_fn)(const fl_train_task *task,
                                 fl_train_result *result, void *user);

/** An evaluator: score `weights` on local data. */
typedef struct fl_score {
  uint32_t struct_size;
  uint32_t reserved;
  double loss; /**< mean */
  uint64_t correct;
  uint64_t count; /**< 0 = nothing to score on */
  /** For the evaluator, of a client whose model is paged: it reads the weights
   * from here, and `weights` is NULL. Else NULL; not read. */
  fl_paged *paged;
} fl_score;
FL_API fl_status fl_score_init(fl_score *score, size_t size);
typedef fl_status (*fl_evaluate_fn)(const float *weights, uint64_t n,
                                    fl_score *score, void *user);

typedef struct fl_client_options {
  uint32_t struct_size;
  /** Largest frame accepted, bytes; 4 KiB .. 4 MiB + 16, the default. */
  uint32_t max_frame_size;
  /** Stable identity, 1..64 printable ASCII bytes; required. Copied. */
  const char *client_id;
  /** Job to join; NULL or "" = the server's first. Copied. */
  const char *job;
  /** Optional free text such as "pixel-8", up to 64 bytes. Copied. */
  const char *device_class;
  /** Samples of local data, 1 .. 2^40; default 1. */
  uint64_t samples;
  /** The model at hand: its schema must be the server's. Borrowed during
   * fl_client_new only. NULL = take the model's description from the server
   * (event JOINED). */
  const fl_model *model;
  /** Say HELLO again after this long without an answer; default 10 s,
   * doubling up to 8 times that. */
  uint64_t retry_ns;
  /** Give up (ABORTED) after this many tries without an answer; default 10,
   * 0 = never. */
  uint32_t max_retries;
  /** Upload chunk, bytes; default 256 KiB, 4 KiB .. 4 MiB. */
  uint32_t chunk_size;
  /** Largest model accepted, parameters, 1 .. 2^40; default 2^28. */
  uint64_t max_weights;
  fl_train_fn train;       /**< may be NULL: event NEED_TRAIN instead */
  fl_evaluate_fn evaluate; /**< may be NULL: event NEED_EVALUATE instead */
  void *user;
  /** Modules that this client can afford to train, counted from the last; 0 =
   * all, the default. fl_train_task.first_active keeps to it. */
  uint32_t max_depth;
  uint32_t reserved;
  /** In jobs with cohorts: score models of cohorts on the data that the client
   * trains on; only the loss counts. NULL = `evaluate` does it, or event
   * NEED_EVALUATE with task.is_probe. */
  fl_evaluate_fn measure;
  /** Keep the model in a storage instead of memory (fl/paged.h); NULL = in
   * memory. Borrowed: it is freed after the client. fl_client_new, too, may say
   * FL_E_STATE: another client has it. */
  fl_paged *paged;
} fl_client_options;
FL_API fl_status fl_client_options_init(fl_client_options *options,
                                        size_t size);

/** Make a client that will join. FL_E_OPTIONS, FL_E_ARGUMENT, FL_E_NOMEM,
 * FL_E_LIMIT (options.model is above max_weights). */
FL_API fl_status fl_client_new(fl_client **out, fl_context *context,
                               const fl_client_options *options);
FL_API void fl_client_free(fl_client *client);

/** Take bytes from the server, in any cut. FL_E_FORMAT, FL_E_VERSION,
 * FL_E_TOO_LARGE and the other codes about data: what came was no server of
 * ours; treat the connection as broken and call fl_client_disconnected. So
 * with FL_E_NOMEM and FL_E_IO (a paged model's storage failed): what was lost
 * comes again. A storage that fails again and again is waited for
 * (FL_CLIENT_WAIT, FL_REJECT_LIMIT), what was trained is given up, and after
 * max_retries the client is aborted with FL_REJECT_LIMIT and the failure as
 * text. So with FL_E_NOT_FINITE from a storage. */
FL_API fl_status fl_client_recv(fl_client *client, const uint8_t *data,
                                size_t n);
/** Take what is to be sent: *n bytes at *data, 0 when there is nothing. They
 * count as sent; the memory is valid until the next call on the client.
 * FL_E_NOMEM and FL_E_IO (a paged model's storage failed): nothing was taken;
 * call again, at the latest when fl_client_next_timeout says. */
FL_API fl_status fl_client_send(fl_client *client, const uint8_t **data,
                                size_t *n);
/** Say that the transport broke: half-received frames are dropped and HELLO is
 * sent again, now. */
FL_API fl_status fl_client_disconnected(fl_client *client);

enum {
  FL_CLIENT_IDLE = 0,   /**< nothing to do: exchange bytes */
  FL_CLIENT_JOINED = 1, /**< the model's description is there */
  FL_CLIENT_NEED_TRAIN = 2,
  FL_CLIENT_NEED_EVALUATE = 3,
  FL_CLIENT_MODEL_READY = 4, /**< a new model version is held */
  FL_CLIENT_ACCEPTED = 5,    /**< the update was counted */
  FL_CLIENT_STALE = 6,       /**< the round went on without this client */
  FL_CLIENT_WAIT = 7,        /**< come back at wait_until_ns */
  FL_CLIENT_DONE = 8,        /**< training is over; the final model is held */
  FL_CLIENT_ABORTED = 9      /**< refused or given up: reason, text */
};

typedef struct fl_client_event {
  uint32_t struct_size;
  uint32_t kind; /**< FL_CLIENT_* */
  uint64_t round;
  uint64_t model_version;
  uint64_t wait_until_ns;
  uint32_t reason; /**< FL_REJECT_*: ABORTED, STALE and WAIT */
  uint32_t reserved;
  const char *text; /**< why, for people; never NULL */
  /** NEED_TRAIN; also weights to score with NEED_EVALUATE. */
  fl_train_task task;
} fl_client_event;
FL_API fl_status fl_client_event_init(fl_client_event *event, size_t size);

/** Advance to `now_ns` (any monotonic clock) and take one event; each is given
 * out once, DONE and ABORTED too, and FL_CLIENT_IDLE says that there is none.
 * Runs the callbacks if they are set. Pointers in the event are valid until
 * the next call on the client. FL_E_DIM, FL_E_NOT_FINITE, FL_E_ARGUMENT,
 * FL_E_RANGE, and FL_E_NOMEM and FL_E_IO (of a paged model's storage): what a
 * callback gave cannot be used; the round is declined. */
FL_API fl_status fl_client_poll(fl_client *client, uint64_t now_ns,
                                fl_client_event *event);
/** When poll wants to be called at the latest; UINT64_MAX = no timer runs. */
FL_API fl_status fl_client_next_timeout(const fl_client *client,
                                        uint64_t *deadline_ns);

/** Say which of FL_CONDITION_* hold now; a client that never says has all.
 * Call it whenever they change. A round that demands others is declined, or
 * given up if it was begun (FL_CLIENT_STALE, FL_REJECT_DECLINED), and the
 * server does not ask until they hold. FL_E_ARGUMENT: other bits. */
FL_API fl_status fl_client_set_conditions(fl_client *client,
                                          uint32_t conditions);
/** Bound what may be sent and received in a day, in bytes; 0 = no bound. `day`
 * is the host's number of the day, whatever it counts from: say it again when
 * another begins, which forgets what was counted. A round whose model and
 * update might be more than is left is declined, and the server asks no more
 * that day; no HELLO is said when nothing is left. Evaluations and the job's
 * final model are counted, not asked about. What was counted is in the saved
 * state: call this after fl_client_restore, too. */
FL_API fl_status fl_client_set_budget(fl_client *client, uint64_t daily_bytes,
                                      uint64_t day);
/** Bytes sent and received on the day that was said last. */
FL_API uint64_t fl_client_get_spent(const fl_client *client);

/** Answer NEED_TRAIN. FL_E_STATE when nothing is asked; still asked after
 * FL_E_DIM, FL_E_NOT_FINITE, FL_E_ARGUMENT (not one of weights and update;
 * samples), FL_E_RANGE (a norm of the update above 2^127), FL_E_NOMEM and
 * FL_E_IO (a paged model's storage failed: submit again, or decline). Copied.
 */
FL_API fl_status fl_client_submit(fl_client *client,
                                  const fl_train_result *result);
/** Answer NEED_EVALUATE. FL_E_STATE; FL_E_ARGUMENT (correct above count);
 * FL_E_NOT_FINITE. */
FL_API fl_status fl_client_submit_score(fl_client *client,
                                        const fl_score *score);
/** Answer NEED_TRAIN or NEED_EVALUATE with "not this time". */
FL_API fl_status fl_client_decline(fl_client *client);

/** Have a client ask for its rows before it trains (NEED_TRAIN comes when they
 * are in the store), and send what has changed when the result is submitted.
 * After fl_client_restore, too. NULL: no more. FL_E_STATE: one of both is
 * attached already. A job whose store has other tables aborts the client
 * (FL_REJECT_SCHEMA; FL_REJECT_TOO_LARGE: more ids than the server allows).
 * Borrowed: it is freed after the client, or after it was given up. */
FL_API fl_status fl_client_attach_slices(fl_client *client,
                                         fl_slice_client *slices);

/** Have a client prove with an Ed25519 key (fl_key_generate), which it copies
 * and wipes with the handle, that it is who it says, and sign its updates;
 * after fl_client_restore, too, for a saved state has no keys. With
 * `server_key` (NULL = none) it proves it to this server alone
 * (fl_server_options.server_key); that the server has the key, too, is for TLS
 * or fl_channel to say. A server that wants no proof gets none. Holds from the
 * next HELLO on: call it before the first fl_client_send. FL_E_ARGUMENT: NULL,
 * or no key pair; FL_E_NOMEM. */
FL_API fl_status fl_client_set_key(
    fl_client *client, const uint8_t secret_key[FL_SECRET_KEY_BYTES],
    const uint8_t *server_key);
/** Leave the job, and have the server forget this client: its id and key, what
 * it claimed, its cohort. What was added to sums stays in them. The event
 * ABORTED comes with FL_REJECT_FORGOTTEN when it is done; other reasons as
 * ever. After DONE, too. Not saved: ask again after fl_client_restore.
 * FL_E_STATE: the client has been aborted. */
FL_API fl_status fl_client_leave(fl_client *client);

/** Borrow the model's description: that of options.model, else as the server
 * sent it (after JOINED; FL_E_EMPTY before). */
FL_API fl_status fl_client_get_description(const fl_client *client,
                                           const uint8_t **data, size_t *n);
/** Copy the model held now, flat, and its version (may be NULL). `count` is
 * the model's, or 0 with weights NULL for the version alone. FL_E_EMPTY when
 * none is held; FL_E_DIM; FL_E_IO of a paged model's storage. */
FL_API fl_status fl_client_copy_weights(const fl_client *client, float *weights,
                                        uint64_t count, uint64_t *version);

/** Save everything that a client killed now needs to go on: identity, model,
 * plan, encoded update. Guarded by a hash. FL_E_IO: the writer failed,
 * or a paged model's storage. */
FL_API fl_status fl_client_save(const fl_client *client,
                                const fl_writer *writer);
/** Restore. Options must name the same client and job (FL_E_CONFLICT) and a
 * model of the same schema, if any (FL_E_SCHEMA). A torn or foreign state is
 * refused (FL_E_FORMAT, FL_E_VERSION, FL_E_TRUNCATED, FL_E_TOO_LARGE);
 * FL_E_IO: the reader failed, or a paged model's storage. The restored client
 * begins with HELLO. */
FL_API fl_status fl_client_restore(fl_client **out, fl_context *context,
                                   const fl_client_options *options,
                                   const fl_reader *reader);

#ifdef __cplusplus
}
#endif
#endif

# SPDX-License-Identifier: Apache-2.0
"""The types of the headers: handles, structs and callbacks for ctypes. A part
of _lib, which the other modules take them from.
"""
from __future__ import annotations

from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_double, c_float
from ctypes import c_int32, c_size_t, c_uint8, c_uint16, c_uint32, c_uint64
from ctypes import c_void_p, sizeof
from typing import Any

from ._args import whole
from ._structs_channel import PUBLIC_KEY_BYTES as PUBLIC_KEY_BYTES
from ._structs_channel import SECRET_KEY_BYTES as SECRET_KEY_BYTES
from ._structs_channel import ChannelOptions as ChannelOptions
from ._structs_store import Store as Store
from ._structs_store import StorePointer as StorePointer

Status = c_int32
F32P = POINTER(c_float)
F64P = POINTER(c_double)
I32P = POINTER(c_int32)
U8P = POINTER(c_uint8)
U16P = POINTER(c_uint16)
U32P = POINTER(c_uint32)
U64P = POINTER(c_uint64)
SizeP = POINTER(c_size_t)


class Struct(Structure):
    """A struct whose unsigned fields take what fits them, and nothing
    else."""

    _limits: dict[str, int]

    def __init_subclass__(cls) -> None:
        unsigned = (c_uint8, c_uint16, c_uint32, c_uint64)
        cls._limits = {field[0]: 2 ** (8 * sizeof(field[1])) - 1
                       for field in cls._fields_ if field[1] in unsigned}

    def __setattr__(self, name: str, value: Any) -> None:
        limit = self._limits.get(name)
        if limit is not None:
            value = whole(value, limit, name)
        super().__setattr__(name, value)


def _opaque(name: str) -> Any:
    """Make the type of pointers to a handle that only C looks into."""
    return POINTER(type(name, (Structure,), {}))


Buffer = _opaque("fl_buffer")
Cache = _opaque("fl_cache")
Paged = _opaque("fl_paged")
Cancel = _opaque("fl_cancel")
Client = _opaque("fl_client")
CohortSet = _opaque("fl_cohort_set")
Compressor = _opaque("fl_compressor")
Context = _opaque("fl_context")
Model = _opaque("fl_model")
ModelBuilder = _opaque("fl_model_builder")
Partial = _opaque("fl_partial")
Embedding = _opaque("fl_embedding")
Feedback = _opaque("fl_feedback")
Freeze = _opaque("fl_freeze")
Server = _opaque("fl_server")
Channel = _opaque("fl_channel")
Sketcher = _opaque("fl_sketcher")


# ---- base.h ----------------------------------------------------------------

ReadFn = CFUNCTYPE(Status, c_void_p, c_void_p, c_size_t, SizeP)
WriteFn = CFUNCTYPE(Status, c_void_p, c_void_p, c_size_t)
LogFn = CFUNCTYPE(None, c_void_p, c_uint32, c_char_p)


class Reader(Struct):
    _fields_ = [("read", ReadFn), ("user", c_void_p)]


class Writer(Struct):
    _fields_ = [("write", WriteFn), ("user", c_void_p)]


class Storage(Struct):
    _fields_ = [
        ("struct_size", c_uint32), ("reserved", c_uint32), ("user", c_void_p),
        ("size", CFUNCTYPE(Status, c_void_p, c_char_p, U64P)),
        ("read", CFUNCTYPE(Status, c_void_p, c_char_p, c_uint64, c_void_p,
                           c_size_t)),
        ("write", CFUNCTYPE(Status, c_void_p, c_char_p, c_void_p, c_size_t)),
        ("remove", CFUNCTYPE(Status, c_void_p, c_char_p)),
        ("sync", CFUNCTYPE(Status, c_void_p)),
        ("map", c_void_p), ("unmap", c_void_p),
        ("map_write", CFUNCTYPE(Status, c_void_p, c_char_p, c_uint64,
                                POINTER(c_void_p), I32P)),
        ("unmap_write", CFUNCTYPE(None, c_void_p, c_void_p, c_uint64)),
        ("advise", CFUNCTYPE(None, c_void_p, c_void_p, c_uint64, c_uint64))]


# The hooks that stay NULL here are plain addresses.
class ContextOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("log_level", c_uint32),
                ("user", c_void_p), ("alloc", c_void_p),
                ("dealloc", c_void_p), ("log", LogFn), ("now", c_void_p),
                ("entropy", c_void_p), ("parallel_for", c_void_p),
                ("storage", POINTER(Storage)), ("memory_cap", c_uint64),
                ("start", c_void_p), ("finish", c_void_p)]


# ---- model.h ---------------------------------------------------------------

MAX_DIMS = 8
HASH_BYTES = 32


class TensorInfo(Struct):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_uint32),
                ("name", c_char_p), ("module", c_uint32),
                ("is_trainable", c_uint32), ("n_dims", c_uint32),
                ("reserved", c_uint32), ("dims", c_uint64 * MAX_DIMS),
                ("count", c_uint64), ("offset", c_uint64)]


class Dataset(Struct):
    _fields_ = [("struct_size", c_uint32), ("x_dtype", c_uint32),
                ("x", c_void_p), ("y", I32P), ("n", c_uint64),
                ("indices", U32P), ("n_indices", c_uint64),
                ("targets", F32P), ("ids", U64P), ("sample_size", c_uint64)]


class Idx(Struct):
    _fields_ = [("struct_size", c_uint32), ("n_dims", c_uint32),
                ("dims", c_uint64 * MAX_DIMS), ("count", c_uint64),
                ("values", U8P)]


class LoadReport(Struct):
    _fields_ = [("struct_size", c_uint32), ("schema", c_uint32),
                ("n_loaded", c_uint32), ("n_missing", c_uint32),
                ("n_extra", c_uint32), ("n_converted", c_uint32),
                ("is_loaded", U8P), ("capacity", c_uint32),
                ("reserved", c_uint32)]


class WeightsNote(Structure):
    _fields_ = [("name", c_char_p), ("text", c_char_p)]


class FitProgress(Struct):
    _fields_ = [("struct_size", c_uint32), ("epoch", c_uint32),
                ("step", c_uint64), ("steps", c_uint64), ("loss", c_double)]


FitProgressFn = CFUNCTYPE(Status, POINTER(FitProgress), c_void_p)


class FitOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("epochs", c_uint32),
                ("batch_size", c_uint32), ("shuffle", c_uint32),
                ("learning_rate", c_float), ("progress_every", c_uint32),
                ("seed", c_uint64), ("cancel", Cancel),
                ("progress", FitProgressFn), ("user", c_void_p),
                ("resume", c_uint32), ("reserved", c_uint32)]


class FitResult(Struct):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32),
                ("steps", c_uint64), ("samples", c_uint64),
                ("mean_loss", c_double)]


class Evaluation(Struct):
    _fields_ = [("struct_size", c_uint32), ("n_classes", c_uint32),
                ("loss", c_double), ("count", c_uint64),
                ("correct", c_uint64), ("class_count", U64P),
                ("class_correct", U64P), ("class_capacity", c_uint32),
                ("reserved", c_uint32)]


# ---- layers.h --------------------------------------------------------------


class Conv2dOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("filters", c_uint32),
                ("height", c_uint32), ("width", c_uint32),
                ("stride", c_uint32), ("padding", c_uint32),
                ("groups", c_uint32)]


class Pool2dOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("kind", c_uint32),
                ("size", c_uint32), ("stride", c_uint32),
                ("padding", c_uint32)]


class CrossEntropyOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("ignore_index", c_int32),
                ("label_smoothing", c_float)]


class LayerInfo(Struct):
    _fields_ = [("struct_size", c_uint32), ("module", c_uint32),
                ("name", c_char_p), ("kind", c_char_p),
                ("is_trained", c_uint32), ("n_tensors", c_uint32),
                ("first_tensor", c_uint32), ("n_inputs", c_uint32),
                ("inputs", c_uint32 * 2), ("n_dims", c_uint32),
                ("reserved", c_uint32), ("dims", c_uint64 * MAX_DIMS),
                ("n_parameters", c_uint64)]


class LoraOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("rank", c_uint32),
                ("alpha", c_float), ("reserved", c_uint32),
                ("layers", c_char_p),
                ("trained", c_char_p)]


class AdapterOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("width", c_uint32),
                ("activation", c_uint32), ("reserved", c_uint32),
                ("layers", c_char_p),
                ("trained", c_char_p)]


# ---- train.h ---------------------------------------------------------------


class OptimiserOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("kind", c_uint32),
                ("learning_rate", c_float), ("momentum", c_float),
                ("nesterov", c_uint32), ("beta1", c_float),
                ("beta2", c_float), ("epsilon", c_float),
                ("weight_decay", c_float), ("clip_norm", c_float),
                ("accumulate", c_uint32), ("schedule", c_uint32),
                ("warmup", c_uint32), ("factor", c_float),
                ("period", c_uint64)]


class MemoryPlan(Struct):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32),
                ("weights", c_uint64), ("gradients", c_uint64),
                ("optimiser", c_uint64), ("activations", c_uint64),
                ("peak", c_uint64)]


GradientFn = CFUNCTYPE(Status, F32P, F32P, c_uint64, c_void_p)
BatchFn = CFUNCTYPE(Status, POINTER(Dataset), c_uint32, c_uint64, c_void_p)


# ---- compress.h ------------------------------------------------------------

SEED_BYTES = 32


class CompressorOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("codec", c_uint32),
                ("thc_mode", c_uint32), ("bits", c_uint32),
                ("granularity", c_uint32), ("clip", c_float),
                ("rotation_seed", c_uint8 * SEED_BYTES),
                ("workers", c_uint32), ("n_table", c_uint32),
                ("table", U8P)]


class Scale(Struct):
    _fields_ = [("struct_size", c_uint32), ("slots", c_uint32),
                ("round", c_uint64), ("weight_cap", c_uint64),
                ("noise_seed", c_uint8 * SEED_BYTES), ("norms", F32P),
                ("n_norms", c_uint64), ("clip", c_float),
                ("is_public", c_uint32)]


class EncodeOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("slot", c_uint32),
                ("samples", c_uint64), ("segments", U8P),
                ("n_segments", c_uint32), ("reserved", c_uint32)]


class EncodeReport(Struct):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32),
                ("clamped", c_uint64), ("rescaled", c_uint64),
                ("block_clamped", U16P), ("n_block_clamped", c_uint64)]


class FeedbackOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("decay", c_float)]


# ---- cache.h ---------------------------------------------------------------

CACHE_KEY_BYTES = 32


class CacheOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("dtype", c_uint32),
                ("byte_cap", c_uint64), ("name", c_char_p), ("key", U8P),
                ("data_tag", U8P)]


class CacheStatus(Struct):
    _fields_ = [("struct_size", c_uint32), ("is_on", c_uint32),
                ("n_samples", c_uint64), ("n_values", c_uint64),
                ("rows", c_uint64), ("bytes", c_uint64), ("hits", c_uint64),
                ("misses", c_uint64)]


# ---- freeze.h --------------------------------------------------------------


class FreezeFixed(Struct):
    _fields_ = [("step", c_uint64), ("first_active", c_uint32),
                ("reserved", c_uint32)]


class FreezeOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("criterion", c_uint32),
                ("preset", c_uint32), ("reports", c_uint32),
                ("steps_per_epoch", c_uint64), ("total_steps", c_uint64),
                ("interval", c_uint64), ("window", c_uint32),
                ("patience", c_uint32), ("tolerance", c_float),
                ("loss_level", c_float), ("loss_change", c_float),
                ("is_pretrained", c_uint32), ("pretrained_share", c_float),
                ("max_frozen", c_uint32), ("hold", c_uint64),
                ("gap", c_uint64), ("unfreezes", c_uint32),
                ("halves_window", c_uint32), ("rows", c_uint32),
                ("refresh", c_uint32), ("warmup_share", c_float),
                ("until_share", c_float), ("fixed", POINTER(FreezeFixed)),
                ("n_fixed", c_uint32), ("n_allowed", c_uint32),
                ("allowed", U32P), ("job", U8P), ("lag", c_uint64)]


class FreezePlan(Struct):
    _fields_ = [("struct_size", c_uint32), ("first_active", c_uint32),
                ("version", c_uint64), ("step", c_uint64),
                ("reason", c_uint32), ("n_modules", c_uint32),
                ("frozen", U8P)]


class FreezeRequest(Struct):
    _fields_ = [("struct_size", c_uint32), ("wants", c_uint32),
                ("first_active", c_uint32), ("has_changed", c_uint32),
                ("module", c_uint32), ("last", c_uint32), ("rows", c_uint32),
                ("reserved", c_uint32), ("step", c_uint64)]


class FreezeReport(Struct):
    _fields_ = [("struct_size", c_uint32), ("module", c_uint32),
                ("value", c_double), ("weight", c_double)]


class FreezeAttachOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("first_active", c_uint32),
                ("cache", Cache), ("n_samples", c_uint64)]


class FreezeEvent(Struct):
    _fields_ = [("struct_size", c_uint32), ("kind", c_uint32),
                ("step", c_uint64), ("module", c_uint32),
                ("below", c_uint32), ("value", c_double),
                ("threshold", c_double), ("raw", c_double),
                ("first_active", c_uint32), ("reason", c_uint32),
                ("version", c_uint64), ("text", c_char_p)]


# ---- cohort.h --------------------------------------------------------------

COHORT_NONE = 2**32 - 1
COHORT_KEY_BYTES = 32
COHORT_TICKET_BYTES = 48
COHORT_MAX = 64


class CohortOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("rule", c_uint32),
                ("seed", c_uint64), ("job", c_uint64), ("key", U8P),
                ("clients", c_uint32), ("cap", c_uint32), ("dim", c_uint32),
                ("floor", c_float), ("min_members", c_uint32),
                ("min_participants", c_uint32), ("spike", c_float),
                ("asks_first", c_uint32), ("evidence", c_uint32),
                ("agreement", c_float), ("gap", c_float), ("reseed", c_uint32),
                ("settle", c_uint32), ("wait", c_uint32),
                ("trial_start", c_uint32), ("trial_length", c_uint32),
                ("trial_probes", c_uint32), ("trial_most", c_uint32),
                ("trial_margin", c_float), ("trial_share", c_float),
                ("trial_sure", c_float), ("trial_win", c_float),
                ("trial_lump", c_float), ("trial_again", c_float),
                ("merge", c_float), ("forget", c_uint32),
                ("is_published", c_uint32), ("splits", U32P),
                ("n_splits", c_uint32), ("reserved", c_uint32)]


class CohortMember(Struct):
    _fields_ = [("struct_size", c_uint32), ("cohort", c_uint32),
                ("other", c_uint32), ("is_unknown", c_uint32),
                ("seen", c_uint32), ("last", c_uint32), ("score", c_float),
                ("is_needed", c_uint32)]


class CohortRoute(Struct):
    _fields_ = [("struct_size", c_uint32), ("cohort", c_uint32),
                ("chooses", c_uint32), ("n_probes", c_uint32),
                ("limit", c_double), ("probes", c_uint32 * COHORT_MAX)]


class CohortReport(Struct):
    _fields_ = [("struct_size", c_uint32), ("cohort", c_uint32),
                ("round", c_uint32), ("n_probes", c_uint32), ("sketch", U8P),
                ("sketch_size", c_size_t), ("feature", F32P),
                ("loss", c_double), ("has_trained", c_uint32),
                ("reserved", c_uint32), ("probes", U32P),
                ("losses", F64P)]


class CohortEvent(Struct):
    _fields_ = [("struct_size", c_uint32), ("kind", c_uint32),
                ("round", c_uint32), ("cohort", c_uint32), ("child", c_uint32),
                ("n_probes", c_uint32), ("weight", c_uint64),
                ("child_weight", c_uint64), ("win", c_float),
                ("lump", c_float)]


class CohortInfo(Struct):
    _fields_ = [("struct_size", c_uint32), ("is_alive", c_uint32),
                ("rounds", c_uint32), ("round", c_uint32),
                ("sibling", c_uint32), ("unknown", c_uint32),
                ("members", c_uint64), ("loss", c_double),
                ("deviation", c_double), ("agreement", c_float),
                ("gap", c_float)]


class CohortPick(Struct):
    _fields_ = [("struct_size", c_uint32), ("cohort", c_uint32),
                ("round", c_uint32), ("want", c_uint32), ("online", U8P),
                ("n_bytes", c_size_t)]


# ---- client.h --------------------------------------------------------------


class PagedOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32),
                ("name", c_char_p), ("memory_budget", c_uint64)]


class TrainTask(Struct):
    _fields_ = [("struct_size", c_uint32), ("epochs", c_uint32),
                ("batch_size", c_uint32), ("learning_rate", c_float),
                ("seed", c_uint64), ("round", c_uint64),
                ("model_version", c_uint64), ("weights", F32P),
                ("n_weights", c_uint64), ("first_active", c_uint32),
                ("freeze_reports", c_uint32), ("freeze_plan", U8P),
                ("freeze_plan_size", c_size_t), ("freeze_job", U8P),
                ("cohort", c_uint32), ("is_probe", c_uint32),
                ("prox_mu", c_float), ("reserved_prox", c_uint32),
                ("control", F32P), ("paged", Paged)]


class TrainResult(Struct):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32),
                ("weights", F32P), ("update", F32P), ("n", c_uint64),
                ("samples", c_uint64), ("loss", c_double),
                ("report_value", c_double), ("report_module", c_uint32),
                ("reserved_report", c_uint32), ("control_change", F32P)]


class Score(Struct):
    _fields_ = [("struct_size", c_uint32), ("reserved", c_uint32),
                ("loss", c_double), ("correct", c_uint64),
                ("count", c_uint64), ("paged", Paged)]


TrainFn = CFUNCTYPE(Status, POINTER(TrainTask), POINTER(TrainResult), c_void_p)
EvaluateFn = CFUNCTYPE(Status, F32P, c_uint64, POINTER(Score), c_void_p)


class ClientOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("max_frame_size", c_uint32),
                ("client_id", c_char_p), ("job", c_char_p),
                ("device_class", c_char_p), ("samples", c_uint64),
                ("model", Model), ("retry_ns", c_uint64),
                ("max_retries", c_uint32), ("chunk_size", c_uint32),
                ("max_weights", c_uint64), ("train", TrainFn),
                ("evaluate", EvaluateFn), ("user", c_void_p),
                ("max_depth", c_uint32), ("reserved", c_uint32),
                ("measure", EvaluateFn), ("paged", Paged)]


class ClientEvent(Struct):
    _fields_ = [("struct_size", c_uint32), ("kind", c_uint32),
                ("round", c_uint64), ("model_version", c_uint64),
                ("wait_until_ns", c_uint64), ("reason", c_uint32),
                ("reserved", c_uint32), ("text", c_char_p),
                ("task", TrainTask)]


# ---- server.h --------------------------------------------------------------


class EnrolRequest(Struct):
    _fields_ = [("struct_size", c_uint32), ("job", c_uint32),
                ("client_id", c_char_p), ("public_key", U8P)]


EnrolFn = CFUNCTYPE(c_int32, POINTER(EnrolRequest), c_void_p)


class ServerOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("max_peers", c_uint32),
                ("max_clients", c_uint32), ("max_control_size", c_uint32),
                ("chunk_size", c_uint32), ("reserved", c_uint32),
                ("staging_cap", c_uint64), ("store", StorePointer),
                ("commit_window_ns", c_uint64), ("enrolment", c_uint32),
                ("max_messages", c_uint32), ("enrol", EnrolFn),
                ("enrol_user", c_void_p), ("server_key", U8P),
                ("rate_interval_ns", c_uint64), ("max_rejects", c_uint32),
                ("max_bans", c_uint32), ("ban_ns", c_uint64)]


class JobOptions(Struct):
    _fields_ = [("struct_size", c_uint32), ("rounds", c_uint32),
                ("name", c_char_p), ("codec", POINTER(CompressorOptions)),
                ("seed", c_uint64), ("participants", c_uint32),
                ("min_participants", c_uint32), ("min_clients", c_uint32),
                ("over_selection", c_float), ("weighting", c_uint32),
                ("scale_mode", c_uint32), ("weight_cap", c_uint64),
                ("epochs", c_uint32), ("batch_size", c_uint32),
                ("learning_rate", c_float),
                ("server_learning_rate", c_float),
                ("server_momentum", c_float), ("evaluate_every", c_uint32),
                ("norm_deadline_ns", c_uint64),
                ("update_deadline_ns", c_uint64),
                ("evaluate_deadline_ns", c_uint64),
                ("return_grace_ns", c_uint64), ("retry_pause_ns", c_uint64),
                ("steps_kept", c_uint32), ("reserved", c_uint32),
                ("error_feedback", c_uint32), ("feedback_decay", c_float),
                ("min_cover", c_uint32), ("reserved_cover", c_uint32),
                ("freeze", POINTER(FreezeOptions)),
                ("rate_schedule", c_uint32), ("rate_warmup", c_uint32),
                ("rate_factor", c_float), ("rate_period", c_uint32),
                ("cohorts", POINTER(CohortOptions)),
                ("cohort_sketches", c_uint32), ("cohort_probed", c_uint32),
                ("strategy", c_void_p), ("selection", c_void_p),
                ("demands", c_uint32), ("reserved_demands", c_uint32),
                ("checkin_ns", c_uint64), ("buffer", c_uint32),
                ("buffer_staleness", c_uint32), ("max_samples", c_uint64),
                ("cohort_pace", c_uint32), ("cohort_share", c_uint32)]


class ServerEvent(Struct):
    _fields_ = [("struct_size", c_uint32), ("kind", c_uint32),
                ("job", c_uint32), ("reason", c_uint32),
                ("round", c_uint64), ("peer", c_uint64),
                ("client_id", c_char_p), ("text", c_char_p),
                ("model_version", c_uint64), ("selected", c_uint32),
                ("accepted", c_uint32), ("samples", c_uint64),
                ("loss", c_double), ("correct", c_uint64),
                ("count", c_uint64), ("first_active", c_uint32),
                ("freeze_reason", c_uint32), ("plan_version", c_uint64),
                ("module", c_uint32), ("below", c_uint32),
                ("value", c_double), ("threshold", c_double),
                ("raw", c_double),
                ("cohort", c_uint32), ("child", c_uint32),
                ("cohort_change", c_uint32), ("cohort_win", c_float),
                ("cohort_lump", c_float), ("reserved", c_uint32)]


class ClientAccuracy(Struct):
    _fields_ = [("struct_size", c_uint32), ("clients", c_uint32),
                ("round", c_uint64), ("mean", c_double), ("worst", c_double),
                ("jain", c_double), ("quantiles", c_double * 11)]


class JobStatus(Struct):
    _fields_ = [("struct_size", c_uint32), ("is_finished", c_uint32),
                ("round", c_uint64), ("rounds", c_uint64),
                ("model_version", c_uint64), ("n_weights", c_uint64),
                ("clients", c_uint32), ("selected", c_uint32),
                ("accepted", c_uint32), ("reserved", c_uint32),
                ("first_active", c_uint32), ("is_paused", c_uint32),
                ("bytes_saved", c_uint64)]

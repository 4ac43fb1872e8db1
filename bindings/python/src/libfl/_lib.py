# SPDX-License-Identifier: Apache-2.0
"""Everything that touches ctypes: the library and its signatures (the structs
are in _structs).

The declarations mirror include/fl/*.h one to one; tests/python/test_abi.py
compares them with what a C compiler says about the headers. Every function
has argtypes and restype, and every function that returns a status goes
through the one `_check`, which raises what failed. Exceptions of Python
callbacks are kept while C code is on the stack and raised when it returns.
"""
from __future__ import annotations

import ctypes
import ctypes.util
import os
import pathlib
import sys
import threading
from ctypes import CDLL, POINTER, Structure, c_char_p
from ctypes import c_void_p
# What the other modules take from here is named twice, for type checkers.
from ctypes import byref as byref
from ctypes import c_uint8 as c_uint8
from ctypes import cast as cast
from ctypes import c_double as c_double
from ctypes import c_float as c_float
from ctypes import c_int32 as c_int32
from ctypes import c_size_t as c_size_t
from ctypes import c_uint32 as c_uint32
from ctypes import c_uint64 as c_uint64
from ctypes import pointer as pointer
from ctypes import sizeof as sizeof
from typing import IO, Any, Callable, TypeVar

from . import _err
from ._structs import *

# Major and minor version of the headers that this file mirrors. Before 1.0
# the minor version may change the ABI, so both have to agree.
ABI = (0, 1)


# ---- signatures ------------------------------------------------------------

# Functions that return fl_status: checked, so to Python they return None.
CHECKED: dict[str, list[Any]] = {
    "fl_cancel_new": [POINTER(Cancel)],
    "fl_context_new": [POINTER(Context), POINTER(ContextOptions)],
    "fl_context_get_memory": [Context, U64P, U64P],
    "fl_buffer_new": [POINTER(Buffer), Context],
    "fl_buffer_append": [Buffer, c_void_p, c_size_t],
    "fl_buffer_get": [Buffer, POINTER(U8P), SizeP],
    "fl_buffer_as_writer": [Buffer, POINTER(Writer)],
    "fl_buffer_as_reader": [Buffer, POINTER(Reader)],

    "fl_model_builder_new": [POINTER(ModelBuilder), Context],
    "fl_model_builder_module": [ModelBuilder, c_uint32],
    "fl_model_builder_tensor": [ModelBuilder, c_char_p, U64P, c_uint32,
                                c_int32],
    "fl_model_builder_input": [ModelBuilder, U64P, c_uint32, c_float, c_float],
    "fl_model_builder_flatten": [ModelBuilder, c_char_p],
    "fl_model_builder_dense": [ModelBuilder, c_char_p, c_uint64],
    "fl_model_builder_relu": [ModelBuilder, c_char_p],
    "fl_model_builder_softmax_cross_entropy": [ModelBuilder, c_char_p],
    "fl_model_builder_build": [ModelBuilder, POINTER(Model)],
    "fl_model_from_description": [POINTER(Model), Context, U8P, c_size_t],
    "fl_model_copy_description": [Model, U8P, c_size_t, SizeP],
    "fl_model_get_tensor": [Model, c_uint32, POINTER(TensorInfo)],
    "fl_model_find_tensor": [Model, c_char_p, U32P],
    "fl_model_copy_tensor": [Model, c_uint32, F32P, c_uint64],
    "fl_model_set_tensor": [Model, c_uint32, F32P, c_uint64],
    "fl_model_get_weights": [Model, POINTER(F32P), U64P],
    "fl_model_copy_weights": [Model, F32P, c_uint64],
    "fl_model_set_weights": [Model, U8P, F32P, c_uint64],
    "fl_model_init_weights": [Model, c_uint64],
    "fl_model_copy_schema": [Model, U8P],
    "fl_model_self_test": [Model],
    "fl_model_copy_segments": [Model, U64P, c_uint32],
    "fl_model_copy_segment_modules": [Model, U32P, c_uint32],
    "fl_model_step": [Model, POINTER(Dataset), c_float, POINTER(c_double)],
    "fl_model_fit": [Model, POINTER(Dataset), POINTER(FitOptions),
                     POINTER(FitResult)],
    "fl_model_evaluate": [Model, POINTER(Dataset), POINTER(Evaluation)],
    "fl_model_predict": [Model, POINTER(Dataset), F32P, c_uint64],
    "fl_model_predict_top": [Model, POINTER(Dataset), c_uint32, U32P, F32P,
                             c_uint64],

    "fl_model_builder_from": [ModelBuilder, c_char_p],
    "fl_model_builder_trainable": [ModelBuilder, c_int32],
    "fl_model_builder_add": [ModelBuilder, c_char_p, c_char_p],
    "fl_model_builder_conv2d": [ModelBuilder, c_char_p,
                                POINTER(Conv2dOptions)],
    "fl_model_builder_pool2d": [ModelBuilder, c_char_p,
                                POINTER(Pool2dOptions)],
    "fl_model_builder_mean": [ModelBuilder, c_char_p],
    "fl_model_builder_activation": [ModelBuilder, c_char_p, c_uint32],
    "fl_model_builder_softmax": [ModelBuilder, c_char_p],
    "fl_model_builder_dropout": [ModelBuilder, c_char_p, c_float],
    "fl_model_builder_embedding": [ModelBuilder, c_char_p, c_uint64,
                                   c_uint64],
    "fl_model_builder_sparse_embedding": [ModelBuilder, c_char_p, c_uint64],
    "fl_model_builder_positions": [ModelBuilder, c_char_p],
    "fl_model_builder_factorisation_machine": [ModelBuilder, c_char_p],
    "fl_model_builder_pairwise_dots": [ModelBuilder, c_char_p],
    "fl_model_builder_layer_norm": [ModelBuilder, c_char_p, c_float],
    "fl_model_builder_group_norm": [ModelBuilder, c_char_p, c_uint32,
                                    c_float],
    "fl_model_builder_attention": [ModelBuilder, c_char_p, c_uint32, c_int32],
    "fl_model_builder_cross_entropy": [ModelBuilder, c_char_p,
                                       POINTER(CrossEntropyOptions)],
    "fl_model_builder_mean_squared_error": [ModelBuilder, c_char_p],
    "fl_model_builder_binary_cross_entropy": [ModelBuilder, c_char_p],
    "fl_model_get_layer": [Model, c_uint32, POINTER(LayerInfo)],
    "fl_model_with_lora": [POINTER(Model), Model, POINTER(LoraOptions),
                           c_uint64],
    "fl_model_with_adapters": [POINTER(Model), Model, POINTER(AdapterOptions),
                               c_uint64],
    "fl_model_merge_lora": [POINTER(Model), Model],

    "fl_model_set_optimiser": [Model, POINTER(OptimiserOptions)],
    "fl_model_get_optimiser": [Model, POINTER(OptimiserOptions)],
    "fl_model_get_progress": [Model, U64P, F32P],
    "fl_model_accumulate": [Model, POINTER(Dataset), POINTER(c_double)],
    "fl_model_get_gradient": [Model, POINTER(F32P), U64P],
    "fl_model_update": [Model, c_float],
    "fl_model_set_gradient_hook": [Model, GradientFn, c_void_p],
    "fl_model_set_first_active": [Model, c_uint32],
    "fl_model_set_frozen": [Model, U8P, c_uint32],
    "fl_model_plan_memory": [Model, c_uint32, c_int32, POINTER(MemoryPlan)],
    "fl_model_set_memory_limit": [Model, c_uint64],
    "fl_model_fit_pull": [Model, BatchFn, c_void_p, POINTER(FitOptions),
                          POINTER(FitResult)],
    "fl_model_save_checkpoint": [Model, POINTER(Writer)],
    "fl_model_load_checkpoint": [Model, POINTER(Reader)],

    "fl_idx_parse": [POINTER(Idx), c_void_p, c_size_t],
    "fl_dataset_from_idx": [POINTER(Dataset), POINTER(Idx), POINTER(Idx),
                            I32P, c_uint64],
    "fl_model_save_weights": [Model, POINTER(Writer)],
    "fl_model_load_weights": [Model, POINTER(Reader), c_uint32,
                              POINTER(LoadReport)],

    "fl_compressor_new": [POINTER(Compressor), Context,
                          POINTER(CompressorOptions), U64P, c_uint32],
    "fl_compressor_measure": [Compressor, POINTER(Scale), c_uint64, F32P,
                              c_uint64, F32P, c_uint64],
    "fl_norms_merge": [F32P, F32P, c_uint64],
    "fl_compressor_copy_table": [Compressor, U8P, c_uint32],
    "fl_compressor_encode": [Compressor, POINTER(Scale),
                             POINTER(EncodeOptions), F32P, c_uint64, U8P,
                             c_size_t, SizeP, POINTER(EncodeReport)],
    "fl_compressor_decode": [Compressor, POINTER(Scale), U8P, c_size_t, F32P,
                             c_uint64],
    "fl_partial_new": [POINTER(Partial), Compressor, POINTER(Scale)],
    "fl_partial_add": [Partial, U8P, c_size_t],
    "fl_partial_add_batch": [Partial, POINTER(U8P), SizeP, U32P, c_uint32,
                             POINTER(c_int32)],
    "fl_partial_peek": [Partial, U8P, c_size_t, U32P, U64P],
    "fl_partial_merge": [Partial, Partial],
    "fl_partial_merge_bytes": [Partial, U8P, c_size_t],
    "fl_partial_copy_sum": [Partial, U8P, c_size_t, SizeP],
    "fl_partial_decode": [Partial, F32P, c_uint64],
    "fl_feedback_new": [POINTER(Feedback), Compressor,
                        POINTER(FeedbackOptions)],
    "fl_feedback_measure": [Feedback, POINTER(Scale), c_uint64, F32P,
                            c_uint64, F32P, c_uint64],
    "fl_feedback_copy_norms": [Feedback, F32P, c_uint64],
    "fl_feedback_encode": [Feedback, POINTER(Scale), POINTER(EncodeOptions),
                           U8P, c_size_t, SizeP, POINTER(EncodeReport)],
    "fl_feedback_settle": [Feedback, c_int32, U8P, c_uint32],
    "fl_feedback_withdraw": [Feedback, F32P, c_uint64],
    "fl_feedback_reset": [Feedback],
    "fl_feedback_copy_memory": [Feedback, F32P, c_uint64],
    "fl_feedback_save": [Feedback, POINTER(Writer)],
    "fl_feedback_restore": [POINTER(Feedback), Compressor,
                            POINTER(FeedbackOptions), POINTER(Reader)],
    "fl_cohort_set_new": [POINTER(CohortSet), Context, POINTER(CohortOptions)],
    "fl_cohort_set_join": [CohortSet, c_uint64, c_uint32, U8P, c_size_t, U32P,
                           I32P],
    "fl_cohort_set_leave": [CohortSet, c_uint32],
    "fl_cohort_set_find": [CohortSet, c_uint64, U32P],
    "fl_cohort_set_copy_ticket": [CohortSet, c_uint32, U8P, c_size_t, SizeP],
    "fl_cohort_set_get_member": [CohortSet, c_uint32, POINTER(CohortMember)],
    "fl_cohort_set_route": [CohortSet, c_uint32, c_uint32, c_double,
                            POINTER(CohortRoute)],
    "fl_cohort_set_report": [CohortSet, c_uint32, POINTER(CohortReport)],
    "fl_cohort_set_end_round": [CohortSet, c_uint32, c_uint32],
    "fl_cohort_set_decide": [CohortSet],
    "fl_cohort_set_poll": [CohortSet, POINTER(CohortEvent)],
    "fl_cohort_set_get_info": [CohortSet, c_uint32, POINTER(CohortInfo)],
    "fl_cohort_set_plan": [CohortSet, c_uint32, c_uint32, U32P, c_uint32],
    "fl_cohort_set_pick": [CohortSet, POINTER(CohortPick), U32P, U32P],
    "fl_cohort_set_save": [CohortSet, POINTER(Writer)],
    "fl_cohort_set_load": [CohortSet, POINTER(Reader)],
    "fl_sketcher_new": [POINTER(Sketcher), Context, c_uint64, c_uint64,
                        c_uint32],
    "fl_sketcher_write": [Sketcher, F32P, c_uint64, U8P, c_size_t, SizeP],
    "fl_cache_new": [POINTER(Cache), Context, POINTER(CacheOptions)],
    "fl_cache_begin": [Cache, U8P, c_uint64, c_uint64],
    "fl_cache_put": [Cache, U64P, c_uint32, F32P],
    "fl_cache_get": [Cache, U64P, c_uint32, F32P],
    "fl_cache_prefetch": [Cache, U64P, c_uint32],
    "fl_cache_flush": [Cache],
    "fl_cache_wipe": [Cache],
    "fl_cache_get_status": [Cache, POINTER(CacheStatus)],

    "fl_embedding_new": [POINTER(Embedding), Context,
                         POINTER(EmbeddingOptions)],
    "fl_embedding_add_table": [Embedding, POINTER(EmbeddingTableOptions),
                               U32P],
    "fl_embedding_lookup": [Embedding, c_uint32, POINTER(EmbeddingBags),
                            F32P],
    "fl_embedding_forward": [Embedding, c_uint32, POINTER(EmbeddingBags),
                             F32P],
    "fl_embedding_backward": [Embedding, c_uint32, POINTER(EmbeddingBags),
                              F32P, c_float],
    "fl_embedding_adjust": [Embedding, POINTER(EmbeddingReport)],
    "fl_embedding_copy_ids": [Embedding, c_uint32, U64P, c_uint64, U64P],
    "fl_embedding_copy_row": [Embedding, c_uint32, c_uint64, F32P, U32P],
    "fl_embedding_get_statistics": [Embedding, c_uint32,
                                    POINTER(EmbeddingStatistics)],
    "fl_embedding_save": [Embedding, POINTER(Writer)],
    "fl_embedding_load": [POINTER(Embedding), Context, POINTER(Reader),
                          c_uint64],
    "fl_embedding_save_delta": [Embedding, c_uint64, POINTER(Writer)],
    "fl_embedding_apply_delta": [Embedding, POINTER(Reader)],
    "fl_embedding_attach": [Embedding, Model,
                            POINTER(EmbeddingAttachOptions)],
    "fl_embedding_detach": [Embedding, Model],

    "fl_freeze_new": [POINTER(Freeze), Context, c_uint32,
                      POINTER(FreezeOptions)],
    "fl_freeze_get_plan": [Freeze, POINTER(FreezePlan)],
    "fl_freeze_copy_plan": [Freeze, U8P, c_size_t, SizeP],
    "fl_freeze_apply_plan": [Freeze, U8P, c_size_t],
    "fl_freeze_begin_step": [Freeze, c_float, POINTER(FreezeRequest)],
    "fl_freeze_push_gradient": [Freeze, c_uint32, F32P, c_uint64],
    "fl_freeze_push_gradient_change": [Freeze, c_uint32, c_double],
    "fl_freeze_push_pair": [Freeze, c_uint32, F32P, F32P, c_uint32, c_uint64],
    "fl_freeze_push_features": [Freeze, c_uint32, F32P, c_uint64, F32P,
                                c_uint64, c_uint32],
    "fl_freeze_end_step": [Freeze, c_double],
    "fl_plasticity": [Context, F32P, F32P, c_uint32, c_uint64,
                      POINTER(c_double)],
    "fl_cka": [Context, F32P, c_uint64, F32P, c_uint64, c_uint32,
               POINTER(c_double)],
    "fl_freeze_take_report": [Freeze, POINTER(FreezeReport)],
    "fl_freeze_end_round": [Freeze, c_double, POINTER(FreezeReport),
                            c_uint32],
    "fl_freeze_attach": [Freeze, Model, POINTER(FreezeAttachOptions)],
    "fl_freeze_detach": [Freeze],
    "fl_freeze_poll": [Freeze, POINTER(FreezeEvent)],
    "fl_freeze_save": [Freeze, POINTER(Writer)],
    "fl_freeze_load": [Freeze, POINTER(Reader)],

    "fl_client_new": [POINTER(Client), Context, POINTER(ClientOptions)],
    "fl_client_recv": [Client, U8P, c_size_t],
    "fl_client_send": [Client, POINTER(U8P), SizeP],
    "fl_client_disconnected": [Client],
    "fl_client_poll": [Client, c_uint64, POINTER(ClientEvent)],
    "fl_client_next_timeout": [Client, U64P],
    "fl_client_submit": [Client, POINTER(TrainResult)],
    "fl_client_submit_score": [Client, POINTER(Score)],
    "fl_client_decline": [Client],
    "fl_client_get_description": [Client, POINTER(U8P), SizeP],
    "fl_client_copy_weights": [Client, F32P, c_uint64, U64P],
    "fl_client_save": [Client, POINTER(Writer)],
    "fl_client_restore": [POINTER(Client), Context, POINTER(ClientOptions),
                          POINTER(Reader)],

    "fl_server_new": [POINTER(Server), Context, POINTER(ServerOptions)],
    "fl_server_add_job": [Server, Model, POINTER(JobOptions), U32P],
    "fl_server_recv": [Server, c_uint64, U8P, c_size_t],
    "fl_server_send": [Server, c_uint64, POINTER(U8P), SizeP],
    "fl_server_next_ready": [Server, U64P],
    "fl_server_disconnected": [Server, c_uint64],
    "fl_server_tick": [Server, c_uint64],
    "fl_server_next_timeout": [Server, U64P],
    "fl_server_poll": [Server, POINTER(ServerEvent)],
    "fl_server_get_status": [Server, c_uint32, POINTER(JobStatus)],
    "fl_server_copy_weights": [Server, c_uint32, F32P, c_uint64, U64P],
    "fl_server_stop_job": [Server, c_uint32],
    "fl_server_save": [Server, POINTER(Writer)],
    "fl_server_restore": [POINTER(Server), Context, POINTER(ServerOptions),
                          POINTER(Reader)],
}

# Structs that the library fills with defaults: fl_<name>_init.
INITIALISED: dict[type[Structure], str] = {
    ContextOptions: "fl_context_options_init",
    TensorInfo: "fl_tensor_info_init",
    LoadReport: "fl_load_report_init",
    Idx: "fl_idx_init",
    Dataset: "fl_dataset_init",
    FitOptions: "fl_fit_options_init",
    FitResult: "fl_fit_result_init",
    Evaluation: "fl_evaluation_init",
    Conv2dOptions: "fl_conv2d_options_init",
    Pool2dOptions: "fl_pool2d_options_init",
    CrossEntropyOptions: "fl_cross_entropy_options_init",
    LayerInfo: "fl_layer_info_init",
    LoraOptions: "fl_lora_options_init",
    AdapterOptions: "fl_adapter_options_init",
    OptimiserOptions: "fl_optimiser_options_init",
    MemoryPlan: "fl_memory_plan_init",
    CompressorOptions: "fl_compressor_options_init",
    Scale: "fl_scale_init",
    EncodeOptions: "fl_encode_options_init",
    EncodeReport: "fl_encode_report_init",
    FeedbackOptions: "fl_feedback_options_init",
    CacheOptions: "fl_cache_options_init",
    CacheStatus: "fl_cache_status_init",
    EmbeddingOptions: "fl_embedding_options_init",
    EmbeddingTableOptions: "fl_embedding_table_options_init",
    EmbeddingBags: "fl_embedding_bags_init",
    EmbeddingReport: "fl_embedding_report_init",
    EmbeddingStatistics: "fl_embedding_statistics_init",
    EmbeddingAttachOptions: "fl_embedding_attach_options_init",
    FreezeOptions: "fl_freeze_options_init",
    FreezePlan: "fl_freeze_plan_init",
    FreezeRequest: "fl_freeze_request_init",
    FreezeReport: "fl_freeze_report_init",
    FreezeAttachOptions: "fl_freeze_attach_options_init",
    FreezeEvent: "fl_freeze_event_init",
    CohortOptions: "fl_cohort_options_init",
    CohortMember: "fl_cohort_member_init",
    CohortRoute: "fl_cohort_route_init",
    CohortReport: "fl_cohort_report_init",
    CohortEvent: "fl_cohort_event_init",
    CohortInfo: "fl_cohort_info_init",
    CohortPick: "fl_cohort_pick_init",
    TrainResult: "fl_train_result_init",
    Score: "fl_score_init",
    ClientOptions: "fl_client_options_init",
    ClientEvent: "fl_client_event_init",
    ServerOptions: "fl_server_options_init",
    JobOptions: "fl_job_options_init",
    ServerEvent: "fl_server_event_init",
    JobStatus: "fl_job_status_init",
}
for _struct, _name in INITIALISED.items():
    CHECKED[_name] = [POINTER(_struct), c_size_t]
del _struct, _name

# Functions that cannot fail: (restype, argtypes).
PLAIN: dict[str, tuple[Any, list[Any]]] = {
    "fl_status_name": (c_char_p, [Status]),
    "fl_status_text": (c_char_p, [Status]),
    "fl_status_count": (c_uint32, []),
    "fl_status_at": (Status, [c_uint32]),
    "fl_last_error": (c_char_p, []),
    "fl_version_number": (c_uint32, []),
    "fl_version_string": (c_char_p, []),
    "fl_feature": (c_int32, [c_uint32]),
    "fl_build_info": (c_char_p, []),
    "fl_cancel_free": (None, [Cancel]),
    "fl_cancel_request": (None, [Cancel]),
    "fl_cancel_reset": (None, [Cancel]),
    "fl_cancel_is_requested": (c_int32, [Cancel]),
    "fl_context_free": (None, [Context]),
    "fl_buffer_free": (None, [Buffer]),
    "fl_buffer_clear": (None, [Buffer]),
    "fl_model_builder_free": (None, [ModelBuilder]),
    "fl_model_free": (None, [Model]),
    "fl_model_tensor_count": (c_uint32, [Model]),
    "fl_model_weight_count": (c_uint64, [Model]),
    "fl_model_segment_count": (c_uint32, [Model]),
    "fl_model_input_count": (c_uint64, [Model]),
    "fl_model_output_count": (c_uint64, [Model]),
    "fl_model_layer_count": (c_uint32, [Model]),
    "fl_model_first_active": (c_uint32, [Model]),
    "fl_compressor_free": (None, [Compressor]),
    "fl_compressor_dim": (c_uint64, [Compressor]),
    "fl_compressor_norm_count": (c_uint64, [Compressor]),
    "fl_compressor_clip": (c_float, [Compressor]),
    "fl_compressor_best_clip": (
        c_float, [Compressor, c_uint32, c_double, c_double]),
    "fl_compressor_granularity": (c_uint32, [Compressor]),
    "fl_compressor_max_update_size": (c_uint64, [Compressor]),
    "fl_partial_free": (None, [Partial]),
    "fl_partial_count": (c_uint32, [Partial]),
    "fl_partial_has_slot": (c_int32, [Partial, c_uint32]),
    "fl_partial_samples": (c_uint64, [Partial]),
    "fl_partial_weight": (c_uint64, [Partial]),
    "fl_feedback_free": (None, [Feedback]),
    "fl_feedback_phase": (c_uint32, [Feedback]),
    "fl_embedding_free": (None, [Embedding]),
    "fl_embedding_row_count": (c_uint64, [Embedding, c_uint32]),
    "fl_embedding_version": (c_uint64, [Embedding]),
    "fl_cache_free": (None, [Cache]),
    "fl_cache_has": (c_int32, [Cache, U64P, c_uint32]),
    "fl_freeze_free": (None, [Freeze]),
    "fl_cohort_set_free": (None, [CohortSet]),
    "fl_cohort_set_client_count": (c_uint32, [CohortSet]),
    "fl_cohort_set_count": (c_uint32, [CohortSet]),
    "fl_cohort_set_cap": (c_uint32, [CohortSet]),
    "fl_sketcher_free": (None, [Sketcher]),
    "fl_protocol_version_min": (c_uint32, []),
    "fl_protocol_version_max": (c_uint32, []),
    "fl_reject_name": (c_char_p, [c_uint32]),
    "fl_reject_text": (c_char_p, [c_uint32]),
    "fl_client_free": (None, [Client]),
    "fl_server_free": (None, [Server]),
    "fl_server_job_count": (c_uint32, [Server]),
    "fl_server_wants_close": (c_int32, [Server, c_uint64]),
}


# ---- loading ---------------------------------------------------------------

_pending = threading.local()


def _check(status: int, function: Any, arguments: Any) -> None:
    """Raise what a callback raised during the call, or the call's error."""
    del arguments  # tracebacks keep frames, and frames would keep handles
    raised = getattr(_pending, "raised", None)
    if raised is not None:
        _pending.raised = None
        raise raised
    if status != 0:
        detail = lib.fl_last_error().decode("utf-8", "replace")
        raise _err.from_status(status, function.__name__, detail)


def _candidates() -> list[str]:
    """Where the library may be, best first."""
    named = os.environ.get("LIBFL_LIBRARY")
    if named:
        return [named]
    suffix = {"darwin": "dylib", "win32": "dll"}.get(sys.platform, "so")
    packaged = pathlib.Path(__file__).with_name(f"libfl.{suffix}")
    if packaged.exists():
        return [str(packaged)]
    found = ctypes.util.find_library("fl")
    return ["libfl.so.%d.%d" % ABI] + ([found] if found else [])


def _open() -> CDLL:
    errors = []
    for path in _candidates():
        try:
            return CDLL(path)
        except OSError as error:
            errors.append(str(error))
    raise ImportError("libfl: cannot load the shared library: "
                      + "; ".join(errors)
                      + " (LIBFL_LIBRARY may name its path)")


def _declare(library: CDLL) -> None:
    try:
        for name, argtypes in CHECKED.items():
            function = getattr(library, name)
            function.argtypes = argtypes
            function.restype = Status
            function.errcheck = _check
        for name, (restype, argtypes) in PLAIN.items():
            function = getattr(library, name)
            function.argtypes = argtypes
            function.restype = restype
    except AttributeError as error:
        raise ImportError(f"libfl: the shared library lacks a function: "
                          f"{error}") from None


def _verify(library: CDLL) -> None:
    """Refuse a library of another ABI before anything is called with it."""
    try:
        library.fl_version_number.restype = c_uint32
        number = library.fl_version_number()
    except AttributeError:
        raise ImportError(f"libfl: {library._name} is no libfl") from None
    have = (number // 1000000, number // 1000 % 1000)
    if have != ABI:
        raise ImportError("libfl: the shared library %s is version %d.%d, "
                          "want %d.%d" % (library._name, *have, *ABI))


def _verify_structs() -> None:
    for kind, name in INITIALISED.items():
        if init(kind).struct_size != sizeof(kind):
            raise ImportError(f"libfl: {name} does not take "
                              f"{sizeof(kind)} bytes")


# ---- what the other modules share ------------------------------------------

_S = TypeVar("_S", bound=Structure)


def init(kind: type[_S]) -> _S:
    """Make a struct that holds the library's defaults."""
    value = kind()
    getattr(lib, INITIALISED[kind])(byref(value), sizeof(kind))
    return value


def new(kind: Any, function: Any, *arguments: Any) -> Any:
    """Call a constructor whose first parameter receives the handle."""
    out = kind()
    try:
        function(byref(out), *arguments)
    except BaseException:
        if out:  # it was made, and then a log callback raised
            getattr(lib, f"{kind._type_.__name__}_free")(out)
        raise
    return out


def copy_bytes(function: Any, *arguments: Any) -> bytes:
    """Call a function that ends in (buffer, capacity, &needed)."""
    needed = c_size_t()
    function(*arguments, None, 0, byref(needed))
    buffer = (c_uint8 * needed.value)()
    function(*arguments, buffer, needed.value, byref(needed))
    return bytes(buffer)[:needed.value]


def take_bytes(function: Any, *arguments: Any) -> bytes:
    """Call a function that ends in (&data, &n), and copy what it lends."""
    data, n = U8P(), c_size_t()
    function(*arguments, byref(data), byref(n))
    return copied(data, n.value)


def copied(data: Any, n: int) -> bytes:
    """Copy n bytes that are lent; NULL when there are none."""
    return ctypes.string_at(data, n) if n else b""


def keep_exceptions(function: Callable[..., int | None]
                    ) -> Callable[..., int]:
    """Wrap the body of a callback, which returns a status or None: what it
    raises is raised again by the library call that it runs under; C only
    sees FL_E_CALLBACK. The first exception wins. Callbacks run on the thread
    that made the call."""
    def run(*arguments: Any) -> int:
        try:
            return function(*arguments) or 0
        except BaseException as error:
            if getattr(_pending, "raised", None) is None:
                _pending.raised = error
            return callback_failed()
    return run


# A NULL where a gradient function could be.
NO_GRADIENT_FN: Any = cast(c_void_p(), GradientFn)


def callback_failed() -> int:
    """Return FL_E_CALLBACK: the host's callback did not do it."""
    return _err.CALLBACK


def bytes_at(address: int, n: int) -> bytes:
    """Copy C's memory."""
    return ctypes.string_at(address, n)


def write_at(address: int, data: bytes) -> None:
    """Write to C's memory."""
    ctypes.memmove(address, data, len(data))


def writer_of(file: IO[bytes]) -> Writer:
    """Return an fl_writer that ends in a file object."""
    def write(_user: Any, data: int, n: int) -> None:
        left = memoryview(ctypes.string_at(data, n))
        while left:
            # Raw files may take less than they are given.
            done = file.write(left)
            if not done:
                raise OSError("write: the file took nothing")
            left = left[done:]

    return Writer(WriteFn(keep_exceptions(write)), None)


def reader_of(file: IO[bytes]) -> Reader:
    """Return an fl_reader that begins where a file object stands."""
    def read(_user: Any, into: int, n: int, got: Any) -> None:
        data = memoryview(file.read(n)).cast("B")
        if len(data) > n:
            raise OSError(f"read: the file gave {len(data)} bytes, "
                          f"want at most {n}")
        ctypes.memmove(into, data.tobytes(), len(data))
        got[0] = len(data)

    return Reader(ReadFn(keep_exceptions(read)), None)


def address(value: Any) -> int:
    """Return the address that a pointer holds."""
    return cast(value, c_void_p).value or 0


def text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


lib = _open()
_verify(lib)
_declare(lib)
_err.load([(lib.fl_status_at(i),
            text(lib.fl_status_name(lib.fl_status_at(i))),
            text(lib.fl_status_text(lib.fl_status_at(i))))
           for i in range(lib.fl_status_count())])
_verify_structs()

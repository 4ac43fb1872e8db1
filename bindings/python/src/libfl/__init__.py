# SPDX-License-Identifier: Apache-2.0
"""Federated learning that you can link, from Python.

Models (Model), summable compression (Compressor, Partial), and both ends of
a federated training (Client, Server) as state machines without sockets.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._err import (ArgumentError, CallbackError, CallerError, CancelledError,
                   ConflictError, DimError, DuplicateError, EmptyError,
                   EntropyError, FlError, FormatError, InternalError, IoError,
                   LimitError, NomemError, NotAllowedError, NotFiniteError,
                   NotFoundError, OptionsError, PeerDataError, PoisonedError,
                   RangeError, ResourceError, SchemaError, SizeError,
                   StaleError, StateError, TooLargeError, TruncatedError,
                   UnsupportedError, VersionError)
from .cache import ActivationCache, CacheDtype, CacheStatus
from .channel import Channel, KeyPair
from .client import Client, ClientEvent, ClientEventKind
from .cohort import (CohortEvent, CohortEventKind, CohortInfo, CohortMember,
                     CohortPlan, CohortRoute, CohortRule, CohortSet, Sketcher)
from .compress import (Codec, CodecOptions, Compressor, EncodeReport, Partial,
                       Scale, ThcMode, merge_norms)
from .context import Cancel, Context
from .embedding import (Bags, BagMode, EmbeddingOptimiser, EmbeddingPrecision,
                        EmbeddingReport, EmbeddingStatistics, EmbeddingStore,
                        EmbeddingTable)
from .enrolment import Allowance, Enrolment, EnrolRequest
from .feedback import Feedback, FeedbackPhase
from .freeze import (Freeze, FreezeCriterion, FreezeEvent, FreezeEventKind,
                     FreezePlan, FreezePreset, FreezeReason, FreezeReport,
                     FreezeRequest, FreezeStep, FreezeWants, cka, plasticity)
from .idx import read_idx
from .info import Feature, build_info, has_feature, version
from ._data import Dtype
from .layers import (GELU, Add, Attention, AvgPool2d, BinaryCrossEntropy,
                     Conv2d, CrossEntropy, Dense, Dropout, Embedding,
                     FactorisationMachine, Flatten, From, GroupNorm, Input,
                     LayerNorm, MaxPool2d, Mean, MeanSquaredError,
                     PairwiseDots, Positions, ReLU, Sigmoid, SiLU, Softmax,
                     SoftmaxCrossEntropy, SparseEmbedding, Tanh, Tensor)
from .loopback import Loopback
from .model import LayerInfo, Model, TensorInfo
from .optimisers import SGD, Adagrad, Adam, AdamW, Constant, Cosine, Step
from .paged import PagedModel
from .protocol import (Condition, Declined, RejectReason, Score, TrainResult,
                       TrainTask, protocol_versions)
from .selection import (HostSelection, Oort, PowerOfChoice, Selection,
                        SelectionRound)
from .server import (ClientAccuracy, CohortPace, CohortSketches, Job,
                     JobStatus, ScaleMode, Server, ServerEvent, ServerEventKind,
                     Weighting)
from .slices import SliceClient, SliceReport, SliceServer, SliceStatus
from .store import MemoryStore, SqliteStore, Store
from .strategy import (FedAdagrad, FedAdam, FedAvg, FedAvgM, FedNova, FedProx,
                       FedYogi, GeometricMedian, HostStrategy, Krum,
                       LocalTerms, Median, MultiKrum, QFedAvg, Scaffold,
                       Strategy, StrategyOptions, StrategyReport, TrimmedMean)
from .trainer import LocalTrainer
from .training import (Evaluation, FitProgress, FitResult, MemoryPlan,
                       TopClasses)
from .weights import LoadReport

if TYPE_CHECKING:
    from .torch import TorchModel

__version__ = version()


def from_torch(module: Any, sample: Any, **options: Any) -> TorchModel:
    """Make a model of a torch.nn.Module, with its weights; see
    libfl.torch.from_torch. The one function that needs PyTorch."""
    from .torch import from_torch as convert
    return convert(module, sample, **options)


__all__ = [
    "ActivationCache", "Adagrad", "Adam", "AdamW", "Add", "Allowance",
    "ArgumentError", "Attention", "AvgPool2d", "BagMode", "Bags",
    "BinaryCrossEntropy", "CacheDtype", "CacheStatus", "CallbackError",
    "CallerError", "Cancel", "CancelledError", "Channel", "Client",
    "ClientAccuracy", "ClientEvent", "ClientEventKind", "Codec",
    "CodecOptions", "CohortEvent", "CohortEventKind", "CohortInfo",
    "CohortMember", "CohortPace", "CohortPlan", "CohortRoute", "CohortRule",
    "CohortSet", "CohortSketches", "Compressor", "Condition",
    "ConflictError", "Constant", "Context", "Conv2d", "Cosine", "CrossEntropy", "Declined", "Dense",
    "DimError", "Dropout", "Dtype", "DuplicateError", "Embedding",
    "EmbeddingOptimiser", "EmbeddingPrecision", "EmbeddingReport",
    "EmbeddingStatistics", "EmbeddingStore", "EmbeddingTable", "EmptyError",
    "EncodeReport", "Enrolment", "EnrolRequest", "EntropyError", "Evaluation",
    "FactorisationMachine", "Feature", "FedAdagrad", "FedAdam", "FedAvg",
    "FedAvgM", "FedNova", "FedProx", "FedYogi", "Feedback", "FeedbackPhase",
    "FitProgress", "FitResult", "Flatten", "FlError", "FormatError", "Freeze",
    "FreezeCriterion", "FreezeEvent", "FreezeEventKind", "FreezePlan",
    "FreezePreset", "FreezeReason", "FreezeReport", "FreezeRequest",
    "FreezeStep", "FreezeWants", "From", "GELU", "GeometricMedian",
    "GroupNorm", "HostSelection", "HostStrategy", "Input", "InternalError",
    "IoError", "Job", "JobStatus", "KeyPair", "Krum", "LayerInfo", "LayerNorm",
    "LimitError", "LoadReport", "LocalTerms", "LocalTrainer", "Loopback",
    "MaxPool2d", "Mean", "MeanSquaredError", "Median", "MemoryPlan",
    "MemoryStore", "Model", "MultiKrum", "NomemError", "NotAllowedError",
    "NotFiniteError", "NotFoundError", "Oort", "OptionsError", "PagedModel",
    "PairwiseDots",
    "Partial", "PeerDataError", "PoisonedError", "Positions", "PowerOfChoice",
    "QFedAvg", "RangeError", "RejectReason", "ReLU", "ResourceError",
    "Scaffold", "Scale", "ScaleMode", "SchemaError", "Score", "Selection",
    "SelectionRound", "Server", "ServerEvent", "ServerEventKind", "SGD",
    "Sigmoid", "SiLU", "SizeError", "Sketcher", "SliceClient", "SliceReport",
    "SliceServer", "SliceStatus", "Softmax", "SoftmaxCrossEntropy",
    "SparseEmbedding", "SqliteStore", "StaleError", "StateError", "Step",
    "Store", "Strategy", "StrategyOptions", "StrategyReport", "Tanh", "Tensor",
    "TensorInfo", "ThcMode", "TooLargeError", "TopClasses", "TrainResult",
    "TrainTask", "TrimmedMean", "TruncatedError", "UnsupportedError",
    "VersionError", "Weighting", "build_info", "cka", "from_torch",
    "has_feature", "merge_norms", "plasticity", "protocol_versions",
    "read_idx", "version",
]

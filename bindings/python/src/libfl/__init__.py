# SPDX-License-Identifier: Apache-2.0
"""Federated learning that you can link, from Python.

Models (Model), summable compression (Compressor, Partial), and both ends of
a federated training (Client, Server) as state machines without sockets.
"""
from ._err import (ArgumentError, CallbackError, CallerError, CancelledError,
                   ConflictError, DimError, DuplicateError, EmptyError,
                   EntropyError, FlError, FormatError, InternalError, IoError,
                   LimitError, NomemError, NotAllowedError, NotFiniteError,
                   NotFoundError, OptionsError, PeerDataError, PoisonedError,
                   RangeError, ResourceError, SchemaError, SizeError,
                   StaleError, StateError, TooLargeError, TruncatedError,
                   UnsupportedError, VersionError)
from .client import Client, ClientEvent, ClientEventKind
from .compress import (Codec, CodecOptions, Compressor, EncodeReport, Partial,
                       Scale, ThcMode, merge_norms)
from .context import Cancel, Context
from .feedback import Feedback, FeedbackPhase
from .idx import read_idx
from .info import Feature, build_info, has_feature, version
from .layers import (Dense, Flatten, Input, ReLU, SoftmaxCrossEntropy,
                     Tensor)
from .loopback import Loopback
from .model import (Dtype, Evaluation, FitProgress, FitResult, Model,
                    TensorInfo)
from .protocol import (Declined, RejectReason, Score, TrainResult, TrainTask,
                       protocol_versions)
from .server import (Job, JobStatus, ScaleMode, Server, ServerEvent,
                     ServerEventKind, Weighting)
from .trainer import LocalTrainer
from .weights import LoadReport

__version__ = version()

__all__ = [
    "ArgumentError", "CallbackError", "CallerError", "Cancel",
    "CancelledError", "Client", "ClientEvent", "ClientEventKind", "Codec",
    "CodecOptions", "Compressor", "ConflictError", "Context", "Declined",
    "Dense", "DimError", "Dtype", "DuplicateError", "EmptyError",
    "EncodeReport", "EntropyError", "Evaluation", "Feature", "Feedback",
    "FeedbackPhase", "FitProgress", "FitResult", "FlError", "Flatten",
    "FormatError", "Input", "InternalError", "IoError", "Job", "JobStatus",
    "LimitError", "LoadReport", "LocalTrainer", "Loopback", "Model",
    "NomemError", "NotAllowedError", "NotFiniteError", "NotFoundError", "OptionsError",
    "Partial", "PeerDataError", "PoisonedError", "RangeError", "ReLU",
    "RejectReason", "ResourceError", "Scale", "ScaleMode", "SchemaError",
    "Score", "Server", "ServerEvent", "ServerEventKind", "SizeError",
    "SoftmaxCrossEntropy", "StaleError", "StateError", "Tensor", "TensorInfo",
    "ThcMode", "TooLargeError", "TrainResult", "TrainTask", "TruncatedError",
    "UnsupportedError", "VersionError", "Weighting", "build_info",
    "has_feature", "merge_norms", "protocol_versions", "read_idx", "version",
]

"""The Open Inference Protocol: its tensors and messages, and what they mean for models and streams. Knows no HTTP."""

from service.oip.compression import inflate
from service.oip.messages import Asked, Reply, parse_index, read_request, write_reply
from service.oip.metadata import metadata_of, statistics_of
from service.oip.outputs import learned_reply, predicted_reply, requested
from service.oip.rows import rows_of, targets_of
from service.oip.schemas import (
    InferBody,
    InferReply,
    ModelMetadata,
    ModelNames,
    ModelReady,
    ModelState,
    ModelStatistics,
    OpenError,
    RepositoryIndexBody,
    ServerMetadata,
)

__all__ = [
    "Asked",
    "InferBody",
    "InferReply",
    "ModelMetadata",
    "ModelNames",
    "ModelReady",
    "ModelState",
    "ModelStatistics",
    "OpenError",
    "Reply",
    "RepositoryIndexBody",
    "ServerMetadata",
    "inflate",
    "learned_reply",
    "metadata_of",
    "parse_index",
    "predicted_reply",
    "read_request",
    "requested",
    "rows_of",
    "statistics_of",
    "targets_of",
    "write_reply",
]

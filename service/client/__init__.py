"""The Python client: needs httpx alone.

``Client`` blocks, ``AsyncClient`` does not; both send the same requests. Rows are lists, NumPy arrays, pandas or Polars
frames. What is refused for now, or cut off, is tried again; feedback carries a key, so that it is learned once.
"""

from service.client.awaited import AsyncClient
from service.client.blocking import Client
from service.client.errors import (
    AcclimateError,
    ApiError,
    BadRequestError,
    ConflictError,
    DiskFullError,
    FieldError,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    SaturatedError,
    ServerError,
    TooLargeError,
    UnauthorizedError,
    UnavailableError,
    UnreachableError,
    UploadStoppedError,
)
from service.client.online import OnlineClassifier, OnlineRegressor
from service.client.replies import (
    Event,
    Learned,
    ModelInfo,
    Prediction,
    Restored,
    Revision,
    StreamInfo,
    Uploaded,
    Webhook,
)

__all__ = [
    "AcclimateError",
    "ApiError",
    "AsyncClient",
    "BadRequestError",
    "Client",
    "ConflictError",
    "DiskFullError",
    "Event",
    "FieldError",
    "ForbiddenError",
    "InvalidError",
    "Learned",
    "ModelInfo",
    "NotFoundError",
    "OnlineClassifier",
    "OnlineRegressor",
    "Prediction",
    "Restored",
    "Revision",
    "SaturatedError",
    "ServerError",
    "StreamInfo",
    "TooLargeError",
    "UnauthorizedError",
    "UnavailableError",
    "UnreachableError",
    "UploadStoppedError",
    "Uploaded",
    "Webhook",
]

"""How the OpenAPI description shows the protocol; requests are checked by hand, in ``messages``."""

from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

Parameters: TypeAlias = dict[str, str | bool | int | float]


class _Open(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class RequestInput(_Open):
    """An input tensor."""

    name: str = Field(description="`inputs`, or the name of a feature; `targets` for the labels of learn.")
    shape: list[int] = Field(description="`inputs` is [rows, features], the others are [rows].")
    datatype: str = Field(description="BOOL, UINT8 to UINT64, INT8 to INT64, FP16, FP32, FP64, or BYTES for text.")
    parameters: Parameters | None = Field(None, description="`binary_data_size`: bytes of its data after the JSON.")
    data: list[Any] | None = Field(None, description="Row-major, flat or nested; null is a missing value.")


class RequestOutput(_Open):
    """An output that is wanted."""

    name: str = Field(description="`predictions`, `probabilities` or `std`.")
    parameters: Parameters | None = Field(None, description="`binary_data`: whether its data comes after the JSON.")


class InferBody(_Open):
    """A request for predictions; with the tensor `targets`, to learn."""

    id: str | None = Field(None, description="Comes back.")
    parameters: Parameters | None = Field(
        None,
        description="`sequence_id`: the stream; `sequence_start`: reset it first; `binary_data_output`: outputs as "
        "binary data. Others are ignored.",
    )
    inputs: list[RequestInput] = Field(min_length=1)
    outputs: list[RequestOutput] | None = Field(None, description="Left out: all.")


class ResponseOutput(_Open):
    """An output tensor."""

    name: str
    shape: list[int]
    datatype: str
    parameters: Parameters | None = Field(
        None, description="`binary_data_size`; for `probabilities` the order of `classes`, as JSON."
    )
    data: list[Any] | None = Field(None, description="Row-major and flat.")


class InferReply(_Open):
    """Predictions."""

    model_name: str
    model_version: str
    id: str | None = None
    parameters: Parameters = Field(
        description="`stream_version`, `adapted`, `drift_state`; after learn also `accepted`, `rows_seen`, `loss`, "
        "`score`, `initial_loss`, `initial_score` and, with an alarm, `event_id`."
    )
    outputs: list[ResponseOutput]


class TensorMetadata(_Open):
    """A tensor of a model; -1 is any size."""

    name: str
    datatype: str
    shape: list[int]


class ServerMetadata(_Open):
    """This server."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(_Open):
    """A model's versions and tensors."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelNames(_Open):
    """What is served."""

    models: list[str]


class ModelReady(_Open):
    """Whether a model answers."""

    name: str
    ready: bool


class RepositoryIndexBody(_Open):
    """Which models to list; the body may be empty."""

    ready: bool | None = Field(None, description="Only those that are ready: all are.")


class ModelState(_Open):
    """A version of a model."""

    name: str
    version: str
    state: str
    reason: str


class Spent(_Open):
    """How often, and nanoseconds in all."""

    count: int
    ns: int


class InferenceStatistics(_Open):
    """Requests, and what they spent where."""

    success: Spent
    fail: Spent
    queue: Spent
    compute_input: Spent
    compute_infer: Spent
    compute_output: Spent
    cache_hit: Spent
    cache_miss: Spent


class VersionStatistics(_Open):
    """What one version of a model has done since the start."""

    name: str
    version: str
    last_inference: int = Field(description="Milliseconds since 1970; 0: never.")
    inference_count: int = Field(description="Rows predicted.")
    execution_count: int = Field(description="Batched computations.")
    inference_stats: InferenceStatistics
    batch_stats: list[Any] = Field(description="Empty: executions take rows of any number.")


class ModelStatistics(_Open):
    """Statistics of versions of models."""

    model_stats: list[VersionStatistics]


class OpenError(_Open):
    """An error of the protocol."""

    error: str = Field(description="What is wrong, and what to do.")

"""Settings: read once, frozen, each also an environment variable ``ACCLIMATE_…``."""

import os
import re
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

import orjson
from pydantic import AliasChoices, Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from service.errors import ConfigurationError
from service.keys import has_keys

PREFIX = "ACCLIMATE_"
STORE_SCHEMES = ("postgresql://", "postgres://")
_NO_SETTINGS = re.compile(PREFIX + r"(SERVICE_HOST|SERVICE_PORT.*|PORT_\d+_.*|TEST_.*)")
"""Variables that Kubernetes sets in every pod beside a service called acclimate, and those of the tests."""

Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(ge=0)]
Wait = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(ge=0)]


class Settings(BaseSettings):
    """Everything that can be set, with its default and unit. Units stand last in the names."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", populate_by_name=True)

    host: str = Field(default="127.0.0.1", description="address to listen on")
    port: int = Field(default=8000, ge=0, le=65_535, description="port to listen on; 0 takes a free one")
    allow_anonymous: bool = Field(default=False, description="serve beyond this machine without keys")
    bootstrap_key: str | None = Field(
        default=None, repr=False, description="a key that is admin of the tenant default, 16 characters at least"
    )
    bootstrap_key_file: Path | None = Field(default=None, description="file that holds the bootstrap key")
    otlp_endpoint: str | None = Field(
        default=None,
        validation_alias=AliasChoices("ACCLIMATE_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="collector that traces are sent to, OTLP over HTTP (extra otel), such as http://127.0.0.1:4318",
    )
    metrics_open: bool = Field(default=False, description="answer /metrics without a key, too")
    key_requests_per_second: Rate = Field(default=0, description="requests of a key, per second and worker; 0: any")
    key_bytes_per_second: Rate = Field(default=0, description="bytes of a key's requests, likewise; 0: any")
    tenants_max: Count = Field(default=64, description="tenants served at once")
    data_dir: Path = Field(default=Path("acclimate-data"), description="directory of the embedded store, and of keys")
    store: str | None = Field(
        default=None, repr=False, description="postgresql://…: keep streams in this database, not in the directory"
    )
    store_file: Path | None = Field(default=None, description="file that holds the address of the database")
    store_trust_seconds: Seconds = Field(
        default=0.0,
        description="time that a stream in memory is predicted from without asking the database whether"
        " another server has changed it",
    )
    models: Annotated[dict[str, Path], NoDecode] = Field(
        default_factory=dict,
        validation_alias=AliasChoices("ACCLIMATE_MODEL", "ACCLIMATE_MODELS"),
        description="models to serve, NAME=FILE, separated by commas",
    )
    activate: bool = Field(default=False, description="make changed models the active versions of their names")
    device: str = Field(default="cpu", description="torch device of the numerics")
    threads: Count = Field(default=1, description="threads of one numerical operation")
    workers: Count = Field(default=1, description="worker processes, and shards of a new data directory")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least severe log line written"
    )

    body_bytes_max: Count = Field(default=8 * 1024**2, description="largest request body, bytes")
    bundle_bytes_max: Count = Field(default=64 * 1024**2, description="largest model bundle that is uploaded, bytes")
    batch_rows_max: Count = Field(default=10_000, description="most rows of one batch")
    metadata_bytes_max: Count = Field(default=4_096, description="largest metadata of a stream, bytes of JSON")
    page_items_max: Count = Field(default=1_000, description="most items of one page of a list")
    retained_rows: Count = Field(default=1_000, description="rows that a stream retains, at least its window")
    log_days: Count = Field(default=30, description="days that logged rows and revisions are kept")
    pending_days: Count = Field(default=7, description="days that a prediction waits for its label")
    pending_rows_max: Count = Field(default=10_000, description="predictions of a stream that wait for their labels")
    queue_items_max: Count = Field(default=4_096, description="requests that may wait for the numerics before 429")
    refusal_seconds: Seconds = Field(
        default=1.0, description="time after which a request beyond the queue gets its 429"
    )
    tick_items_max: Count = Field(default=256, description="requests that one batched computation takes")
    hot_streams_max: Count = Field(default=10_000, description="streams kept in memory")
    connections_max: Count = Field(default=10_000, description="connections of a worker; further ones are closed")
    head_bytes_max: Count = Field(default=65_536, description="largest head of a request, bytes")
    head_seconds: Wait = Field(default=10.0, description="time that the head of a request may take")
    body_seconds: Wait = Field(default=120.0, description="longest silence in the middle of a body")
    body_bytes_per_second_min: Count = Field(
        default=500, description="least rate of a body that takes longer than that, uploads excepted, bytes per second"
    )
    reader_seconds: Wait = Field(default=60.0, description="time that a client may leave an answer unread")
    event_followers_max: Count = Field(default=1_000, description="clients that follow events at once")
    webhooks_max: Count = Field(default=100, description="webhooks")
    webhook_private: bool = Field(default=False, description="call webhooks at private addresses, too")
    snapshot_rows: Count = Field(default=256, description="learned rows between two snapshots of a stream")
    drain_seconds: Seconds = Field(default=0.5, description="time between not ready and closing the port, on SIGTERM")
    shutdown_grace_seconds: Seconds = Field(default=20.0, description="time that running requests have to finish")

    @field_validator("port", mode="before")
    @classmethod
    def _ignore_service_link(cls, value: Any) -> Any:
        """Kubernetes sets ``ACCLIMATE_PORT=tcp://…`` in pods beside a service called acclimate: not meant for us."""
        return cls.model_fields["port"].default if isinstance(value, str) and value.startswith("tcp://") else value

    @field_validator("models", mode="before")
    @classmethod
    def _split_models(cls, value: Any) -> Any:
        """``a=one.safetensors,b=two.safetensors`` or a JSON object."""
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("{"):
            return orjson.loads(value)
        pairs = [part.strip().partition("=") for part in value.split(",") if part.strip()]
        if any(not (name and path) for name, _, path in pairs):
            raise ValueError("write NAME=FILE, several of them separated by commas")
        return {name: path for name, _, path in pairs}

    @property
    def bootstrap(self) -> str | None:
        """The bootstrap key, out of its file where that is set; an empty one is none.

        Raises:
            ConfigurationError: The file cannot be read.
        """
        return _secret(self.bootstrap_key, "bootstrap_key_file", self.bootstrap_key_file)

    @property
    def store_url(self) -> str | None:
        """The address of the database, out of its file where that is set; ``None``: the embedded store.

        Raises:
            ConfigurationError: The file cannot be read, or it is no such address.
        """
        url = _secret(self.store, "store_file", self.store_file)
        if url is not None and not url.startswith(STORE_SCHEMES):
            raise ConfigurationError("store: write postgresql://USER@HOST/DATABASE; what is given begins otherwise")
        return url


def _secret(value: str | None, name: str, file: Path | None) -> str | None:
    """A setting, out of its file where that is set; an empty one is none. Raises ConfigurationError."""
    if file is None:
        return value or None
    try:
        return file.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{name}: {file} cannot be read ({error})") from error


def load_settings(environ: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """Settings from arguments that were given, then variables, then defaults.

    Args:
        environ: Variables whose names are checked; the process's by default.
        given: Settings given on the command line; None counts as not given.

    Raises:
        ConfigurationError: An unknown variable, or a value out of its bounds; one sentence that names it.
    """
    names = os.environ if environ is None else environ
    known = {PREFIX + name.upper() for name in Settings.model_fields} | {"ACCLIMATE_MODEL"}
    unknown = sorted(n for n in names if n.startswith(PREFIX) and n not in known and not _NO_SETTINGS.match(n))
    if unknown:
        raise ConfigurationError(f"{unknown[0]} is not a setting: acclimate serve --help lists them all")
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        message = first["msg"].removeprefix("Value error, ")
        field = ".".join(str(part) for part in first["loc"])
        raise ConfigurationError(f"{field}: {message}" if field else message) from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
    _ = settings.store_url  # so that a wrong one is told at once
    _refuse_open_doors(settings)
    return settings


def _refuse_open_doors(settings: Settings) -> None:
    """Without keys nobody beyond this machine may read or write, unless the operator says so."""
    if settings.allow_anonymous or is_loopback(settings.host):
        return
    if settings.bootstrap is None and not has_keys(settings.data_dir):
        raise ConfigurationError(
            f"listening on {settings.host} would let anyone on the network read and write without a key: "
            "use --host 127.0.0.1, make a key (acclimate keys create), set ACCLIMATE_BOOTSTRAP_KEY, "
            "or set ACCLIMATE_ALLOW_ANONYMOUS=1 to accept that"
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``. A name other than localhost counts as reachable."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"

"""Which models there are: versions are told apart by their bytes and keep their numbers for ever."""

import threading
from collections.abc import Mapping

from models import BundleError, Model, read_bundle, write_bundle
from service.errors import ConfigurationError, NotFoundError
from service.store import ModelRecord, Store
from service.types import FeatureInfo, ModelInfo


class Registry:
    """Models of a store. A bundle that is given again keeps its version, a changed one becomes the next version.

    Old versions stay in the store, so that streams bound to them go on; they are read when first needed. Thread-safe.

    Args:
        store: Where bundles are kept.
        models: Models to register, by name.
        activate: Whether a model that is given becomes the active version of its name even if another is.

    Raises:
        ConfigurationError: A stored bundle cannot be read.
    """

    def __init__(self, store: Store, models: Mapping[str, Model], *, activate: bool = False) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._loaded: dict[tuple[str, int], Model] = {}
        for name, model in models.items():
            record = store.put_model(name, write_bundle(model), activate=activate)
            self._loaded[record.name, record.version] = model
        self._records: dict[str, list[ModelRecord]] = {}
        for record in store.models():
            self._records.setdefault(record.name, []).append(record)
        self._infos = {name: self._describe(name) for name in self._records}

    def active(self, name: str) -> int:
        """The active version of a model.

        Raises:
            NotFoundError: There is no such model.
        """
        return self.info(name).active_version

    def model(self, name: str, version: int) -> Model:
        """One version of a model, whether or not it is active."""
        with self._lock:
            model = self._loaded.get((name, version))
            if model is None:
                model = read_bundle(self._store.bundle(name, version), f"model {name}, version {version}")
                self._loaded[name, version] = model
            return model

    def infos(self) -> list[ModelInfo]:
        """All models, by name."""
        return [self._infos[name] for name in sorted(self._infos)]

    def info(self, name: str) -> ModelInfo:
        """One model, described by its active version.

        Raises:
            NotFoundError: There is no such model.
        """
        if name not in self._infos:
            known = ", ".join(sorted(self._infos)) or "none"
            raise NotFoundError(f"There is no model of that name; known models: {known}.")
        return self._infos[name]

    def info_at(self, name: str, version: int) -> ModelInfo:
        """One model, described by one of its versions, which may have to be read first.

        Raises:
            NotFoundError: There is no such model, or no such version of it.
        """
        info = self.info(name)
        if version not in info.versions:
            known = ", ".join(map(str, info.versions))
            raise NotFoundError(f"Model {name} has no version {version}; known versions: {known}.")
        return info if version == info.active_version else self._describe(name, version)

    def _describe(self, name: str, version: int | None = None) -> ModelInfo:
        """A model by one of its versions, the active one if left out."""
        records = self._records[name]
        active = next(record.version for record in records if record.active)
        try:
            spec = self.model(name, version or active).spec
        except BundleError as error:
            raise ConfigurationError(f"{error}: register it again with --model {name}=FILE") from error
        return ModelInfo(
            name=name,
            versions=[record.version for record in records],
            active_version=active,
            task=spec.task,
            features=[FeatureInfo(f.name, f.kind, f.missing, f.categories) for f in spec.features],
            classes=list(spec.target.classes) if spec.task == "classification" else None,
            experts=[
                {"name": e.name, "learner": e.learner, "hyper_parameters": dict(e.hyper_parameters)}
                for e in spec.experts
            ],
            detector={"name": spec.detector.name, "settings": dict(spec.detector.settings)},
            scores=dict(spec.provenance.get("scores", {})),
            target=spec.target.name,
            ways=spec.target.ways or None,
            outputs=spec.outputs if spec.task == "regression" else 1,
            lagged_targets=bool(spec.lags.offsets or spec.lags.rates),
            stream_column=spec.provenance.get("stream_column"),
            time_column=spec.provenance.get("time_column"),
        )

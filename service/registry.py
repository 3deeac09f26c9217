"""Which models there are: versions are told apart by their bytes and keep their numbers for ever."""

import threading
from collections.abc import Mapping

from models import BundleError, Model, model_fingerprint, read_bundle, write_bundle
from service.errors import ConfigurationError, ConflictError, NotFoundError
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
            record = store.put_model(name, write_bundle(model), activate=activate or None)
            self._loaded[record.name, record.version] = model
        self._read()

    def _read(self) -> None:
        """What the store has; what was told before is replaced as a whole."""
        records: dict[str, list[ModelRecord]] = {}
        for record in self._store.models():
            records.setdefault(record.name, []).append(record)
        self._records = records
        self._infos = {name: self._describe(name) for name in self._records}

    def refresh(self) -> bool:
        """Hear of what another process has done to the store's models; whether there was anything."""
        if self._store.models() == [record for name in sorted(self._records) for record in self._records[name]]:
            return False
        self._read()
        return True

    def active(self, name: str) -> int:
        """The active version of a model.

        Raises:
            NotFoundError: There is no such model.
            ConflictError: No version of it is active.
        """
        version = self.info(name).active_version
        if version is None:
            raise ConflictError(f"No version of model {name} is active: activate one first.")
        return version

    def actives(self) -> list[tuple[str, int]]:
        """Models with an active version, by name."""
        found = [(info.name, info.active_version) for info in self.infos()]
        return [(name, version) for name, version in found if version is not None]

    def put(self, name: str, model: Model, version: int | None = None) -> int:
        """Add a model, not active; its version.

        It is kept as this version writes it, so that a file written by an older one is the same version as before.

        Raises:
            ConflictError: The name has another version of this number.
        """
        record = self._store.put_model(name, write_bundle(model), activate=False, version=version)
        if version not in {None, record.version}:
            raise ConflictError(f"Workers number the versions of model {name} differently: restart the service.")
        with self._lock:
            self._loaded[name, record.version] = model
        self._read()
        return record.version

    def activate(self, name: str, version: int) -> bool:
        """Make a version the active one; whether it is there."""
        done = self._store.activate_model(name, version)
        self._read()
        return done

    def delete(self, name: str) -> bool:
        """Remove a model, unless streams are bound to it; whether that was done."""
        done = self._store.delete_model(name)
        if done:
            with self._lock:
                self._loaded = {key: model for key, model in self._loaded.items() if key[0] != name}
        self._read()
        return done

    def model(self, name: str, version: int) -> Model:
        """One version of a model, whether or not it is active."""
        with self._lock:
            model = self._loaded.get((name, version))
            if model is None:
                model = read_bundle(self._store.bundle(name, version), f"model {name}, version {version}")
                self._loaded[name, version] = model
            return model

    def version_like(self, name: str, fingerprint: str) -> int | None:
        """The newest version of a model with this fingerprint; ``None`` where there is none."""
        for record in reversed(self._records.get(name, [])):
            if model_fingerprint(self.model(name, record.version)) == fingerprint:
                return record.version
        return None

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
        active = next((record.version for record in records if record.active), None)
        try:
            spec = self.model(name, version or active or records[-1].version).spec
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

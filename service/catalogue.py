"""Models that come, become active and go while the service runs."""

from models import BundleError, Engine, Model, read_bundle
from service.activation import Activation
from service.errors import ConflictError, InvalidError, NotFoundError
from service.registry import Registry
from service.starts import Starts
from service.threads import Threads
from service.types import ModelInfo


class Catalogue:
    """What is done with models; which there are is the registry's.

    Args:
        registry: Where models are kept.
        starts: Frozen starts, which go with their models.
        activation: Brings streams along.
        threads: Where the work is done.
    """

    def __init__(self, registry: Registry, starts: Starts, activation: Activation, threads: Threads) -> None:
        self._registry = registry
        self._starts = starts
        self._activation = activation
        self._threads = threads

    def models(self) -> list[ModelInfo]:
        """All models, by name."""
        return self._registry.infos()

    def model(self, name: str) -> ModelInfo:
        """One model. Raises NotFoundError."""
        return self._registry.info(name)

    async def put(self, name: str, bundle: bytes, version: int | None = None) -> int:
        """Add a version of a model, which may be a new one; it is not active until it is activated.

        Args:
            name: Of the model.
            bundle: The file's bytes; a version that says the same is that version.
            version: Its number, where another worker has given it one.

        Returns:
            The version.

        Raises:
            InvalidError: The bytes are no bundle that can be served.
        """

        def check() -> Model:
            try:
                model = read_bundle(bundle, "the body")
                Engine(model)
            except (BundleError, ValueError) as error:
                raise InvalidError.at(("body",), str(error)) from error
            return model

        model = await self._threads.load(check)
        return await self._threads.write(lambda: self._registry.put(name, model, version))

    async def activate(self, name: str, version: int) -> None:
        """Make a version the active one: its streams are brought along meanwhile, and no request fails.

        Raises:
            NotFoundError: There is no such model, or version.
        """
        self._registry.info(name)
        if not await self._threads.write(lambda: self._registry.activate(name, version)):
            raise NotFoundError(f"Model {name} has no version {version}: upload it first.")
        self._activation.wake()

    async def delete(self, name: str) -> None:
        """Remove a model with all its versions.

        Raises:
            NotFoundError: There is no such model.
            ConflictError: Streams are bound to it.
        """
        self._registry.info(name)
        if not await self._threads.write(lambda: self._registry.delete(name)):
            raise ConflictError(f"Streams are bound to model {name}: delete them first.")
        self._starts.forget(name)

"""A stream in place of a model of River's or scikit-learn's: an existing script switches by one line.

With River installed these are River's regressor and classifier, so that its evaluation takes them.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from service.client.blocking import Client
from service.client.replies import Prediction

try:
    _river: Any = import_module("river.base")
    _Regressor, _Classifier = _river.Regressor, _river.Classifier
except ImportError:
    _Regressor = _Classifier = object


class _Online:
    """One stream of a service, as both kinds have it."""

    def __init__(self, url: str, stream: str, model: str, key: str | None = None) -> None:
        self.url = url
        self.stream = stream
        self.model = model
        self.key = key
        self._client = Client(url, key)
        self._stream = self._client.stream(stream)
        self._stream.create(model)

    def _answer(self, X: Any) -> Prediction:
        return self._stream.predict(X)

    def predict_one(self, x: Mapping[str, Any]) -> Any:
        """The answer to one row, by feature name."""
        return self._answer([dict(x)]).predictions[0]

    def learn_one(self, x: Mapping[str, Any], y: Any) -> None:
        """Learn one row."""
        self._stream.feedback([dict(x)], [y])

    def predict(self, X: Any) -> list[Any]:
        """The answers to rows: an array or a frame."""
        return self._answer(X).predictions

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Any:
        """Learn rows as one batch; ``classes`` are the model's own. Returns itself."""
        del classes
        self._stream.feedback(X, y)
        return self

    def close(self) -> None:
        """Let go of the connection; the stream stays."""
        self._client.close()


class OnlineRegressor(_Online, _Regressor):  # type: ignore[misc, valid-type]  # River's, where it is installed
    """A stream that predicts numbers.

    Args:
        url: Of the service.
        stream: Its id; it is created if it is not there.
        model: What it is bound to.
        key: An API key.
    """

    def __init__(self, url: str, stream: str, model: str, key: str | None = None) -> None:
        super().__init__(url, stream, model, key)


class OnlineClassifier(_Online, _Classifier):  # type: ignore[misc, valid-type]  # River's, where it is installed
    """A stream that predicts classes; arguments as of ``OnlineRegressor``."""

    def __init__(self, url: str, stream: str, model: str, key: str | None = None) -> None:
        super().__init__(url, stream, model, key)

    def predict_proba_one(self, x: Mapping[str, Any]) -> dict[Any, float]:
        """Probabilities of one row's classes."""
        answer = self._answer([dict(x)])
        return dict(zip(answer.classes or (), (answer.probabilities or [[]])[0], strict=False))

    def predict_proba(self, X: Any) -> list[list[float]]:
        """(rows, classes) probabilities, in the order of the model's classes."""
        return self._answer(X).probabilities or []

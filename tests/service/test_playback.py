"""A table played into a server scores what the offline run scores, and refusals are one line."""

import itertools
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
import numpy as np
import pytest

from models import Table, evaluate, read_bundle, read_table_for, rows_mask, write_bundle
from models.types import Lags
from service.app import create_app
from service.config import Settings
from service.playback import PlaybackError, Played, Served, describe_model, play, stream_id
from service.store import MemoryStore
from service.streams import Streams
from tests.models.examples import small_model, write_rows
from tests.service.http_case import NOW, small_models

URL = "http://test"


class InMemory(httpx.ASGITransport):
    """A started application over a memory store, for as long as the client lives."""

    def __init__(self, store: MemoryStore | None = None, clock: Callable[[], float] = lambda: NOW) -> None:
        settings = Settings(data_dir=Path("unused"))
        models = small_models() | {
            "lagged": small_model(lags=Lags((1, 2), (0.1,)), name="lagged"),
            "open": small_model("classification", name="open", ways=2),
        }
        app = create_app(settings, streams=Streams(settings, store or MemoryStore(), models, clock))
        super().__init__(app)
        self._lifespan = app.router.lifespan_context(app)

    async def __aenter__(self) -> Self:
        """Start."""
        await self._lifespan.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Stop."""
        await self._lifespan.__aexit__(exc_type, exc_value, traceback)


def _served(name: str, task: str = "regression") -> Served:
    classes = ("no", "yes") if name == "cls" else ()
    return Served(name, task, {"a": "numeric", "b": "numeric"}, classes, {})


def _table(folder: Path, task: str = "regression", rows: int = 60) -> Table:
    return read_table_for(small_model(task).spec, [write_rows(folder / "rows.csv", rows, 3, task)])


@pytest.mark.parametrize("delay", [0, 7])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize(
    ("name", "task"),
    [("reg", "regression"), ("lagged", "regression"), ("cls", "classification"), ("open", "classification")],
)
def test_playback_scores_what_the_offline_run_scores(
    tmp_path: Path, name: str, task: str, batch: int, delay: int
) -> None:
    """Row for row, with late labels, lagged targets, open classes; and so does the frozen start, batch for batch."""
    lags = Lags((1, 2), (0.1,)) if name == "lagged" else None
    table = _table(tmp_path, task)
    offline = evaluate(small_model(task, lags, ways=2 * (name == "open")), table, batch=batch, delay=delay).report
    played = play(URL, _served(name, task), table, batch=batch, delay=delay, transport=InMemory())
    np.testing.assert_allclose(played.runs[1].score, offline.adapted.score, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(played.scores, offline.scores(), strict=True):
        assert ours.score == pytest.approx(theirs.score, rel=1e-6)
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-5)
    assert played.known_streams == 0
    assert [alarm[:3] for alarm in played.runs[1].alarms or ()] == [alarm[:3] for alarm in offline.adapted.alarms or ()]


def test_only_scored_rows_count(tmp_path: Path) -> None:
    """All rows are sent, the part is scored; progress ends at all rows."""
    table = _table(tmp_path)
    seen: list[int] = []
    mask = rows_mask(table, "0.5:")
    played: Played = play(URL, _served("reg"), table, scored=mask, progress=seen.append, transport=InMemory())
    assert seen[-1] == 60
    assert [scores.rows for scores in played.scores] == [30, 30]
    assert sum(scores.rows for scores in played.stream_scores[1].values()) == 30


def test_a_server_that_forgets_predictions_is_reported(tmp_path: Path) -> None:
    """Labels that come after their predictions were dropped end the run with what to set."""
    a_day_a_call = itertools.count(NOW, 86_400.0)
    transport = InMemory(clock=lambda: next(a_day_a_call))
    with pytest.raises(PlaybackError, match="ACCLIMATE_PENDING_ROWS_MAX or ACCLIMATE_PENDING_DAYS"):
        play(URL, _served("lagged"), _table(tmp_path), delay=9, transport=transport)


def test_a_stream_that_is_played_again_takes_late_labels_again(tmp_path: Path) -> None:
    """Ids of two runs never meet."""
    table = _table(tmp_path, rows=20)
    store = MemoryStore()
    first, second = (play(URL, _served("lagged"), table, delay=3, transport=InMemory(store)) for _ in range(2))
    assert (first.known_streams, second.known_streams) == (0, 3)
    assert np.isfinite(second.runs[1].score).all()


def test_server_that_refuses_is_quoted(tmp_path: Path) -> None:
    """Its own sentence, once, whatever the number of streams."""
    with pytest.raises(PlaybackError, match=r"answered 404: .*known models") as caught:
        play(URL, _served("absent"), _table(tmp_path), transport=InMemory())
    assert "\n" not in str(caught.value)


def test_unreachable_server_is_named() -> None:
    """With what to do."""
    with pytest.raises(PlaybackError, match=r"cannot be reached .* acclimate serve"):
        describe_model("http://127.0.0.1:1", "reg")


def test_saturated_server_is_asked_again(tmp_path: Path) -> None:
    """429 and 503 say that nothing was taken, so that the request may be repeated."""
    refused: set[str] = set()

    class Saturated(InMemory):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            """Refuse each path once."""
            if request.url.path not in refused:
                refused.add(request.url.path)
                return httpx.Response(429, headers={"retry-after": "0"})
            return await super().handle_async_request(request)

    played = play(URL, _served("reg"), _table(tmp_path), batch=10, transport=Saturated())
    assert len(refused) == 6
    assert np.isfinite(played.runs[1].score).all()


@pytest.mark.parametrize("status", [200, 500])
def test_foreign_server_is_not_mistaken_for_ours(status: int) -> None:
    """Another service on the port gets a sentence, not a traceback."""
    foreign = httpx.MockTransport(lambda _: httpx.Response(status, text="<html>"))
    with pytest.raises(PlaybackError, match="does not answer as acclimate does"):
        describe_model(URL, "reg", foreign)


def test_model_is_described_as_the_server_says(tmp_path: Path) -> None:
    """Task, kinds, classes and columns."""
    (tmp_path / "m.safetensors").write_bytes(write_bundle(small_model("classification")))
    spec = read_bundle(tmp_path / "m.safetensors").spec
    info = {
        "name": "cls",
        "task": spec.task,
        "features": [{"name": feature.name, "kind": feature.kind} for feature in spec.features],
        "classes": list(spec.target.classes),
        "target": "y",
        "time_column": None,
    }
    answers = httpx.MockTransport(lambda _: httpx.Response(200, json=info))
    served = describe_model(URL, "cls", answers)
    assert served == _served("cls", "classification")._replace(columns={"target": "y"})


def test_stream_names_become_ids_that_the_service_takes() -> None:
    """Good ones stay; others are replaced and kept apart by a digest."""
    assert stream_id("shop-1.a:b_2") == "shop-1.a:b_2"
    assert stream_id("shop 1") != stream_id("shop/1")
    assert len(stream_id("ü" * 400)) <= 128

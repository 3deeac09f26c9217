"""Tables as tasks: training sees what serving will see."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models import Engine, Feedback, Model
from models.features import Scales, encode_rows, standardise
from models.plan import Plan
from models.targets import encode_targets, to_scale
from models.tasks import Table, read_table
from models.tasks.episodes import (
    Stretches,
    fit_features,
    fit_target,
    held_out,
    likely_power,
    own_delay,
    prepare,
    season_rows,
)
from models.tasks.lags import Known, cold_lags, label_vectors, lag_values
from models.types import Expert, FloatArray, Lags, ModelSpec
from tests.models.examples import small_table


def spec_of(table: Table, lags: Lags) -> ModelSpec:
    """A model fitted to the table."""
    expert = Expert("head", "bayes_head", {"hidden": (8, 4), "tau_rows": (50.0,)})
    return ModelSpec("m", table.task, fit_features(table), fit_target(table, 1.0), (expert,), lags)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize("delay", [0, 7])
def test_lag_columns_in_training_are_those_that_the_engine_keeps(tmp_path: Path, task: str, delay: int) -> None:
    """Row by row, streams interleaved, labels late: the engine's lag columns equal the table's."""
    table = small_table(tmp_path, 80, 3, task)
    spec = spec_of(table, Lags((1, 3), (0.2, 0.05)))
    meta = Plan.of(spec).learners["head"].meta_init(torch.Generator().manual_seed(0))
    engine = Engine(Model(spec, {f"head.{key}": value for key, value in meta.items()}))
    slots = [engine.create() for _ in table.stream_names]
    inputs, targets = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    scaled = to_scale(spec.target, targets) if task == "regression" else targets
    expected = lag_values(spec, table, label_vectors(spec, scaled), delay)
    lags: dict[int, FloatArray] = {}
    for row in range(table.rows):
        late = row - 1 - delay
        if late >= 0:
            part = slice(late, late + 1)
            engine.apply(engine.step([Feedback(slots[table.streams[late]], inputs[part], targets[part], lags[late])]))
        lags[row] = engine.predict([(slots[table.streams[row]], inputs[row : row + 1])])[0].asked
        np.testing.assert_allclose(lags[row][0, : expected.shape[1]], expected[row], rtol=1e-4, atol=1e-5)


def test_fitted_statistics_describe_the_columns(tmp_path: Path) -> None:
    """Mean, spread, vocabulary, missing values; a constant column gets spread one."""
    file = tmp_path / "t.csv"
    file.write_text("a,b,c,y\n" + "".join(f"{k},5,{'xyz'[k % 3]},{k * 0.5}\n" for k in range(50)) + ",5,,1.0\n")
    features = fit_features(read_table([file], target="y"))
    assert [feature.kind for feature in features] == ["numeric", "numeric", "categorical"]
    assert features[0].mean == pytest.approx(24.5)
    assert features[0].missing
    assert features[1].std == 1.0
    assert not features[1].missing
    assert features[2].categories == ("x", "y", "z")
    assert features[2].missing


def test_likely_power_finds_the_transform_that_made_the_data_normal() -> None:
    """Log-normal data ask for a power near zero, normal data for one."""
    rng = np.random.default_rng(0)
    assert abs(likely_power(np.expm1(rng.normal(3, 0.5, 4000)))) <= 0.1
    assert abs(likely_power(rng.normal(0, 1, 4000)) - 1.0) <= 0.1


def test_season_is_found_where_there_is_one(tmp_path: Path) -> None:
    """A daily rhythm of 24 rows is found; noise has none."""
    rng = np.random.default_rng(0)
    for name, wave in (("wave", 3.0), ("noise", 0.0)):
        y = wave * np.sin(2 * np.pi * np.arange(1000) / 24) + 0.1 * rng.normal(size=1000)
        file = tmp_path / f"{name}.csv"
        file.write_text("a,y\n" + "".join(f"0.5,{value:.6f}\n" for value in y))
        found = season_rows(read_table([file], target="y"))
        assert found == (24 if wave else None)


def test_own_delay_counts_a_streams_own_rows(tmp_path: Path) -> None:
    """Twelve rows of the file are four of each of three streams taking turns."""
    file = tmp_path / "t.csv"
    file.write_text("s,a,y\n" + "".join(f"{'abc'[k % 3]},0.{k},{k}.5\n" for k in range(60)))
    table = read_table([file], target="y", stream_column="s")
    assert own_delay(table, 0) == 0
    assert own_delay(table, 12) == 4


def test_stretches_are_consecutive_rows_of_one_stream(tmp_path: Path) -> None:
    """Targets of an episode stand next to each other in their stream; the same generator draws the same."""
    table = small_table(tmp_path, 200, 2)
    spec = spec_of(table, Lags((1,), ()))
    data = prepare(spec, table, 0)
    source = Stretches(data, data.streams, sequential=False, lengths=(16,))
    one, other = (source.draw(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.query.x, other.query.x)
    y = torch.cat([one.support.y, one.query.y], dim=1)[..., 0].numpy()
    series = [data.y[places, 0].numpy() for places in data.streams]
    for stretch in y:
        assert any(np.array_equal(stretch, s[start : start + 16]) for s in series for start in range(len(s) - 15))


@pytest.mark.parametrize("delay", [0, 3])
def test_cold_lags_are_those_of_a_stream_that_begins_here(tmp_path: Path, delay: int) -> None:
    """As if the table had no rows before the stretch."""
    table = small_table(tmp_path, 40, 1)
    spec = spec_of(table, Lags((1, 2, 7), (0.1, 0.5)))
    data = prepare(spec, table, delay)
    found = cold_lags(Known(spec.lags, data.known.labels, delay), data.known.labels[None, 12:])[0]
    expected = lag_values(spec, table.take(np.arange(table.rows) >= 12), data.known.labels[12:].double().numpy(), delay)
    np.testing.assert_allclose(found[:, :-1], np.nan_to_num(expected), atol=1e-5)
    np.testing.assert_array_equal(found[:, -1].bool(), np.isnan(expected[:, 0]))


def test_half_of_the_stretches_begin_cold(tmp_path: Path) -> None:
    """Their first row knows no label; the others know those from before the stretch."""
    table = small_table(tmp_path, 200, 2)
    data = prepare(spec_of(table, Lags((1,), ())), table, 0)
    drawn = Stretches(data, [data.streams[0][50:]], sequential=True, lengths=(16,)).draw(
        torch.Generator().manual_seed(3)
    )
    assert 0.3 < float(drawn.query.x[:, 0, -1].mean()) < 0.8
    assert float(drawn.query.x[:, 1, -1].mean()) < 0.3


def test_held_out_stretches_cover_the_streams(tmp_path: Path) -> None:
    """Whole stretches of the asked length, and streams shorter than that in full."""
    table = small_table(tmp_path, 100, 3)
    spec = spec_of(table, Lags())
    data = prepare(spec, table, 0)
    episodes = held_out(data, [data.streams[0], data.streams[1][:5]], sequential=True, rows=10)
    assert sum(episode.query.x.shape[0] * episode.query.x.shape[1] for episode in episodes) == (
        len(data.streams[0]) // 10 * 10 + 5
    )


def test_targets_are_scaled_to_unit_variance(tmp_path: Path) -> None:
    """In the transformed scale; low and high are the labels' own."""
    table = small_table(tmp_path, 100, 1)
    target = fit_target(table, 0.5)
    spec = replace(spec_of(table, Lags()), target=target)
    scaled = to_scale(target, encode_targets(spec, table.targets()))
    assert scaled.mean() == pytest.approx(0.0, abs=1e-9)
    assert scaled.std() == pytest.approx(1.0)
    assert (target.low[0], target.high[0]) == (np.min(table.target), np.max(table.target))


def test_skewed_features_are_straightened(tmp_path: Path) -> None:
    """A log-normal column loses most of its skew, with zero mean and unit spread; a normal one stays."""
    rng = np.random.default_rng(0)
    file = tmp_path / "t.csv"
    skewed, plain = np.exp(rng.normal(size=2000)), rng.normal(size=2000)
    lines = [f"{a},{b},{c}" for a, b, c in zip(skewed, plain, rng.normal(size=2000), strict=True)]
    file.write_text("\n".join(["a,b,y", *lines]) + "\n")
    table = read_table([file], target="y")
    features = fit_features(table)
    assert features[0].power < 0.5
    assert abs(features[1].power - 1) < 0.2
    z = standardise(Scales.of(features), encode_rows(features, table.values()))
    np.testing.assert_allclose(z.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(z.std(0), 1, rtol=1e-9)
    raw = (skewed - skewed.mean()) / skewed.std()
    assert abs((z[:, 0] ** 3).mean()) < 0.4 * (raw**3).mean()

"""The step that moves a stream: pure, batched over streams, replayable."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models import adaptation
from models.memory import Rows, lags_now
from models.plan import Plan
from models.readaptation import Decisions
from models.types import DetectorChoice, Expert, Feature, Lags, ModelSpec, Target, Tensors

HEAD = Expert("head", "bayes_head", {"hidden": (8, 4), "tau_rows": (50.0, 400.0)})
GRADIENT = Expert("steps", "maml", {"hidden": (8,), "steps": 2, "inner_lr": 0.1})
REGRESSION = ModelSpec(
    "r", "regression", (Feature("a"), Feature("b", missing=True)), Target(), (HEAD,), Lags((1, 3), (0.1,))
)
CLASSES = replace(REGRESSION, task="classification", target=Target("y", classes=("x", "y", "z")))
SPECS = {
    "regression": REGRESSION,
    "classification": CLASSES,
    "two classes": replace(CLASSES, target=Target("y", classes=(0, 1))),
    "gradient": replace(REGRESSION, experts=(GRADIENT,), detector=DetectorChoice("page_hinkley")),
    "gradient, likelihood ratio": replace(REGRESSION, experts=(GRADIENT,)),
    "run length": replace(REGRESSION, detector=DetectorChoice("run_length", {"hazard": 0.05})),
    "run length, classes": replace(CLASSES, detector=DetectorChoice("run_length", {"hypotheses": 3})),
    "committee": replace(CLASSES, experts=(HEAD, GRADIENT)),
    "head, histogram of rows": replace(REGRESSION, detector=DetectorChoice("adwin", {"clock": 1})),
    "head, random draws": replace(
        REGRESSION, detector=DetectorChoice("kswin", {"alpha": 0.05, "window_size": 10, "stat_size": 5})
    ),
    "head, window detector": replace(REGRESSION, detector=DetectorChoice("page_hinkley", {"threshold": 3.0})),
}


def model(spec: ModelSpec) -> tuple[Plan, Tensors]:
    """A plan and untrained tensors."""
    plan = Plan.of(spec)
    generator = torch.Generator().manual_seed(0)
    meta: Tensors = {}
    for name, learner in plan.learners.items():
        meta |= {f"{name}.{key}": tensor for key, tensor in learner.meta_init(generator).items()}
    return plan, meta


def batches(plan: Plan, meta: Tensors, streams: int, count: int, seed: int = 0) -> tuple[list[Rows], list[Tensors]]:
    """Random ragged batches with a jump halfway, learned one after the other; batches and the states after each."""
    rng = torch.Generator().manual_seed(seed)
    state, found, states = adaptation.init(plan, meta, streams), [], []
    for step in range(count):
        x = torch.randn(streams, 4, 2, generator=rng)
        x[0, 0, 1] = torch.nan  # a missing value
        if plan.spec.task == "regression":
            y = x[..., :1] + (6.0 if step > count // 2 else 0.0)
        else:
            y = torch.randint(len(plan.spec.target.classes), (streams, 4, 1), generator=rng).float()
        lags = lags_now(plan.spec, state)[:, None].expand(-1, 4, -1)
        lengths = torch.randint(1, 5, (streams, 1), generator=rng)
        rows = Rows(torch.cat([x, lags], dim=-1), y, torch.arange(4)[None] < lengths)
        state, _ = adaptation.step(plan, meta, state, rows)
        found.append(rows)
        states.append(state)
    return found, states


@pytest.mark.parametrize("name", SPECS)
def test_streams_moved_together_equal_streams_moved_alone(name: str) -> None:
    """Ragged batches of five streams in one call give what five runs of one stream give, within 1e-5 relative."""
    plan, meta = model(SPECS[name])
    rows, together = batches(plan, meta, 5, 8)
    for stream in range(5):
        state = adaptation.init(plan, meta, 1)
        for batch in rows:
            length = int(batch.mask[stream].sum())
            alone = Rows(*(values[stream : stream + 1, :length] for values in batch))
            state, _ = adaptation.step(plan, meta, state, alone)
        z = torch.randn(1, 6, rows[0].z.shape[-1], generator=torch.Generator().manual_seed(9))
        one = adaptation.predict(plan, meta, state, z).served
        other = adaptation.predict(plan, meta, {k: v[stream : stream + 1] for k, v in together[-1].items()}, z).served
        torch.testing.assert_close(one.mean, other.mean, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
def test_a_stream_without_rows_keeps_its_state_bit_for_bit(name: str) -> None:
    """An empty mask is no event."""
    plan, meta = model(SPECS[name])
    rows, states = batches(plan, meta, 3, 6)
    mask = rows[0].mask.clone()
    mask[1] = False
    new, _ = adaptation.step(plan, meta, states[-1], rows[0]._replace(mask=mask))
    for key, value in new.items():
        assert torch.equal(value[1].nan_to_num(nan=7.0), states[-1][key][1].nan_to_num(nan=7.0)), key


@pytest.mark.parametrize("name", SPECS)
def test_the_step_does_not_touch_its_arguments(name: str) -> None:
    """State and rows are values."""
    plan, meta = model(SPECS[name])
    rows, states = batches(plan, meta, 3, 6)
    before = {key: value.clone() for key, value in states[-1].items()}
    adaptation.step(plan, meta, states[-1], rows[0])
    for key, value in states[-1].items():
        assert torch.equal(value.nan_to_num(nan=7.0), before[key].nan_to_num(nan=7.0)), key


@pytest.mark.parametrize("name", SPECS)
def test_replay_with_logged_decisions_gives_the_same_states(name: str) -> None:
    """Decisions given back instead of asked for lead to the same bits, alarms included."""
    plan, meta = model(SPECS[name])
    rows, states = batches(plan, meta, 4, 16)
    state, replayed = adaptation.init(plan, meta, 4), adaptation.init(plan, meta, 4)
    alarms = 0
    for batch in rows:
        state, seen = adaptation.step(plan, meta, state, batch)
        alarms += int(seen.decisions.drift.sum())
        replayed, _ = adaptation.step(plan, meta, replayed, batch, seen.decisions)
    for key, value in states[-1].items():
        assert torch.equal(value.nan_to_num(nan=7.0), state[key].nan_to_num(nan=7.0)), key
        assert torch.equal(value.nan_to_num(nan=7.0), replayed[key].nan_to_num(nan=7.0)), key


def test_a_logged_alarm_is_obeyed_although_the_detector_would_not_raise_it() -> None:
    """Alarms are read from the log, never recomputed."""
    plan, meta = model(REGRESSION)
    rows, states = batches(plan, meta, 2, 3)
    forced = Decisions(
        np.array([True, False]), np.array([False, False]), np.array([4, 0]), np.array([9.0, 0.0]), np.array([8.0, 8.0])
    )
    new, seen = adaptation.step(plan, meta, states[-1], rows[0], forced)
    assert int(new["drift_row"][0]) == int(new["rows_seen"][0])
    assert int(new["drift_row"][1]) == -1
    assert seen.rows_used.tolist() == [4, 0]
    same, _ = adaptation.step(plan, meta, states[-1], rows[0])
    challenger = same["head.W"][0, -1]
    assert torch.equal(new["head.W"][0, 0], challenger)  # the member that forgets fast took over
    assert torch.equal(new["head.W"][0, 1], same["head.W"][0, 1])  # the one that remembers the longest stayed
    torch.testing.assert_close(new["weights"][0].exp(), torch.tensor([0.8, 0.2]))


def test_a_jump_raises_an_alarm_and_re_adapts() -> None:
    """After a jump of many standard deviations the default detector alarms and the error falls again."""
    spec = replace(REGRESSION, lags=Lags(), experts=(replace(HEAD, hyper_parameters={"hidden": (8, 4)}),))
    plan, meta = model(spec)
    meta["head.prior_log_var"] = torch.zeros_like(meta["head.prior_log_var"])
    state, rng = adaptation.init(plan, meta, 1), torch.Generator().manual_seed(1)
    errors, alarms = [], []
    for step in range(120):
        z = torch.randn(1, 2, 2, generator=rng)
        y = z[..., :1] + (8.0 if step >= 80 else 0.0) + 0.1 * torch.randn(1, 2, 1, generator=rng)
        served = adaptation.predict(plan, meta, state, z).served
        errors.append(float((served.mean - y).abs().mean()))
        state, seen = adaptation.step(plan, meta, state, Rows(z, y, torch.ones(1, 2, dtype=torch.bool)))
        if seen.decisions.drift[0]:
            alarms.append(step)
    assert alarms
    assert 80 <= alarms[0] <= 90
    assert errors[80] > 5
    assert np.mean(errors[-10:]) < 1


def test_a_result_that_is_not_finite_is_discarded() -> None:
    """The poisoned stream keeps its last good state, the other one moves."""
    plan, meta = model(REGRESSION)
    rows, states = batches(plan, meta, 2, 3)
    poisoned = rows[0].y.clone()
    poisoned[0, 0] = torch.inf
    new, seen = adaptation.step(plan, meta, states[-1], rows[0]._replace(y=poisoned))
    assert seen.kept.tolist() == [False, True]
    assert torch.equal(new["head.W"][0], states[-1]["head.W"][0])
    assert not torch.equal(new["head.W"][1], states[-1]["head.W"][1])


def test_known_labels_become_lag_columns() -> None:
    """Offsets count back from the newest label; before enough are known the column is missing."""
    plan, meta = model(REGRESSION)
    state = adaptation.init(plan, meta, 1)
    assert lags_now(plan.spec, state).isnan().all()
    for value in (1.0, 2.0, 3.0, 4.0):
        rows = Rows(torch.zeros(1, 1, 5), torch.full((1, 1, 1), value), torch.ones(1, 1, dtype=torch.bool))
        state, _ = adaptation.step(plan, meta, state, rows)
    last, third, mean = lags_now(plan.spec, state)[0].tolist()
    assert (last, third) == (4.0, 2.0)
    assert mean == pytest.approx(2.5)  # a plain mean until 1/rate labels are known


def test_reset_keeps_what_is_known_and_forgets_what_was_learned() -> None:
    """Counters and known labels stay; parameters, standardiser, weights and detector are a new stream's."""
    plan, meta = model(REGRESSION)
    _, states = batches(plan, meta, 2, 8)
    back, fresh = adaptation.reset(plan, meta, states[-1]), adaptation.init(plan, meta, 2)
    for key in ("head.W", "head.P", "weights", "x_mean", "x_var", "detector.statistic"):
        assert torch.equal(back[key], fresh[key]), key
    for key in ("rows_seen", "known"):
        assert torch.equal(back[key].nan_to_num(nan=7.0), states[-1][key].nan_to_num(nan=7.0)), key

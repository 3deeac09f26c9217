"""The engine's rates, at a size that says nothing of them: the contenders do the same, and all is written down."""

import json
from pathlib import Path

import pytest
import torch

from loadtest import engine_rate
from loadtest.engine_rate import HIDDEN, INNER_LR, INPUTS, STEPS, by_functions, by_modules, network_of
from models import LEARNERS, Batch


def test_the_loops_of_autograd_take_the_same_steps() -> None:
    """To six digits."""
    learner = LEARNERS["maml"](
        task="regression", inputs=INPUTS, outputs=1, hidden=HIDDEN, steps=STEPS, inner_lr=INNER_LR
    )
    generator = torch.Generator().manual_seed(0)
    meta = learner.meta_init(generator)
    x, y = torch.randn(1, 6, INPUTS, generator=generator), torch.randn(1, 6, 1, generator=generator)
    ours = learner.adapt(meta, Batch(x, y, torch.ones(1, 6, dtype=torch.bool)))  # type: ignore[attr-defined]
    loop = by_functions(learner.net, meta, x[0], y[0])  # type: ignore[attr-defined]
    for name, tensor in loop.items():
        torch.testing.assert_close(ours[name][0], tensor, rtol=1e-5, atol=1e-6)
    net = by_modules(network_of(meta), x[0], y[0])
    for number, weight in enumerate(tensor for name, tensor in net.named_parameters() if name.endswith("weight")):
        torch.testing.assert_close(ours[f"weight_{number}"][0], weight.mT, rtol=1e-5, atol=1e-6)


def test_figures_are_printed_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row for each size; exit code 1 where a target is missed."""
    monkeypatch.setattr(engine_rate, "STREAMS", (2,))
    monkeypatch.setattr(engine_rate, "GEMM_SIZE", 8)
    monkeypatch.setattr(engine_rate, "GEMM_SHARE", 1e9)
    file = tmp_path / "figures.json"
    with pytest.raises(SystemExit, match="below target: 2 streams"):
        engine_rate.main(["--rounds", "1", "--json", str(file)])
    figures = json.loads(file.read_text("utf-8"))
    assert [one["streams"] for one in figures["networks"]] == [2]
    assert all(each["us_a_row"] > 0 for each in figures["heads"])
    assert "| Bayesian head, streams | rows a batch | CPU µs a row |" in capsys.readouterr().out

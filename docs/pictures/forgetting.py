"""How much of a stream's answer each forgetting time has, on air that the shipped model has never seen."""

from pathlib import Path

import numpy as np

from docs.generating.drawing import DATA, DRIFT, GRID, SHIPPED, figure, plain, save, styled
from models import Engine, Feedback, FloatArray, read_bundle, read_table_for
from models.learners.bayes_head import BayesHead
from models.plan import Plan

STATION = "Tiantan"
ROWS = 900
DAY_ROWS = 3
COLOURS = ("#c77d00", "#5b9bd0", "#0b62a4", "#123a5c", "#7b519d", "#7a7a7a")


def weights() -> tuple[FloatArray, list[float], list[int]]:
    """Weights (days, members), the members' forgetting times in rows, and the rows of alarms."""
    model = read_bundle(SHIPPED / "beijing-pm25.safetensors")
    file = DATA / "beijing_pm25_unseen.csv.gz"
    table = read_table_for(model.spec, [file], stream_column="stream", time_column="t")
    table = table.take(table.streams == table.stream_names.index(STATION))
    engine = Engine(model)
    inputs, labels = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    stream, found, alarms = engine.create(), [], []
    for row in range(0, ROWS, DAY_ROWS):
        tick = engine.step([Feedback(stream, inputs[row : row + DAY_ROWS], labels[row : row + DAY_ROWS])])
        engine.apply(tick)
        if tick.outcomes[0].event == "drift":
            alarms.append(row)
        found.append(np.exp(engine.copy(stream)["weights"][0].numpy().astype(np.float64)))
    (head,) = Plan.of(model.spec).learners.values()
    assert isinstance(head, BayesHead)
    return np.array(found), list(head.tau_rows), alarms


@styled
def draw(folder: Path) -> Path:
    """Left, what is left of a row's influence; right, the weights over time, stacked."""
    found, times, alarms = weights()
    made = figure(9.5, 3.5)
    fading, mixing = made.subplots(1, 2, width_ratios=(1, 1.7))
    plain(fading, "how much a row still counts")
    plain(mixing, f"each time's share of the answer, {STATION}")
    age = np.arange(0, 1501)
    for colour, time in zip(COLOURS, times, strict=False):
        name = "never forgets" if time > 1e8 else f"forgets in {time:,.0f} rows"
        fading.plot(age, (1 - 1 / time) ** age, color=colour, linewidth=2, label=name)
    fading.set_xlabel("age of the row, rows")
    fading.set_ylim(0, 1.05)
    rows = DAY_ROWS * np.arange(1, len(found) + 1)
    mixing.stackplot(rows, *found.T, colors=COLOURS[: len(times)], edgecolor=GRID, linewidth=0.3)
    for alarm in alarms:
        mixing.axvline(alarm, color=DRIFT, linewidth=1.4, label="alarm" * (alarm == alarms[0]))
    mixing.set_xlabel("labelled rows of the stream")
    mixing.set_xlim(0, ROWS)
    mixing.set_ylim(0, 1)
    made.legend(loc="outside lower center", ncols=5, frameon=False)
    return save(made, "concept-forgetting", folder)


if __name__ == "__main__":
    draw()

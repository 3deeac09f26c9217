"""Probabilistic forecasts: intervals that hold what they promise, on real air.

A planner who has to decide needs more than a number: how sure is it? The shipped model `beijing-pm25` states a standard
deviation with every forecast, and an interval of any coverage. Each stream tracks how far its own labels fall from its
own forecasts, so that nine of ten labels lie in the 90% interval although the model has never seen the station, and
although winter is not summer.

The data are five stations that ship with the project (`data/`, CC BY 4.0). Labels come one day late. Use it for: stock,
energy, staffing, alerts at a threshold, any decision with two different costs.

    .venv/bin/python docs/examples/forecasts.py
"""

from pathlib import Path

import numpy as np

from models import Engine, Feedback, read_bundle, read_table_for, use_threads

ROOT = Path(__file__).parents[2]
LEVELS = (0.5, 0.8, 0.95)
DAY_ROWS = 3
"""Rows of a day: a station reports every eight hours."""


def main(rows: int = 4000, station: str = "Tiantan") -> dict[float, float]:
    """Forecast a station's PM2.5, learn each label a day later; returns the share of labels inside, by level."""
    use_threads(1)
    model = read_bundle(ROOT / "models/shipped/beijing-pm25.safetensors")
    file = ROOT / "data/beijing_pm25_unseen.csv.gz"
    table = read_table_for(model.spec, [file], stream_column="stream", time_column="t")
    table = table.take(table.streams == table.stream_names.index(station))
    engine = Engine(model)
    inputs, labels = engine.encode_inputs(table.values()), engine.encode_targets(table.targets())
    stream, asked = engine.create(), []
    rows = min(rows, table.rows)
    ends = np.zeros((len(LEVELS), rows, 2))
    for row in range(rows):
        for place, level in enumerate(LEVELS):
            (answer,) = engine.predict([(stream, inputs[[row]])], interval=level)
            ends[place, row] = (answer.intervals or [[np.nan, np.nan]])[0]
        asked.append(answer.asked)
        late = row - DAY_ROWS
        if late >= 0:  # yesterday's label is there: learned with what had been said of it then
            engine.apply(engine.step([Feedback(stream, inputs[[late]], labels[[late]], asked[late])]))
    truth = labels[:rows, 0]
    print(f"\n{station}, {rows:,} forecasts of PM2.5, labels a day late")
    shares = {}
    for level, (low, high) in zip(LEVELS, ends.transpose(0, 2, 1), strict=True):
        shares[level] = float(np.mean((low <= truth) & (truth <= high)))
        print(f"  {level:.0%} interval: {shares[level]:.1%} of the labels inside, {np.mean(high - low):.0f} µg/m³ wide")
    low, high = ends[-1].T
    over = int(np.argmax(high - low))
    print(f"  widest: {low[over]:.0f} to {high[over]:.0f}, the label was {truth[over]:.0f}")
    return shares


if __name__ == "__main__":
    main()

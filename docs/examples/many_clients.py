"""Multi-task learning: many clients with little data each, one body, a head for each.

A chain has hundreds of shops. How weather, weekday and price act together on sales is alike everywhere, but bent into
curves, and each shop weighs them its own way. A shop alone has too few rows to find the curves; all shops together have
plenty. Meta-training learns the curves (the body) from all of them, and each shop learns its weights (the head).

Two rivals on the same rows: one model for all shops that never adapts, and each shop's own network from scratch.
Use it for: shops, branches, machines of one kind, patients, regions.

    .venv/bin/python docs/examples/many_clients.py
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from common import write_csv
from models import Scores, TrainSettings, evaluate, read_table, streams_mask, train_table, use_threads


def sales(shops: int, days: int, rng: np.random.Generator) -> list[list[object]]:
    """Day, shop, temperature, price, weekday, units sold."""
    weights = 1 + 0.6 * rng.normal(size=(shops, 4))
    made: list[list[object]] = []
    for day in range(days):
        for shop in range(shops):
            temperature, price = rng.uniform(-5, 35), rng.uniform(1, 3)
            curves = np.array(
                [
                    10 * np.exp(-(((temperature - 22) / 7) ** 2)),
                    8 / price**2,
                    5 * (day % 7 >= 5) * (temperature > 15),
                    4 * np.sin(temperature / 5),
                ]
            )
            sold = 20 + weights[shop] @ curves + rng.normal()
            made.append([day, f"shop-{shop}", round(temperature, 1), round(price, 2), f"d{day % 7}", round(sold, 2)])
    return made


def main(folder: Path, shops: int = 150, days: int = 60, budget: float = 2.0) -> dict[str, float]:
    """Meta-train on most shops, open thirty new ones; returns the mean absolute errors."""
    use_threads(1)
    header = ["day", "shop", "temperature", "price", "weekday", "sold"]
    file = write_csv(folder / "sales.csv", header, sales(shops, days, np.random.default_rng(3)))
    table = read_table([file], target="sold", stream_column="shop", time_column="day")
    old = streams_mask(table, table.stream_names[: shops - 30])
    settings = TrainSettings(algorithm="bayes_head", lag_target=0, budget_minutes=budget)
    model, report = train_table(table.take(old), settings, lambda _: None)
    print(*report.choices, sep="\n")
    evaluation = evaluate(model, table.take(~old), compare=True)
    scores: dict[str, Scores] = {each.name: each for each in evaluation.scores}
    print(f"\nmean absolute error in new shops, units sold, over their {days} days (noise alone: 0.80)")
    for name, shown in (
        ("frozen start", "one model for all shops"),
        ("online SGD", "each shop's own network, from scratch"),
        ("window of 500 rows", "each shop's own linear model"),
        ("adapted", "shared body, each shop's own head"),
    ):
        print(f"  {shown:38} {scores[name].score:.2f}   in its first 20 days {scores[name].first20 or 0:.2f}")
    return {name: each.score for name, each in scores.items()}


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        main(Path(made))

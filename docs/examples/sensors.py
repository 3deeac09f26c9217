"""A dynamic environment: cheap sensors that drift, against a reference that answers now and then.

A city hangs out gas sensors. Each has its own gain and offset, both wander with age, and now and then a technician
swaps the cell, which changes them at once. A reference instrument gives the true value five hours later. The model is
meta-trained on sensors that have hung for a while; new ones are calibrated by their own labels, and alarms mark swaps.

Use it for: sensors and machines that age, prices, demand, anything where yesterday's relation fades or breaks.

    .venv/bin/python docs/examples/sensors.py
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from common import acclimate, write_csv


def readings(sensors: int, hours: int, rng: np.random.Generator) -> list[list[object]]:
    """Hour, sensor, raw signal, temperature, humidity, and the true concentration."""
    gain, offset = rng.uniform(0.5, 1.5, sensors), rng.normal(size=sensors)
    made: list[list[object]] = []
    for hour in range(hours):
        gain += 0.002 * rng.normal(size=sensors)
        offset += 0.01 * rng.normal(size=sensors)
        swapped = rng.random(sensors) < 0.004
        gain[swapped], offset[swapped] = rng.uniform(0.5, 1.5, swapped.sum()), rng.normal(size=swapped.sum())
        day = 2 * np.pi * hour / 24
        for sensor in range(sensors):
            truth = 3 + np.sin(day + sensor) + rng.normal()
            warm, humid = 15 + 8 * np.sin(day) + rng.normal(), rng.uniform(0.3, 0.9)
            signal = gain[sensor] * truth * (1 + 0.02 * (warm - 15)) + offset[sensor] + 0.5 * humid**2
            signal += 0.05 * rng.normal()
            made.append([hour, f"sensor-{sensor}", round(signal, 4), round(warm, 2), round(humid, 3), round(truth, 4)])
    return made


def main(folder: Path, sensors: int = 30, hours: int = 400, budget: float = 2.0) -> dict[str, float]:
    """Meta-train on the older sensors, run the eight new ones; returns the figures of the table."""
    header = ["hour", "sensor", "signal", "temperature", "humidity", "concentration"]
    made = readings(sensors, hours, np.random.default_rng(1))
    new = {f"sensor-{number}" for number in range(sensors - 8, sensors)}
    old_file = write_csv(folder / "old.csv", header, [row for row in made if row[1] not in new])
    new_file = write_csv(folder / "new.csv", header, [row for row in made if row[1] in new])
    # --delay counts rows of the file: five hours of all its sensors.
    acclimate(
        *("train", "--data", old_file, "--target", "concentration", "--stream-column", "sensor"),
        *("--time-column", "hour", "--delay", 5 * (sensors - 8), "--lag-target", 0, "--algorithm", "bayes_head"),
        *("--budget", budget, "--out", folder / "sensors.safetensors"),
    )
    acclimate(
        *("evaluate", folder / "sensors.safetensors", "--data", new_file, "--delay", 5 * 8),
        *("--json", folder / "scores.json", "--plot", folder / "sensors.png"),
    )
    scores = json.loads((folder / "scores.json").read_bytes())
    frozen, adapted = scores["results"][0], scores["results"][-1]
    print(f"\nnew sensors: mean absolute error {frozen['score']:.2f} frozen, {adapted['score']:.2f} adapted;")
    print(f"{adapted['alarms']} alarms, {adapted['coverage']:.0%} of the labels inside their 90% intervals")
    return {name: adapted[name] for name in ("score", "alarms", "coverage")} | {"frozen": frozen["score"]}


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        main(Path(made))

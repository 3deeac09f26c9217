"""Few-shot classification: a new person's gestures from a handful of each.

People wear a wrist sensor, and each invents five gestures and names for them. No name means the same for two people;
what is the same is what gestures look like to the sensor. That is the case for a meta-learned start: it cannot know the
answer, but it knows how to learn it from a few rows.

Each person is a stream that names its own classes as their labels come (`--classes open`), so that the frozen start has
nothing to say. Use it for: gestures, voice commands, defects on a new production line, a user's own tags.

    .venv/bin/python docs/examples/few_shot.py
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from common import acclimate, write_csv

SENSORS = 16
PARTS = ("wave", "circle", "tap", "shake", "twist")
GESTURES = len(PARTS)


def gestures(people: int, rows: int, rng: np.random.Generator) -> list[list[object]]:
    """Rows of people who take turns: time, person, what 16 sensors show, and which gesture it was."""
    seen_by = rng.normal(size=(4, SENSORS))  # a gesture is four numbers, sensors see them bent: the same for everybody
    meaning = rng.normal(size=(people, GESTURES, 4))  # what person p means by gesture g
    made: list[list[object]] = []
    for t in range(people * rows):
        person, gesture = t % people, int(rng.integers(GESTURES))
        movement = meaning[person, gesture] + 0.25 * rng.normal(size=4)
        shown = np.tanh(movement @ seen_by) + 0.1 * rng.normal(size=SENSORS)
        made.append([t, f"person-{person}", *shown.round(4), f"{PARTS[gesture]} of person {person}"])
    return made


def main(folder: Path, people: int = 120, rows: int = 100, budget: float = 2.0) -> dict[str, float]:
    """Meta-train on most people, then meet ten new ones; returns the figures of the last table."""
    header = ["t", "person", *(f"sensor_{number}" for number in range(SENSORS)), "gesture"]
    made = gestures(people, rows, np.random.default_rng(0))
    new = {f"person-{number}" for number in range(people - 10, people)}
    known_file = write_csv(folder / "known.csv", header, [row for row in made if row[1] not in new])
    new_file = write_csv(folder / "new.csv", header, [row for row in made if row[1] in new])
    # No lagged targets: which gesture came last says nothing about the next one.
    acclimate(
        *("train", "--data", known_file, "--target", "gesture", "--stream-column", "person", "--time-column", "t"),
        *("--classes", "open", "--lag-target", 0, "--algorithm", "bayes_head", "--budget", budget),
        *("--out", folder / "gestures.safetensors"),
    )
    acclimate("evaluate", folder / "gestures.safetensors", "--data", new_file, "--json", folder / "scores.json")
    scores = json.loads((folder / "scores.json").read_bytes())
    frozen, adapted = scores["results"][0], scores["results"][-1]
    print(f"\nnew people's gestures: frozen start {frozen['score']:.0%} right, adapted {adapted['score']:.0%};")
    print(f"in the first 20 of each person, about four of each gesture: {adapted['first20']:.0%}")
    return {"frozen": frozen["score"], "adapted": adapted["score"], "first20": adapted["first20"]}


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        main(Path(made))

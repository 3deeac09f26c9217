"""Few-shot classification: a new person's gestures from a handful of each.

People wear a wrist sensor and each invents five gestures of their own. What *gesture 3* means differs from person to
person; what does not differ is what gestures look like to the sensor. That is the case for a meta-learned start: it
cannot know the answer, but it knows how to learn it from a few rows.

Each person is a stream, the five classes are slots that mean something else in every stream, and the frozen start
cannot do better than chance. Use it for: gestures, voice commands, defects on a new production line, a user's own tags.

    .venv/bin/python docs/examples/few_shot.py
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from common import acclimate, write_csv

GESTURES, SENSORS = 5, 16


def gestures(people: int, rows: int, rng: np.random.Generator) -> list[list[object]]:
    """Rows of people who take turns: time, person, what 16 sensors show, and which gesture it was."""
    seen_by = rng.normal(size=(4, SENSORS))  # a gesture is four numbers, sensors see them bent: the same for everybody
    meaning = rng.normal(size=(people, GESTURES, 4))  # what person p means by gesture g
    made: list[list[object]] = []
    for t in range(people * rows):
        person, gesture = t % people, int(rng.integers(GESTURES))
        movement = meaning[person, gesture] + 0.25 * rng.normal(size=4)
        shown = np.tanh(movement @ seen_by) + 0.1 * rng.normal(size=SENSORS)
        made.append([t, f"person-{person}", *shown.round(4), f"gesture-{gesture}"])
    return made


def main(folder: Path, people: int = 120, rows: int = 100, budget: float = 2.0) -> dict[str, float]:
    """Meta-train on most people, then meet ten new ones; returns the figures of the last table."""
    header = ["t", "person", *(f"sensor_{number}" for number in range(SENSORS)), "gesture"]
    data = write_csv(folder / "gestures.csv", header, gestures(people, rows, np.random.default_rng(0)))
    names = [f"person-{number}" for number in range(people)]
    (folder / "known.txt").write_text("\n".join(names[:-10]))
    (folder / "new.txt").write_text("\n".join(names[-10:]))
    # No lagged targets: which gesture came last says nothing about the next one.
    acclimate(
        *("train", "--data", data, "--target", "gesture", "--stream-column", "person", "--time-column", "t"),
        *("--streams", folder / "known.txt", "--lag-target", 0, "--algorithm", "bayes_head", "--budget", budget),
        *("--out", folder / "gestures.safetensors"),
    )
    acclimate(
        *("evaluate", folder / "gestures.safetensors", "--data", data, "--score-streams", folder / "new.txt"),
        *("--json", folder / "scores.json"),
    )
    scores = json.loads((folder / "scores.json").read_bytes())
    frozen, adapted = scores["results"][0], scores["results"][-1]
    print(f"\nframes of new people: frozen start {frozen['score']:.0%} right, adapted {adapted['score']:.0%},")
    print(f"of which in each person's first 20 frames, 4 of each gesture: {adapted['first20']:.0%}")
    return {"frozen": frozen["score"], "adapted": adapted["score"], "first20": adapted["first20"]}


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        main(Path(made))

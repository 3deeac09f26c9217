"""Personalised recommendation: a new user, a few ratings, a better list, over HTTP.

Films have properties that the catalogue knows. Users like and dislike properties, each in their own way, and rate films
from 1 to 5. The model is meta-trained on users who have rated many films; every user is a stream. A new user starts at
the taste of the crowd, and each rating moves what that user is shown next.

Use it for: ratings, clicks, prices that a customer accepts, any answer that depends on who is asked.

    .venv/bin/python docs/examples/recommendation.py
"""

import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from common import acclimate, write_csv
from service.app import create_app
from service.config import Settings

PROPERTIES = ("action", "comedy", "drama", "romance", "documentary", "age", "length", "fame")


class World:
    """A catalogue and users with tastes of their own: what a shop's tables hold."""

    def __init__(self, users: int, films: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.films = rng.normal(size=(films, len(PROPERTIES))).round(3)
        crowd = np.array([0.3, 0.3, 0.1, 0.0, -0.2, -0.2, 0.0, 0.4])
        self.tastes = crowd + 0.5 * rng.normal(size=(users, len(PROPERTIES)))

    def rating(self, user: int, film: int) -> float:
        """1 to 5: taste, and a mood of the day."""
        liked = self.tastes[user] @ self.films[film] + 0.3 * self.rng.normal()
        return float(np.clip(3 + liked, 1, 5).round(1))


def main(folder: Path, users: int = 220, ratings: int = 60, budget: float = 2.0) -> dict[str, float]:
    """Meta-train on the table of ratings, then serve twenty new users; returns how good their lists were."""
    world = World(users, 400, np.random.default_rng(2))
    known, new = range(users - 20), range(users - 20, users)
    rows = []
    for t in range(len(known) * ratings):
        user, film = t % len(known), int(world.rng.integers(400))
        rows.append([t, f"user-{user}", *world.films[film], world.rating(user, film)])
    data = write_csv(folder / "ratings.csv", ["t", "user", *PROPERTIES, "rating"], rows)
    acclimate(
        *("train", "--data", data, "--target", "rating", "--stream-column", "user", "--time-column", "t"),
        *("--task", "regression", "--lag-target", 0, "--algorithm", "bayes_head", "--budget", budget),
        *("--out", folder / "taste.safetensors"),
    )
    return asyncio.run(serve(folder, world, new))


async def serve(folder: Path, world: World, new: range) -> dict[str, float]:
    """The service as `acclimate serve --model taste=…` runs it, here without a network."""
    models = {"taste": folder / "taste.safetensors"}
    application = create_app(Settings(data_dir=folder / "data", models=models, log_level="warning"))
    transport = httpx.ASGITransport(application)
    lists: dict[int, list[float]] = {0: [], 5: [], 20: []}
    async with (
        application.router.lifespan_context(application),
        httpx.AsyncClient(transport=transport, base_url="http://localhost") as client,
    ):
        for user in new:
            stream = f"/v1/streams/user-{user}"
            (await client.put(stream, json={"model": "taste"})).raise_for_status()
            rated: list[int] = []
            for wanted, means in lists.items():
                while len(rated) < wanted:  # the user rates films, one request each
                    film = int(world.rng.integers(200))
                    body = {"inputs": [world.films[film].tolist()], "targets": [world.rating(user, film)]}
                    (await client.post(f"{stream}/feedback", json=body)).raise_for_status()
                    rated.append(film)
                unseen = range(200, 400)
                answer = await client.post(f"{stream}/predict", json={"inputs": world.films[unseen].tolist()})
                predicted = np.array(answer.raise_for_status().json()["predictions"])
                best = [unseen[place] for place in np.argsort(-predicted)[:10]]
                means.append(float(np.mean([world.rating(user, film) for film in best])))
    print("\nmean rating of the ten films that a new user is shown")
    for count, means in lists.items():
        print(f"  after {count:2} ratings: {np.mean(means):.2f} of 5")
    return {f"after_{count}": float(np.mean(means)) for count, means in lists.items()}


if __name__ == "__main__":
    with TemporaryDirectory() as made:
        main(Path(made))

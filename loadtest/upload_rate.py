"""Rows per CPU-second that uploads learn durably, beside River's models in process on the same rows, in turns.

``python -m loadtest.upload_rate --data DIR``: elec2 split over many streams, uploaded to ``POST /v1/feedback`` as
NDJSON, to a server of its own. What the server's process spends on a row (parsing, learning, committing, answering) is
set against what ``predict_one`` and ``learn_one`` spend on it.
"""

import argparse
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import polars as pl

from loadtest.server import Server, serving
from models import river_factory

FILE = "elec2.csv.gz"
TARGETS = {("ARF", 32): 20.0, ("logistic", 32): 1.0, ("ARF", 1): 15.0}
"""Least ratio of River's time a row to ours, by River's model and rows of a batch."""
PEERS = ("ARF", "logistic")
CASES = ((1_000, 32), (64, 1))
"""Streams and rows of a batch."""
PIECE_BYTES = 2**16
UPLOAD_SECONDS = 600.0


class Row(NamedTuple):
    """One labelled row."""

    values: dict[str, float]
    label: int


def rows_of(path: Path, count: int) -> list[Row]:
    """The first rows of the file."""
    frame = pl.read_csv(gzip.decompress(path.read_bytes())).head(count).drop("stream", "t")
    return [
        Row({name: value for name, value in row.items() if name != "label"}, int(row["label"]))
        for row in frame.to_dicts()
    ]


def river_seconds(model: Any, rows: Sequence[Row]) -> float:
    """CPU seconds of predicting and learning every row, one by one."""
    began = time.thread_time()
    for row in rows:
        model.predict_one(row.values)
        model.learn_one(row.values, row.label)
    return time.thread_time() - began


def body_of(rows: Sequence[Row], features: Sequence[str], streams: int, turn: str) -> bytes:
    """Rows dealt to streams in turn, one a line."""
    lines = [
        json.dumps(
            {
                "stream": f"{turn}-{number % streams}",
                "model": "elec2",
                "input": [row.values[name] for name in features],
                "target": row.label,
            }
        )
        for number, row in enumerate(rows)
    ]
    return "\n".join(lines).encode()


def uploaded_seconds(client: httpx.Client, server: Server, body: bytes, batch: int) -> tuple[float, float]:
    """CPU seconds of the server and seconds of one upload, of which every row has to be learned."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), PIECE_BYTES):
            yield body[start : start + PIECE_BYTES]

    before, began = server.cpu_seconds(), time.perf_counter()
    answer = client.post(
        f"/v1/feedback?batch={batch}", content=pieces(), headers={"content-type": "application/x-ndjson"}
    )
    took = time.perf_counter() - began
    total = json.loads(answer.text.splitlines()[-1])
    if not total.get("done"):
        raise SystemExit(f"the upload ended early: {answer.text.splitlines()[-1]}")
    return server.cpu_seconds() - before, took


@contextmanager
def trained(data: Path, algorithm: str, budget: float) -> Iterator[Path]:
    """A model of the first 30% of elec2."""
    with tempfile.TemporaryDirectory(prefix="acclimate-upload-") as folder:
        out = Path(folder) / "elec2.safetensors"
        words = [str(Path(sys.executable).with_name("acclimate")), "train", "--data", str(data / FILE)]
        words += ["--target", "label", "--stream-column", "stream", "--time-column", "t", "--rows", "0:0.3"]
        words += ["--algorithm", algorithm, "--budget", str(budget), "--out", str(out)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command
        yield out


def measured(model: Path, rows: Sequence[Row], rounds: int) -> list[dict[str, Any]]:
    """Every case on one server, beside River, in turns."""
    found = []
    environ = {"OMP_NUM_THREADS": "1"}
    with (
        serving(["--model", f"elec2={model}"], environ) as server,
        httpx.Client(base_url=server.url, trust_env=False, timeout=UPLOAD_SECONDS) as client,
    ):
        described = client.get("/v1/models/elec2").json()
        features = [feature["name"] for feature in described["features"]]
        for streams, batch in CASES:
            used = rows if batch > 1 else rows[: len(rows) // 4]
            turns: list[dict[str, float]] = []
            for turn in range(rounds):
                name = f"{batch}-{turn}"
                uploaded_seconds(client, server, body_of(used[:streams], features, streams, name), 1)  # creates them
                cpu, wall = uploaded_seconds(client, server, body_of(used, features, streams, name), batch)
                peers = {peer: river_seconds(river_factory("classification", peer, 1)(), used) for peer in PEERS}
                turns.append({"cpu": cpu, "wall": wall, **peers})
            found.append(_result(streams, batch, len(used), turns))
            print(*lines(found[-1]), sep="\n", flush=True)
    return found


def _result(streams: int, batch: int, rows: int, turns: Sequence[dict[str, float]]) -> dict[str, Any]:
    micro = {key: 1e6 * statistics.median(turn[key] for turn in turns) / rows for key in turns[0]}
    ratios = {key: [turn[key] / turn["cpu"] for turn in turns] for key in PEERS}
    return {"streams": streams, "batch": batch, "rows": rows, "micro": micro, "ratios": ratios}


def lines(result: dict[str, Any]) -> list[str]:
    """A case as rows of the table, one a peer."""
    micro, batch = result["micro"], result["batch"]
    return [
        f"| {result['streams']:,} streams, batches of {batch} | {micro['cpu']:.1f} | {1e6 / micro['wall']:,.0f} | "
        f"{peer} {micro[peer]:.1f} | {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) | "
        f"{TARGETS.get((peer, batch), '-')} |"
        for peer, ratios in result["ratios"].items()
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table; exit code 1 if a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.upload_rate", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {FILE}")
    parser.add_argument("--algorithm", nargs="*", default=["bayes_head", "auto"], help="models to train and serve")
    parser.add_argument("--model", type=Path, help="bundle of elec2 to serve instead")
    parser.add_argument("--budget", type=float, default=1.0, help="minutes of training (default: %(default)g)")
    parser.add_argument("--rows", type=int, default=32_000, help="rows that are uploaded (default: %(default)d)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (default: %(default)d)")
    parser.add_argument("--json", type=Path, default=Path("build/upload_rate.json"), help="file for all figures")
    given = parser.parse_args(arguments)
    rows = rows_of(given.data / FILE, given.rows)
    results, missed = [], []
    for name in [str(given.model)] if given.model else given.algorithm:
        print(f"\n{name}\n\n| uploaded | CPU µs a row | rows/s | River, CPU µs a row | ratio (range) | target |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
        if given.model:
            cases = measured(given.model, rows, given.rounds)
        else:
            with trained(given.data, name, given.budget) as model:
                cases = measured(model, rows, given.rounds)
        results.append({"model": name, "cases": cases})
        missed += [
            f"{name}, batches of {case['batch']}, {peer}"
            for case in cases
            for peer, ratios in case["ratios"].items()
            if statistics.median(ratios) < TARGETS.get((peer, case["batch"]), 0.0)
        ]
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps({"cores": os.cpu_count(), "models": results}, indent=1) + "\n", encoding="utf-8")
    if missed:
        raise SystemExit(f"below target: {'; '.join(missed)}")


if __name__ == "__main__":
    main()

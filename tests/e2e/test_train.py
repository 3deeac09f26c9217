"""The real process of ``acclimate train``: Ctrl-C leaves a bundle and a checkpoint, and --resume goes on."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from models import Engine, read_bundle
from tests.models.examples import write_rows

INTERRUPTED = (
    "import signal, sys\n"
    "from models import journal\n"
    "from service.cli import main\n"
    "keep = journal.Journal.keep\n"
    "def stopping(self, checkpoint, *, last=False):\n"
    "    keep(self, checkpoint, last=last)\n"
    "    if checkpoint.iteration == 1 and not last:\n"
    "        print('now', flush=True)\n"
    "        sys.stdin.readline()\n"
    "journal.Journal.keep = stopping\n"
    "main()\n"
)
"""The command, which says when it has done a stage's first iteration, and waits there to be interrupted."""


def words(folder: Path, *more: str) -> list[str]:
    """A short training on a small file."""
    stated = ["--target", "y", "--stream-column", "shop", "--time-column", "t", "--lag-target", "1", "--budget", "0.1"]
    return ["train", "--data", str(folder / "rows.csv"), *stated, "--out", str(folder / "m.safetensors"), *more]


def test_ctrl_c_leaves_a_bundle_and_resume_ends_the_training(tmp_path: Path) -> None:
    """A real SIGINT: exit code 0, a bundle that predicts, a checkpoint; afterwards the bundle alone."""
    write_rows(tmp_path / "rows.csv", 300, 2)
    bundle, checkpoint = tmp_path / "m.safetensors", tmp_path / "m.safetensors.checkpoint"
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *words(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                said += line
                if line == "now\n":
                    break
            process.send_signal(signal.SIGINT)
            said_after, failed = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 0, said + said_after + failed
    assert "stopped early" in said_after, (said, said_after, failed)
    assert "--resume" in said_after
    assert checkpoint.exists()
    stopped = Engine(read_bundle(bundle)).predict_initial(np.zeros((1, 2))).predictions
    resumed = subprocess.run(
        [sys.executable, "-m", "service.cli", *words(tmp_path, "--resume")],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert resumed.returncode == 0, resumed.stderr
    assert "0 finished stages, 1 meta-iterations" in resumed.stdout
    assert "stopped early" not in resumed.stdout
    assert not checkpoint.exists()
    assert not list(tmp_path.glob("*.partial"))
    assert Engine(read_bundle(bundle)).predict_initial(np.zeros((1, 2))).predictions != stopped

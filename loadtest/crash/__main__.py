"""``python -m loadtest.crash --cycles N``: kill the server N times under load and check what it promised."""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from loadtest.crash.run import Options, Report, run
from loadtest.server import ServerError


def main() -> int:
    """Exit code 0 if nothing acknowledged was lost, doubled or changed; 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m loadtest.crash", description=__doc__)
    parser.add_argument("--cycles", type=int, default=20, help="how often the server is killed (20)")
    parser.add_argument("--streams", type=int, default=8, help="streams fed at the same time (8)")
    parser.add_argument("--seed", type=int, default=0, help="decides operations and moments (0)")
    parser.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="NAME=FILE",
        help="bundle to serve, repeatable (those that ship)",
    )
    given = parser.parse_args()
    arguments = tuple(word for model in given.model for word in ("--model", model))
    with tempfile.TemporaryDirectory(prefix="acclimate-crash-") as directory:
        try:
            report = asyncio.run(
                run(Options(given.cycles, given.streams, given.seed, arguments=arguments), Path(directory))
            )
        except ServerError as error:
            print(error, file=sys.stderr)
            return 1
    print(summary(report))
    return 1 if report.violations else 0


def summary(report: Report) -> str:
    """The report as text."""
    lines = [
        f"{report.kills} kills, {report.operations} changes acknowledged, {report.predictions} predictions answered",
        f"{report.unanswered} changes were under way at a kill, {report.survived} of them were committed",
        f"slowest start {max(report.restart_seconds):.1f} s",
        f"predictions differ from the run without kills by at most {report.worst_difference:.2g} of their size",
        *(f"VIOLATION {each}" for each in report.violations),
        "FAILED" if report.violations else "nothing acknowledged was lost, doubled or changed",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

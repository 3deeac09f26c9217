"""Examples that stand below the help of each command; the tests parse all of them."""

from collections.abc import Mapping
from types import MappingProxyType

EXAMPLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "train": (
            "acclimate train --data rides.csv --target rides --stream-column shop --time-column hour --rows 0:0.5",
            "acclimate train --data till-1.csv till-2.csv --target sold --delay 24 --budget 10 --out tills.safetensors",
            "acclimate train --continue rides.safetensors --data export.parquet --out rides-2.safetensors",
        ),
        "evaluate": (
            "acclimate evaluate rides.safetensors --data rides.csv --score-rows 0.5: --plot rides.png",
            "acclimate evaluate rides.safetensors --data rides.csv --compare --json rides.json",
        ),
        "serve": (
            "acclimate serve",
            "acclimate serve --model rides=rides.safetensors --data-dir var --workers 4",
            "acclimate serve --model rides=rides-2.safetensors --activate",
        ),
        "replay": (
            "acclimate replay --data rides.csv --url http://127.0.0.1:8000 --model rides",
            "acclimate replay --data rides.csv --url http://127.0.0.1:8000 --model rides --delay 24 --rate 50",
        ),
        "inspect": (
            "acclimate inspect rides.safetensors",
            "acclimate inspect rides.safetensors --json",
        ),
        "reshard": ("acclimate reshard --data-dir var --shards 4",),
        "migrate-store": ("acclimate migrate-store --data-dir var --to postgresql://acclimate@db.example/streams",),
        "export": ("acclimate export --data-dir var --model rides --since 2026-01-31 --out rides.parquet",),
        "backup": ("acclimate backup --data-dir var --to backups/monday",),
        "restore": ("acclimate restore --from backups/monday --data-dir restored",),
        "fsck": (
            "acclimate fsck --data-dir var",
            "acclimate fsck --data-dir var --json",
        ),
        "doctor": ("acclimate doctor --data-dir var",),
        "keys create": ("acclimate keys create --tenant shop --scope feedback --note 'till 3' --data-dir var",),
        "keys list": ("acclimate keys list --data-dir var --json",),
        "keys bootstrap": ("acclimate keys bootstrap var/bootstrap.key",),
        "keys revoke": ("acclimate keys revoke 3f9c0d21ab4e --data-dir var",),
    }
)
"""By command."""


def examples(command: str, *more: str) -> str:
    """What stands below a command's help: its examples, then further paragraphs."""
    return "\n\n".join(("Examples:", *EXAMPLES[command], *more))

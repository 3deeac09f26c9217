"""One of several worker processes, ``python -m service.worker``; the supervisor tells it all on its standard input."""

import sys
from importlib import import_module

from service.allocator import keep_freed_memory


def main() -> None:
    """Settle how memory is kept, then load everything else and work."""
    keep_freed_memory()
    sys.exit(import_module("service.working").main())


if __name__ == "__main__":
    main()

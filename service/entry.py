"""The command ``acclimate``: settles how memory is kept, then loads everything else, of which some begins threads."""

from importlib import import_module

from service.allocator import keep_freed_memory


def main() -> None:
    """Entry point."""
    keep_freed_memory()
    import_module("service.cli").main()


if __name__ == "__main__":
    main()

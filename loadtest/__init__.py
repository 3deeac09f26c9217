"""Runs against a live server: open-loop load, crashes, benchmarks. Each is a command, ``python -m loadtest…``."""

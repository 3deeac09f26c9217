"""The pictures of docs/concepts.md. Each module has ``draw()``; ``make pictures`` writes them to docs/images."""

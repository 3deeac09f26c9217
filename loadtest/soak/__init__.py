"""A server under mixed traffic for a long time: memory, descriptors and threads have to stay as they are."""

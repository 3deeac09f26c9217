"""The service: HTTP, durable state and the command line around the learning core ``models``."""

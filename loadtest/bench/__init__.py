"""All scenarios against a server of one's own, in units of a bare FastAPI route, beside the last run."""

"""Kill the server with SIGKILL under load, again and again, and compare with a run that was never killed."""

"""Clients that mean harm, beside one that does not: what it waits, what the server holds, when sockets are closed."""

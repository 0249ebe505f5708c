"""Real sockets: everything that does I/O."""

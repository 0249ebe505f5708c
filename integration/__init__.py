"""Tests against real servers and real clients; see the README beside this file."""

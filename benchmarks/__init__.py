"""How near socksy comes to what is possible; see docs/performance.md."""

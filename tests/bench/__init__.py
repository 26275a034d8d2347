"""Measuring; docs/performance.md says how and what came out."""

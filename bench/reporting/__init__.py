"""Shared by all measurements: terminal, files, statistics, plots, errors."""

"""The demonstration: a load that operators start and stop, and workers that they kill."""

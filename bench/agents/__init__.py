"""Agents and chatters on the same instances: what it is worth to schedule calls as thoughts."""

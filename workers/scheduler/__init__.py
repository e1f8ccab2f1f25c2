"""The scheduler plugin for vLLM: ``scheduler_cls="workers.scheduler.PhaseScheduler"``."""

from workers.scheduler.plugin import PhaseAsyncScheduler, PhaseScheduler

__all__ = ["PhaseAsyncScheduler", "PhaseScheduler"]

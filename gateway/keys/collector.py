"""Metrics of API keys, read at each scrape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.keys.keys import Keys
from gateway.store import KeyLimits

_KEY = ["key", "name"]
_LIMITS = [field.name for field in fields(KeyLimits)]


class KeyCollector(Collector):
    """What is used with each stored key that is valid."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        requests = CounterMetricFamily(
            "pascal_key_requests", "Requests of an API key that an engine took", labels=_KEY
        )
        tokens = CounterMetricFamily(
            "pascal_key_tokens", "Tokens that an API key has used", labels=[*_KEY, "kind"]
        )
        running = GaugeMetricFamily(
            "pascal_key_responses_running",
            "Responses of an API key that are being generated",
            labels=_KEY,
        )
        refused = CounterMetricFamily(
            "pascal_key_refused",
            "Requests that were refused at a limit of their API key",
            labels=[*_KEY, "limit"],
        )
        for key, used, now_running in self._keys.uses():
            labels = [key.key_id, key.name]
            requests.add_metric(labels, used.requests)
            tokens.add_metric([*labels, "prompt"], used.prompt_tokens)
            tokens.add_metric([*labels, "output"], used.output_tokens)
            running.add_metric(labels, now_running)
            for limit in _LIMITS:
                refused.add_metric([*labels, limit], self._keys.refused[key.key_id, limit])
        yield from (requests, tokens, running, refused)

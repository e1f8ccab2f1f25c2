"""Exchanges the policy of all instances, and the rule at the phase boundary, while they serve.

A worker changes its policy between two steps, and its requests stay where they are. The exchange
also holds for instances that join later. The rule is the gateway's own: the next request at its
boundary meets the new one. Both end with the gateway: then the settings hold again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import structlog

from gateway.policy.placement import BOUNDARY_RULES
from gateway.routing.chooser import Chooser
from gateway.routing.instance import Instance
from gateway.routing.members import Members
from workers.messages import PolicySet, SetPolicy

log = structlog.get_logger()

_ANSWER_S = 5.0  # for all workers; a step of a large prompt takes a second


class Policies:
    """What the instances schedule by, and what an operator has asked for."""

    def __init__(self, members: Members) -> None:
        self.wanted: str | None = None  # None: what each worker's settings say
        self.on_set: Callable[[], None] = lambda: None  # called after each choice
        self._members = members
        self._changed = asyncio.Event()

    def set(self, policy: str) -> None:
        """Have all instances schedule by this policy."""
        log.info("policy_wanted", policy=policy, before=self.wanted)
        self.wanted = policy
        for instance in self._members.open.values():
            self.tell(instance)
        self.on_set()

    def tell(self, instance: Instance) -> None:
        """Have one instance schedule by the policy that is wanted, if it does not yet."""
        instance.policy_error = None
        current = instance.policy_asked or instance.policy
        if self.wanted is not None and current != self.wanted:
            instance.policy_asked = self.wanted
            instance.link.send(SetPolicy(policy=self.wanted))

    def answered(self, instance: Instance, message: PolicySet) -> None:
        """A worker has changed its policy, or says why not."""
        if message.error is None:
            instance.policy = message.policy
        if message.policy == instance.policy_asked:
            instance.policy_asked, instance.policy_error = None, message.error
        instance.log.info("policy_answered", policy=message.policy, error=message.error)
        self._changed.set()

    async def settled(self) -> None:
        """Return once every instance has answered, or after some seconds."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                while any(one.policy_asked is not None for one in self._members.open.values()):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            log.warning("policy_not_answered")

    def describe(self) -> dict[str, Any]:
        """The policies, as the API shows them."""
        return {
            "policy": self.wanted,
            "instances": [
                {
                    "id": name,
                    "policy": instance.policy,
                    "pending": instance.policy_asked is not None,
                    "error": instance.policy_error,
                }
                for name, instance in sorted(self._members.open.items())
            ],
        }


class Boundary:
    """The rule that decides whether a request moves when it begins to answer."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser = chooser
        self.configured = chooser.rules.boundary
        self.on_set: Callable[[], None] = lambda: None  # called after each choice

    @property
    def rule(self) -> str:
        """The rule in force."""
        return self._chooser.rules.boundary

    def set(self, rule: str) -> None:
        """Decide by this rule from now on. Requests that are on their way go on."""
        log.info("boundary_wanted", boundary=rule, before=self.rule)
        self._chooser.rules = replace(self._chooser.rules, boundary=rule)
        self.on_set()

    def describe(self) -> dict[str, Any]:
        """The rule, as the API shows it."""
        return {
            "boundary": self.rule,
            "configured": self.configured,
            "boundaries": list(BOUNDARY_RULES),
        }

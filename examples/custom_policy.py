"""A scheduling policy: of the requests that wait, the one with the shortest prompt goes first.

pascal simulate run --policy examples.custom_policy:shortest_prompt,fcfs --rate 4 --instances 2
pascal serve --policy examples.custom_policy:shortest_prompt
"""

from collections.abc import Sequence

from workers.policy.make_room import make_room
from workers.policy.settings import PolicySettings
from workers.policy.view import Decision, Memory, RequestView


def shortest_prompt(
    settings: PolicySettings, requests: Sequence[RequestView], memory: Memory, now: float
) -> Decision:
    """Running requests keep their memory; waiting ones are admitted by length."""

    def place(request: RequestView) -> tuple[bool, int, int]:
        # A waiting request has computed nothing yet, so its next step needs the whole prompt.
        return not request.running, request.tokens_needed, request.arrival

    order = sorted(requests, key=place)
    preempt, admit = make_room(settings, order, memory, displaces=lambda waiting, running: False)
    return Decision(tuple(request.request_id for request in order), preempt, admit)

"""Has the engine try the structure of a request before it is queued, and names what is wrong.

A structure comes from the client, or is made of the tools and their schemas. Knows no grammar.
"""

from __future__ import annotations

import json
import time
from typing import Any

from workers.engine.interface import Engine
from workers.errors import RequestRejected
from workers.messages import Structure, Submit
from workers.policy.phase import Phase

_NAMING_S = 5.0  # for finding the tool that is to blame


async def check_structure(
    engine: Engine, structure: Structure | None, submit: Submit, began: Phase
) -> None:
    """Try the structure of a request.

    :param structure: for the engine.
    :param began: phase of the first token of the output.
    :raises RequestRejected: it cannot be compiled; names the structure, or a tool.
    """
    if structure is None:
        return
    if submit.structure is not None:
        await engine.check_structure(submit.structure, began)
    if structure is submit.structure:
        return
    try:
        await engine.check_structure(structure, began)
    except RequestRejected as rejection:
        param = await _to_blame(engine, submit, began)
        raise RequestRejected(rejection.code, rejection.message, param) from rejection


async def _to_blame(engine: Engine, submit: Submit, began: Phase) -> str:
    """The parameters by which no grammar can be made; "tools": none alone, or too many to try."""
    last_s = time.monotonic() + _NAMING_S
    choice = submit.tool_choice
    for index, tool in enumerate(submit.tools):
        if time.monotonic() > last_s:
            break
        function: dict[str, Any] = tool["function"]
        # The grammars of some formats leave the arguments of other tools to the model.
        bound = function.get("strict") or choice.name == function["name"]
        if not bound or not function.get("parameters"):
            continue
        part = {"type": "json_schema", "json_schema": function["parameters"]}
        tag = json.dumps({"type": "structural_tag", "format": part})
        try:
            await engine.check_structure(Structure(kind="structural_tag", value=tag), began)
        except RequestRejected:
            return f"tools[{index}].function.parameters"
    return "tools"

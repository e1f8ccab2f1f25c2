"""Tools for the embedded model: their definitions, and tasks that need them, or do not.

    from models.tools import draw_task, draw_toolset

Pure, like `models.problems`: every function that draws takes the `random.Random` to draw from.
"""

from models.tools.catalog import Toolset, draw_toolset
from models.tools.schema import Call, Parameter, Tool, arguments_of, system_block
from models.tools.tasks import KINDS, Task, draw_task, kinds_of

__all__ = [
    "KINDS",
    "Call",
    "Parameter",
    "Task",
    "Tool",
    "Toolset",
    "arguments_of",
    "draw_task",
    "draw_toolset",
    "kinds_of",
    "system_block",
]

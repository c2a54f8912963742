"""What every task of an event loop waits for, where, and for how long; on asyncio, uvloop and the simulated loop.

Only the standard library is needed, and a loop has to do nothing for it: `profile_tasks` reads the stacks of suspended
coroutines. How old a task is, and how long it has waited, is known exactly in a simulation; on a real loop it is known
while a `TaskAges` is started on it.
"""

from __future__ import annotations

from aiolibp2p.profile.ages import SAMPLE_SECONDS, TaskAges
from aiolibp2p.profile.reach import unwakeable
from aiolibp2p.profile.stack import Place, name_waits
from aiolibp2p.profile.tasks import TaskInfo, TaskProfile, describe_task, duration_text, profile_in_turns, profile_tasks

__all__ = [
    "SAMPLE_SECONDS",
    "Place",
    "TaskAges",
    "TaskInfo",
    "TaskProfile",
    "describe_task",
    "duration_text",
    "name_waits",
    "profile_in_turns",
    "profile_tasks",
    "unwakeable",
]

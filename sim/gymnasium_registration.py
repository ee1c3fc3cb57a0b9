"""Tells gymnasium of the arm's tasks, one id for each: forcing/Swap-v0, forcing/Push-v0, ...

gymnasium imports this module by itself when its name stands before the id:

    gymnasium.make("sim.gymnasium_registration:forcing/Swap-v0", pixels=64)

Once it is imported, `gymnasium.make("forcing/Swap-v0")` will do. Options are those of
`sim.gymnasium_environment.make_arm_task`. A new task of sim/configs/task is registered without a
line here; nothing that simulates is imported until an environment is made.
"""

from __future__ import annotations

import gymnasium

from sim.task_descriptions import arm_task_names


def gymnasium_id(task: str) -> str:
    """What gymnasium calls the arm task `task`: "moving_target" is "forcing/MovingTarget-v0"."""
    name = "".join(word.capitalize() for word in task.split("_"))
    return f"forcing/{name}-v0"


def register_arm_tasks() -> None:
    """Register every arm task that is not registered yet."""
    for task in arm_task_names():
        if gymnasium_id(task) not in gymnasium.registry:
            gymnasium.register(
                id=gymnasium_id(task),
                entry_point="sim.gymnasium_environment:make_arm_task",
                kwargs={"name": task},
            )


register_arm_tasks()  # gymnasium looks for ids after importing a module, and calls nothing in it

"""Words that newcomers type where a command or an action is expected, and what does what they say."""

COMMAND_MEANT = {
    "plot": "groundup runs plot RUN ... draws curves",
    "list": "groundup runs list",
    "compare": "groundup runs compare RUN RUN",
    "resume": "groundup train --resume runs/NAME goes on with a run",
    "continue": "groundup train --resume runs/NAME goes on with a run",
    "chat": "groundup generate runs/NAME --interactive, or groundup serve runs/NAME for a page in the browser",
    "sample": "groundup generate runs/NAME",
    "talk": "groundup generate runs/NAME --interactive",
    "convert": "groundup import SOURCE, or groundup export DIR OUT",
    "download": "groundup import hf:gpt2",
    "fine-tune": "groundup finetune MODEL TEXT",
    "new": "groundup train shakespeare, or groundup train notes/ with a text of yours",
    "start": "groundup train shakespeare, or groundup train notes/ with a text of yours",
    "delete": "a run is a folder like any other: delete runs/NAME",
    "remove": "a run is a folder like any other: delete runs/NAME",
    "ls": "groundup runs list",
    "update": "pip install --upgrade groundup",
    "--interactive": "groundup generate runs/NAME --interactive",
    "--resume": "groundup train --resume runs/NAME",
}
"""After `groundup`."""

_FOLDER = "a run is a folder like any other, which may be renamed, copied, moved and deleted"
RUNS_MEANT = {
    **dict.fromkeys(("show", "open", "info", "view"), "groundup report RUN --open"),
    **dict.fromkeys(("rm", "remove", "delete", "clean", "rename", "mv", "move", "copy", "cp"), _FOLDER),
    "resume": "groundup train --resume RUN",
    "ls": "groundup runs list",
    "diff": "groundup runs compare RUN RUN",
    "export": "groundup runs csv RUN ... for the numbers, groundup export RUN OUT for the model",
}
"""After `groundup runs`."""

BENCH_MEANT = {"scaling-law": "groundup scaling"}
"""After `groundup bench`."""

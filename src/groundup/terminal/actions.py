"""Commands with a second word, such as `groundup runs list`: their table, and what becomes of a wrong word."""

import difflib
import shlex
from collections.abc import Mapping, Sequence

from groundup.config.errors import UsageError


def pick_action(
    argv: Sequence[str], *, command: str, actions: Mapping[str, str], rest: str, meant: Mapping[str, str] | None = None
) -> str | None:
    """The action that the first word names; None after the table was printed, for no word or --help.

    Args:
        argv: Words after the command.
        command: The command, for messages.
        actions: Each action and what it does.
        rest: What may follow an action, for the first line of the table.
        meant: Words that are no actions, and what does what they say.

    Raises:
        UsageError: There is no such action.
    """
    if not argv or argv[0] in ("-h", "--help"):
        width = max(map(len, actions)) + 2
        rows = [f"  {name:<{width}}{what}" for name, what in actions.items()]
        print("\n".join([f"usage: groundup {command} {'|'.join(actions)} {rest}", "", *rows]))
        return None
    if argv[0].startswith("-") and (later := next((word for word in argv if word in actions), None)):
        words = ["groundup", command, later, *(word for word in argv if word != later)]
        raise UsageError(f"the action comes first: {shlex.join(words)}")
    if argv[0] not in actions:
        near = difflib.get_close_matches(argv[0], actions, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(actions)}"
        raise UsageError(f"unknown action {argv[0]!r}; {(meant or {}).get(argv[0], hint)}")
    return argv[0]

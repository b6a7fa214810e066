"""What to do with a run folder that is already there: never overwrite it."""

from pathlib import Path


def set_aside(run_dir: Path) -> Path | None:
    """Rename an earlier run out of the way.

    Returns:
        Where it is now (`runs/name.1`, the next free number), or None if there was nothing.
    """
    if not run_dir.exists():
        return None
    number = 1
    while (target := run_dir.with_name(f"{run_dir.name}.{number}")).exists():
        number += 1
    run_dir.rename(target)
    return target

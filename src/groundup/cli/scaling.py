"""groundup scaling: train one recipe at several sizes, fit a law through their losses, draw it."""

import json
from collections.abc import Sequence

from groundup.files.new import check_paths
from groundup.studies.options import ScalingLawOptions
from groundup.terminal.absent import refuse_absent
from groundup.terminal.parse import parse
from groundup.terminal.say import say


def main(argv: Sequence[str]) -> int:
    """Train, fit, draw; the last line is one JSON object."""
    options = parse(ScalingLawOptions, argv, prog="groundup scaling")
    check_paths(options, made={"out": True})
    refuse_absent(options.device)
    from groundup.terminal.working import Working

    with Working("loading PyTorch") as working:
        from groundup.runtime.device import pick_device
        from groundup.runtime.facts import machine_facts, signed
        from groundup.studies.scaling_law import study

        machine = machine_facts(pick_device(options.device))  # before all else: the device may not be there
        working.doing("training, a line for each model that is done")
        result = study(options, say, machine=machine)
    print(json.dumps(signed(result, ["groundup", "scaling", *argv]), ensure_ascii=False))
    return 0

"""A preparation on a Ray cluster: any machines that share the folder and have groundup installed."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from groundup.config.errors import UserError
from groundup.prepare.executors import Call, Executor

AHEAD = 2
"""Calls handed to the cluster per processor: enough that none waits, few enough that little is lost on an error."""


def run_ray(address: str | None = None) -> Executor:
    """An executor on a Ray cluster. A call whose worker dies is made again elsewhere, up to three times.

    Args:
        address: Of the cluster's head; None takes RAY_ADDRESS or a running cluster of this machine, and starts a
            cluster on this machine where there is none.
    """
    return functools.partial(_run_ray, address)


def _run_ray(address: str | None, function: Callable[..., Any], calls: Sequence[Call]) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs Ray: pip install 'groundup[ray]'") from None
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False, configure_logging=False, include_dashboard=False)
        except (ConnectionError, ValueError) as error:
            raise UserError(f"cannot reach the Ray cluster at {address}: {error}") from error
    try:
        yield from _submit(ray, function, calls)
    finally:
        if ours:
            ray.shutdown()


def _submit(ray: Any, function: Callable[..., Any], calls: Sequence[Call]) -> Iterator[Any]:
    remote = ray.remote(max_retries=3)(_call)
    shared = ray.put(function)  # sent once to each machine
    most = AHEAD * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(calls)
    pending: dict[Any, Call] = {}
    while True:
        while len(pending) < most and (call := next(waiting, None)) is not None:
            pending[remote.remote(shared, *call)] = call
        if not pending:
            return
        done, _ = ray.wait(list(pending), num_returns=1)
        call = pending.pop(done[0])
        try:
            yield ray.get(done[0])
        except ray.exceptions.RayTaskError as error:
            cause = error.cause
            raise cause if isinstance(cause, UserError) else error from None
        except ray.exceptions.RayError as error:
            did = ", ".join(map(str, call))
            raise UserError(
                f"the Ray cluster lost the work at {did}: {type(error).__name__}; run the command again"
            ) from error


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)

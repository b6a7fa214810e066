"""Where a small model trains faster: on the GPU that is there, or on the processor beside it."""

import torch

from groundup.config.model import GPTConfig, ModernConfig
from groundup.model.build import build_model
from groundup.model.init import init_weights
from groundup.model.loss import LossModule
from groundup.planner.params import count_parameters
from groundup.runtime.device import device_name
from groundup.runtime.remember import machine_id, remembered
from groundup.runtime.timing import fastest

SMALL = 4_000_000
"""Parameters up to which a GPU may lose: starting its kernels takes longer than their work."""
MOST_SEQUENCES = 32
"""What is timed has at most so many, and is over in a second."""
CPU = torch.device("cpu")


def faster_device(gpu: torch.device, shape: GPTConfig | ModernConfig, *, samples: int) -> torch.device:
    """The GPU, or the processor where a step of a small model is measured to be faster there.

    Measured once per machine, model and number of sequences, and remembered.

    Args:
        gpu: What `auto` would take.
        shape: The model's, with its vocabulary.
        samples: Sequences per step.
    """
    if gpu.type == "cpu" or count_parameters(shape) > SMALL:
        return gpu
    n = min(samples, MOST_SEQUENCES)
    where = f"{machine_id()} {device_name(gpu)}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    size = f"{shape.kind} {shape.n_layer} x {shape.n_embd}, {shape.vocab_size} ids, {n} x {shape.block_size} tokens"

    def measure() -> str:
        return min((gpu, CPU), key=lambda device: step_seconds(device, shape, n)).type

    return torch.device(remembered("devices.json", f"{where}: {size}", (gpu.type, "cpu"), measure))


def step_seconds(device: torch.device, shape: GPTConfig | ModernConfig, samples: int) -> float:
    """Seconds of forward and backward, in float32."""
    model = build_model(shape)
    init_weights(model, seed=0)
    loss = LossModule(model.to(device))
    idx = torch.zeros((samples, shape.block_size), dtype=torch.long, device=device)

    def step() -> None:
        loss(idx, idx).backward()
        loss.zero_grad(set_to_none=True)

    return fastest(step, device)

"""Which device a model goes to: a pure choice over facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

CPU = "cpu"
_GPU_HEADROOM = 0.8
"""A model is only put on a GPU that it fills to at most this share of what is free, as in Ollama:
estimates are rough, and running out of GPU memory kills the worker.
"""


class Device(msgspec.Struct, frozen=True):
    """``id`` is :data:`CPU` or a GPU's UUID; ``free_bytes`` what our own workers leave of it."""

    id: str
    free_bytes: int
    index: int = -1


def choose(
    devices: Sequence[Device],
    need_bytes: int,
    *,
    reserved: Mapping[str, int] | None = None,
    main_gpu: int | None = None,
    wants_cpu: bool = False,
) -> Device | None:
    """The GPU with most room among those that fit, else the CPU, else None.

    ``reserved`` are bytes promised to loads under way. ``main_gpu`` pins an index; ``wants_cpu``
    (``num_gpu: 0``) forbids GPUs. A pinned GPU that is too small gives None, not another device.
    """
    taken = reserved or {}

    def room(device: Device) -> int:
        free = device.free_bytes - taken.get(device.id, 0)
        return int(free * _GPU_HEADROOM) if device.id != CPU else free

    gpus = [] if wants_cpu else [device for device in devices if device.id != CPU]
    if main_gpu is not None and gpus:
        gpus = [device for device in gpus if device.index == main_gpu]
        fitting = [device for device in gpus if room(device) >= need_bytes]
        return fitting[0] if fitting else None
    fitting = [device for device in gpus if room(device) >= need_bytes]
    if fitting:
        return max(fitting, key=room)
    cpus = (device for device in devices if device.id == CPU)
    return next((device for device in cpus if room(device) >= need_bytes), None)

"""Which devices may hold a model, and how much of each: pure choices over facts."""

from __future__ import annotations

from collections.abc import Iterable

from ollama_async.hw.gpus import Gpu
from ollama_async.hw.machine import Machine

CPU = "cpu"
_GPU_SHARE = 0.8
"""A GPU is filled to at most this share of what is free, as in Ollama: estimates are rough, and
running out of GPU memory kills the worker.
"""
_CPU_SHARE = 0.95


def capacity(machine: Machine, *, gpu_overhead_bytes: int = 0) -> dict[str, int]:
    """Bytes for models on each device: a GPU by its UUID, and :data:`CPU`."""
    rooms = {
        gpu.uuid: max(0, int((gpu.free_bytes - gpu_overhead_bytes) * _GPU_SHARE))
        for gpu in machine.gpus
    }
    rooms[CPU] = int(machine.host.available_bytes * _CPU_SHARE)
    return rooms


def rank(gpus: Iterable[Gpu], *, num_gpu: int | None, main_gpu: int | None) -> list[str]:
    """Devices to try, best first: GPUs with most free memory first, the CPU last.

    ``num_gpu`` 0 means the CPU alone. ``main_gpu`` pins one GPU by index; if it does not exist the
    list is empty, never another device. On a machine without GPUs neither means anything: clients
    send both as a matter of course.
    """
    gpus = list(gpus)
    if num_gpu == 0 or not gpus:
        return [CPU]
    if main_gpu is not None:
        return [gpu.uuid for gpu in gpus if gpu.index == main_gpu]
    by_room = sorted(gpus, key=lambda gpu: gpu.free_bytes, reverse=True)
    return [*(gpu.uuid for gpu in by_room), CPU]

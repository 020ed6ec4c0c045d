"""NVIDIA GPUs as NVML reports them. Without a driver or the library there are none."""

from __future__ import annotations

import msgspec
import pynvml


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """``uuid`` is what ``CUDA_VISIBLE_DEVICES`` takes; memory as of this moment."""

    index: int
    uuid: str
    memory_bytes: int
    free_bytes: int


def list_gpus() -> list[Gpu]:
    """Every GPU in NVML's order, without those that cannot be queried.

    Blocks for tens of milliseconds if there is a driver: do not call it on the event loop.
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = (_describe(index) for index in range(pynvml.nvmlDeviceGetCount()))
        return [gpu for gpu in found if gpu is not None]
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def select_visible(gpus: list[Gpu], selection: str | None) -> list[Gpu]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` selects: indices or UUID prefixes up to the first
    entry that matches no GPU, as CUDA reads it. None: all.
    """
    if selection is None:
        return gpus
    chosen: list[Gpu] = []
    for word in (part.strip() for part in selection.split(",")):
        found = next((gpu for gpu in gpus if _is_named(gpu, word)), None)
        if found is None:
            break
        chosen.append(found)
    return chosen


def _is_named(gpu: Gpu, word: str) -> bool:
    return word == str(gpu.index) if word.isdigit() else bool(word) and gpu.uuid.startswith(word)


def _describe(index: int) -> Gpu | None:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        uuid = pynvml.nvmlDeviceGetUUID(handle)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        return Gpu(
            index=index,
            uuid=uuid.decode() if isinstance(uuid, bytes) else uuid,
            memory_bytes=int(memory.total),
            free_bytes=int(memory.free),
        )
    except pynvml.NVMLError:
        return None

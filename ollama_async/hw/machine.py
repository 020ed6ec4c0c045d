"""The machine at one moment: host and GPUs together."""

from __future__ import annotations

import msgspec

from ollama_async.hw.gpus import Gpu, list_gpus, visible
from ollama_async.hw.host import Host, survey_host


class Machine(msgspec.Struct, frozen=True):
    host: Host
    gpus: tuple[Gpu, ...] = ()


def survey(visible_devices: str | None = None) -> Machine:
    """Look at everything now. Blocks for tens of milliseconds where a GPU driver answers.

    ``visible_devices`` is the operator's ``CUDA_VISIBLE_DEVICES``, which NVML does not heed.
    """
    return Machine(survey_host(), tuple(visible(list_gpus(), visible_devices)))

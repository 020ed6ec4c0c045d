"""The machine at one moment: host and GPUs together."""

from __future__ import annotations

import msgspec

from ollama_async.hw.gpus import Gpu, list_gpus
from ollama_async.hw.host import Host, survey_host


class Machine(msgspec.Struct, frozen=True):
    host: Host
    gpus: tuple[Gpu, ...] = ()


def survey() -> Machine:
    """Look at everything now. Blocks for tens of milliseconds where a GPU driver answers."""
    return Machine(survey_host(), tuple(list_gpus()))

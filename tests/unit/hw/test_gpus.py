"""GPUs are listed through the real NVML binding, with its C calls replaced."""

from types import SimpleNamespace

import pynvml
import pytest

from ollama_async.hw.machine import Gpu, list_gpus, select_visible, survey_machine


@pytest.fixture
def two_gpus(monkeypatch):
    """A driver with two GPUs, the second of which has fallen off the bus."""
    for name in ("nvmlInit", "nvmlShutdown"):
        monkeypatch.setattr(pynvml, name, lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)

    def handle(index):
        if index == 1:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        return index

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", handle)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetMemoryInfo", lambda _: SimpleNamespace(total=100, free=60)
    )
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", lambda _: b"GPU-1")


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_cannot_be_queried_are_omitted():
    assert list_gpus() == [Gpu(index=0, uuid="GPU-1", memory_bytes=100, free_bytes=60)]


def test_a_machine_without_a_driver_has_no_gpus(monkeypatch):
    def refuse():
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", refuse)

    assert survey_machine().gpus == ()


@pytest.mark.parametrize(
    ("selection", "indices"),
    [(None, [0, 1, 2]), ("", []), ("2,0", [2, 0]), ("GPU-1", [1]), ("1,9,0", [1]), ("-1", [])],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(selection, indices):
    gpus = [Gpu(index=n, uuid=f"GPU-{n}abc", memory_bytes=1, free_bytes=1) for n in range(3)]

    assert [gpu.index for gpu in select_visible(gpus, selection)] == indices

"""What is made of the library's log: sizes of buffers, and warnings."""

import pytest

from ollama_async.workers.child.engines.llama_model import LogCapture

INFO, WARN = 2, 3


@pytest.mark.engine
@pytest.mark.parametrize(
    ("buffer", "on_device"),
    [
        ("CPU", False),
        ("CPU_Mapped", False),
        ("CPU_REPACK", False),
        ("AMX", False),  # the tile unit of Intel's processors: a layout, not a device
        ("CUDA_Host", False),
        ("CUDA0", True),
        ("Vulkan1", True),
    ],
)
def test_a_buffer_is_on_an_accelerator_or_in_memory(buffer, on_device):
    journal = LogCapture()
    line = f"load_tensors: {buffer:>12} model buffer size =    16.00 MiB\n"
    journal.write(INFO, line.encode())
    assert journal.bytes_of("model") == 16 * 1024 * 1024
    assert journal.device_bytes() == (16 * 1024 * 1024 if on_device else 0)


@pytest.mark.engine
def test_warnings_are_passed_on_but_not_what_is_usual(capsys):
    journal = LogCapture()
    journal.write(WARN, b"llama_x: lora for 'blk.0.attn_q.weight' cannot use buft 'AMX'\n")
    journal.write(WARN, b"llama_x: something is odd\n")
    assert capsys.readouterr().err == "llama_x: something is odd\n"

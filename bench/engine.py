"""What one step of the library costs, by the shape of the step: the facts behind the batcher.

    python bench/engine.py --model q05             all tables of one model
    python bench/engine.py --model 100m --only decode

Milliseconds, the best of several steps. With one thread they are CPU time, so that other work on
the machine hardly disturbs them; with more they are wall time.
"""

from __future__ import annotations

import argparse
import ctypes
import time
from collections.abc import Callable
from typing import Any

import bare_loop  # first: it sets the environment of the library's threads
import llama_cpp.llama_cpp as lib
import models
import numpy as np
import report

FLASH = {"auto": lib.LLAMA_FLASH_ATTN_TYPE_AUTO, "off": lib.LLAMA_FLASH_ATTN_TYPE_DISABLED}
WORD = 5000  # any token


class Bench:
    """A context whose slots hold given histories, and steps of given shapes on it."""

    def __init__(self, arguments: argparse.Namespace, slots: int, **options: Any) -> None:
        self._clock = time.process_time if arguments.threads == 1 else time.perf_counter
        self._repeats = arguments.repeats
        self.library = bare_loop.Library(
            models.path_of(arguments.model), slots, threads=arguments.threads, **options
        )
        self.lengths = [0] * slots

    def fill(self, length: int, slots: int) -> None:
        """Give the first ``slots`` slots a history: evaluate it once, then copy its state."""
        library = self.library
        for slot in range(len(self.lengths)):
            library.forget(slot)
            self.lengths[slot] = 0
        random = np.random.default_rng(0)
        for start in range(0, length, 256):
            count = min(256, length - start)
            tokens = random.integers(5000, 20_000, count).tolist()
            library.decode(tokens, range(start, start + count), [0] * count, [count - 1])
        size = lib.llama_state_seq_get_size(library.context, 0)
        state = (ctypes.c_uint8 * size)()
        lib.llama_state_seq_get_data(library.context, state, size, 0)
        self.lengths[0] = length
        for slot in range(1, slots):
            lib.llama_state_seq_set_data(library.context, state, size, slot)
            self.lengths[slot] = length

    def step(self, counts: dict[int, int]) -> float:
        """Milliseconds of a step with ``counts[slot]`` tokens each; the slots are trimmed back."""
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[int] = []
        outputs: list[int] = []
        for slot, count in sorted(counts.items()):
            tokens += [WORD] * count
            positions += range(self.lengths[slot], self.lengths[slot] + count)
            slots += [slot] * count
            outputs.append(len(tokens) - 1)

        def decode() -> None:
            self.library.decode(tokens, positions, slots, outputs)
            for slot in counts:
                self.library.forget(slot, self.lengths[slot])

        return self.best(decode)

    def best(self, work: Callable[[], None]) -> float:
        times = []
        work()
        for _ in range(self._repeats):
            start = self._clock()
            work()
            times.append(self._clock() - start)
        return min(times) * 1000

    def close(self) -> None:
        self.library.close()


def decode(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One token for each of n sequences, by history, flash attention and kind of KV buffer."""
    rows: dict[tuple[int, int], dict[str, Any]] = {}
    for flash, kind in FLASH.items():
        for unified in (False, True):
            for slots in (1, 8, 32):
                bench = Bench(arguments, slots, num_ctx=1280, flash=kind, unified=unified)
                for history in (16, 256, 1024):
                    bench.fill(history, slots)
                    row = rows.setdefault((slots, history), {"rows": slots, "history": history})
                    name = f"{'unified' if unified else 'separate'}, flash {flash}"
                    row[name] = bench.step(dict.fromkeys(range(slots), 1))
                bench.close()
    return list(rows.values())


def chunks(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """A prompt chunk alone, and beside 8 and 24 decoding sequences with 256 tokens of history."""
    rows: dict[int, dict[str, Any]] = {}
    for unified in (False, True):
        bench = Bench(arguments, 32, num_ctx=1280, unified=unified)
        bench.fill(256, 24)
        kind = "unified" if unified else "separate"
        for size in (1, 16, 32, 64, 128, 256, 480):
            row = rows.setdefault(size, {"chunk": size})
            for others in (0, 8, 24):
                counts = dict.fromkeys(range(others), 1) | {others: size}
                bench.lengths[others] = 0
                bench.library.forget(others)
                row[f"{kind}, + {others}"] = bench.step(counts)
                if others < 24:
                    bench.fill(256, 24)
        bench.close()
    return list(rows.values())


def gaps(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """8 decoding slots: side by side, or with g idle slots between them, left out or bridged."""
    bench = Bench(arguments, 57, num_ctx=512)
    bench.fill(256, 57)
    rows = []
    for gap in (0, 1, 2, 3, 4, 6, 7):
        busy = range(0, 8 * (gap + 1), gap + 1)
        rows.append(
            {
                "idle between": gap,
                "left out": bench.step(dict.fromkeys(busy, 1)),
                "bridged": bench.step(dict.fromkeys(range(busy[-1] + 1), 1)),
            }
        )
    bench.close()
    return rows


def copies(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Giving a slot another's first tokens: the library's copy, through its state, computing."""
    rows = []
    for num_ctx in (1024, 4096):
        bench = Bench(arguments, 2, num_ctx=num_ctx)
        rows += [
            {"context": num_ctx, **_compare_copies(bench, length)} for length in (64, 256, 960)
        ]
        bench.close()
    return rows


def _compare_copies(bench: Bench, length: int) -> dict[str, Any]:
    library = bench.library
    bench.fill(length, 1)

    def by_library() -> None:  # the copy itself happens in the next decode
        library.forget(1)
        lib.llama_memory_seq_cp(library.memory, 0, 1, -1, -1)
        library.decode([WORD], [length], [0], [0])
        library.forget(0, length)

    def by_state() -> None:
        size = lib.llama_state_seq_get_size(library.context, 0)
        state = np.empty(size, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        lib.llama_state_seq_get_data(library.context, state, size, 0)
        lib.llama_state_seq_set_data(library.context, state, size, 1)

    copied = bench.best(by_library) - bench.step({0: 1})
    through_state = bench.best(by_state)
    library.forget(1)
    chunk = min(length, 512)
    computed = bench.step({1: chunk}) * length / chunk
    return {"prefix": length, "seq_cp": copied, "state": through_state, "computed": computed}


TABLES = {"decode": decode, "chunks": chunks, "gaps": gaps, "copies": copies}


def main() -> None:
    parser = argparse.ArgumentParser(description="Milliseconds of the library's steps.")
    parser.add_argument("--model", choices=models.SHAPES, default="100m")
    parser.add_argument("--only", choices=TABLES, action="append")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    document: dict[str, Any] = {"model": arguments.model, "threads": arguments.threads}
    for name in arguments.only or TABLES:
        document[name] = TABLES[name](arguments)
        report.table(f"{name}: {TABLES[name].__doc__}", document[name])
    print(f"\n{report.cpu_name()}\n{report.library_flags()}")
    document["library"] = report.library_flags()
    report.save(f"engine-{arguments.model}-{arguments.threads}", document)


if __name__ == "__main__":
    main()

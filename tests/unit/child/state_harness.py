"""Memory as the parent makes it, and an engine whose states are its tokens."""

import fcntl
import mmap
import os
from array import array
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np

from ollama_async.workers.child.host_prompt_cache import HostPromptCache
from ollama_async.workers.child.state_memory import DATA_OFFSET, PAGE_BYTES, StateMemory

KEY = b"k" * 32
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@contextmanager
def memfd(pages, seals=SEALS):
    fd = os.memfd_create("state-memory", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, DATA_OFFSET + pages * PAGE_BYTES)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def opened(fd, key=KEY):
    memory = StateMemory(fd, key)
    try:
        yield memory
    finally:
        memory.close()


@contextmanager
def raw(fd):
    """The bytes, as a hostile worker writes them."""
    with mmap.mmap(fd, os.fstat(fd).st_size) as mapped:
        yield mapped


class StateEngine:
    """A state has ``bytes_per_token`` for each token of the slot, and begins with their ids."""

    def __init__(self, slots=4, *, bytes_per_token=64, can_trim_restored=True):
        self.facts = SimpleNamespace(can_trim_restored=can_trim_restored)
        self.cache = [[] for _ in range(slots)]
        self.bytes_per_token = bytes_per_token
        self.refuses_to_save = False
        self.saves = 0

    def state_bytes(self, slot):
        return len(self.cache[slot]) * self.bytes_per_token

    def save(self, slot, state):
        if self.refuses_to_save:
            return False
        self.saves += 1
        state[:] = 1
        tokens = np.frombuffer(array("i", self.cache[slot]), np.uint8)
        state[: len(tokens)] = tokens
        return True

    def restore(self, slot, state, length):
        if len(state) != length * self.bytes_per_token:
            self.cache[slot] = []
            return False
        self.cache[slot] = array("i", state[: 4 * length].tobytes()).tolist()
        return True

    def is_acceptable(self, state, length):
        return len(state) == length * self.bytes_per_token

    def trim(self, slot, length):
        del self.cache[slot][length:]
        return True


@contextmanager
def prompt_cache(fd, engine=None, key=KEY):
    with opened(fd, key) as memory:
        yield HostPromptCache(engine or StateEngine(), memory)


def keep(cache, tokens, owner="", slot=0):
    cache._engine.cache[slot] = list(tokens)
    cache.keep(slot, list(tokens), owner)

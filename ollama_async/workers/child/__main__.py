"""The worker process: one model, loaded once, for as many requests as it has slots.

- Runs in: a process of its own, exec'd by :mod:`ollama_async.workers.process` as
  ``python -P -m ollama_async.workers.child --engine … --model … --num-ctx … --slots …`` with the
  descriptors of :mod:`.attach` in its argv. ``OLLAMA_ASYNC_SCRIPTS`` names the scripts of the
  scripted engine, ``OLLAMA_ASYNC_CACHE`` the folder of the library's verdict.
- Owns: the engine, its memory, and nothing on disk.
- Threads: *main* and ``heavy`` are the intake: templates, tokenizer; ``watch`` interrupts them.
  ``receive`` reads the pipe; it cancels, and ends the process on ``Quit``. ``step`` loads the
  model, runs the engine, and is the only one that sends after ``Hello``; its vitals are the proof
  that it lives. ``lifeline`` belongs to :mod:`.attach`.
- Talks to: its parent, in :mod:`ollama_async.workers.messages`; to people on stderr.
- Dies when: the parent says ``Quit`` (status 0, the engine closed if that does not take too long);
  at once by SIGTERM, which has its default action, so that it works whatever hangs; when the model
  cannot be loaded (1, after ``Refused``); with its parent; and when the engine's thread fails (70,
  after a traceback). It never unwinds: no exit handler could add anything but a reason to hang.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import msgspec

from ollama_async.workers.child.process_setup import attach
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import PROTOCOL, Hello

_SWITCH_INTERVAL_S = 0.0005
"""How long a thread may keep the interpreter from others. Between two steps the step thread needs
it for some 100 µs; rendering a prompt must not make it wait for Python's usual 5 ms each time."""


def main(argv: Sequence[str]) -> NoReturn:
    """:raises SystemExit: the argv cannot be read; the text says why."""
    attached = attach(argv)
    try:
        spec = LoadSpec.from_options(attached.options)
    except msgspec.ValidationError as reason:
        raise SystemExit(f"worker: {reason}") from None
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    attached.pipe.send([Hello(PROTOCOL, os.getpid(), attached.generation, spec.engine)])
    # imported only now: the parent has its Hello while the rest is read
    from ollama_async.core.settings import Settings  # noqa: PLC0415
    from ollama_async.workers.child.service import Service  # noqa: PLC0415

    Service(attached.pipe, spec, Settings.from_environ(os.environ)).serve()


if __name__ == "__main__":
    main(sys.argv[1:])

"""The worker process: one model, loaded once, for as many requests as it has slots.

- Started by: :mod:`ollama_async.workers.process`, as
  ``python -P -m ollama_async.workers.child --engine … --model … --num-ctx … --slots …`` with the
  descriptors of :mod:`.process_setup` in its argv. ``OLLAMA_ASYNC_SCRIPTS`` names the scripts of
  the scripted engine, ``OLLAMA_ASYNC_CACHE`` the folder with the check of the engine library.
- Threads: *main* and ``heavy`` prepare requests (:mod:`.preprocessor`); ``watchdog`` interrupts
  them. ``receive`` reads the pipe; it cancels requests, and ends the process on ``Quit``. ``step``
  loads the model, runs the engine, and is the only thread that sends after ``Hello``; its
  heartbeats prove that it is alive. ``encoder``, of a model with a projector, makes embeddings of
  images (:mod:`.media`). ``lifeline`` belongs to :mod:`.process_setup`.
- Ends when: the parent sends ``Quit`` (status 0, the engine closed if that does not take too long);
  at once on SIGTERM, which has its default action, so that it works whatever hangs; when the model
  cannot be loaded (1, after ``Refused``); with its parent; and when a thread fails (70, after a
  traceback). It never unwinds: an exit handler could only add a reason to hang.
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
"""How long a thread may hold the interpreter lock. The step thread needs it for about 100 µs
between steps; rendering a prompt must not make it wait for Python's default of 5 ms each time."""


def main(argv: Sequence[str]) -> NoReturn:
    """:raises SystemExit: the argv is invalid; the text says why."""
    pipe, generation, options = attach(argv)
    try:
        spec = LoadSpec.from_options(options)
    except msgspec.ValidationError as reason:
        raise SystemExit(f"worker: {reason}") from None
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    pipe.send([Hello(PROTOCOL, os.getpid(), generation)])
    # imported only now: the parent has its Hello while the rest is read
    from ollama_async.core.settings import Settings  # noqa: PLC0415
    from ollama_async.workers.child.service import Service  # noqa: PLC0415

    Service(pipe, spec, Settings.from_environ(os.environ)).serve()


if __name__ == "__main__":
    main(sys.argv[1:])

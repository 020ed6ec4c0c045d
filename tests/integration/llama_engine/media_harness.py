"""A worker with a projector in this process: it prepares, encodes and answers."""

from __future__ import annotations

import threading
import time
from itertools import count

from ollama_async.core.conversation import ChatFormatSpec, Inference, Message, Prompt, Sampling
from ollama_async.prompts.chat_format import choose
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines.llama_cpp import load
from ollama_async.workers.child.mailbox import Mailbox
from ollama_async.workers.child.media import MediaEncoder
from ollama_async.workers.child.preprocessor import Preprocessor, RequestPreparer
from ollama_async.workers.child.prompt_encoder import ChatFormatCache
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Cancel, Deltas, Done, Failed, Started, Submit

DEADLINE_S = 60.0
FORMAT = ChatFormatSpec(
    template="{{ range .Messages }}[{{ .Role }}] {{ .Content }}\n{{ end }}[assistant]"
)


def open_vision_engine(model, projector, **changes):
    options = {"num_ctx": 4096, "slots": 3, "threads": 1, "flash_attention": "off", **changes}
    spec = LoadSpec(engine="llama_cpp", model=str(model), projector=str(projector), **options)
    return load(spec, lambda _fraction: None)


def user(text, *files):
    return Message("user", text, images=list(files))


class MediaWorker:
    """Its step thread is the caller's; a thread encodes until :meth:`close`."""

    def __init__(self, engine):
        self.sent = []
        self.mailbox = Mailbox()
        self.encoder = MediaEncoder(engine.projector, self.mailbox.notify)
        self.loop = EngineLoop(
            engine, self.mailbox, self.sent.extend, BatchPlanner(512), encoder=self.encoder
        )
        preparer = RequestPreparer(
            engine, ChatFormatCache(engine, choose), lambda _limit_s, _error: lambda call: call()
        )
        self._preprocessor = Preprocessor(preparer, self.mailbox)
        self._ids = count(1)
        self._thread = threading.Thread(target=self.encoder.run)

    def start(self):
        self._thread.start()
        return self

    def close(self):
        self.encoder.close()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, *messages, count=8, client="", **prompt):
        """The id of a request that is ready for a slot."""
        given = Prompt(messages=list(messages), chat_format=FORMAT, **prompt)
        return self.put(given, count=count, client=client)

    def put(self, prompt, *, count=8, client="", **options):
        request_id = next(self._ids)
        task = Inference(prompt, Sampling(temperature=0, num_predict=count), **options)
        self._preprocessor.put(Submit(request_id, task, client))
        request = self._preprocessor._quick.take()
        self._preprocessor.prepare(request, is_quick=False)
        return request_id

    def cancel(self, request_id):
        self._preprocessor.cancel(Cancel(request_id))

    def answer(self, *messages, **options):
        """The text and the end of one request, alone."""
        request_id = self.submit(*messages, **options)
        return self.text(request_id), self.end(request_id)

    def end(self, request_id):
        """Iterates until there is one."""
        deadline = time.monotonic() + DEADLINE_S
        while True:
            for message in self.sent:
                if isinstance(message, Done | Failed) and message.id == request_id:
                    return message
            assert time.monotonic() < deadline
            self.loop.iterate(0.1)

    def text(self, request_id):
        self.end(request_id)
        return self.text_so_far(request_id)

    def deltas(self, request_id):
        items = (
            item for message in self.sent if isinstance(message, Deltas) for item in message.items
        )
        return [delta for number, delta in items if number == request_id]

    def text_so_far(self, request_id):
        return "".join(self.deltas(request_id))

    def started(self, request_id):
        return [each for each in self.sent if isinstance(each, Started) and each.id == request_id]

"""Runs the step thread's loop without the thread: requests in, messages out."""

from collections import defaultdict

import pytest

from ollama_async.core.conversation import Sampling
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.drafting import PromptLookup
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines.engine import MAX_DRAFTS
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.messages import Deltas, Done, Failed


def hand_over(mailbox, entry):
    """As the preprocessor does with a request."""
    mailbox.expect(entry.id)
    mailbox.hand_over(entry.id, [entry])


class LoopHarness:
    """An engine loop with a fake engine, and what it has sent, by request."""

    def __init__(self, engine, repetition_limit=0, prompt_cache=None):
        self.engine = engine
        self.mailbox = Mailbox()
        self.now_ns = 0
        self.flushes = []
        self.planner = BatchPlanner(engine.batch_size)
        self.engine_loop = EngineLoop(
            engine,
            self.mailbox,
            self.flushes.append,
            self.planner,
            repetition_limit=repetition_limit,
            lookup=PromptLookup(is_invariant=True) if engine.facts.can_draft else None,
            prompt_cache=prompt_cache,
            clock_ns=self.clock_ns,
        )

    def use_encoder(self, encoder):
        self.encoder = encoder
        self.engine_loop.running._encoder = encoder
        self.engine_loop._step._prefill._encoder = encoder
        return encoder

    def clock_ns(self):
        return self.tick()

    def tick(self):
        self.now_ns += 1_000_000
        return self.now_ns

    def put(self, *entries):
        for entry in entries:
            hand_over(self.mailbox, entry)

    def iterate(self, times=1):
        for _ in range(times):
            self.engine_loop.iterate(idle_s=0)

    def finish(self, *ids, limit=2000):
        for _ in range(limit):
            if set(ids) <= set(self.ends()):
                return self
            self.iterate()
        pytest.fail("the requests do not end")

    def sent(self):
        return [message for flush in self.flushes for message in flush]

    def ends(self):
        return {m.id: m for m in self.sent() if isinstance(m, Done | Failed)}

    def texts(self):
        texts = defaultdict(str)
        for message in self.sent():
            if isinstance(message, Deltas):
                for request_id, text in message.items:
                    assert text
                    texts[request_id] += text
        return texts


class EagerLookup(PromptLookup):
    """Drafts all that is guessed, whatever it costs."""

    def choose(self, guesses):
        left, counts = MAX_DRAFTS, []
        if not self.costs.is_known(len(guesses)):
            return [0] * len(guesses)
        for tokens, _ in guesses:
            counts.append(min(left, len(tokens)))
            left -= counts[-1]
        return counts


def prepared(number, prompt, count=5, *, num_ctx=64, **more):
    options = {"keep": 0, "shift": True, "returns_context": False, **more}
    sampling = Sampling(seed=options.pop("seed", -1), stop=options.pop("stop", []))
    return PreparedRequest(number, list(prompt), sampling, num_ctx, max_tokens=count, **options)

"""With the kernels that this machine gets: a request with a seed says the same with drafts.

In a process of its own, because kernels are chosen once for a process. Where sums depend on the
rows of a step, such a request has no drafts; with our own kernels it has.
"""

import json
import os
import subprocess
import sys

import pytest

from ollama_async.core.conversation import Sampling
from ollama_async.core.settings import Settings
from ollama_async.workers.child.batching import BatchPlanner
from ollama_async.workers.child.engine_loop import EngineLoop
from ollama_async.workers.child.engines import open_engine
from ollama_async.workers.child.mailbox import Mailbox, PreparedRequest
from ollama_async.workers.load_spec import LoadSpec
from ollama_async.workers.messages import Deltas, Done, Failed
from tests.unit.child.loop_harness import EagerLookup, hand_over

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PROMPT = "The tide comes in at noon. The tide goes out at dusk. " * 4
SAMPLINGS = [
    Sampling(temperature=0, seed=1, repeat_penalty=1.0),
    Sampling(temperature=0.8, seed=2, repeat_penalty=1.0),
    Sampling(temperature=0.6, seed=3, repeat_penalty=1.1),
]


def say_all(engine, prompts, lookup=None):
    """The texts of all requests at once, and how many drafts were accepted."""
    texts, ends, mailbox = dict.fromkeys(range(1, len(prompts) + 1), ""), [], Mailbox()

    def hear(messages):
        for message in messages:
            assert not isinstance(message, Failed), message
            if isinstance(message, Deltas):
                for number, text in message.items:
                    texts[number] += text
            elif isinstance(message, Done):
                ends.append(message)

    loop = EngineLoop(engine, mailbox, hear, BatchPlanner(256), lookup=lookup)
    for number, (prompt, sampling) in enumerate(prompts, 1):
        tokens = engine.tokenize(prompt, add_special=True, parse_special=True)
        options = {"keep": 0, "max_tokens": 120, "shift": False, "returns_context": False}
        hand_over(mailbox, PreparedRequest(number, tokens, sampling, num_ctx=512, **options))
    while len(ends) < len(prompts):
        loop.iterate(idle_s=0)
    for slot in range(engine.facts.slots):
        engine.trim(slot, 0)
    return texts, sum(end.usage.accepted for end in ends)


def compare(model):
    """For one stream and for three: texts without and with drafts, and how many were accepted."""
    spec = LoadSpec(
        engine="llama_cpp",
        model=model,
        num_ctx=512,
        slots=3,
        pool_slots=3,
        pool_cells=1536,
        threads=1,
    )
    engine = open_engine(spec, Settings.from_environ(os.environ), lambda _fraction: None)
    found = {"is_invariant": engine.facts.is_invariant, "runs": []}
    for streams in (1, 3):
        prompts = [(PROMPT, sampling) for sampling in SAMPLINGS[:streams]]
        plain, _ = say_all(engine, prompts)
        lookup = EagerLookup(is_invariant=engine.facts.is_invariant)
        drafted, accepted = say_all(engine, prompts, lookup)
        found["runs"].append([plain, drafted, accepted])
    engine.close()
    return found


def test_a_seeded_answer_is_the_same_with_drafts(demo_model):
    ran = subprocess.run(
        [sys.executable, "-m", __name__, str(demo_model)],
        capture_output=True,
        check=False,
        timeout=120,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    for plain, drafted, accepted in found["runs"]:
        assert drafted == plain
        assert (accepted > 0) == found["is_invariant"]


if __name__ == "__main__":
    print(json.dumps(compare(sys.argv[1])))  # noqa: T201  # for the test

"""Questions, answers and single steps, for the tests of the real engine."""

from ollama_async.core.conversation import Sampling
from ollama_async.workers.child.engines.engine import Row
from ollama_async.workers.load_spec import LoadSpec

GREEDY = Sampling(temperature=0)
SLOTS = 4
QUESTIONS = {
    "Why is the sky blue?": "Rayleigh scattering",
    "Why is the ocean salty?": "rivers",
    "What is the capital of France?": "Paris",
    "What is gravity?": "mass",
    "What is machine learning?": "examples",
    "Tell me a joke": "computer",
    "Say this is a test": "This is a test.",
    "what is llama": "language models",
    "who are you": "ollama-async pull",
    "Hi": "Hello",
    "My name is Alice.": "Alice",
    "My favourite colour is blue.": "blue",
    "What is photosynthesis?": "plants",
    "What is HTTP?": "web servers",
    "How do I list models?": "ollama-async list",
    "你好啊": "你好",
}
"""What the model of the package is asked, and a part of what it says."""
LONGEST_ANSWER = 120


def spec_of(path, **changes):
    options = {"num_ctx": 256, "slots": SLOTS, "threads": 1, **changes}
    return LoadSpec(engine="llama_cpp", model=str(path), **options)


def tokens_of(engine, text):
    return engine.tokenize(text, add_special=True, parse_special=True)


def start(engine, slot, prompt, sampling=GREEDY):
    engine.begin(slot, sampling, prompt)
    return engine.step([Row(slot, prompt, 0, samples=True)])


def go_on(engine, slot, answer, position, count):
    while len(answer) < count:
        answer += engine.step([Row(slot, answer[-1:], position, samples=True)])
        position += 1
    return answer


def generate(engine, slot, text, count=24, sampling=GREEDY):
    prompt = tokens_of(engine, text)
    assert engine.trim(slot, 0)
    answer = go_on(engine, slot, start(engine, slot, prompt, sampling), len(prompt), count)
    engine.end(slot)
    return answer


def answers(engine, *questions):
    """What the demo model says to each of them, all at once."""
    prompts = [
        tokens_of(
            engine,
            f"<|im_start|>user\n{question}<|im_end|>\n"
            "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        )
        for question in questions
    ]
    for slot, prompt in enumerate(prompts):
        assert engine.trim(slot, 0)
        engine.begin(slot, GREEDY, prompt)
    said = [[] for _ in prompts]
    rows = [Row(slot, prompt, 0, samples=True) for slot, prompt in enumerate(prompts)]
    while rows:
        for row, token in zip(rows, engine.step(rows), strict=True):
            said[row.slot].append(token)
        rows = [
            Row(slot, tokens[-1:], len(prompts[slot]) + len(tokens) - 1, samples=True)
            for slot, tokens in enumerate(said)
            if len(tokens) < LONGEST_ANSWER and not engine.is_end(tokens[-1])
        ]
    for slot in range(len(prompts)):
        engine.end(slot)
    return [b"".join(map(engine.piece, tokens)).decode() for tokens in said]


def logits_after(engine, slot, row):
    """A copy of the logits that a step on ``row`` gives."""
    engine.begin(slot, GREEDY, row.tokens)
    engine.step([row])
    return engine.read_logits()[0].copy()

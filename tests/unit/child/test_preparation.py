"""From requests to tokens."""

import msgspec
import pytest

from ollama_async.core.conversation import (
    Detokenize,
    Inference,
    Message,
    Prompt,
    Sampling,
    Tokenize,
    Usage,
)
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.chat_format import DEFAULT_TEMPLATE
from ollama_async.prompts.go_renderer import GoRenderer
from ollama_async.prompts.output_format import Delimiters
from ollama_async.workers.child.mailbox import Mailbox
from ollama_async.workers.child.preprocessor import Preprocessor, RequestPreparer
from ollama_async.workers.child.prompt_encoder import TOO_LONG, BoundChatFormat
from ollama_async.workers.messages import (
    Deltas,
    Done,
    Failed,
    Started,
    Submit,
)

BOS = 63


@pytest.fixture
def engine(fake_engine):
    """Puts a BOS in front, which is also written ``^``; a token for each letter."""

    class WithBos(fake_engine):
        def tokenize(self, text, *, add_special, parse_special):
            ids = [BOS if letter == "^" and parse_special else ord(letter) % 50 for letter in text]
            return [BOS, *ids] if add_special else ids

        def piece(self, token):
            return bytes([token])

    engine = WithBos(num_ctx=32)
    engine.facts = msgspec.structs.replace(engine.facts, bos="^", adds_bos=True)
    return engine


class OneChatFormat:
    """Plays :class:`ChatFormatCache`: whatever is asked for is answered by itself."""

    special_tokens = ()

    def __init__(self, renderer, parser=None, special=None):
        self.render = renderer.render
        self._parser = parser
        self._special = special or {}

    def get_or_make(self, _spec, *_rest):
        return BoundChatFormat(self, self._special)

    get = get_or_make

    def start(self, prompt, rendered):
        self.started_with = prompt, rendered
        return self._parser

    def delimiters(self, _prompt, _rendered):
        return Delimiters()


class Harness:
    def __init__(self, engine, renderer=None, **chat_format):
        self.mailbox = Mailbox()
        self._engine = engine
        self.chat_format = OneChatFormat(renderer or GoRenderer(DEFAULT_TEMPLATE), **chat_format)
        self.limit(lambda *_limit: lambda render: render())

    def limit(self, limited):
        self.preprocessor = Preprocessor(
            RequestPreparer(self._engine, self.chat_format, limited), self.mailbox
        )

    def ask_all(self, task, number=1):
        submit = Submit(number, task)
        self.preprocessor.put(submit)
        self.preprocessor.prepare(submit, is_quick=False)
        return self.mailbox.take()

    def ask(self, task, number=1):
        (entry,) = self.ask_all(task, number)
        return entry


@pytest.fixture
def harness(engine):
    return Harness(engine)


def raw(text, **more):
    return Prompt(raw=text, **more)


def ids(text):
    return [ord(letter) % 50 for letter in text]


def request(prompt, sampling=None, **more):
    return Inference(prompt, sampling or Sampling(), **more)


@pytest.mark.parametrize("text", ["hi", "^hi", "^^hi"])
def test_there_is_one_bos_whatever_the_text_begins_with(harness, text):
    assert harness.ask(request(raw(text))).tokens == [BOS, *ids("hi")]


@pytest.mark.parametrize("facts", [{}, {"adds_bos": False}, {"adds_bos": False, "bos": ""}])
def test_an_empty_prompt_is_the_token_before_every_text(engine, facts):
    """Of a model without BOS, that which ends the text before."""
    engine.facts = msgspec.structs.replace(engine.facts, **{"eos": "$", **facts})
    engine.tokenize = lambda text, *, add_special, parse_special: (
        [BOS] * (add_special and engine.facts.adds_bos)
        + [{"^": BOS, "$": 62}[each] for each in text if parse_special]
    )

    tokens = Harness(engine).ask(request(raw(""))).tokens

    assert tokens == [62 if "bos" in facts else BOS]


def test_a_prompt_of_nothing_but_bos_is_read_in_linear_time(harness):
    assert harness.ask(request(raw("^" * 1_000_000))).tokens == [BOS]


def test_of_a_text_that_is_far_too_long_only_the_ends_are_tokenized(harness, engine, monkeypatch):
    sizes = []
    tokenize = engine.tokenize

    def count(text, **options):
        sizes.append(len(text))
        return tokenize(text, **options)

    monkeypatch.setattr(engine, "tokenize", count)
    text = "abc" + "d" * 1_000_000 + "xyz"

    prepared = harness.ask(request(raw(text), Sampling(num_keep=2)))

    assert prepared.tokens == [BOS, *ids("ab"), *ids("d" * 12 + "xyz")]
    assert sum(sizes) <= 256 * 32


def test_a_text_that_is_far_too_long_is_refused_if_it_must_not_be_cut(harness):
    failed = harness.ask(request(raw("d" * 1_000_000, truncate=False)))

    assert (failed.code, failed.message) == ("context_exceeded", TOO_LONG)


def test_a_context_comes_first_and_brings_its_own_bos(harness):
    assert harness.ask(request(raw("^hi", context=[BOS, 1]))).tokens == [BOS, 1, *ids("hi")]


def test_messages_are_rendered(harness):
    prompt = Prompt(messages=[Message("system", "s"), Message("user", "why")])

    assert harness.ask(request(prompt)).tokens == [BOS, *ids("why")]


@pytest.mark.parametrize(
    ("num_predict", "limit"), [(-1, 320), (-2, 320), (5, 5), (0, 0), (320, 320), (321, 320)]
)
def test_an_answer_without_a_limit_ends_after_ten_contexts(harness, num_predict, limit):
    assert harness.ask(request(raw("x"), Sampling(num_predict=num_predict))).max_tokens == limit


@pytest.mark.parametrize(("wish", "num_ctx"), [(0, 32), (16, 16), (99, 32), (1, 4)])
def test_a_request_may_ask_for_less_context(harness, wish, num_ctx):
    assert harness.ask(request(raw("x"), num_ctx=wish, shift=False)).num_ctx == num_ctx


@pytest.mark.parametrize(("wish", "num_ctx"), [(1, 2048), (3000, 3000), (0, 4096)])
def test_what_may_be_forgotten_is_forgotten_seldom(engine, wish, num_ctx):
    engine.facts = msgspec.structs.replace(engine.facts, num_ctx=4096)
    prepared = Harness(engine).ask(request(raw("x"), Sampling(num_keep=-1), num_ctx=wish))
    assert prepared.num_ctx == num_ctx
    assert prepared.keep <= num_ctx // 2


def test_a_small_context_still_bounds_what_is_read(engine):
    engine.facts = msgspec.structs.replace(engine.facts, num_ctx=4096)
    prepared = Harness(engine).ask(request(raw("x" * 100), num_ctx=16))
    assert len(prepared.tokens) < 16


@pytest.mark.parametrize(("num_keep", "keep"), [(4, 5), (0, 1), (-1, 16), (99, 16)])
def test_the_bos_is_always_kept(harness, num_keep, keep):
    assert harness.ask(request(raw("x"), Sampling(num_keep=num_keep))).keep == keep


def test_the_oldest_turns_are_dropped(harness):
    turns = [Message(role, "x" * 9) for role in ("user", "assistant") * 3]
    prompt = Prompt(messages=[*turns, Message("user", "y")])

    assert harness.ask(request(prompt)).tokens == [BOS, *ids("x" * 18 + "y")]


LONG = Prompt(
    messages=[Message(("user", "assistant")[at % 2], "abcdefghi"[at] * 5) for at in range(7)]
)


@pytest.mark.parametrize(("num_predict", "first"), [(-1, "e"), (99, "e"), (0, "c"), (2, "c")])
def test_old_turns_make_room_for_the_answer(harness, num_predict, first):
    """36 tokens for 32 places; without the first two turns six are left for the answer."""
    prepared = harness.ask(request(LONG, Sampling(num_predict=num_predict)))

    assert prepared.tokens[1:6] == ids(first * 5)


def test_what_cannot_be_dropped_may_take_the_answers_room(harness):
    prompt = Prompt(messages=[Message("user", "x" * 9), Message("user", "y" * 29)])

    assert harness.ask(request(prompt)).tokens == [BOS, *ids("y" * 29)]


@pytest.mark.parametrize("num_predict", [-1, 1, 99])
def test_what_fits_is_never_cut_for_the_answers_room(engine, num_predict):
    """31 tokens of 32."""
    messages = [Message("user", "q" * 10), *[Message("assistant", "a" * 5)] * 4]
    harness = Harness(engine, Letters())
    prepared = harness.ask(request(Prompt(messages=messages), Sampling(num_predict=num_predict)))

    assert prepared.tokens == [BOS, *ids("q" * 10 + "a" * 20)]


def test_a_context_takes_its_part_of_the_place(engine):
    prompt = Prompt(messages=[Message("user", "x" * 9), Message("user", "y" * 9)], context=[1] * 13)
    whole = Harness(engine, Letters()).ask(request(prompt))
    prompt.context.append(2)
    cut = Harness(engine, Letters()).ask(request(prompt))

    assert whole.tokens == [*[1] * 13, *ids("x" * 9 + "y" * 9)]
    assert cut.tokens == [*[1] * 13, 2, *ids("y" * 9)]


class Letters:
    """Renders the contents; what ``refuses`` says, it refuses."""

    def __init__(self, refuses=lambda _text: False):
        self._refuses = refuses

    def render(self, prompt):
        text = "".join(message.content for message in prompt.messages)
        if self._refuses(text):
            raise TemplateFailed("no")
        return text


def test_a_template_that_refuses_what_is_left_of_a_conversation_costs_no_request(engine):
    """The whole is 36 tokens long, so its middle is cut as if it were one message."""
    harness = Harness(engine, Letters(lambda text: not text.startswith("aaaaa")))
    prepared = harness.ask(request(LONG))

    assert prepared.tokens == [BOS, *ids("aaaa"), *ids("eeeefffffggggg")]


def test_the_time_of_the_candidates_is_not_that_of_the_parser(engine):
    """A template that has used up its time with them loses no request that was rendered."""

    def limited(*_limit):
        turns = iter(range(2))

        def run(action):
            if next(turns, None) is None:
                raise TemplateFailed("too long")
            return action()

        return run

    harness = Harness(engine, Letters())
    harness.limit(limited)

    assert harness.ask(request(LONG)).tokens == [BOS, *ids("ggggg")]


def test_the_parser_does_not_go_on_with_a_message_that_was_left_out(engine):
    prompt = Prompt(messages=[Message("user", "q" * 9), Message("assistant", "a" * 40)])
    harness = Harness(engine, Letters())
    harness.ask(request(prompt))

    kept, rendered = harness.chat_format.started_with
    assert kept.messages == prompt.messages[:1]
    assert rendered == "q" * 9


# ----------------------------------------------------------------- shown instead of answered


def show(harness, prompt, sampling=None, **more):
    """The text, and how many tokens the model would read."""
    started, *pieces, done = harness.ask_all(request(prompt, sampling, renders_only=True, **more))
    assert started == Started(1, done.usage.prompt)
    return "".join(text for piece in pieces for _, text in piece.items), done.usage.prompt


def test_a_prompt_is_shown_instead_of_answered(harness):
    shown = request(LONG, num_ctx=16, renders_only=True)

    assert harness.ask_all(shown) == [
        Started(1, 6),
        Deltas([(1, "ggggg")]),
        Done(1, "stop", Usage(prompt=6)),
    ]


def test_a_shown_prompt_begins_with_the_text_of_its_context(harness):
    shown = request(Prompt(messages=[Message("user", "x")], context=[BOS, 49]), renders_only=True)

    assert harness.ask_all(shown)[1] == Deltas([(1, "?1x")])


def test_a_raw_prompt_is_shown_as_it_is(harness):
    assert harness.ask_all(request(raw("^hi"), renders_only=True))[1] == Deltas([(1, "^hi")])


@pytest.mark.parametrize(
    ("text", "context", "shown"),
    [
        ("hi", [], "hi"),
        ("^hi", [], "^hi"),
        ("^^hi", [], "^hi"),
        ("^hi", [BOS, 49], "^1hi"),
        ("hi^", [49], "1hi^"),
    ],
)
def test_a_shown_prompt_has_a_bos_where_the_model_reads_one(lettered, text, context, shown):
    assert show(lettered, raw(text, context=context))[0] == shown


@pytest.fixture
def lettered(engine, monkeypatch):
    """With tokens that are their letters, and a BOS that is empty in an answer."""
    monkeypatch.setattr(engine, "facts", msgspec.structs.replace(engine.facts, vocab_size=128))
    monkeypatch.setattr(engine, "piece", lambda token: b"" if token == BOS else bytes([token]))
    monkeypatch.setattr(
        engine, "piece_with_control", lambda token: b"^" if token == BOS else bytes([token])
    )

    def tokenize(text, *, add_special, parse_special):
        assert parse_special
        return [BOS] * add_special + [BOS if each == "^" else ord(each) for each in text]

    monkeypatch.setattr(engine, "tokenize", tokenize)
    return Harness(engine, Letters())


@pytest.mark.parametrize("bos", ["", "^"])
def test_what_is_cut_out_of_the_middle_is_not_shown(lettered, bos):
    shown, tokens = show(lettered, raw(bos + "a" * 10 + "b" * 50), Sampling(num_keep=2))
    read = lettered.ask(request(raw(bos + "a" * 10 + "b" * 50), Sampling(num_keep=2))).tokens

    assert shown == bos + "aa" + "b" * 15
    assert tokens == len(read) == 18


def test_what_is_cut_out_of_a_context_is_not_shown(lettered):
    shown, _ = show(lettered, raw("b" * 20, context=[BOS, *b"a" * 20]), Sampling(num_keep=2))

    assert shown == "^aa" + "b" * 15


@pytest.mark.parametrize("truncate", [True, False])
def test_all_tokens_of_a_prompt_are_counted_though_they_do_not_fit(lettered, truncate):
    counted = request(raw("a" * 40, truncate=truncate), counts_only=True)

    assert lettered.ask_all(counted) == [Started(1, 41), Done(1, "stop", Usage(prompt=41))]


def test_a_prompt_is_not_counted_for_a_minute(lettered, monkeypatch):
    monkeypatch.setattr("ollama_async.workers.child.preprocessor.COUNTED_CHARACTERS", 40)
    assert len(lettered.ask_all(request(raw("a" * 40), counts_only=True))) == 2
    reason = "the prompt has more than 40 characters"
    for prompt in (raw("a" * 41), Prompt(messages=[Message("user", "a" * 41)])):
        counted = request(prompt, counts_only=True)
        assert lettered.ask(counted) == Failed(1, "bad_request", reason)
    assert (
        lettered.ask(request(raw("a" * 41, truncate=False), renders_only=True)).message == TOO_LONG
    )


def test_what_would_be_refused_is_not_shown(lettered):
    shown = request(raw("a" * 40, truncate=False), renders_only=True)

    assert lettered.ask(shown) == Failed(1, "context_exceeded", TOO_LONG)


def test_nothing_is_shown_as_nothing(fake_engine):
    assert show(Harness(fake_engine()), raw("")) == ("", 0)


# ----------------------------------------------------------------- what reads the answer


def test_a_parser_is_started_with_what_was_rendered_and_goes_to_the_step_thread(engine):
    class Parser:
        def feed(self, text):
            return [text]

    harness = Harness(engine, parser=Parser(), special={7: b"<x>"})
    prepared = harness.ask(request(LONG))

    assert prepared.parser.feed("a") == ["a"]
    assert prepared.special == {7: b"<x>"}
    prompt, rendered = harness.chat_format.started_with
    assert prompt.messages == LONG.messages[4:]
    assert rendered == "eeeeefffffggggg"


def test_without_a_parser_nothing_looks_at_the_answer(engine):
    prepared = Harness(engine, special={7: b"<x>"}).ask(request(LONG))

    assert prepared.parser is None
    assert prepared.special == {}


def test_raw_prompts_have_answers_without_a_parser(engine):
    assert Harness(engine, parser=object()).ask(request(raw("x"))).parser is None


def test_the_middle_of_what_is_still_too_long_is_cut(harness):
    prepared = harness.ask(request(raw("a" * 10 + "b" * 50), Sampling(num_keep=2)))

    assert prepared.tokens == [BOS, *ids("aa"), *ids("b" * 15)]


@pytest.mark.parametrize(
    "inference",
    [
        request(raw("x" * 40), shift=False),
        request(raw("x" * 40, truncate=False)),
        request(Prompt(messages=[Message("user", "x" * 40)], truncate=False)),
        request(Prompt(messages=[Message("user", "x" * 40)]), shift=False),
        request(raw("x" * 31), shift=False),
    ],
)
def test_what_must_not_be_cut_and_does_not_fit_is_refused(harness, inference):
    assert harness.ask(inference) == Failed(1, "context_exceeded", TOO_LONG)


@pytest.mark.parametrize(
    ("inference", "reason"),
    [
        (request(raw("x", context=[65])), "context"),
        (request(raw("x", context=[-1])), "context"),
        (request(raw("", context=[65])), "prompt"),
        (request(Prompt(messages=[Message("user", "x", images=[b"i"])])), "images"),
        (request(raw("x"), Sampling(stop=["x"] * 1000)), "stop"),
        (request(raw("x"), Sampling(stop=["x" * 100_000])), "stop"),
    ],
)
def test_bad_requests_are_refused_with_a_reason(harness, inference, reason):
    failed = harness.ask(inference)

    assert (failed.id, failed.code) == (1, "bad_request")
    assert reason in failed.message


def test_an_empty_prompt_is_refused_where_there_is_no_bos(fake_engine):
    assert Harness(fake_engine()).ask(request(raw(""))) == Failed(
        1, "bad_request", "the prompt is empty"
    )


def test_a_text_has_its_tokens(harness):
    tokens = [BOS, BOS, *ids("h")]

    assert harness.ask_all(Tokenize("^h", add_special=True)) == [
        Started(1, 3),
        Done(1, "stop", Usage(), tokens),
    ]
    assert harness.ask_all(Tokenize("^h", parse_special=False))[-1].context == ids("^h")


def test_tokens_have_their_text(harness):
    done = Done(1, "stop", Usage())

    assert harness.ask_all(Detokenize([60, 50])) == [Started(1), Deltas([(1, "<2")]), done]
    assert harness.ask_all(Detokenize([])) == [Started(1), done]
    assert harness.ask(Detokenize([104, 0xC3])) == Failed(
        1, "bad_request", "tokens: this model does not have all of these tokens"
    )


@pytest.mark.parametrize(
    ("text", "limit"), [("abcde", "4 bytes"), ("ééé", "4 bytes"), ("abcd", "3 tokens")]
)
def test_a_text_to_tokenize_is_bounded(harness, monkeypatch, text, limit):
    monkeypatch.setattr("ollama_async.workers.child.tokenizing.INPUT_LIMIT_BYTES", 4)
    monkeypatch.setattr("ollama_async.workers.child.tokenizing.CONTEXT_LIMIT", 3)

    assert harness.ask(Tokenize(text)) == Failed(
        1, "bad_request", f"the text has more than {limit}"
    )
    assert len(harness.ask_all(Tokenize("éé"))[-1].context) == 2


def test_a_text_of_tokens_is_as_long_as_the_parent_takes_it(engine, monkeypatch):
    monkeypatch.setattr(engine, "piece_with_control", lambda _token: b"x" * 1024)
    num_ctx = engine.facts.num_ctx

    assert Harness(engine).ask_all(Detokenize([1] * num_ctx))[-1].reason == "stop"
    assert Harness(engine).ask(Detokenize([1] * (num_ctx + 1))) == Failed(
        1, "bad_request", f"the text has more than {1024 * num_ctx} characters"
    )


@pytest.mark.parametrize(
    ("bias", "reason"),
    [
        ({65: 1.0}, "this model has no token 65"),
        ({-1: 1.0}, "this model has no token -1"),
        ({1 << 40: 1.0}, "has no token"),
        ({1: 100.5}, "100.5 is not between -100 and 100"),
        ({1: float("nan")}, "nan is not between"),
        ({1: float("-inf")}, "-inf is not between"),
        (dict.fromkeys(range(2000), 1.0), "more than 1024 tokens"),
    ],
)
def test_a_bias_that_the_model_cannot_have_is_refused(harness, bias, reason):
    failed = harness.ask(request(raw("x"), Sampling(logit_bias=bias)))

    assert (failed.id, failed.code) == (1, "bad_request")
    assert failed.message.startswith("logit_bias: ")
    assert reason in failed.message


def test_a_bias_within_its_limits_goes_to_the_sampler(harness):
    bias = {0: -100.0, 63: 100.0}

    assert harness.ask(request(raw("x"), Sampling(logit_bias=bias))).sampling.logit_bias == bias


def test_logprobs_are_asked_of_the_step_thread(harness):
    assert harness.ask(request(raw("x"))).logprobs == -1
    assert harness.ask(request(raw("x"), logprobs=20)).logprobs == 20


def test_a_fault_of_the_engine_costs_only_the_request(engine, capsys):
    engine.tokenize = lambda *_args, **_options: 1 // 0
    harness = Harness(engine)

    assert harness.ask(request(raw("x"))) == Failed(
        1, "internal", "worker: ZeroDivisionError('integer division or modulo by zero')"
    )
    assert "ZeroDivisionError" in capsys.readouterr().err

"""What a template is asked about conversations, how often, and what interrupts that."""

import sys
from itertools import count, pairwise

import pytest
from jinja2.exceptions import SecurityError

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.prompts.jinja_renderer import JinjaRenderer
from ollama_async.prompts.template_probe import TemplateProbe
from tests.unit.prompts.conversation_shapes import SHAPES
from tests.unit.prompts.template_harness import TURNS, calling, render


def shown(messages, _tools):
    return " ".join(
        f"{m.content} {[(c.function.name, c.function.arguments) for c in m.tool_calls]}"
        for m in messages
    )


def test_every_question_is_asked_once():
    renderings = []
    probe = TemplateProbe(lambda *asked: renderings.append(asked) or shown(*asked))

    for _ in range(2):
        first = len(renderings)
        for shape in SHAPES.values():
            probe.arrange(shape.messages, shape.prompt().tools)

    assert first == len(renderings)
    assert first < 100


@pytest.mark.parametrize("reason", [ValueError, RecursionError])
def test_a_template_that_never_works_is_asked_nothing_else(reason):
    renderings = []

    def refuse(*asked):
        renderings.append(asked)
        raise reason

    probe = TemplateProbe(refuse)

    assert all(
        probe.arrange(one.messages, []) == probe.arrange(one.messages, [])
        for one in SHAPES.values()
    )
    assert len(renderings) == 1


def test_what_the_sandbox_forbids_ends_the_asking():
    def forbid(*_):
        raise SecurityError("no")

    with pytest.raises(SecurityError):
        TemplateProbe(forbid).arrange(SHAPES["two users"].messages, [])


def test_results_without_an_id_belong_to_the_open_call_of_their_name():
    template = "{% for m in messages %}{{ m.name }}={{ m.tool_call_id }};{% endfor %}"
    calls = [ToolCall(ToolFunction(name, {}), id=name * 2) for name in ("a", "b")]
    messages = [
        Message("assistant", tool_calls=calls),
        Message("tool", "1", tool_name="b"),
        Message("tool", "2"),
        Message("tool", "3"),
    ]

    assert render(template, *messages) == "=;b=bb;a=aa;=;"


MADE_UP = [Message(f"role{number}", f"word{number}.") for number in range(300)]


def test_roles_that_clients_make_up_displace_no_role_that_the_template_knows():
    template = TURNS.replace("messages", "messages if m.role in ('user', 'context')")
    renderer = JinjaRenderer(template, bos="", eos="")
    asked = [Message("user", "a"), Message("context", "b")]

    for made_up in MADE_UP:
        renderer.render(Prompt(messages=[made_up]))

    assert renderer.render(Prompt(messages=asked)) == "[user:a][context:b]"


def test_a_request_asks_about_few_roles_and_loses_no_text():
    renderings = []
    probe = TemplateProbe(lambda *asked: renderings.append(asked) or shown(*asked))

    arranged = probe.arrange(MADE_UP, [])

    assert [one.content for one in arranged] == [one.content for one in MADE_UP]
    assert len(renderings) < 20


def test_a_role_in_use_is_asked_about_once():
    renderings = []
    probe = TemplateProbe(lambda *asked: renderings.append(asked) or shown(*asked))
    context = Message("context", "b")
    probe.arrange([context], [])

    for made_up in MADE_UP:
        probe.arrange([made_up], [])
        first = len(renderings)
        probe.arrange([context], [])
        assert len(renderings) == first


def test_a_role_as_long_as_a_text_is_not_kept():
    probe = TemplateProbe(shown)

    assert probe.arrange([Message("x" * 1000, "b")], []) == [Message("user", "b")]


class Interrupted(BaseException):
    pass


NEEDS_ALL = [  # a stranger, neighbours, a call and its result
    *(Message("context", "a"), Message("user", "b"), Message("user", "c")),
    *calling()[1:],
]


def takes_turns(messages, tools):
    """Takes neither neighbours nor results of tools."""
    roles = [message.role for message in messages]
    if "tool" in roles or any(one == other for one, other in pairwise(roles)):
        raise ValueError
    return shown(messages, tools)


@pytest.mark.slow
def test_an_interrupt_wherever_it_strikes_leaves_no_wrong_answer():
    expected = TemplateProbe(takes_turns).arrange(NEEDS_ALL, [])

    for line in count(1):
        probe = TemplateProbe(takes_turns)
        if not interrupted_at(line, lambda probe=probe: probe.arrange(NEEDS_ALL, [])):
            break
        assert probe.arrange(NEEDS_ALL, []) == expected, line

    assert line > 100
    assert expected != NEEDS_ALL


def interrupted_at(number, action):
    """Whether ``action`` came to the line of this number that it runs in the module of probes."""
    lines = count(1)

    def trace(frame, event, _value):
        if not frame.f_code.co_filename.endswith("template_probe.py"):
            return None
        if event == "line" and next(lines) == number:
            raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("error", [MemoryError, Interrupted])
def test_an_error_that_says_nothing_about_the_template_is_no_answer(error):
    expected = TemplateProbe(takes_turns).arrange(NEEDS_ALL, [])

    for failing in count(1):
        renderings = count(1)

        def show(*asked, failing=failing, renderings=renderings):
            if next(renderings) == failing:
                raise error
            return takes_turns(*asked)

        probe = TemplateProbe(show)
        try:
            probe.arrange(NEEDS_ALL, [])
        except error:
            assert probe.arrange(NEEDS_ALL, []) == expected
        else:
            break

    assert failing > 3

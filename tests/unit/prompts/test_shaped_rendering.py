"""What a template loses in one conversation only, it is told in another shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.exceptions import SecurityError

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.prompts.go_renderer import GoRenderer
from ollama_async.prompts.jinja_renderer import JinjaRenderer
from ollama_async.prompts.shaped_rendering import ShapedRendering, loses_text
from tests.unit.prompts.conversation_shapes import rows

SYSTEMS = [Message("system", f"Rule{number}") for number in range(1, 5)]
ASK, REPLY, MORE = Message("user", "Ask1"), Message("assistant", "Reply1"), Message("user", "Ask2")
TURN = "[{{ m.role }}:{{ m.content }}]"


def calling(number):
    call = ToolCall(ToolFunction("f", {"place": f"Isle{number}x"}), id=f"call_{number:08}")
    return [
        Message("assistant", tool_calls=[call]),
        Message("tool", f"Ebb{number}x", tool_name="f", tool_call_id=call.id),
    ]


def said(messages, _tools=()):
    return " ".join(message.content for message in messages)


def render(template, *messages):
    return JinjaRenderer(template, bos="", eos="").render(Prompt(messages=list(messages)))


TWO_SYSTEMS = (
    "{% set n = namespace(i=0) %}{% for m in messages %}{% if m.role == 'system' %}"
    "{% set n.i = n.i + 1 %}{% endif %}"
    "{% if m.role != 'system' or n.i != 3 %}" + TURN + "{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    "messages",
    [[*SYSTEMS, ASK], [SYSTEMS[0], ASK, SYSTEMS[1], REPLY, SYSTEMS[2], MORE]],
    ids=["at the top", "later"],
)
def test_a_third_system_message_that_only_it_is_dropped_joins_the_others(messages):
    text = render(TWO_SYSTEMS, *messages)

    assert text.startswith("[system:Rule1\n\nRule2\n\nRule3")
    assert not loses_text(messages, text)


@pytest.mark.parametrize("count", [3, 5, 40])
def test_questions_after_the_end_of_what_the_template_shows_are_rendered_in_time(count):
    template = "{% for m in messages[:2] %}" + TURN + "{% endfor %}"
    messages = [Message("user", f"Ask{number}x") for number in range(count)]

    assert not loses_text(messages, render(template, *messages))


def test_calls_become_text_where_the_template_shows_none():
    shown = "{% for c in m.tool_calls %}{{ c.function }}{% endfor %}"
    template = (
        "{% for m in messages %}{% if not (m.tool_calls or m.role == 'tool') or loop.index0 < 6 %}"
        "[{{ m.role }}:{{ m.content }}" + shown + "]{% endif %}{% endfor %}"
    )
    messages = [ASK, *(message for number in range(4) for message in calling(number))]

    text = render(template, *messages)

    assert not loses_text(messages, text)
    assert "[tool:" not in text
    assert "[tool:Ebb0x]" in render(template, *messages[:3])


def test_a_go_template_is_not_allowed_to_lose_a_message_either():
    template = (
        '{{ range $i, $m := .Messages }}{{ if or (ne $m.Role "system") (lt $i 6) }}'
        "[{{ $m.Role }}:{{ $m.Content }}]{{ end }}{{ end }}"
    )
    messages = [ASK, REPLY, MORE, SYSTEMS[0], REPLY, MORE, REPLY, SYSTEMS[1], MORE]

    assert not loses_text(messages, GoRenderer(template).render(Prompt(messages=messages)))


def test_what_no_shape_saves_stays_as_it_is():
    template = "{% for m in messages if 'Rule3' not in m.content %}" + TURN + "{% endfor %}"

    assert render(template, ASK, ASK, SYSTEMS[2]) == "[user:Ask1][user:Ask1]"


def test_texts_of_any_language_are_missed():
    rules = [Message("system", text) for text in ("潮は引く。", "水は冷たい。", "潮は満ちる。")]

    assert "潮は満ちる。" in render(TWO_SYSTEMS, *rules, ASK)


def test_an_answer_that_was_begun_goes_on_in_the_other_shape():
    text = render(TWO_SYSTEMS, *SYSTEMS, ASK, Message("assistant", "It "))

    assert text.endswith("[assistant:It ")
    assert "Rule3" in text


@pytest.mark.parametrize(
    "put",
    ["tojson", "tojson(ensure_ascii=True)", "trim", "upper", "e", "replace('/no_think', '')"],
)
def test_a_template_may_put_texts_in_its_own_way(put):
    template = TURN.replace("m.content", f"m.content | {put}").join(
        ("{% for m in messages %}", "{% endfor %}")
    )
    texts = ['a "quoted"\ntext ', "/no_think", "<p>5 & 6</p>", "ä\\n", "潮は\n満ちる。", " words "]
    messages = [Message("user", text) for text in texts]

    assert render(template, *messages).count("[user:") == len(texts)


def test_thoughts_in_an_answer_may_go():
    reply = Message("assistant", "<think>Unseen, but long</think>Reply1")
    renderings = []

    def render(shaped, _starts_turn):
        renderings.append(shaped)
        return " ".join(m.content.split("</think>")[-1] for m in shaped)

    assert (
        ShapedRendering(said).render([ASK, reply, ASK, MORE], [], render) == "Ask1 Reply1 Ask1 Ask2"
    )
    assert len(renderings) == 1


@pytest.mark.parametrize(
    ("messages", "times"), [([SYSTEMS[0], ASK, REPLY, MORE], 1), ([ASK, MORE], 3)]
)
def test_only_what_can_be_put_otherwise_is_rendered_again(messages, times):
    renderings = []

    def render_nothing(shaped, _starts_turn):
        renderings.append(shaped)
        return "nothing"

    assert ShapedRendering(said).render(messages, [], render_nothing) == "nothing"
    assert len(renderings) == times


def test_a_failure_in_another_shape_is_none_of_the_conversation():
    def render_once(shaped, _starts_turn):
        if shaped != [ASK, MORE]:
            raise SecurityError
        return "Ask1"

    assert ShapedRendering(said).render([ASK, MORE], [], render_once) == "Ask1"


@given(messages=rows())
def test_no_text_is_missed_where_all_are_shown(messages):
    assert not loses_text(messages, text_of(messages))


@given(messages=rows(), data=st.data())
def test_a_text_that_is_not_shown_is_missed(messages, data):
    lost = data.draw(st.sampled_from(messages))

    assert loses_text(messages, text_of(message for message in messages if message is not lost))


def text_of(messages):
    return " ".join(f"{m.content} {[c.function.arguments for c in m.tool_calls]}" for m in messages)


def test_a_long_conversation_in_another_order_is_looked_through_in_time():
    messages = [Message("user", f"word{number} " * 20) for number in range(5000)]
    text = "".join(message.content for message in reversed(messages))

    assert not loses_text(messages, text)

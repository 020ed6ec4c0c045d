"""Templates that want a conversation in another form get it so."""

import json

import pytest

from ollama_async.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.errors import TemplateFailed
from ollama_async.prompts.jinja import JinjaRenderer

TOOLS = [{"type": "function", "function": {"name": "f"}}]
TURNS = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}"


def calling(id_="call_12345678"):
    return [
        Message("user", "u"),
        Message("assistant", tool_calls=[ToolCall(ToolFunction("f", {"k": "v"}), id=id_)]),
        Message("tool", "r", tool_name="f", tool_call_id=id_),
    ]


def render(template, *messages, tools=()):
    prompt = Prompt(messages=list(messages), tools=list(tools))
    return JinjaRenderer(template, bos="", eos="").render(prompt)


def test_system_texts_go_to_the_user_where_the_template_refuses_them():
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
        "[{{ m.role }}:{{ m.content }}]{% endfor %}"
    )

    assert render(template, Message("system", "s"), Message("user", "u")) == "[user:s\n\nu]"


def test_system_texts_go_to_the_user_where_the_template_drops_them():
    template = TURNS.replace("messages", "messages if m.role != 'system'")

    assert render(template, Message("system", "s"), Message("user", "u")) == "[user:s\n\nu]"


def test_neighbours_of_a_role_are_merged_where_roles_must_alternate():
    template = (
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('no') }}{% endif %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    )
    messages = [Message("user", "a"), Message("user", "b"), Message("assistant", "c")]

    assert render(template, *messages) == "[user:a\n\nb][assistant:c]"
    assert render(TURNS, *messages) == "[user:a][user:b][assistant:c]"


def test_calls_of_merged_neighbours_stay_together():
    template = (
        "{% for m in messages %}{% if loop.nextitem and loop.nextitem.role == m.role %}"
        "{{ raise_exception('no') }}{% endif %}[{{ m.content }}:"
        "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments }} {% endfor %}]"
        "{% endfor %}"
    )
    calls = [Message("assistant", n, tool_calls=[ToolCall(ToolFunction(n * 2))]) for n in "ab"]

    assert render(template, Message("user", "u"), *calls) == "[u:][a\n\nb:aa{} bb{} ]"


def test_contents_are_lists_of_parts_where_the_template_looks_for_parts():
    template = "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}"

    assert render(template, Message("user", "u")) == "u"


def test_arguments_are_text_where_the_template_adds_them_to_text():
    template = (
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}"
        "{{ c.function.name + '(' + c.function.arguments + ')' }}{% endfor %}{% endfor %}"
    )

    assert render(template, *calling()) == 'uf({"k": "v"})r'


def test_a_call_without_words_has_null_content_where_the_template_asks_for_that():
    template = (
        "{% for m in messages %}{% if m.content is none %}{{ m.tool_calls | tojson }}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    )

    assert '"arguments": {"k": "v"}' in render(template, *calling())


NINE = (
    "{% for m in messages %}{% for c in m.tool_calls %}"
    "{% if c.id | length != 9 %}{{ raise_exception('nine!') }}{% endif %}"
    "{{ c.id }} {{ c.function.name }} {{ c.function.arguments | tojson }} {% endfor %}"
    "{{ m.tool_call_id }}{{ m.content }}{% endfor %}"
)


@pytest.mark.parametrize("id_", ["call_12345678", ""])
def test_ids_become_nine_characters_where_the_template_demands_it(id_):
    words = render(NINE, *calling(id_)).split()

    assert len(words[0]) == len("u") + 9
    assert words[-1] == f"{words[0][1:]}r"


def test_ids_of_nine_characters_stay():
    assert render(NINE, *calling("abcdefghi")) == 'uabcdefghi f {"k": "v"} abcdefghir'


def test_calls_and_results_are_told_as_text_where_the_template_knows_neither():
    template = TURNS.replace("messages", "messages if m.role != 'tool'")

    call = json.dumps([{"name": "f", "arguments": {"k": "v"}}])
    result = json.dumps({"tool_response": {"name": "f", "content": "r"}})
    assert render(template, *calling()) == f"[user:u][assistant:{call}][user:{result}]"


def test_tools_are_told_by_the_system_where_the_template_has_no_place_for_them():
    text = render(TURNS, Message("system", "s"), Message("user", "u"), tools=TOOLS)

    assert text.startswith("[system:s\n\n")
    assert '"name": "f"' in text


def test_no_tools_are_an_empty_list_where_the_template_looks_into_it():
    assert render("{% for t in tools %}{% endfor %}" + TURNS, Message("user", "u")) == "[user:u]"


def test_a_template_that_nothing_helps_says_what_is_wrong():
    with pytest.raises(TemplateFailed, match=r"^never$"):
        render("{{ raise_exception('never') }}", Message("system", "s"), *calling(), tools=TOOLS)


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

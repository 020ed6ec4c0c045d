"""Templates that want a conversation in another shape or form get it so."""

import json

import pytest

from ollama_async.core.conversation import Message, ToolCall, ToolFunction
from ollama_async.core.errors import TemplateFailed
from tests.unit.prompts.template_harness import TOOLS, TURNS, calling, render


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

    messages.append(Message("user", "d"))

    assert render(template, *messages) == "[user:a\n\nb][assistant:c][user:d]"
    assert render(TURNS, *messages) == "[user:a][user:b][assistant:c][user:d]"


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


def test_a_call_without_text_has_null_content_if_the_template_requires_it():
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


def test_calls_and_results_become_text_if_the_template_shows_neither():
    template = TURNS.replace("messages", "messages if m.role != 'tool'")

    call = json.dumps([{"name": "f", "arguments": {"k": "v"}}])
    result = json.dumps({"tool_response": {"name": "f", "content": "r"}})
    assert render(template, *calling()) == f"[user:u][assistant:{call}][user:{result}]"


def test_tools_go_to_the_system_message_if_the_template_ignores_them():
    text = render(TURNS, Message("system", "s"), Message("user", "u"), tools=TOOLS)

    assert text.startswith("[system:s\n\n")
    assert '"name": "f"' in text


def test_no_tools_are_an_empty_list_where_the_template_looks_into_it():
    assert render("{% for t in tools %}{% endfor %}" + TURNS, Message("user", "u")) == "[user:u]"


def test_a_template_that_nothing_helps_says_what_is_wrong():
    with pytest.raises(TemplateFailed, match=r"^never$"):
        render("{{ raise_exception('never') }}", Message("system", "s"), *calling(), tools=TOOLS)


FIRST_ONLY = (
    "{% if messages[0].role == 'system' %}[system:{{ messages[0].content }}]{% endif %}"
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
)


def test_later_system_messages_are_hoisted_where_the_template_shows_the_first_message_only():
    messages = [Message("system", "s"), Message("user", "a"), Message("assistant", "b")]
    messages += [Message("system", "t"), Message("user", "c")]

    assert render(FIRST_ONLY, *messages) == "[system:s\n\nt][user:a][assistant:b][user:c]"
    assert render(FIRST_ONLY, *messages[1:]) == "[system:t][user:a][assistant:b][user:c]"
    assert render(TURNS, *messages) == "".join(f"[{m.role}:{m.content}]" for m in messages)


def test_several_system_messages_are_joined_where_the_template_shows_the_first_only():
    messages = [Message("system", "s"), Message("system", "t"), Message("user", "u")]

    assert render(FIRST_ONLY, *messages) == "[system:s\n\nt][user:u]"


def test_a_system_message_that_asks_for_the_next_answer_is_the_users_where_it_cannot_stay():
    messages = [Message("user", "a"), Message("assistant", "b"), Message("system", "s")]

    assert render(FIRST_ONLY, *messages) == "[user:a][assistant:b][user:s]"


ANSWERS_USERS = (
    "{% for m in messages if m.role == 'system' %}{{ m.content }};{% endfor %}"
    "{% for m in messages if m.role != 'system' %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    "{% if messages[-1].role == 'user' or (messages[-1].role == 'system' and "
    "messages | selectattr('role', 'equalto', 'user') | list and "
    "not messages | selectattr('role', 'equalto', 'assistant') | list) %}[assistant:{% endif %}"
)


def test_a_system_message_after_an_answer_is_the_users_where_no_answer_begins_behind_it():
    rule, ask, answer = Message("system", "s"), Message("user", "u"), Message("assistant", "a")
    last = Message("system", "t")

    assert render(ANSWERS_USERS, rule, ask, answer, last) == (
        "s;[user:u][assistant:a][user:t][assistant:"
    )
    assert render(ANSWERS_USERS, ask, last) == "t;[user:u][assistant:"
    assert render(f"{TURNS}[assistant:", ask, answer, last) == (
        "[user:u][assistant:a][system:t][assistant:"
    )


@pytest.mark.parametrize("tools", [[], TOOLS])
def test_a_system_message_after_a_question_comes_first_where_no_answer_begins_behind_it(tools):
    template = TURNS + "{% if messages[-1].role == 'user' %}[assistant:{% endif %}"

    text = render(template, Message("user", "u"), Message("system", "s"), tools=tools)

    assert text.startswith("[system:")
    assert text.endswith("s][user:u][assistant:")


@pytest.mark.parametrize("tools", [[], TOOLS])
def test_system_messages_alone_are_the_users_where_no_answer_begins_behind_them(tools):
    text = render(ANSWERS_USERS, Message("system", "s"), Message("system", "t"), tools=tools)

    assert text.startswith("[user:s\n\n")
    assert text.endswith("t][assistant:")


WITH_TOOLS = "{% if tools %}{{ tools | tojson }}{% endif %}"
TOOLS_IN_EACH_SYSTEM = (
    "{% if not messages | selectattr('role', 'equalto', 'system') | list %}"
    f"[system:{WITH_TOOLS}]{{% endif %}}"
    "{% for m in messages %}[{{ m.role }}:{{ m.content }}"
    f"{{% if m.role == 'system' %}}{WITH_TOOLS}{{% endif %}}]{{% endfor %}}"
)


@pytest.mark.parametrize(
    "rest",
    [
        [Message("system", "t"), Message("user", "u")],
        [Message("user", "u"), Message("system", "t")],
        [Message("user", "u"), Message("assistant", "a"), Message("system", "t")],
        [
            *calling(),
            Message("assistant", "a"),
            *[Message("system", "t")] * 2,
            Message("user", "v"),
        ],
        [*calling(), Message("system", "t")],
        [*calling(), Message("system", "t"), Message("user", "v")],
    ],
    ids=lambda rest: ", ".join(message.role for message in rest),
)
def test_tools_are_declared_once_where_each_system_message_repeats_them(rest):
    for messages in (rest, [Message("system", "s"), *rest]):
        text = render(TOOLS_IN_EACH_SYSTEM, *messages, tools=TOOLS)

        assert text.count('"function"') == render(
            TOOLS_IN_EACH_SYSTEM, Message("user", "u"), tools=TOOLS
        ).count('"function"')
        assert [m.content for m in messages if m.content not in text] == []


def test_tools_that_the_template_always_declares_twice_move_no_system_message():
    template = WITH_TOOLS * 2 + TURNS
    messages = [Message("user", "u"), Message("system", "s"), Message("user", "v")]

    assert render(template, *messages, tools=TOOLS).endswith("[user:u][system:s][user:v]")


def test_a_developer_is_a_system():
    messages = [Message("developer", "s"), Message("user", "a"), Message("developer", "t")]

    assert render(FIRST_ONLY, *messages) == "[system:s\n\nt][user:a]"


@pytest.mark.slow
def test_a_role_that_the_template_does_not_know_is_a_user():
    template = TURNS.replace("messages", "messages if m.role in ('user', 'critic')")
    messages = [Message("user", "a"), Message("critic", "b"), Message("human", "c")]

    assert render(template, *messages) == "[user:a][critic:b][user:c]"
    many = [Message(f"role{number}", f"word{number}.") for number in range(100)]
    assert all(one.content in render(template, *many) for one in many)


ALTERNATING = (
    "{% set n = namespace(i=0) %}{% for m in messages %}"
    "{% if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}"
    "{% if (m.role == 'user') != (n.i % 2 == 0) %}{{ raise_exception('alternate!') }}{% endif %}"
    "{% set n.i = n.i + 1 %}{% endif %}[{{ m.role }}:{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}]"
    "{% endfor %}"
)


def test_a_turn_of_the_user_comes_before_a_greeting_where_roles_must_alternate():
    messages = [Message("assistant", "hello"), Message("user", "u")]

    assert render(ALTERNATING, *messages) == "[user:][assistant:hello][user:u]"
    assert render(TURNS, *messages) == "[assistant:hello][user:u]"


def test_a_turn_of_the_assistant_comes_after_results_where_roles_must_alternate():
    text = render(ALTERNATING, *calling(), Message("user", "and?"))

    assert text == "[user:u][assistant:f{'k': 'v'}][tool:r][assistant:][user:and?]"


def test_a_turn_that_must_not_be_empty_has_dots_in_it():
    template = (
        "{% for m in messages %}{% if not m.content and not m.tool_calls %}"
        "{{ raise_exception('empty!') }}{% endif %}{% endfor %}" + ALTERNATING
    )

    assert render(template, Message("assistant", "a"), Message("user", "u")) == (
        "[user:...][assistant:a][user:u]"
    )


ONE_CALL = (
    "{% for m in messages %}{% if m.tool_calls | length > 1 %}{{ raise_exception('one!') }}"
    "{% endif %}[{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}"
    "{{ c.function.arguments }}{% endfor %}]{% endfor %}"
)


@pytest.mark.parametrize("ids", [("x", "y"), ("", "")])
def test_calls_come_one_by_one_with_their_results_where_a_message_can_have_only_one(ids):
    made = [ToolCall(ToolFunction(name), id=id_) for name, id_ in zip("fg", ids, strict=True)]
    results = [
        Message("tool", name * 2, tool_name=name, tool_call_id=id_)
        for name, id_ in zip("fg", ids, strict=True)
    ]
    asked = [Message("user", "u"), Message("assistant", "w", tool_calls=made), *results[::-1]]

    assert render(ONE_CALL, *asked) == "[u][wf{}][ff][g{}][gg]"


EITHER = (
    "{% for m in messages %}[{% if m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ m.thinking }}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}]{% endfor %}"
)


def test_text_beside_a_call_gets_its_own_message_if_the_template_shows_only_calls():
    asked = calling()
    asked[1].content = "wait"

    assert render(EITHER, *asked) == "[u][wait][f{'k': 'v'}][r]"


def test_text_joins_the_thoughts_if_only_then_both_are_shown():
    asked = calling()
    asked[1].content, asked[1].thinking = "wait", "hm"

    assert render(EITHER, *asked) == "[u][hm\n\nwaitf{'k': 'v'}][r]"


WORDS_LAST = (
    "{% for m in messages if m.role != 'tool' %}"
    "{% if loop.previtem is not defined or loop.previtem.role != m.role %}<{{ m.role }}>{% endif %}"
    "{% if m.thinking and loop.last %}({{ m.thinking }}){% endif %}"
    "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments }}"
    "{% for r in messages if r.tool_call_id == c.id %}:{{ r.content }}{% endfor %}{% endfor %}"
    "{{ m.content }}{% if m.content %};{% endif %}{% endfor %}"
    "{% if messages[-1].role != 'tool' or messages[-2].content %}<assistant>{% endif %}"
)
"""Writes the results of a call in front of the words beside it."""


def test_text_becomes_thoughts_if_the_template_puts_it_after_the_result_of_its_call():
    asked = calling()
    asked[1].content = "wait"

    assert render(WORDS_LAST, *asked) == "<user>u;<assistant>(wait)f{'k': 'v'}:r"


def test_past_text_gets_its_own_turn_if_the_template_puts_it_after_the_result():
    asked = [*calling(), Message("assistant", "done"), Message("user", "why?")]
    asked[1].content = "wait"

    assert render(WORDS_LAST, *asked) == (
        "<user>u;<assistant>wait;<user><assistant>f{'k': 'v'}:rdone;<user>why?;<assistant>"
    )


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_results_are_put_behind_their_calls_where_nobody_may_speak_between(role):
    template = (
        "{% for m in messages %}{% if m.role == 'tool' and not (loop.previtem.tool_calls) %}"
        "{{ raise_exception('where is the call?') }}{% endif %}[{{ m.content }}"
        "{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments }}{% endfor %}]"
        "{% endfor %}"
    )
    ask, call, result = calling()

    assert render(template, ask, call, Message(role, "x"), result, Message("user", "y")) == (
        "[u][f{'k': 'v'}][r][x][y]"
    )
    lone = json.dumps({"tool_response": {"name": "f", "content": "r"}})
    assert render(template, ask, result) == f"[u][{lone}]"


def test_empty_answers_are_dropped_where_the_template_refuses_them():
    template = (
        "{% for m in messages %}{% if not m.content %}{{ raise_exception('empty!') }}{% endif %}"
        "[{{ m.role }}:{{ m.content }}]{% endfor %}"
    )
    messages = [Message("user", "a"), Message("assistant", thinking="hm"), Message("user", "b")]

    assert render(template, *messages) == "[user:a][user:b]"


def test_a_conversation_that_fits_no_shape_is_rendered_as_plain_turns():
    template = (
        "{% for m in messages %}{% if m.role not in ('user', 'assistant') or m.tool_calls or "
        "(m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('no') }}{% endif %}"
        "[{{ m.role }}:{{ m.content }}]{% endfor %}"
    )
    words = render(
        template,
        *(Message("tool", "t"), Message("assistant", "a"), Message("system", "s")),
        *(*calling(), Message("assistant", "b"), Message("assistant", "c"), *calling()),
    )

    places = [words.index(word) for word in ('"t"', "a]", "s\n\nu", '"k"', '"r"', "b\n\nc")]
    assert places == sorted(places)


def test_a_refusal_names_the_message():
    template = (
        "{% for m in messages %}{% if 'bad' in m.content %}{{ raise_exception('bad word') }}"
        "{% endif %}{{ m.content }}{% endfor %}"
    )
    texts = ["a", "b", "c", "too bad", "e", "f"]
    messages = [Message(("user", "assistant")[n % 2], text) for n, text in enumerate(texts)]

    with pytest.raises(TemplateFailed, match=r"^message 4 \(assistant\): bad word$"):
        render(template, *messages)

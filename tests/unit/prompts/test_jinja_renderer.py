"""Chat templates: what they see, what they may do, and how hostile ones end."""

import json

import pytest

from ollama_async.core.conversation import Message, Prompt, ToolCall, ToolFunction
from ollama_async.core.errors import TemplateFailed
from ollama_async.prompts.jinja_renderer import SOURCE_LIMIT, JinjaRenderer

CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message.content | trim + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def render(template, *messages, **more):
    prompt = Prompt(messages=[Message(role, text) for role, text in messages], **more)
    return JinjaRenderer(template, bos="<s>", eos="</s>").render(prompt)


def test_a_conversation_becomes_the_text_its_template_describes():
    text = render(CHATML, ("system", "Be kind."), ("user", " Hi <b>&\n"))

    assert text == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi <b>&<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_white_space_around_blocks_is_swallowed_as_hugging_face_does():
    template = (
        "{% if true %}\n  {% for m in messages %}\n{{ m.content }}\n  {% endfor %}\n{% endif %}"
    )

    assert render(template, ("user", "a"), ("user", "b")) == "a\nb\n"


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ bos_token }}|{{ eos_token }}", "<s>|</s>"),
        ("{{ tools is none }}", "True"),
        ("{{ enable_thinking is defined }}", "False"),
        ("{{ strftime_now('%Y') | length }}", "4"),
        ("{{ {'b': 'é<', 'a': [1, none]} | tojson }}", '{"b": "é<", "a": [1, null]}'),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{{ 'a' ~ 1 ~ none ~ true ~ [2] ~ missing }}", "a1NoneTrue[2]"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{% generation %}x{{ 1 }}{% endgeneration %}y", "x1y"),
        ("{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 2 %}{{ ns.n }}", "2"),
        ("{{ '%s-%d%%' % ('a', 3) }}", "a-3%"),
        ("{{ 'a</think>b'.split('</think>')[-1].lstrip('\\n') }}", "b"),
        ("{{ ['a', 'b'] | join(', ') }}{{ 'x'.join(['a', 'b']) }}", "a, baxb"),
        ("{{ 'a\nb' | indent(2) }}", "a\n  b"),
        ("{{ 7 % 3 }}{{ 2 ** 3 }}{{ [1] + [2] }}{{ 'ab' * 2 }}", "18[1, 2]abab"),
        ("{{ [3, 1] | sort | first }}{{ [1, 2] | sum }}{{ 2.567 | round(1) }}", "132.6"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f('a') ~ f('b') }}", "<a><b>"),
        ("{{ '<&>' | e }}{{ '<' | safe }}", "&lt;&amp;&gt;<"),
        ("{{ messages[0].role.upper() }}{{ messages[0].get('x', 'none') }}", "USERnone"),
        ("{{ 'a-b' | replace('-', '+') }}{{ 'aa'.replace('a', 'b', 1) }}", "a+bba"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x }}", "a1"),
        ("{% for m in messages %}{{ m.content.strip() }}{{ m.get('x', 1) }}{% endfor %}", "hi1"),
        ("{% set x = [] %}{% set _ = x.append(1) %}{{ x }}{{ x.pop() }}{{ x }}", "[1]1[]"),
        ("{% set x = {} %}{% set _ = x.update({'a': 1}) %}{{ x }}", "{'a': 1}"),
        ("{{ '{}-{1}-{a}-{{'.format(1, 2, a=3) }}", "1-2-3-{"),
        ("{{ 'a' + missing.deep.text + 'b' }}{{ missing | tojson }}", "abnull"),
        ("{{ messages | map(attribute='role') | tojson }}", '["user"]'),
        ("{{ ['a', 'b', 'c'] | batch(2) | map('join') | join('|') }}", "ab|c"),
    ],
)
def test_what_chat_templates_use_works(template, text):
    assert render(template, ("user", "hi")) == text


def test_tool_calls_and_results_reach_the_template():
    call = ToolCall(ToolFunction("f", {"city": "Köln", "n": 1}), id="c1")
    prompt = Prompt(
        messages=[
            Message("assistant", tool_calls=[call]),
            Message("tool", "rain", tool_name="f", tool_call_id="c1"),
        ],
        tools=[{"type": "function", "function": {"name": "f"}}],
    )
    template = (
        "{{ tools[0].function.name }} {{ messages[0].tool_calls[0].function.arguments | tojson }} "
        "{{ messages[1].name }} {{ messages[1].tool_call_id }} {{ messages[1].content }}"
    )

    text = JinjaRenderer(template, bos="", eos="").render(prompt)

    assert text == 'f {"city": "Köln", "n": 1} f c1 rain'


def test_tools_keep_the_order_of_the_clients_keys():
    tool = {
        "type": "function",
        "function": {
            "name": "f",
            "description": "It does.",
            "parameters": {"type": "object", "required": ["a"], "properties": {"a": {}}},
        },
    }
    renderer = JinjaRenderer("{{ tools[0] | tojson }}", bos="", eos="")
    prompt = Prompt(messages=[Message("user", "hi")], tools=[tool])

    assert renderer.render(prompt) == json.dumps(tool)


@pytest.mark.parametrize(
    ("declared", "completed"),
    [
        ({"type": "object", "properties": {"a": {}}}, {"type": "object", "properties": {"a": {}}}),
        ({"type": "object"}, {"type": "object", "properties": {}}),
        (None, {"type": "object", "properties": {}}),
    ],
)
def test_tools_have_parameters_as_in_ollama_and_nothing_else_that_was_not_sent(declared, completed):
    function = {"name": "f"} | ({"parameters": declared} if declared else {})
    prompt = Prompt(messages=[Message("user", "hi")], tools=[{"function": function}])

    text = JinjaRenderer("{{ tools[0] | tojson }}", bos="", eos="").render(prompt)

    assert json.loads(text) == {"function": {"name": "f", "parameters": completed}}


def test_what_a_template_does_to_messages_and_tools_ends_with_the_rendering():
    template = (
        "{{ messages | length }}{{ tools | length }}{{ tools[0].function | length }}"
        "{% set _ = messages.append({'role': 'user'}) %}{% set _ = tools.append(1) %}"
        "{% set _ = tools[0].function.update(more=1) %}"
    )
    renderer = JinjaRenderer(template, bos="", eos="")
    function = {"name": "f", "description": "", "parameters": {"type": "object"}}
    prompt = Prompt(messages=[Message("user", "hi")], tools=[{"function": function}])

    assert [renderer.render(prompt) for _ in range(2)] == ["113", "113"]
    assert prompt.tools == [{"function": function}]


@pytest.mark.parametrize(
    ("think", "text"), [(True, "True-"), (False, "False-"), ("high", "True-high")]
)
def test_the_wish_to_think_reaches_the_template(think, text):
    assert render("{{ enable_thinking }}-{{ reasoning_effort }}", think=think) == text


def test_a_refusal_of_the_template_is_the_error_of_the_request():
    with pytest.raises(TemplateFailed, match=r"^Roles must alternate$"):
        render("{{ raise_exception('Roles must alternate') }}")


HOSTILE = {
    "repetition": "{{ 'x' * 10**10 }}",
    "list repetition": "{{ [1] * 10**10 }}",
    "huge number": "{{ 10 ** 10000000000 }}",
    "growing number": "{% set n = namespace(x=9) %}{% for i in range(99) %}"
    "{% set n.x = n.x * n.x %}{% endfor %}",
    "concatenation": "{% set n = namespace(x='x') %}{% for i in range(99) %}"
    "{% set n.x = n.x ~ n.x %}{% endfor %}",
    "addition": "{% set n = namespace(x='x') %}{% for i in range(99) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}",
    "list addition": "{% set n = namespace(x=[1]) %}{% for i in range(99) %}"
    "{% set n.x = n.x + n.x %}{% endfor %}",
    "set block": "{% set n = namespace(x='x') %}{% for i in range(99) %}"
    "{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "macro": "{% macro f(x) %}{{ x }}{{ x }}{% endmacro %}{% set n = namespace(x='x') %}"
    "{% for i in range(99) %}{% set n.x = f(n.x) %}{% endfor %}",
    "nested list as text": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "nested list as JSON": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x | tojson }}",
    "nested list in a format": "{% set n = namespace(x=[1]) %}{% for i in range(60) %}"
    "{% set n.x = [n.x, n.x] %}{% endfor %}{{ '%s' % n.x }}",
    "deep JSON": "{% set n = namespace(x=[1]) %}{% for i in range(900) %}"
    "{% set n.x = [n.x, 1] %}{% endfor %}{{ [n.x] * 9000 | tojson(indent=60) }}",
    "width of a format": "{{ '%1000000000d' % 1 }}",
    "width of a format filter": "{{ '%*d' | format(1000000000, 1) }}",
    "format method": "{{ '{:1000000000}'.format(1) }}",
    "center method": "{{ 'x'.center(10**9) }}",
    "center filter": "{{ 'x' | center(10**9) }}",
    "zfill": "{{ 'x'.zfill(10**9) }}",
    "replace": "{{ ('x' * 100000).replace('x', 'x' * 100000) }}",
    "replace filter": "{{ ('x' * 100000) | replace('', 'x' * 100000) }}",
    "join": "{{ ('x' * 100000).join(['a'] * 100000) }}",
    "join filter": "{{ range(100000) | join('x' * 100000) }}",
    "indent": "{{ ('x\n' * 10000) | indent(100000) }}",
    "many digits": "{{ ('f' * 8000000) | int(base=16) % 7 }}",
    "strip": "{{ ('b' * 4000000).strip('a' * 4000000 + 'b') }}",
    "trim filter": "{{ ('b' * 4000000) | trim('a' * 4000000 + 'b') }}",
    "round": "{{ 5 | round(-1000000000) }}",
    "batch": "{{ [1] | batch(1000000000, 'x') | first | length }}",
    "slice": "{{ [1] | slice(1000000000) | length }}",
    "many parts": "{{ ('x ' * 4000000).split() | length }}",
    "sum of lists": "{{ [[1] * 1000] * 1000 | sum(start=[]) }}",
    "too much output": "{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
    "long range": "{{ range(10**9) | list }}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "the interpreter": "{{ ''.__class__.__mro__ }}",
    "attribute in a format": "{{ '{0.__class__}'.format(1) }}",
    "format of much": "{{ ('{0}' * 100000).format('x' * 100000) }}",
    "endless appending": "{% set x = [1] %}{% for i in x %}{% set _ = x.extend([i] * 9999) %}"
    "{% endfor %}",
    "a list that holds itself": "{% set x = [] %}{% set _ = x.append(x) %}{{ x }}",
    "a list that doubles": "{% set x = [1] %}{% for i in range(99) %}"
    "{% set _ = x.extend(x) %}{% endfor %}",
    "clearing": "{{ messages.clear() }}",
    "autoescape": "{% autoescape true %}{{ '<' }}{% endautoescape %}",
    "include": "{% include 'x' %}",
    "bytes": "{{ (5).to_bytes(10**9) }}",
    "an unknown filter": "{{ 1 | pprint }}",
    "broken syntax": "{% if %}",
    "deep parentheses": "{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}",
    "a constant": "{{ 'x' | center(10**9) }}{{ ('x' * 10**9) | length }}",
    "its own length": " " * (SOURCE_LIMIT + 1),
    "division": "{{ 1 / 0 }}",
}


@pytest.mark.slow
@pytest.mark.parametrize("template", HOSTILE.values(), ids=HOSTILE)
def test_a_template_that_asks_for_too_much_fails_its_request(template):
    with pytest.raises(TemplateFailed):
        render(template, ("user", "hi"))


def test_a_broken_template_breaks_every_request_in_the_same_way():
    renderer = JinjaRenderer("{% if %}", bos="", eos="")

    errors = []
    for _ in range(2):
        with pytest.raises(TemplateFailed) as caught:
            renderer.render(Prompt())
        errors.append(str(caught.value))

    assert errors[0] == errors[1]
    assert "chat template" in errors[0]

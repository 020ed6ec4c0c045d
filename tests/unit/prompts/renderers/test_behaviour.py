"""What the recorded prompts do not show: longer conversations, levels, sizes, broken input."""

import re
import tracemalloc
from datetime import date

import pytest

from ollama_async.core.conversation import ChatFormatSpec, Message, Prompt, ToolCall, ToolFunction
from ollama_async.core.errors import TemplateFailed
from ollama_async.core.json_depth import TOOL_DEPTH
from ollama_async.prompts.renderers import NAMES, glimmer, named

OFFER_TOOLS = [name for name in NAMES if not name.endswith(("olmo3-think", "32b-think"))]


def user(text="ask"):
    return Message("user", text)


def assistant(text="", *calls, thinking=""):
    return Message("assistant", text, thinking=thinking, tool_calls=list(calls))


def call(name, ident="", **arguments):
    return ToolCall(ToolFunction(name, arguments), id=ident)


def result(text, **more):
    return Message("tool", text, **more)


def tool(name="add", **schema):
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def render(name, *messages, **more):
    return named(name).render(Prompt(messages=list(messages), **more))


def in_order(text, *parts):
    return re.search(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None


def test_an_unknown_name_is_no_renderer():
    assert named("qwen9") is None


@pytest.mark.parametrize("name", NAMES)
def test_the_beginning_of_an_answer_is_left_open(name):
    text = render(name, user(), assistant("To begin"))

    assert text.endswith("To begin")


@pytest.mark.parametrize("think", [None, True, "low"])
@pytest.mark.parametrize(
    ("name", "begun"),
    [
        ("qwen3-vl-thinking", "<|im_start|>assistant\n<think>\n"),
        ("qwen3.5", "<|im_start|>assistant\n<think>\n"),
        ("qwen3.8", "<|im_start|>assistant\n<think>\n"),
        ("ornith", "<|im_start|>assistant\n<think>\n"),
        ("cogito", "<｜Assistant｜><think>\n"),  # noqa: RUF001
        ("deepseek3.1", "<｜Assistant｜><think>"),  # noqa: RUF001
        ("olmo3-think", "<|im_start|>assistant\n<think>"),
        ("olmo3-32b-think", "<|im_start|>assistant\n<think>"),
        ("nemotron-3-nano", "<|im_start|>assistant\n<think>\n"),
        ("nemotron-3.5-nano", "<|im_start|>assistant\n<think>\n"),
        ("gemma4", "<|turn>model\n<|channel>thought\n"),
        ("gemma4-small", "<|turn>model\n<|channel>thought\n"),
        ("gemma4-large", "<|turn>model\n<|channel>thought\n"),
        ("glm-4.7", "<|assistant|><think>"),
        ("glm-ocr", "<|assistant|>\n<think>"),
        ("lfm2-thinking", "<|im_start|>assistant\n<think>"),
        ("laguna", "<assistant>\n<think>\n"),
        ("poolside-v1", "<assistant><think>"),
        ("cohere", "<|CHATBOT_TOKEN|><|START_THINKING|>"),
        ("glimmer", "<|start|>assistant to=self<|message|>"),
    ],
)
def test_an_unfinished_thought_is_left_open(name, begun, think):
    text = render(name, user(), assistant(thinking="To begin"), think=think)

    assert text.endswith(f"{begun}To begin")


@pytest.mark.parametrize(
    ("name", "ended"),
    [
        ("qwen3.5", "<think>\nTo begin\n</think>\n\n"),
        ("gemma4", "<|channel>thought\nTo begin\n<channel|>"),
        ("glimmer", "to=self<|message|>To begin<|eom|><|start|>assistant"),
        ("qwen3-coder", "<|im_start|>assistant\n"),
    ],
)
def test_an_unfinished_thought_is_ended_where_the_client_wants_no_thinking(name, ended):
    text = render(name, user(), assistant(thinking="To begin"), think=False)

    assert text.endswith(ended)


@pytest.mark.parametrize("name", ["gemma4", "deepseek3.1"])
def test_an_unfinished_thought_after_a_result_is_in_the_same_turn(name):
    acting = [user(), assistant("", call("a")), result("r")]
    text = render(name, *acting, assistant(thinking="To begin"), think=True)

    assert text.startswith(render(name, *acting, think=True))
    assert text.endswith("To begin")


@pytest.mark.parametrize(
    ("name", "opening"),
    [
        ("qwen3.5", "<|im_start|>assistant\n<think>\n"),
        ("gemma4-large", "<|turn>model\n<|channel>thought\n<channel|>"),
        ("glm-4.7", "<|assistant|><think>"),
        ("glimmer", "<|start|>assistant"),
    ],
)
def test_an_empty_last_answer_is_no_beginning(name, opening):
    assert render(name, user(), assistant("")).endswith(opening)


@pytest.mark.parametrize("name", NAMES)
def test_a_system_message_in_the_middle_is_kept(name):
    text = render(name, Message("system", "first"), user(), Message("system", "second"), user("Q2"))

    assert in_order(text, "first", "second", "Q2")


@pytest.mark.parametrize("name", NAMES)
def test_system_messages_at_the_start_are_one(name):
    text = render(name, Message("system", "first"), Message("developer", "second"), user())

    assert "first\n\nsecond" in text


@pytest.mark.parametrize("name", NAMES)
def test_a_role_that_nobody_knows_is_refused(name):
    with pytest.raises(TemplateFailed, match="the role 'narrator' is none of"):
        render(name, Message("narrator", "Once upon a time"))


@pytest.mark.parametrize("name", NAMES)
def test_several_calls_and_their_results_keep_their_order(name):
    text = render(
        name,
        user(),
        assistant("", call("north", "n", at="Oslo"), call("south", "s", at="Rome")),
        result("cold", tool_call_id="n"),
        result("warm", tool_call_id="s"),
        assistant("Both known."),
        user("Thanks"),
        tools=[tool("north"), tool("south")],
    )

    assert in_order(text, "north", "Oslo", "south", "Rome", "cold", "warm", "Both known.", "Thanks")


@pytest.mark.parametrize("name", NAMES)
def test_words_beside_a_call_are_kept(name):
    text = render(name, user(), assistant("Let me see.", call("look")), result("seen"))

    said = ["look", "Let me see."] if name.startswith("lfm2") else ["Let me see.", "look"]
    assert in_order(text, *said, "seen")


@pytest.mark.parametrize("name", OFFER_TOOLS)
def test_keywords_of_a_schema_that_the_format_has_room_for_reach_the_model(name):
    described = {"n": {"type": "integer", "description": "how many"}}
    text = render(name, user(), tools=[tool(properties=described)])

    assert "how many" in text


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("gemma4:e2b", "model\n"),
        ("gemma4:e4b-it-q4_K_M", "model\n"),
        ("gemma4:12b", "<channel|>"),
        ("gemma4:26b-a4b", "<channel|>"),
        ("someone/Gemma4-31B:latest", "<channel|>"),
        ("gemma4:1.12b", "model\n"),
        ("mario:latest", "model\n"),
        ("", "model\n"),
    ],
)
def test_gemma4_knows_its_size_from_the_name_of_the_model(name, ends):
    assert render("gemma4", user(), chat_format=ChatFormatSpec(name=name)).endswith(ends)


@pytest.mark.parametrize(
    ("name", "count", "ends"),
    [
        ("mine", 11_900_000_000, "model\n"),
        ("mine", 12_000_000_000, "<channel|>"),
        ("gemma4:e4b", 12_000_000_000, "model\n"),
        ("gemma4:26b", 4_000_000_000, "<channel|>"),
    ],
)
def test_gemma4_knows_its_size_from_its_parameters_where_the_name_says_none(name, count, ends):
    spec = ChatFormatSpec(name=name, parameter_count=count)

    assert render("gemma4", user(), chat_format=spec).endswith(ends)


@pytest.mark.parametrize(
    ("think", "said"),
    [("low", "Reasoning effort is set to low."), ("high", "xhigh"), ("max", "xhigh")],
)
def test_qwen38_is_told_how_much_to_think(think, said):
    text = render("qwen3.8", user(), think=think)

    assert said in text
    assert text.endswith("<think>\n")


def test_qwen38_is_told_nothing_for_a_medium_effort():
    assert render("qwen3.8", user(), think="medium") == render("qwen3.8", user(), think=True)


def test_glimmer_is_told_how_much_to_think():
    assert "Reasoning strength: low." in render("glimmer", user(), think="low")


def test_glimmer_is_not_told_twice():
    text = render("glimmer", Message("system", "Reasoning strength: odd."), user())

    assert text.count("Reasoning strength") == 1


def test_glimmer_writes_the_date_of_its_clock():
    renderer = glimmer.family(lambda: date(2031, 2, 3))

    assert "Current date: 2031-02-03." in renderer.render(Prompt(messages=[user()]))


def test_glimmer_writes_todays_date():
    before = glimmer.local_date()
    text = render("glimmer", user())

    assert re.search(r"Current date: (\S+)\.", text)[1] in {
        str(before),
        str(glimmer.local_date()),
    }


def test_glimmer_sends_thoughts_words_and_calls_as_messages_of_one_turn():
    text = render(
        "glimmer", user(), assistant("Wait.", call("a.b", x=True), thinking="hm"), result("1")
    )

    assert text.partition("ask<|eot|>")[2] == (
        "<|start|>assistant to=self<|message|>hm<|eom|>"
        "<|start|>assistant to=user<|message|>Wait.<|eom|>"
        '<|start|>assistant to=a.b<|message|><atem:function_calls>\n<atem:invoke name="a.b">\n'
        '<atem:parameter name="x">true</atem:parameter>\n</atem:invoke>\n</atem:function_calls>'
        '<|eot|><|start|>tool a.b<|message|><tool_output name="a.b">\n1\n</tool_output><|eot|>'
        "<|start|>assistant"
    )


def test_results_that_neighbour_share_a_turn():
    text = render("qwen3.5", user(), assistant("", call("a"), call("b")), result("1"), result("2"))

    assert (
        "<|im_start|>user\n<tool_response>\n1\n</tool_response>\n"
        "<tool_response>\n2\n</tool_response><|im_end|>\n"
    ) in text


def test_a_turn_of_gemma_goes_on_after_results():
    text = render(
        "gemma4", user(), assistant("", call("a", n=1)), result("r"), assistant("So."), user()
    )

    assert (
        "<|turn>model\n<|tool_call>call:a{n:1}<tool_call|>"
        '<|tool_response>response:a{value:<|"|>r<|"|>}<tool_response|>So.<turn|>\n<|turn>user'
    ) in text


def test_an_answer_of_deepseek_goes_on_after_results():
    text = render(
        "deepseek3.1", user(), assistant("", call("a")), result("r"), assistant("So."), user()
    )

    assert "<｜tool▁output▁begin｜>r<｜tool▁output▁end｜>So.<｜end▁of▁sentence｜><｜User｜>" in text  # noqa: RUF001


def test_results_say_by_id_which_call_they_answer():
    calls = call("first", "1"), call("second", "2")
    text = render(
        "cohere",
        user(),
        assistant("", call("zeroth")),
        result("z"),
        assistant("", *calls),
        result("b", tool_call_id="2"),
        result("a", tool_call_id="1"),
    )

    numbers = re.findall(r'"tool_call_id": "(\d)",\n.*?"content": "(\w)"', text, re.DOTALL)
    assert numbers == [("0", "z"), ("2", "b"), ("1", "a")]


@pytest.mark.parametrize(
    ("results", "names"),
    [
        ([result("x"), result("y")], ["first", "second"]),
        ([result("y", tool_call_id="2"), result("x", tool_call_id="1")], ["second", "first"]),
        ([result("x", tool_name="other"), result("y")], ["other", "second"]),
        ([result("x"), result("y"), result("z", tool_call_id="9")], ["first", "second", "9"]),
    ],
)
def test_results_without_a_name_get_that_of_their_call(results, names):
    calls = call("first", "1"), call("second", "2")
    text = render("functiongemma", user(), assistant("", *calls), *results)

    assert re.findall(r"response:(\w*){", text) == names


def test_results_that_only_their_order_tells_apart_are_in_the_order_of_their_calls():
    calls = call("first", "1"), call("second", "2")
    text = render(
        "qwen3.5",
        user(),
        assistant("", *calls),
        result("y", tool_call_id="2"),
        result("x", tool_call_id="1"),
        user(),
        assistant("", call("third")),
        result("z"),
    )

    assert re.findall(r"<tool_response>\n(\w)\n", text) == ["x", "y", "z"]


def test_a_result_with_the_name_of_a_call_answers_the_next_of_these():
    calls = call("look"), call("add"), call("look")
    results = [result(word, tool_name=name) for word, name in (("a", "add"), ("b", "look"))]
    text = render("cohere", user(), assistant("", *calls), *results, result("c", tool_name="look"))

    numbers = re.findall(r'"tool_call_id": "(\d)",\n.*?"content": "(\w)"', text, re.DOTALL)
    assert numbers == [("1", "a"), ("0", "b"), ("2", "c")]


def test_results_without_a_call_are_in_a_turn_of_the_model():
    opened = {"deepseek3.1": "<｜Assistant｜>", "gemma4": "model\n", "functiongemma": "model\n"}  # noqa: RUF001
    for name, mark in opened.items():
        text = render(name, user(), result("r"), assistant("So."), user())

        assert in_order(text, "ask", mark, "r", "So.")
        assert text.count(mark) == len(["the answer", "the next one"])


def test_gemma4_ends_an_answer_with_the_words_beside_its_last_calls():
    acting = assistant("On it.", call("a"))
    text = render("gemma4", user(), acting, result("r"), user("next"), acting, result("s"))

    past, _, pending = text.partition("next")
    assert in_order(past, "call:a", "value:", "On it.<turn|>\n<|turn>user")
    assert in_order(pending, "On it.", "call:a", "value:")


@pytest.mark.parametrize("more", [[], [Message("system", "rule")], [assistant("done"), user()]])
def test_gemma4_keeps_words_in_front_of_calls_where_the_user_does_not_speak_next(more):
    text = render("gemma4", user(), assistant("words", call("add")), result("8"), *more)

    assert in_order(text, "words", "call:add", "response:add", *(one.content for one in more))


def test_only_thoughts_of_the_answer_being_made_are_shown():
    old = assistant("", call("a"), thinking="old")
    new = assistant("", call("a"), thinking="new")
    text = render("qwen3.5", user(), old, result("1"), user(), new, result("2"))

    assert "old" not in text
    assert "<think>\nnew\n</think>\n\n<tool_call>" in text


def test_a_schema_in_gemmas_words():
    schema = {
        "type": "object",
        "properties": {
            "who": {
                "type": "object",
                "properties": {"name": {"type": ["string", "null"]}},
                "required": ["name"],
            },
            "many": {"type": "array", "items": {"type": "string", "enum": ["x"]}, "nullable": True},
        },
    }
    text = render("gemma4", user(), tools=[tool(**schema)])

    assert (
        'many:{items:{enum:[<|"|>x<|"|>],type:<|"|>STRING<|"|>},nullable:true,type:<|"|>ARRAY<|"|>},'
        'who:{properties:{name:{type:[<|"|>STRING<|"|>,<|"|>NULL<|"|>]}},required:[<|"|>name<|"|>],'
        'type:<|"|>OBJECT<|"|>}'
    ) in text


def test_arguments_in_pythons_words():
    made = call("f", text='say "hi"', yes=True, none=None, n=1.5, many=[1, {"a": False}])
    text = render("lfm2", user(), assistant("", made), result("1"))

    assert r'[f(text="say \"hi\"",yes=True,none=None,n=1.5,many=[1, {"a": false}])]' in text


@pytest.mark.parametrize(
    "tools",
    [
        [{}],
        [{"function": None}],
        [{"function": {"name": 5, "description": [], "parameters": "x"}}],
        [{"function": {"name": "f", "parameters": {"properties": [], "required": {"a": 1}}}}],
        [{"function": {"name": "f", "parameters": {"properties": {"a": None, "b": {"type": 1}}}}}],
        [{"name": "without_wrapping", "parameters": {"type": ["object", 3]}}],
        [{"function": {"name": "{0}%s{name}", "description": "{tools}", "parameters": {}}}],
    ],
)
def test_tools_of_wrong_shapes_are_rendered_as_far_as_they_go(tools):
    for name in NAMES:
        assert "ask" in render(name, user(), tools=tools), name


def nested(depth):
    value = "x"
    for _ in range(depth):
        value = {"properties": {"p": value}} if isinstance(value, dict) else {"p": value}
    return value


@pytest.mark.parametrize("name", ["cogito", "gemma4"])
def test_json_that_is_nested_too_deep_is_refused(name):
    deep = nested(50 * TOOL_DEPTH)

    with pytest.raises(TemplateFailed, match="levels of JSON"):
        render(name, user(), tools=[tool(**deep)])
    with pytest.raises(TemplateFailed, match="levels of JSON"):
        render(name, user(), assistant("", call("f", deep=deep)))


@pytest.mark.parametrize("name", NAMES)
def test_json_that_is_nested_as_deep_as_allowed_is_rendered(name):
    inner = nested((TOOL_DEPTH - 10) // 2)

    assert "ask" in render(name, user(), tools=[tool(**inner)])


@pytest.mark.parametrize("many", [["x" * 1000] * 10_000, [0] * 2_000_000])
def test_arguments_that_are_too_large_are_refused(many):
    with pytest.raises(TemplateFailed, match="too large"):
        render("cogito", user(), assistant("", call("f", many=many)))


@pytest.mark.parametrize("name", ["cogito", "gemma4"])
def test_what_is_too_large_is_refused(name):
    with pytest.raises(TemplateFailed, match="too large"):
        render(name, user("x" * (9 << 20)))
    with pytest.raises(TemplateFailed, match="too large"):
        render(name, user(), tools=[tool(number=10**5000)])


def test_how_much_there_is_shows_before_it_is_looked_through():
    many = [0] * 4_000_000
    prompt = Prompt(messages=[Message("user", "ask")], tools=[{"many": many}])

    tracemalloc.start()
    with pytest.raises(TemplateFailed, match="too large"):
        named("cogito").render(prompt)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 1 << 20


@pytest.mark.parametrize("name", ["nemotron-3-nano", "nemotron-3.5-nano"])
@pytest.mark.parametrize(
    ("words", "written"),
    [
        ("", "<think>\nhm\n</think>\n<tool_call>"),
        ("Wait.", "<think>\nhm\n</think>\nWait.\n<tool_call>"),
    ],
)
def test_a_call_of_nemotron_is_on_the_line_after_thoughts_or_words(name, words, written):
    acting = assistant(words, call("f"), thinking="hm")
    pending = render(name, user(), acting, result("1"))
    past = render(name, user(), acting, result("1"), user())

    assert written in pending
    assert written.replace("\nhm\n", "").replace("</think>\nWait", "</think>Wait") in past


@pytest.mark.parametrize("tools", [[], [tool()]], ids=["no tools", "tools"])
@pytest.mark.parametrize("before", [[], [assistant("", call("add")), result("8")]])
@pytest.mark.parametrize("name", NAMES)
def test_a_system_message_after_an_answer_asks_for_the_next(name, before, tools):
    rule = Message("system", "rule")
    opening = opening_of(name, tools)

    text = render(name, user(), *before, assistant("reply"), rule, tools=tools)

    assert text.endswith(opening)
    assert text.index("reply") < text.rindex(opening)


def opening_of(name, tools):
    """What begins an answer, behind what the ends of all turns have in common."""
    text, more = (render(name, *[user()] * count, tools=tools) for count in (1, 2))
    return text[next(i for i in range(len(text)) if not more.startswith(text[: i + 1])) :]

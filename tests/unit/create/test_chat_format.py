"""Templates, renderers and parsers of models that are made, and what they tell of a model."""

import pytest

from ollama_async.api.encode import LongParts
from ollama_async.api.ollama_models import CreateRequest, ShowRequest
from ollama_async.core.errors import BadRequest
from ollama_async.create.builder import create_model
from ollama_async.store.show import DescriptionCache, show
from ollama_async.store.store import Store
from tests.unit.store.store_helpers import list_models

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
TEXT = b"\x08\0\0\0"  # the type of a text in a GGUF
TOOLS = "{{ .Tools }}{{ .Prompt }}"


@pytest.fixture
def make(store, upload, tiny_gguf):
    """Makes a model of a file with such a chat template, and reads it again."""

    def make(chat_template="", *, architecture="llama", store=store, **request):
        keys = {"tokenizer__chat_template": chat_template} if chat_template else {}
        data = tiny_gguf(**keys)
        data.pairs[0] = data.string("general.architecture") + TEXT + data.string(architecture)
        digest = upload(data.build())
        files = {"tiny.gguf": digest}
        statuses = [*create_model(store, CreateRequest(model="m", files=files, **request))]
        return store.find("m"), statuses

    return make


@pytest.mark.parametrize(
    ("field", "text", "error"),
    [
        ("template", "{{ .Prompt", "template error: template: :1: unclosed action"),
        (
            "template",
            "{{ nothing }}",
            'template error: template: :1: function "nothing" not defined',
        ),
        ("renderer", "nobody", 'unknown renderer "nobody"'),
        ("parser", "nobody", 'unknown parser "nobody"'),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_done(store, make, field, text, error):
    with pytest.raises(BadRequest) as refusal:
        make(**{field: text})

    assert refusal.value.message == error
    assert list_models(store) == []


def test_a_known_template_is_detected_with_its_stop_strings(make):
    model, statuses = make(CHATML)

    assert {"status": "using autodetected template chatml"} in statuses
    assert model.template.startswith("{{ range .Messages }}<|im_start|>")
    assert model.parameters == {"stop": ["<|im_start|>", "<|im_end|>"]}
    assert model.selection == "go_template"


def test_requested_values_replace_detected_ones(make):
    model, _ = make(CHATML, template="mine", parameters={"stop": ["x"], "top_k": 3})

    assert model.template == "mine"
    assert model.parameters == {"stop": ["x"], "top_k": 3}


def test_an_unknown_format_keeps_the_file_s_template(make):
    model, statuses = make("{{ messages }}")

    assert not any("autodetected" in status["status"] for status in statuses)
    assert (model.template, model.parameters) == ("", {})
    assert model.selection == "gguf_chat_template"


def test_architectures_with_a_built_in_chat_format_get_it(make):
    model, _ = make(CHATML, architecture="gemma4")

    assert (model.renderer, model.parser, model.template) == ("gemma4", "gemma4", "")
    assert model.parameters == {"stop": ["<turn|>"]}
    assert {"tools", "thinking"} <= {*model.capabilities}


def test_a_built_in_chat_format_can_be_overridden(make):
    model, _ = make(architecture="gemma4", template=TOOLS)

    assert (model.renderer, model.parser, model.template) == ("", "", TOOLS)


@pytest.mark.parametrize(
    ("chat_template", "request_", "abilities"),
    [
        ("", {}, set()),
        ("", {"template": "{{ .Prompt }}"}, set()),
        ("", {"template": TOOLS}, {"tools"}),
        ("", {"template": "{{ .Prompt }}{{ .Suffix }}"}, {"insert"}),
        ("{{ tools }}", {}, {"tools"}),
        ("{{ tools }}<tool_call>{{ message.tool_calls }}</tool_call>", {}, {"tools"}),
        # nobody could read its calls
        ("{{ tools }}!call {{ message.tool_calls }}", {}, set()),
        ("{{ tools }}", {"template": TOOLS, "parser": "passthrough"}, set()),
        ("{{ tools }}", {"template": "{{ .Prompt }}"}, {"tools"}),
        ("{{ messages }}", {"template": TOOLS}, {"tools"}),
        ("{{ tools }}", {"parser": "passthrough"}, set()),
        ("", {"parser": "qwen3"}, {"tools"}),
        ("", {"parser": "qwen3-thinking"}, {"tools", "thinking"}),
        ("", {"renderer": "qwen3-coder", "parser": "qwen3-coder"}, {"tools"}),
        ("", {"renderer": "qwen3-coder"}, {"tools"}),
    ],
)
def test_abilities_are_those_of_the_template_in_force_and_the_parser(
    make, chat_template, request_, abilities
):
    model, _ = make(chat_template, **request_)

    assert set(model.capabilities) == {"completion", *abilities}


def test_the_template_in_force_is_shown(make):
    def shown(model):
        return show(model, ShowRequest(), DescriptionCache(), LongParts()).template

    assert shown(make("{{ tools }}", template="{{ .Prompt }}")[0]) == "{{ tools }}"
    assert shown(make("{{ messages }}", template=TOOLS)[0]) == TOOLS
    assert shown(make("{{ messages }}")[0]) == "{{ messages }}"
    assert shown(make()[0]) == "{{ .Prompt }}"


def test_a_wish_for_go_templates_changes_what_a_model_can_do(make, store):
    request = {"template": "{{ .Prompt }}", "store": Store(store.root, prefers_go=True)}

    model, _ = make("{{ tools }}", **request)

    assert model.selection == "go_template"
    assert model.capabilities == ("completion",)

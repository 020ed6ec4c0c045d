"""``show`` as a page, and its parts."""

import json

import pytest

from ollama_async.cli.main import main

ANSWER = {
    "license": "Free for all.\n\nReally.\nSee the web.\n",
    "modelfile": "FROM x\n",
    "parameters": 'stop                           "<b>"\ntemperature                    0.7',
    "template": "{{ .Prompt }}",
    "system": "You are brief.",
    "details": {
        "format": "gguf",
        "family": "llama",
        "families": None,
        "parameter_size": "8.0B",
        "quantization_level": "Q4_K_M",
    },
    "model_info": {
        "general.architecture": "llama",
        "general.parameter_count": 8_030_261_248,
        "llama.context_length": 131072,
        "llama.embedding_length": 4096,
        "llama.rope.freq_base": 500000.0,
        "llama.causal": True,
        "tokenizer.ggml.tokens": ["!", '"', "#", "$", "%", "&"],
        "tokenizer.ggml.scores": None,
    },
    "projector_info": {
        "general.architecture": "clip",
        "general.parameter_count": 303_500_000,
        "clip.vision.embedding_length": 1024,
        "clip.vision.projection_dim": 768,
    },
    "tensors": [{"name": "output.weight", "type": "Q6_K", "shape": [4096, 128256]}],
    "capabilities": ["completion", "tools"],
    "modified_at": "2025-01-01T00:00:00Z",
    "requires": "0.14.0",
}
MODEL = """\
  Model
    architecture        llama
    parameters          8.0B
    context length      131072
    embedding length    4096
    quantization        Q4_K_M
    requires            0.14.0

  Capabilities
    completion
    tools

  Projector
    architecture        clip
    parameters          303.50M
    embedding length    1024
    dimensions          768

  Parameters
    stop           "<b>"
    temperature    0.7

"""
METADATA = """\
  Metadata
    general.architecture       llama
    general.parameter_count    8030261248
    llama.causal               true
    llama.context_length       131072
    llama.embedding_length     4096
    llama.rope.freq_base       500000
    tokenizer.ggml.tokens      [! " # ...+3 more]

  Tensors
    output.weight    Q6_K    [4096 128256]

"""
TEXTS = """\
  System
    You are brief.

  License
    Free for all.
    Really.
    ...

"""


@pytest.fixture
def answer(fake):
    def put(**fields):
        fake.answers["POST", "/api/show"] = (200, json.dumps(ANSWER | fields).encode())

    put()
    return put


def lines(text):
    return [line.rstrip() for line in text.splitlines()]


@pytest.mark.usefixtures("answer")
def test_the_page_has_a_table_for_each_section(fake, capsys):
    assert main(["show", "m"]) == 0
    out = capsys.readouterr().out
    assert lines(out) == lines(MODEL + TEXTS)
    assert out.startswith("  Model\n    architecture        llama     \n")  # columns are padded
    assert fake.bodies("/api/show") == [{"model": "m", "verbose": False}]


@pytest.mark.usefixtures("answer")
@pytest.mark.parametrize("flag", ["-v", "--verbose"])
def test_verbose_adds_metadata_and_tensors(fake, capsys, flag):
    assert main(["show", flag, "m"]) == 0
    assert lines(capsys.readouterr().out) == lines(MODEL + METADATA + TEXTS)
    assert fake.bodies("/api/show") == [{"model": "m", "verbose": True}]


def test_empty_sections_are_omitted(fake, capsys):
    fake.answers["POST", "/api/show"] = (
        200,
        b'{"details":{"family":"llama"},"model_info":null,"tensors":null}',
    )
    assert main(["show", "-v", "m"]) == 0
    assert capsys.readouterr().out == "  Model\n    architecture    llama    \n\n"


def test_a_long_line_is_folded(answer, capsys):
    answer(system="word " * 50)
    assert main(["show", "m"]) == 0
    out = capsys.readouterr().out
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 104
    assert out.count("word") == 50


@pytest.mark.parametrize(
    ("part", "text"),
    [
        ("license", ANSWER["license"]),
        ("modelfile", "FROM x\n"),
        ("parameters", f"{ANSWER['parameters']}\n"),
        ("system", "You are brief.\n"),
        ("template", "{{ .Prompt }}\n"),
    ],
)
@pytest.mark.usefixtures("answer")
def test_a_part_is_shown_as_it_is(capsys, part, text):
    assert main(["show", f"--{part}", "m"]) == 0
    assert capsys.readouterr().out == text


def test_two_parts_at_once_are_rejected_before_any_request(fake, capsys):
    assert main(["show", "m", "--license", "--system"]) == 1
    assert capsys.readouterr().err == (
        "Error: only one of '--license', '--modelfile', '--parameters', '--system', "
        "or '--template' can be specified\n"
    )
    assert fake.requests == []


def test_a_model_of_another_server_shows_its_host(answer, capsys):
    answer(remote_model="big", remote_host="https://example.com:443")
    assert main(["show", "m"]) == 0
    assert capsys.readouterr().out.splitlines()[1:3] == [
        "    Remote model        big                        ",
        "    Remote URL          https://example.com:443    ",
    ]


@pytest.mark.parametrize(
    ("status", "body", "text"),
    [
        (404, b'{"error":"model \'m:latest\' not found"}', "model 'm:latest' not found"),
        (200, b'{"license":5}', "unexpected answer to /api/show: "),
        (200, b"", "unexpected answer to /api/show: "),
    ],
)
def test_errors_and_invalid_responses_of_the_server_are_reported(fake, capsys, status, body, text):
    fake.answers["POST", "/api/show"] = (status, body)
    assert main(["show", "m"]) == 1
    assert capsys.readouterr().err.startswith(f"Error: {text}")

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ollama_async.api.modelfile import COMMANDS, Command, Modelfile, parse

NO_COMMAND = (
    'command must be one of "from", "license", "template", "system", "adapter", "draft", '
    '"renderer", "parser", "parameter", "message", or "requires"'
)
LINES = st.sampled_from(
    [
        "FROM x",
        "from  y ",
        "SYSTEM",
        "SYSTEM ",
        '"',
        '"""',
        'a"',
        ' b """',
        "#c",
        "\n",
        "\r\n",
        "\t",
        "PARAMETER stop ",
        "MESSAGE user ",
        "LICENSE ",
        " ",
        "é",
        "\0",
        "\u2028",
        'TEMPLATE """',
    ]
)
TEXTS = st.text(st.sampled_from(list('ab #"\t\n\ré{}')), max_size=30)


def test_every_command_is_read() -> None:
    modelfile = parse(
        b"# made by hand\n"
        b"FROM ./a file.gguf  \n"
        b"\n"
        b"  # indented\n"
        b"from b.gguf\n"
        b"ADAPTER a\nDRAFT d\nRENDERER r\nPARSER p\nREQUIRES 0.14.0\n"
        b'TEMPLATE """{{ .System }}\n"{{ .Prompt }}" """\n'
        b'LICENSE "one\ntwo"\n'
        b"LICENSE MIT\n"
        b"System  # not a comment\n"
        b"PARAMETER temperature 0.5\n"
        b'parameter stop "a b"\n'
        b'MESSAGE user "Hi"\n'
        b"MESSAGE\tassistant\tHello there"
    )
    assert modelfile.values("from") == ["./a file.gguf", "b.gguf"]
    assert modelfile.last("template") == '{{ .System }}\n"{{ .Prompt }}" '
    assert modelfile.values("license") == ["one\ntwo", "MIT"]
    assert modelfile.last("system") == "# not a comment"
    assert modelfile.messages == [("user", "Hi"), ("assistant", "Hello there")]
    assert modelfile.parameters() == ({"temperature": 0.5, "stop": ["a b"]}, [])
    assert modelfile.requires == "0.14.0"
    for name in ("adapter", "draft", "renderer", "parser"):
        assert modelfile.last(name) == name[0]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ('""', ""),
        ('""""""', ""),
        ('"""a"""', "a"),
        ('"a"b"', 'a"b'),
        ('"""a""""', 'a"'),
        ('"  a  "  ', "  a  "),
        ('"""\na\n"""', "\na\n"),
        ('"a\r\nb"', "a\r\nb"),
        ("a\tb\t", "a\tb"),
        ("a\0\u200bb", "ab"),
        ('a "b', 'a "b'),
        ("", ""),
    ],
)
def test_quotes_work_as_in_ollama(value: str, text: str) -> None:
    assert parse(f"FROM x\nSYSTEM {value}\nREQUIRES 1\n").last("system") == text


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no FROM line"),
        ("# only a comment", "no FROM line"),
        ("SYSTEM x\n", "no FROM line"),
        ("FROM", "unexpected EOF"),
        ("FROM x\nSYSTEM", "unexpected EOF"),
        ('FROM x\nSYSTEM "abc\n', "unexpected EOF"),
        ('FROM x\nSYSTEM """abc"\n"', "unexpected EOF"),
        ('FROM x\nSYSTEM "', "unexpected EOF"),
        ("FROM x\nPARAMETER temperature\n", "unexpected EOF: temperature"),
        ("FROM x\nPARAMETER a-b 1\n", "unexpected EOF: a"),
        ("FROM x\nMESSAGE user\n", "unexpected EOF: user"),
        ("FROM x\n\nBAD y\n", f"(line 3): {NO_COMMAND}"),
        ("FROM x\r\nSYSTEM\r\n", f"(line 2): {NO_COMMAND}"),
        ("FROM1 x", f"(line 1): {NO_COMMAND}"),
        ("<html>", f"(line 1): {NO_COMMAND}"),
        (
            'FROM x\nSYSTEM "a\nb"\nMESSAGE User hi',
            '(line 4): message role must be one of "system", "user", or "assistant"',
        ),
    ],
)
def test_errors_are_ollamas(text: str, error: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        parse(text)
    assert str(caught.value) == error


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16-le", "utf-16-be"])
def test_byte_order_marks_are_obeyed(encoding: str) -> None:
    mark = "\ufeff" if encoding.startswith("utf-16") else ""
    data = f"{mark}FROM x\nSYSTEM é\n".encode(encoding)
    assert parse(data).last("system") == "é"


def test_parameters_are_typed_and_repeated_lists_collect() -> None:
    text = (
        "FROM x\nPARAMETER num_ctx 1\nPARAMETER num_ctx 4096\nPARAMETER use_mmap false\n"
        "PARAMETER stop a\nPARAMETER stop b\nPARAMETER low_vram 1\n"
    )
    assert parse(text).parameters() == (
        {"num_ctx": 4096, "use_mmap": False, "stop": ["a", "b"]},
        ["warning: parameter low_vram is deprecated"],
    )


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("nonsense 1", "unknown parameter 'nonsense'"),
        ("num_ctx abc", "invalid int value [abc]"),
        ("temperature x", "invalid float value [x]"),
        ("use_mmap maybe", "invalid bool value [maybe]"),
    ],
)
def test_parameters_that_cannot_be_typed_are_errors(line: str, error: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # the whole text is compared
        parse(f"FROM x\nPARAMETER {line}\n").parameters()
    assert str(caught.value) == error


def test_a_required_version_is_a_version() -> None:
    with pytest.raises(ValueError, match="requires must be a valid semver"):
        _ = parse("FROM x\nREQUIRES soon\n").requires


def test_printing_quotes_only_where_it_must() -> None:
    modelfile = Modelfile(
        (
            Command("from", "x"),
            Command("system", "a\nb"),
            Command("template", 'say "hi"\n'),
            Command("parameter", " x", "stop"),
            Command("message", "", "user"),
        )
    )
    assert str(modelfile) == (
        'FROM x\nSYSTEM "a\nb"\nTEMPLATE """say "hi"\n"""\nPARAMETER stop " x"\nMESSAGE user ""\n'
    )


def test_text_that_no_quotes_can_hold_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot be quoted"):
        str(Command("system", 'a"""\nb'))


@given(st.lists(LINES, max_size=12).map("".join))
def test_what_parses_prints_to_the_same(text: str) -> None:
    try:
        modelfile = parse(f"FROM x\n{text}")
    except ValueError:
        return
    assert parse(str(modelfile)) == modelfile


@given(
    st.lists(
        st.one_of(
            st.builds(
                Command,
                st.sampled_from([n for n in COMMANDS if n not in {"parameter", "message"}]),
                TEXTS,
            ),
            st.builds(Command, st.just("parameter"), TEXTS, st.sampled_from(["stop", "top_k"])),
            st.builds(Command, st.just("message"), TEXTS, st.sampled_from(["user", "system"])),
        ),
        max_size=5,
    )
)
def test_what_can_be_printed_parses_to_the_same(commands: list[Command]) -> None:
    modelfile = Modelfile((Command("from", "x"), *commands))
    try:
        text = str(modelfile)
    except ValueError:
        return
    assert parse(text) == modelfile


@given(st.binary(max_size=100))
def test_any_bytes_parse_or_give_a_clear_error(data: bytes) -> None:
    try:
        parse(data)
    except ValueError as error:
        assert str(error)  # noqa: PT017  # either outcome is right

"""Commands against a server that does what the test says."""

import hashlib
import io
import json
import socket
from contextlib import closing

import pytest

from ollama_async import OLLAMA_VERSION
from ollama_async.cli.client import Client
from ollama_async.cli.main import COMMANDS, main
from ollama_async.core import settings


@pytest.fixture
def piped(monkeypatch):
    def put(data: bytes):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))

    return put


TAGS = {
    "models": [
        {
            "name": name,
            "size": 1_300_000_000,
            "digest": "0123456789abcdef" * 4,
            "modified_at": "2020-01-01T00:00:00Z",
        }
        for name in ("Llama:1b", "qwen:latest")
    ]
}
PS = {
    "models": [
        {
            "name": "llama:1b",
            "size": 100,
            "size_vram": 0,
            "digest": "ab" * 32,
            "expires_at": "2400-01-01T00:00:00Z",
            "context_length": 4096,
        }
    ]
}
ANSWER = [
    {"response": "Hel", "done": False},
    {"response": "lo", "done": False},
    {"response": "", "done": True, "eval_count": 2, "eval_duration": 1_000_000_000},
]


def test_list_shows_names_ids_sizes_and_ages(fake, capsys):
    fake.answers["GET", "/api/tags"] = (200, json.dumps(TAGS).encode())
    assert main(["ls", "LLA"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert row.startswith("Llama:1b    0123456789ab    1.3 GB    ")
    assert row.rstrip().endswith("years ago")


def test_an_empty_list_is_a_header(fake, capsys):
    fake.answers["GET", "/api/tags"] = (200, b'{"models":null}')
    assert main(["list"]) == 0
    assert capsys.readouterr().out == "NAME    ID    SIZE    MODIFIED    \n"


def test_an_invalid_list_of_models_is_reported(fake, capsys):
    fake.answers["GET", "/api/tags"] = (200, b'{"models":[{"size":"x"}]}')
    assert main(["list"]) == 1
    assert capsys.readouterr().err.startswith("Error: unexpected answer to /api/tags")


def test_ps_shows_where_and_how_long(fake, capsys):
    fake.answers["GET", "/api/ps"] = (200, json.dumps(PS).encode())
    assert main(["ps"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert row.split("    ")[:3] == ["llama:1b", "abababababab", "100 B"]
    assert "100% CPU" in row
    assert "Forever" in row
    assert main(["ps", "LLAMA"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_run_streams_the_answer_of_its_words(fake, capsys):
    fake.answers["POST", "/api/generate"] = (200, ANSWER)
    flags = ["--verbose", "--keepalive", "5m", "--format", "json", "--think"]
    assert main(["run", "m", "say", "hello", *flags]) == 0
    out, err = capsys.readouterr()
    assert out == "Hello\n\n"
    assert err == (
        "eval count:           2 token(s)\n"
        "eval duration:        1s\n"
        "eval rate:            2.00 tokens/s\n"
    )
    assert fake.bodies("/api/generate") == [
        {
            "model": "m",
            "prompt": "say hello",
            "context": [],
            "options": {},
            "keep_alive": "5m",
            "format": "json",
            "think": True,
        }
    ]


def test_run_puts_what_is_piped_before_its_words(fake, piped):
    fake.answers["POST", "/api/generate"] = (200, ANSWER)
    piped(b"text \xff\n")
    assert main(["run", "m", "--", "--sum", "up"]) == 0
    assert fake.bodies("/api/generate")[0]["prompt"] == "text \ufffd\n --sum up"


def test_what_is_typed_may_be_no_unicode(fake):
    fake.answers["POST", "/api/generate"] = (200, ANSWER)
    assert main(["run", "m", "caf\udce9"]) == 0
    assert fake.bodies("/api/generate")[0]["prompt"] == "caf\udce9"


def test_a_keepalive_may_be_negative(fake):
    fake.answers["POST", "/api/generate"] = (200, ANSWER)
    assert main(["run", "--keepalive", "-1m", "m", "hi"]) == 0
    assert fake.bodies("/api/generate")[0]["keep_alive"] == "-1m"


@pytest.mark.usefixtures("fake")
@pytest.mark.parametrize("path", ["./nowhere.gguf", "/nowhere", "../nowhere.gguf", "/dev/zero"])
def test_a_path_without_a_file_is_reported(capsys, path):
    assert main(["run", path, "hi"]) == 1
    assert capsys.readouterr().err == f"Error: {path}: no such file\n"


def test_run_without_a_prompt_only_loads(fake, capsys):
    fake.answers["POST", "/api/generate"] = (200, b'{"response":"","done":true}')
    assert main(["run", "m"]) == 0
    assert capsys.readouterr().out == ""


def test_run_uploads_a_file_once(fake, tmp_path, capsys):
    data = b"GGUF" + bytes(3_000_000)
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "m.gguf").write_bytes(data)
    blob = f"/api/blobs/sha256:{digest}"
    fake.answers["POST", blob] = (201, b"")
    fake.answers["POST", "/api/create"] = (200, [{"status": "parsing"}, {"status": "success"}])
    fake.answers["POST", "/api/generate"] = (200, ANSWER)
    assert main(["run", str(tmp_path / "m.gguf"), "hi"]) == 0
    name = f"file-{digest[:12]}"
    assert [body for method, path, body in fake.requests if path == blob] == [b"", data]
    assert fake.bodies("/api/create") == [{"model": name, "files": {"m.gguf": f"sha256:{digest}"}}]
    assert fake.bodies("/api/generate")[0]["model"] == name
    assert "parsing" in capsys.readouterr().err

    fake.answers["HEAD", blob] = (200, b"")
    fake.requests.clear()
    assert main(["run", str(tmp_path / "m.gguf"), "hi"]) == 0
    assert ("POST", blob) not in {(method, path) for method, path, _ in fake.requests}


def modelfile(folder, text):
    (folder / "Modelfile").write_text(text)
    return ["create", "mine", "-f", str(folder / "Modelfile")]


def test_create_sends_the_values_of_the_modelfile(fake, tmp_path, capsys):
    data = b"GGUF and more"
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    (tmp_path / "m.gguf").write_bytes(data)
    fake.answers["POST", f"/api/blobs/{digest}"] = (201, b"")
    fake.answers["POST", "/api/create"] = (200, [{"status": "parsing"}, {"status": "success"}])
    words = modelfile(
        tmp_path,
        'FROM ./m.gguf\nPARAMETER top_k 3\nPARAMETER stop "a b"\nPARAMETER low_vram 1\n'
        'SYSTEM """one\ntwo"""\nLICENSE free\nMESSAGE user hi\n',
    )
    assert main(words) == 0
    assert fake.bodies("/api/create") == [
        {
            "model": "mine",
            "files": {"m.gguf": digest},
            "parameters": {"top_k": 3, "stop": ["a b"]},
            "system": "one\ntwo",
            "license": ["free"],
            "messages": [{"role": "user", "content": "hi"}],
        }
    ]
    err = capsys.readouterr().err
    assert "warning: parameter low_vram is deprecated\n" in err
    assert err.endswith("parsing\nsuccess\n")


def test_create_from_a_model_sends_its_name(fake, tmp_path):
    fake.answers["POST", "/api/create"] = (200, [{"status": "success"}])
    assert main(modelfile(tmp_path, "FROM llama3:8b\n")) == 0
    assert fake.bodies("/api/create") == [{"model": "mine", "from": "llama3:8b"}]


def test_create_sends_the_quantization_level(fake, tmp_path):
    fake.answers["POST", "/api/create"] = (200, [{"status": "success"}])
    words = modelfile(tmp_path, "FROM llama3:8b\n")
    assert main([*words, "-q", "q4_K_M", "--draft-quantize", "q8_0"]) == 0
    assert fake.bodies("/api/create") == [
        {"model": "mine", "from": "llama3:8b", "quantize": "q4_K_M", "draft_quantize": "q8_0"}
    ]


def test_create_shows_how_far_quantizing_is(fake, tmp_path, capsys):
    step = {"status": "quantizing F16 model to Q4_0", "digest": "0" * 19, "total": 200}
    updates = [step | {"completed": done} for done in (0, 100, 200)]
    fake.answers["POST", "/api/create"] = (200, [*updates, {"status": "success"}])
    assert main([*modelfile(tmp_path, "FROM m\n"), "-q", "q4_0"]) == 0
    assert capsys.readouterr().err.endswith("quantizing F16 model to Q4_0\nsuccess\n")


def test_create_sends_a_checkpoint_with_the_names_in_its_folder(fake, tmp_path):
    names = ["model.safetensors", "1_Pooling/config.json", "config.json", "tokenizer.model"]
    files = {}
    for name in names:
        path = tmp_path / "hf" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        files[name] = f"sha256:{hashlib.sha256(name.encode()).hexdigest()}"
        fake.answers["HEAD", f"/api/blobs/{files[name]}"] = (200, b"")
    (tmp_path / "hf" / "pytorch_model.bin").touch()
    fake.answers["POST", "/api/create"] = (200, [{"status": "success"}])
    assert main(modelfile(tmp_path, "FROM hf\n")) == 0
    assert fake.bodies("/api/create")[0]["files"] == files


def test_create_takes_the_ggufs_of_a_folder_and_keeps_equal_names_apart(fake, tmp_path):
    digests = []
    for part in ("a", "b"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "m.gguf").write_text(part)
        digests.append(f"sha256:{hashlib.sha256(part.encode()).hexdigest()}")
        fake.answers["HEAD", f"/api/blobs/{digests[-1]}"] = (200, b"")
    fake.answers["POST", "/api/create"] = (200, [{"status": "success"}])
    assert main(modelfile(tmp_path, "FROM a\nFROM b/m.gguf\n")) == 0
    files = fake.bodies("/api/create")[0]["files"]
    assert files == {"m.gguf": digests[0], "1-m.gguf": digests[1]}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("FROM ./missing.gguf\n", "./missing.gguf: no such file"),
        ("PARAMETER top_k 1\n", "no FROM line"),
        ("FROM m\nPARAMETER nope 1\n", "unknown parameter 'nope'"),
        ("FROM m\nPARAMETER top_k abc\n", "invalid int value [abc]"),
        ("FROM m\nADAPTER nowhere\n", "nowhere: no such file"),
        ("FROM ./\n", "./: no Modelfile or safetensors files found"),
        ("FROM m\n", "the server ended before the model was complete"),
    ],
)
def test_an_invalid_modelfile_is_reported(fake, tmp_path, capsys, text, error):
    fake.answers["POST", "/api/create"] = (200, [{"status": "parsing"}])
    assert main(modelfile(tmp_path, text)) == 1
    assert capsys.readouterr().err.endswith(f"Error: {error}\n")


def test_create_needs_a_modelfile_and_a_name_that_can_be_one(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["create", "mine"]) == 1
    assert capsys.readouterr().err == "Error: specified Modelfile wasn't found\n"
    assert main(["create", "../x"]) == 1
    assert capsys.readouterr().err == "Error: invalid model name: ../x\n"


def test_stop_and_rm_unload(fake, capsys):
    fake.answers["POST", "/api/generate"] = (200, b'{"done":true}')
    fake.answers["DELETE", "/api/delete"] = (200, b"")
    assert main(["stop", "a"]) == 0
    assert capsys.readouterr().out == ""
    assert main(["rm", "a", "b"]) == 0
    assert capsys.readouterr().out == "deleted 'a'\ndeleted 'b'\n"
    assert fake.bodies("/api/delete") == [{"model": "a"}, {"model": "b"}]
    assert fake.bodies("/api/generate")[0] == {"model": "a", "keep_alive": 0}


def test_what_is_not_there_cannot_be_stopped_or_removed(fake, capsys):
    fake.answers["POST", "/api/generate"] = (404, b'{"error":"model \'a\' not found"}')
    assert main(["stop", "a"]) == 1
    assert capsys.readouterr().err == 'Error: couldn\'t find model "a" to stop\n'
    fake.answers["DELETE", "/api/delete"] = (404, b'{"error":"model \'a\' is not here"}')
    assert main(["rm", "a"]) == 1
    assert capsys.readouterr().err == "Error: model 'a' is not here\n"


def test_a_model_that_cannot_be_stopped_is_removed_with_a_warning(fake, capsys):
    fake.answers["POST", "/api/generate"] = (500, b'{"error":"model \'a\' is broken"}')
    fake.answers["DELETE", "/api/delete"] = (200, b"")
    assert main(["rm", "a"]) == 0
    assert capsys.readouterr() == ("deleted 'a'\n", "Warning: unable to stop model 'a'\n")


def test_cp_gives_a_second_name(fake, capsys):
    fake.answers["POST", "/api/copy"] = (200, b"")
    assert main(["cp", "a", "b:1"]) == 0
    assert capsys.readouterr().out == "copied 'a' to 'b:1'\n"
    assert fake.bodies("/api/copy") == [{"source": "a", "destination": "b:1"}]


@pytest.mark.parametrize(
    ("status", "content", "text"),
    [
        (503, b'{"error":"server busy"}', "server busy"),
        (500, b"plain words\n", "plain words"),
        (500, b"", "500 Internal Server Error"),
        (200, [{"response": "x"}, {"error": "worker died"}], "worker died"),
        (200, [{"response": "x"}, b"<html>\n"], "<html>"),
        (200, [{"response": "x"}], "the response was cut off"),
    ],
)
def test_errors_of_the_server_are_printed_and_exit_1(fake, capsys, status, content, text):
    fake.answers["POST", "/api/generate"] = (status, content)
    assert main(["run", "m", "hi"]) == 1
    assert capsys.readouterr().err == f"Error: {text}\n"


def test_without_a_server_the_error_names_the_command_to_start_it(monkeypatch, capsys):
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{unused.getsockname()[1]}")
        assert main(["list"]) == 1
        assert "run 'ollama-async serve' to start it" in capsys.readouterr().err
        assert main(["--version"]) == 0
        assert "could not connect to a running Ollama instance" in capsys.readouterr().out


@pytest.mark.parametrize("host", ["a b:1", "a..b:1", "[::1", "x" * 300])
def test_an_invalid_host_is_reported(monkeypatch, capsys, host):
    monkeypatch.setenv("OLLAMA_HOST", host)
    monkeypatch.setenv("OLLAMA_PORT", "1")
    assert main(["list"]) == 1
    assert capsys.readouterr().err.startswith("Error: could not connect to ")


def test_version_warns_when_the_server_is_another(fake, capsys):
    fake.answers["GET", "/api/version"] = (200, json.dumps({"version": OLLAMA_VERSION}).encode())
    assert main(["-v"]) == 0
    assert "Warning" not in capsys.readouterr().out
    fake.answers["GET", "/api/version"] = (200, b'{"version":"0.1.2"}')
    assert main(["--version"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("ollama-async version is 0.1.2\nWarning: client version is ")


def test_the_path_of_the_host_is_kept_and_everywhere_means_here(fake, monkeypatch):
    monkeypatch.setenv("OLLAMA_HOST", f"http://0.0.0.0:{fake.server_port}/proxy/")
    fake.answers["GET", "/proxy/api/tags"] = (200, b'{"models":[]}')
    assert main(["list"]) == 0


def test_closing_a_stream_hangs_up(fake):
    fake.answers["POST", "/api/generate"] = (200, [{"response": "x"}, fake.wait_for_hang_up])
    client = Client(settings.parse_address(f"127.0.0.1:{fake.server_port}"))
    with closing(client.stream("/api/generate", {})) as objects:
        assert next(objects) == {"response": "x"}
    assert fake.hung_up.wait(10)


def test_ctrl_c_ends_quietly_with_130_and_hangs_up(fake, monkeypatch, capsys):
    fake.answers["POST", "/api/generate"] = (200, [{"response": "x"}, fake.wait_for_hang_up])

    def interrupt(_self, _content, _thinking):
        raise KeyboardInterrupt

    monkeypatch.setattr("ollama_async.cli.answer_printer.AnswerPrinter.add", interrupt)
    assert main(["run", "m", "hi"]) == 130
    assert capsys.readouterr() == ("", "")
    assert fake.hung_up.wait(10)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["nope"], 'unknown command "nope" for "ollama-async"'),
        (["--nope"], "unknown flag: --nope"),
        (["run"], "requires at least 1 arg(s), only received 0"),
        (["stop", "a", "b"], "accepts 1 arg(s), received 2"),
        (["list", "a", "b"], "accepts at most 1 arg(s), received 2"),
        (["run", "m", "--zz=1"], "unknown flag: --zz"),
        (["run", "m", "--think=maybe"], 'invalid value for --think: "maybe" (must be true, false, high, medium, low, or max)'),  # noqa: E501  # one text
        (["run", "m", "--keepalive", "5"], 'time: missing unit in duration "5"'),
        (["engine", "nope"], 'unknown command "nope" for "ollama-async engine"'),
    ],
)  # fmt: skip
def test_invalid_arguments_are_reported_before_any_request(words, text, capsys):
    assert main(words) == 1
    assert capsys.readouterr().err == f"Error: {text}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_help_of_a_command_ends_with_its_environment(command, capsys):
    assert main([command.name, "--help"]) == 0
    out = capsys.readouterr().out
    block = out.partition("Environment Variables:\n")[2].splitlines()
    assert block
    assert all(line.startswith("  OLLAMA_") for line in block)


def test_serve_explains_every_variable(capsys):
    assert main(["help", "start"]) == 0
    out = capsys.readouterr().out
    assert all(variable.name in out for variable in settings.VARIABLES)

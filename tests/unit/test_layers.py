"""Which package may import which, checked over the syntax trees of the whole package.

A package is a folder of ``ollama_async``. Two are finer: ``queue.backend`` is the queue's public
face, and ``pipe`` are the modules of ``workers`` that both the parent and the child speak.
:data:`ALLOWED` is complete: what is not in it fails.
"""

import ast
import graphlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import ollama_async

PACKAGE = Path(ollama_async.__file__).parent

PIPE = {
    f"workers.{name}"
    for name in ("messages", "load_spec", "frames", "ring", "sealed_memory", "doorbell")
}

ALLOWED = [
    # from, to, reason
    ("core", "gocompat", "durations in settings"),
    ("gocompat", "core", "errors, and how deep JSON may nest"),
    ("api", "gocompat", "requests are read as Go reads them"),
    ("prompts", "gocompat", "Go templates"),
    ("core", "core", "shared types import only each other"),
    ("api", "core", "requests contain messages and sampling options"),
    ("hw", "core", "the shape of a model, for the memory estimate"),
    ("prompts", "core", "conversations in, text out"),
    ("convert", "core", "errors"),
    ("gguf", "core", "errors, the shape of a model in memory"),
    ("gguf", "api", "tensors as the API lists them"),
    ("store", "gguf", "the summary of a model's file"),
    ("store", "core", "names, errors"),
    ("store", "api", "a manifest's parameters are API options"),
    ("store", "prompts", "templates are parsed when stored, and never run"),
    ("create", "store", "the new model is stored"),
    ("create", "gguf", "the headers of the model's files"),
    ("create", "convert", "safetensors are converted to GGUF"),
    ("create", "core", "names, errors"),
    ("create", "gocompat", "the same JSON gives a layer the same digest as in Ollama"),
    ("create", "api", "requests, Modelfiles, parameters"),
    ("create", "prompts", "templates are parsed, well-known ones recognized"),
    ("shipped_models", "store", "they are added to a new store"),
    ("shipped_models", "create", "they are created like any other model"),
    ("shipped_models", "core", "errors"),
    ("shipped_models", "api", "a request to create one"),
    ("queue.backend", "core", "jobs and answers are made of the vocabulary"),
    ("queue", "queue.backend", "implements it"),
    ("queue", "core", "errors"),
    ("queue", "hw", "GPUs are preferred to the CPU"),
    ("pipe", "core", "messages carry the vocabulary"),
    ("workers", "pipe", "the parent's end"),
    ("workers", "queue", "performs what the scheduler decided"),
    ("workers", "queue.backend", "the pool is the queue's public face"),
    ("workers", "hw", "places models"),
    ("workers", "core", "errors, settings"),
    ("workers.child", "pipe", "the child's end"),
    ("workers.child", "prompts", "what depends on the model happens beside the model"),
    ("workers.child", "gguf", "old projectors lack a type, which their tensors tell"),
    ("workers.child", "native", "the verdict on the engine library"),
    ("workers.child", "core", "errors, settings"),
    ("gateway", "api", "requests, responses, options"),
    ("gateway", "queue.backend", "submits jobs without knowing about processes"),
    ("gateway", "store", "finds, lists, shows, copies and deletes models"),
    ("gateway", "create", "the function that creates a model"),
    ("gateway", "core", "errors, settings, names"),
    ("registry", "store", "pulls write into it, pushes read from it"),
    ("registry", "shipped_models", "a pull of one of them needs no network"),
    ("registry", "api", "a manifest is decoded as leniently as a request"),
    ("registry", "core", "names, errors, settings"),
    ("gateway", "registry", "pulls and pushes"),
    ("cli", "api", "parses Modelfiles and parameters"),
    ("cli", "core", "settings, names"),
    ("cli", "gocompat", "durations as `ollama` shows them"),
]
EXCEPTIONS = [
    # from module, to module, reason
    ("cli.main", "app", "`serve` runs in this process"),
    ("cli.main", "native.build_command", "`engine build` changes this installation, not a server"),
    ("cli.main", "native.check", "`engine check` checks this installation, not a server"),
]
LATE = [
    # imported inside a function: module, module, reason
    ("workers.child.__main__", "core.settings", "the parent has its Hello while the rest is read"),
    ("workers.child.__main__", "workers.child.service", "the same"),
    (
        "workers.child.grammar.constraints",
        "workers.child.grammar.llguidance",
        "35 ms that few workers need",
    ),
    ("prompts.chat_format", "prompts.jinja_renderer", "30 ms that few models need"),
    ("workers.child.media", "workers.child.images", "few models see"),
    (
        "workers.child.engines.llama_cpp",
        "workers.child.engines.llama_projector",
        "few models have a projector, and not every library",
    ),
]
FOREIGN = [
    # package, foreign package, reason
    ("workers.child", "aiohttp", "no worker knows that HTTP exists"),
    ("queue", "asyncio", "the scheduler is a pure state machine"),
    ("queue", "time", "time is an argument"),
    ("gateway", "subprocess", "no handler knows that processes exist"),
    ("gateway", "multiprocessing", "no handler knows that processes exist"),
    ("gateway", "llama_cpp", "native code may crash; only workers load it"),
    ("gateway", "PIL", "images are hostile; only workers decode them"),
    ("convert", "llama_cpp", "native code may crash; only workers load it"),
    ("convert", "jinja2", "templates are copied as text and run in workers"),
    ("gguf", "llama_cpp", "native code may crash; only workers load it"),
    ("store", "llama_cpp", "native code may crash; only workers load it"),
    ("store", "jinja2", "templates are run in workers"),
    ("create", "llama_cpp", "native code may crash; only workers load it"),
    ("create", "jinja2", "templates are run in workers"),
    ("prompts", "asyncio", "rendering is pure"),
    ("gocompat", "asyncio", "parsing and rendering are pure"),
    ("cli", "llama_cpp", "native code may crash; only workers load it"),
]


def _modules():
    """Every module's name within the package ("" is the package itself) and its file."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        found[name.removesuffix("__init__").removesuffix(".")] = path
    return found


MODULES = _modules()
TREES = {name: ast.parse(path.read_bytes()) for name, path in MODULES.items()}


def _imports(tree):
    """(full name of what is imported, node), relative imports as they are.

    The same for a module that is imported by a name in the text, as commands do that few need.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield f"{'.' * node.level}{node.module or ''}.{alias.name}", node
        elif _imports_by_name(node):
            yield node.args[0].value, node


def _imports_by_name(node):
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "import_module"
        and ast.unparse(node.func) == "importlib.import_module"
        and isinstance(node.args[0], ast.Constant)
    )


@cache
def _all_imports():
    return {module: list(_imports(tree)) for module, tree in TREES.items()}


def _ours(name):
    """The module of ours that ``name`` lies in, or None for a foreign one."""
    if name != "ollama_async" and not name.startswith("ollama_async."):
        return None
    name = name.removeprefix("ollama_async").removeprefix(".")
    while name and name not in MODULES:
        name = name.rpartition(".")[0]
    return name


def _package_of(module):
    if not module:
        return "core"
    if module in PIPE:
        return "pipe"
    if module == "queue.backend":
        return "queue.backend"
    if module.startswith("workers.child"):
        return "workers.child"
    return module.partition(".")[0]


def _edges():
    for module, imports in _all_imports().items():
        for name, node in imports:
            target = _ours(name)
            if target is not None and target != module:
                yield module, target, node


def _is_allowed(module, target):
    packages = (_package_of(module), _package_of(target))
    if packages[0] == packages[1] or packages[0] == "app":
        return True
    return packages in {(one, other) for one, other, _ in ALLOWED} or (module, target) in {
        (one, other) for one, other, _ in EXCEPTIONS
    }


def test_every_import_between_packages_is_an_allowed_one():
    wrong = {
        f"{module} imports {target} (line {node.lineno})"
        for module, target, node in _edges()
        if not _is_allowed(module, target)
    }
    assert not wrong


def test_the_check_sees_a_forbidden_import():
    assert not _is_allowed("workers.child.engine_loop", "gateway.app")
    assert not _is_allowed("gateway.app", "queue.scheduler")
    assert not _is_allowed("gateway.app", "workers.pool")
    assert _is_allowed("gateway.app", "queue.backend")
    assert _package_of(_ours("ollama_async.workers.messages.Submit")) == "pipe"


@pytest.mark.parametrize(("package", "foreign", "reason"), FOREIGN)
def test_packages_stay_out_where_they_do_not_belong(package, foreign, reason):
    wrong = [
        module
        for module, imports in _all_imports().items()
        if _package_of(module) == package
        for name, _ in imports
        if name == foreign or name.startswith(f"{foreign}.")
    ]
    assert not wrong, reason


def test_no_module_imports_itself_by_way_of_others():
    graph = {}
    for module, target, _ in _edges():
        graph.setdefault(module, set()).add(target)
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the cycle


def test_our_own_modules_are_imported_at_the_top_of_files():
    """Engines, which may not be installed, and the exceptions above are imported when needed."""
    exceptions = {(one, other) for one, other, _ in LATE}
    wrong = [
        f"{module} imports {target} in a function (line {node.lineno})"
        for module, target, node in _edges()
        if not isinstance(node, ast.Call)
        and node not in TREES[module].body
        and module != "workers.child.engines"
        and (module, target) not in exceptions
    ]
    assert not wrong


def test_imports_are_absolute():
    wrong = [
        module
        for module, imports in _all_imports().items()
        for name, _ in imports
        if name.startswith(".")
    ]
    assert not wrong


def _fresh(script):
    line = [sys.executable, "-P", "-c", script]
    return subprocess.run(line, capture_output=True, text=True, check=True, timeout=50).stdout


@pytest.mark.slow
@pytest.mark.engine
def test_a_worker_process_holds_nothing_of_the_gateway():
    names = [f"ollama_async.{name}" for name in MODULES if name.startswith("workers.child")]
    loaded = _fresh(
        f"import importlib, sys\nfor name in {names!r}: importlib.import_module(name)\n"
        "print(*sys.modules, sep='\\n')"
    ).splitlines()
    assert "ollama_async.workers.messages" in loaded
    assert [name for name in loaded if name.partition(".")[0] == "aiohttp"] == []
    forbidden = ("ollama_async.gateway", "ollama_async.queue", "ollama_async.store")
    assert [name for name in loaded if name.startswith(forbidden)] == []


def test_the_package_itself_imports_nothing():
    loaded = _fresh(
        "import sys; before = set(sys.modules); import ollama_async;"
        "print(*(set(sys.modules) - before))"
    )
    assert loaded.split() == ["ollama_async"]


def test_the_folder_called_queue_does_not_hide_the_standard_module():
    assert [type(node) for node in TREES["queue"].body] == [ast.Expr]  # a docstring only
    script = "import ollama_async.queue.backend, queue; queue.SimpleQueue; print(queue.__file__)"
    path = _fresh(script)
    assert str(PACKAGE) not in path


def test_python_is_always_started_without_the_current_folder():
    """``python -m`` would put the current folder first on the path; ``-P`` does not."""
    wrong = []
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.List):
                continue
            words = [word.value for word in node.elts if isinstance(word, ast.Constant)]
            if "-m" in words and "pip" not in words and "-P" not in words:
                wrong.append(f"{module} (line {node.lineno})")
    assert not wrong

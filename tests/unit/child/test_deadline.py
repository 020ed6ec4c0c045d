"""Foreign code on a leash."""

import signal

import pytest

from ollama_async.conversation import Message, Prompt
from ollama_async.errors import TemplateFailed
from ollama_async.prompts.jinja import JinjaRenderer
from ollama_async.workers.child.deadline import Deadline


def deadline(cpu_limit_s=0.2, growth_limit_bytes=64 << 20):
    return Deadline(cpu_limit_s, growth_limit_bytes, last_resort_s=0)


def run_template(template, leash=None):
    prompt = Prompt(messages=[Message("user", "x")])
    renderer = JinjaRenderer(template, bos="", eos="")
    return (leash or deadline()).run(lambda: renderer.render(prompt))


LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    "template",
    [
        LOOP,
        (
            "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
            "{{ f(90) }}"
        ),
        "{{ range(99999) | map('string') | map('length') | list | length }}" + LOOP,
    ],
)
def test_a_template_that_never_ends_is_interrupted(template):
    with pytest.raises(TemplateFailed, match="takes too long"):
        run_template(template)

    assert signal.getitimer(signal.ITIMER_PROF) == (0, 0)


def test_a_template_that_collects_memory_is_interrupted():
    with pytest.raises(TemplateFailed, match="too much memory"):
        run_template(
            "{% set n = namespace(all=[]) %}{% for i in range(99999) %}"
            "{% set n.all = n.all + ['x' * 4000000 ~ i] %}{% endfor %}",
            deadline(cpu_limit_s=10),  # memory that earlier tests have left is used first
        )


def test_calls_share_their_time():
    leash = deadline(0.05)
    calls = []

    def busy():
        calls.append(sum(range(100_000)))

    with pytest.raises(TemplateFailed, match="takes too long"):
        repeat(lambda: leash.run(busy))

    assert len(calls) > 1


def repeat(action):
    while True:
        action()


def test_what_ends_in_time_is_left_alone():
    assert deadline().run(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        deadline().run(lambda: 1 // 0)
    assert run_template("{{ messages[0].content }}") == "x"

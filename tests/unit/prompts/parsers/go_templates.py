# ruff: noqa: E501, RUF001 - templates are as long as they are, with the tags that they have
"""Go templates in the shapes that models in Ollama's library have, as far as calls are concerned."""

OPEN, SHUT = "<|im_start|>", "<|im_end|>\n"
NAME, ARGUMENTS = "{{ .Function.Name }}", "{{ .Function.Arguments }}"
OBJECT = f'{{"name": "{NAME}", "arguments": {ARGUMENTS}}}'
TOOLS = "{{ if .Tools }}{{ .Tools }}{{ end }}"


def _turns(calls, *, result="{{ .Content }}", tools=TOOLS, answer="<|im_start|>assistant\n"):
    """A template of marked turns; ``calls`` is what a turn with calls holds instead of text."""
    return (
        f"{tools}{{{{ range .Messages }}}}"
        '{{ if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n'
        f"{{{{ if .Content }}}}{{{{ .Content }}}}{{{{ end }}}}{{{{ if .ToolCalls }}}}{calls}{{{{ end }}}}<|im_end|>\n"
        f'{{{{ else if eq .Role "tool" }}}}<|im_start|>tool\n{result}<|im_end|>\n'
        f"{{{{ end }}}}{{{{ end }}}}{answer}"
    )


def _each(call, between=""):
    if not between:
        return f"{{{{ range .ToolCalls }}}}{call}{{{{ end }}}}"
    return f"{{{{ range $i, $c := .ToolCalls }}}}{{{{ if $i }}}}{between}{{{{ end }}}}{{{{ with $c }}}}{call}{{{{ end }}}}{{{{ end }}}}"


XML = (
    f"<function={NAME}>\n"
    "{{ range $k, $v := .Function.Arguments }}<parameter={{ $k }}>\n{{ $v }}\n</parameter>\n{{ end }}"
    "</function>"
)

TEMPLATES = {
    "llama3.1": _turns(
        _each(f'{{"name": "{NAME}", "parameters": {ARGUMENTS}}}'),
        tools='{{ if .Tools }}Given the following functions, please respond with a JSON for a function call: {"name": function name, "parameters": dictionary of argument name and its value}. {{ .Tools }}{{ end }}',
    ).replace("<|im_start|>tool", "<|start_header_id|>ipython<|end_header_id|>"),
    "llama3.2": _turns(_each(f'{{"name": "{NAME}", "parameters": {ARGUMENTS}}}')),
    "qwen2.5": _turns(_each(f"<tool_call>\n{OBJECT}\n</tool_call>\n")),
    "qwen3": _turns(
        _each(f"<tool_call>\n{OBJECT}\n</tool_call>\n"), answer="<|im_start|>assistant\n"
    ).replace(
        "{{ if .Content }}",
        "{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}{{ if .Content }}",
    ),
    "qwen3-coder": _turns(_each(f"<tool_call>\n{XML}\n</tool_call>\n")),
    "hermes3": _turns(_each(f"\n<tool_call>\n{OBJECT}\n</tool_call>")),
    "smollm2": _turns(f"<tool_call>[{_each(OBJECT, ', ')}]</tool_call>"),
    "llama3-groq": _turns(f"<tool_call>\n{_each(OBJECT)}\n</tool_call>"),
    "mistral": _turns(f"[TOOL_CALLS] [{_each(OBJECT)}]"),
    "mistral-nemo": _turns(f"[TOOL_CALLS] [{_each(OBJECT, ', ')}]"),
    "devstral": _turns(_each(f"[TOOL_CALLS]{NAME}[ARGS]{ARGUMENTS}")),
    "mistral-small3.2": _turns(_each(f"[TOOL_CALLS]{NAME}[CALL_ID]{{{{ .ID }}}}[ARGS]{ARGUMENTS}")),
    "command-r": _turns(
        f'Action: ```json\n[\n{_each(chr(123) + chr(10) + f"""  "tool_name": "{NAME}",""" + chr(10) + f"""  "parameters": {ARGUMENTS}""" + chr(10) + chr(125), "," + chr(10))}\n]```'
    ),
    "command-r7b": _turns(
        f'<|START_ACTION|>[{_each(f"""{{"tool_call_id": "{{{{ .ID }}}}", "tool_name": "{NAME}", "parameters": {ARGUMENTS}}}""", ", ")}]<|END_ACTION|>'
    ),
    "firefunction": _turns(f" functools[{_each(OBJECT)}]"),
    "granite3": _turns(f"<|tool_call|>[{_each(OBJECT, ', ')}]"),
    "granite4": _turns(_each(f"<tool_call>\n{OBJECT}\n</tool_call>\n")),
    "phi4-mini": _turns(f"<|tool_call|>[{_each(OBJECT, ', ')}]<|/tool_call|>"),
    "nemotron": _turns(
        _each(
            f'<toolcall> {{"type": "function", "function": {{"name": "{NAME}", "arguments": {ARGUMENTS}}}}} </toolcall>\n'
        )
    ),
    "nemotron-mini": _turns(_each(f"<toolcall> {OBJECT} </toolcall>\n")),
    "deepseek-r1": _turns(
        f"<｜tool▁calls▁begin｜>{_each(f'<｜tool▁call▁begin｜>function<｜tool▁sep｜>{NAME}' + chr(10) + '```json' + chr(10) + ARGUMENTS + chr(10) + '```<｜tool▁call▁end｜>')}<｜tool▁calls▁end｜>"
    ),
    "deepseek-v3.1": _turns(
        f"<｜tool▁calls▁begin｜>{_each(f'<｜tool▁call▁begin｜>{NAME}<｜tool▁sep｜>{ARGUMENTS}<｜tool▁call▁end｜>')}<｜tool▁calls▁end｜>"
    ),
    "kimi-k2": _turns(
        f"<|tool_calls_section_begin|>{_each(f'<|tool_call_begin|>functions.{NAME}:0<|tool_call_argument_begin|>{ARGUMENTS}<|tool_call_end|>')}<|tool_calls_section_end|>"
    ),
    "glm4": _turns(
        _each(
            f"<tool_call>{NAME}\n{{{{ range $k, $v := .Function.Arguments }}}}<arg_key>{{{{ $k }}}}</arg_key>\n<arg_value>{{{{ $v }}}}</arg_value>\n{{{{ end }}}}</tool_call>\n"
        )
    ),
    "gpt-oss": (
        f"{TOOLS}{{{{ range .Messages }}}}"
        '{{ if eq .Role "user" }}<|start|>user<|message|>{{ .Content }}<|end|>'
        '{{ else if eq .Role "assistant" }}'
        "{{ if .Content }}<|start|>assistant<|channel|>final<|message|>{{ .Content }}<|end|>{{ end }}"
        f"{_each(f'<|start|>assistant<|channel|>commentary to=functions.{NAME} <|constrain|>json<|message|>{ARGUMENTS}<|end|>')}"
        '{{ else if eq .Role "tool" }}<|start|>functions.x to=assistant<|message|>{{ .Content }}<|end|>{{ end }}'
        "{{ end }}<|start|>assistant"
    ),
    "a tag of its own": _turns(_each(f"<call>{OBJECT}</call>\n")),
    "a bare object": _turns(_each(OBJECT)),
    "a bare list": _turns(f"[{_each(OBJECT, ', ')}]"),
    "a name before the object": _turns(_each(f"<|fn|>{NAME} {ARGUMENTS}\n")),
}

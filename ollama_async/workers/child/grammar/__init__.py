"""Grammars that constrain answers: JSON Schema formats and tool calls.

- :mod:`.constraints`: from a request to the constraint of its answer.
- :mod:`.json_schema`: JSON Schema → grammar, with :mod:`.schema_rewrites`, :mod:`.schema_scalars`
  and :mod:`.schema_analysis`.
- :mod:`.tool_calls`, :mod:`.tool_arguments`: offered tools → grammar of a call; :mod:`.call_guard`
  applies it once the answer begins a call.
- :mod:`.lark` writes grammars, :mod:`.llguidance` compiles and matches them.
"""

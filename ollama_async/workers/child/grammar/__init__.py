"""Grammars that constrain answers: JSON Schema formats and tool calls.

- :mod:`.constraints`: from a request to the constraint of its answer, or the guard of its calls.
- :mod:`.json_schema`: JSON Schema → grammar, with :mod:`.schema_rewrites`, :mod:`.schema_scalars`
  and :mod:`.schema_analysis`.
- :mod:`.tool_calls`: offered tools → grammar of a call.
- :mod:`.lark` writes grammars, :mod:`.llguidance` compiles and matches them.
"""

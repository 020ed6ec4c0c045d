"""Texts that llama.cpp looks for in every vocabulary, whatever kinds the tokens have there.

Tokens of these texts become marks: they are found in texts, and never made of pieces.
"""

KNOWN_ENDS = {
    "</s>",
    "<EOT>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|calls|>",
    "<|call|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|flush|>",
    "<|im_end|>",
    "<|return|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",  # noqa: RUF001
    "[EOS]",
    "[EOT]",
    "[e~[",
    "_<EOT>",
}
"""After these an answer is over, if the file says nothing of it."""

MARKS = KNOWN_ENDS | {
    "<MID>",
    "<PAD>",
    "<PRE>",
    "<REPO>",
    "<SUF>",
    "<fim-middle>",
    "<fim-pad>",
    "<fim-prefix>",
    "<fim-repo>",
    "<fim-suffix>",
    "<fim_middle>",
    "<fim_pad>",
    "<fim_prefix>",
    "<fim_suffix>",
    "<reponame>",
    "<|channel|>",
    "<|code_middle|>",
    "<|code_prefix|>",
    "<|code_suffix|>",
    "<|constrain|>",
    "<|file_sep|>",
    "<|fim_middle|>",
    "<|fim_pad|>",
    "<|fim_prefix|>",
    "<|fim_repo|>",
    "<|fim_suffix|>",
    "<|message|>",
    "<|middle|>",
    "<|prefix|>",
    "<|repo_name|>",
    "<|start|>",
    "<|suffix|>",
    "<｜fim▁begin｜>",  # noqa: RUF001
    "<｜fim▁end｜>",  # noqa: RUF001
    "<｜fim▁hole｜>",  # noqa: RUF001
    "[PAD]",
    "▁<MID>",
    "▁<PRE>",
    "▁<SUF>",
}
"""Those, and the parts of messages and of gaps in code."""

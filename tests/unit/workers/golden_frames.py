"""Every message of protocol 5 and its frame in hexadecimal: header, blank, message.

These bytes are the protocol. A change here means another ``PROTOCOL``.
"""

from ollama_async.core.conversation import (
    ChatFormatSpec,
    Inference,
    Message,
    Prompt,
    Sampling,
    Thought,
    ToolCall,
    ToolFunction,
    Usage,
)
from ollama_async.workers import messages as m

CHAT = Prompt([Message("user", "hi", images=[b"\xff"])])
RAW = Prompt(raw="a", context=[1, 300])
TOOLS = Prompt(
    [Message("user", "hi")],
    tools=[{"function": {"name": "f"}}],
    think="high",
    suffix="s",
    tool_choice="required",
    chat_format=ChatFormatSpec("t", "r", "p", "n", "f", 7, "q"),
    model_messages=1,
)
CALL = ToolCall(ToolFunction("f", {"b": 1, "a": [2.5]}, 1), "call_0")

TO_CHILD = [
    (
        m.Submit(7, Inference(CHAT, Sampling(seed=1, stop=["\n"]))),
        (
            "018c000000 "
            "94a373756207979a9183a4726f6c65a475736572a7636f6e74656e74a26869a6696d6167657391c4"
            "01ffc090c390c0a0a46175746f97a0a0a0a0a000a0009d01ff04cb3fe999999999999a28cb3feccc"
            "cccccccccdcb0000000000000000cb3ff000000000000040cb3ff0000000000000cb000000000000"
            "0000cb000000000000000091a10a00c3c2c0c2a0"
        ),
    ),
    (
        m.Submit(7, Inference(RAW, Sampling(), num_ctx=2048, shift=False, returns_context=True)),
        (
            "0170000000 "
            "94a373756207979a90a1619201cd012cc390c0a0a46175746f97a0a0a0a0a000a0009dffff04cb3f"
            "e999999999999a28cb3feccccccccccccdcb0000000000000000cb3ff000000000000040cb3ff000"
            "0000000000cb0000000000000000cb000000000000000090cd0800c2c3c0c2a0"
        ),
    ),
    (
        m.Submit(
            7, Inference(TOOLS, Sampling(), format={"type": "object"}, renders_only=True), "c"
        ),
        (
            "01ad000000 "
            "94a373756207979a9182a4726f6c65a475736572a7636f6e74656e74a26869c090c39181a866756e"
            "6374696f6e81a46e616d65a166a468696768a173a8726571756972656497a174a172a170a16ea166"
            "07a171019dffff04cb3fe999999999999a28cb3feccccccccccccdcb0000000000000000cb3ff000"
            "000000000040cb3ff0000000000000cb0000000000000000cb00000000000000009000c3c281a474"
            "797065a66f626a656374c3a163"
        ),
    ),
    (
        m.Cancel(7),
        "0106000000 92a363616e07",
    ),
    (
        m.Tokenize(-1, "a é"),
        "010d000000 95a3746f6bffa46120c3a9c2c3",
    ),
    (
        m.Detokenize(-2, [1, 300]),
        "010b000000 93a3646574fe9201cd012c",
    ),
    (
        m.Quit(),
        "0106000000 91a471756974",
    ),
]

TO_PARENT = [
    (
        m.Hello(1, 4242, 3),
        "0109000000 94a2686901cd109203",
    ),
    (
        m.Loading(),
        "0106000000 91a46c6f6164",
    ),
    (
        m.Ready(4, 4096, 1 << 32, 2, 3, 0, ["w"]),
        "0118000000 98a372647904cd1000cf000000010000000002030091a177",
    ),
    (
        m.Refused("load_failed", "no"),
        "0113000000 93a26e6fab6c6f61645f6661696c6564a26e6f",
    ),
    (
        m.Started(7),
        "0105000000 92a2676f07",
    ),
    (
        m.Deltas([(7, " a"), (300, "é")]),
        "0110000000 92a170929207a2206192cd012ca2c3a9",
    ),
    (
        m.Deltas([(7, Thought("hm")), (7, m.ToolCallDelta(CALL))]),
        (
            "014e000000 "
            "92a17092920792a174a2686d920792a16382a866756e6374696f6e83a46e616d65a166a961726775"
            "6d656e747382a16201a16191cb4004000000000000a5696e64657801a26964a663616c6c5f30"
        ),
    ),
    (
        m.Done(7, "length", Usage(1, 2, 3, 4, 5), [9], True),
        "0117000000 96a4646f6e6507a66c656e6774689501020304059109c3",
    ),
    (
        m.Failed(7, "engine_failed", "x"),
        "0117000000 94a46661696c07ad656e67696e655f6661696c6564a178",
    ),
    (
        m.Tokens(-1, [1, 300]),
        "010c000000 93a4746f6b73ff9201cd012c",
    ),
    (
        m.Text(-2, "a"),
        "0109000000 93a474657874fea161",
    ),
    (
        m.Heartbeat(1, 0.25),
        "010f000000 93a376697401cb3fd0000000000000",
    ),
]

"""Every message of protocol 8 and its frame in hexadecimal: header, blank, message.

These bytes are the protocol. A change here means another ``PROTOCOL``.
"""

from ollama_async.core.conversation import (
    ChatFormatSpec,
    Detokenize,
    Embedding,
    Inference,
    Logprobs,
    Message,
    Prompt,
    Sampling,
    Thought,
    Tokenize,
    TokenLogprob,
    ToolCall,
    ToolFunction,
    Usage,
    Vector,
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
    parallel_tool_calls=False,
)
CALL = ToolCall(ToolFunction("f", {"b": 1, "a": [2.5]}, 1), "call_0")

TO_CHILD = [
    (
        m.Submit(
            7, Inference(CHAT, Sampling(seed=1, stop=["\n"], logit_bias={5: -100.0}), logprobs=2)
        ),
        (
            "01b3000000 "
            "94a3737562079aa3696e669b9183a4726f6c65a475736572a7636f6e74656e74a26869a6696d6167"
            "657391c401ffc090c390c0a0a46175746f97a0a0a0a0a000a000c3dc001101ff04cb3fe999999999"
            "999a28cb3feccccccccccccdcb0000000000000000cb3ff000000000000040cb3ff0000000000000"
            "cb0000000000000000cb000000000000000091a10a8105cbc05900000000000000cb401400000000"
            "0000cb3fb999999999999a00c3c2c0c202c2a0"
        ),
    ),
    (
        m.Submit(7, Inference(RAW, Sampling(), num_ctx=2048, shift=False, returns_context=True)),
        (
            "018d000000 "
            "94a3737562079aa3696e669b90a1619201cd012cc390c0a0a46175746f97a0a0a0a0a000a000c3dc"
            "0011ffff04cb3fe999999999999a28cb3feccccccccccccdcb0000000000000000cb3ff000000000"
            "000040cb3ff0000000000000cb0000000000000000cb0000000000000000908000cb401400000000"
            "0000cb3fb999999999999acd0800c2c3c0c2ffc2a0"
        ),
    ),
    (
        m.Submit(
            7, Inference(TOOLS, Sampling(), format={"type": "object"}, renders_only=True), "c"
        ),
        (
            "01ca000000 "
            "94a3737562079aa3696e669b9182a4726f6c65a475736572a7636f6e74656e74a26869c090c39181"
            "a866756e6374696f6e81a46e616d65a166a468696768a173a8726571756972656497a174a172a170"
            "a16ea16607a17101c2dc0011ffff04cb3fe999999999999a28cb3feccccccccccccdcb0000000000"
            "000000cb3ff000000000000040cb3ff0000000000000cb0000000000000000cb0000000000000000"
            "908000cb4014000000000000cb3fb999999999999a00c3c281a474797065a66f626a656374c3ffc2"
            "a163"
        ),
    ),
    (
        m.Cancel(7),
        "0106000000 92a363616e07",
    ),
    (
        m.LimitCache(7),
        "0106000000 92a36c696d07",
    ),
    (
        m.Submit(7, Embedding(["a é", [1, 300]], "q", truncate=False, num_ctx=64, first=48)),
        "011c000000 94a37375620796a3656d6292a46120c3a99201cd012ca171c24030a0",
    ),
    (
        m.Submit(7, Tokenize("a é")),
        "0113000000 94a37375620794a3746f6ba46120c3a9c2c3a0",
    ),
    (
        m.Submit(7, Detokenize([1, 300])),
        "0111000000 94a37375620792a36465749201cd012ca0",
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
        m.Ready(4, 4096, 1 << 32, 2, 3, 0, ["w"], "own"),
        "011c000000 99a372647904cd1000cf000000010000000002030091a177a36f776e",
    ),
    (
        m.Refused("load_failed", "no"),
        "0113000000 93a26e6fab6c6f61645f6661696c6564a26e6f",
    ),
    (
        m.Started(7, 300, 2),
        "0109000000 94a2676f07cd012c02",
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
        m.Deltas([(7, Logprobs([TokenLogprob(b"\xc3", -0.5, [(b"\xc3", -0.5), (b"a", -1.5)])]))]),
        (
            "0132000000 "
            "92a17091920792a16c9193c401c3cbbfe00000000000009292c401c3cbbfe000000000000092c401"
            "61cbbff8000000000000"
        ),
    ),
    (
        m.Deltas([(7, Vector(1, b"\x00\x00\x80?", 3))]),
        "0111000000 92a17091920794a17601c4040000803f03",
    ),
    (
        m.Done(7, "length", Usage(1, 2, 3, 4, 5, 6, 8, 7, 1), [9], True),
        "011c000000 97a4646f6e6507a66c656e677468990102030405060807019109c3a0",
    ),
    (
        m.Done(7, "stop", Usage(), stop_string="\n"),
        "011a000000 97a4646f6e6507a473746f709900000000000000000090c2a10a",
    ),
    (
        m.Failed(7, "engine_failed", "x"),
        "0117000000 94a46661696c07ad656e67696e655f6661696c6564a178",
    ),
    (
        m.Heartbeat(1, 0.25),
        "0111000000 95a376697401cb3fd00000000000000000",
    ),
]

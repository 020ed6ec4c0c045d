"""Every message of protocol 1 and its frame in hexadecimal: header, blank, message.

These bytes are the protocol. A change here means another ``PROTOCOL``.
"""

from ollama_async.conversation import Inference, Message, Prompt, Sampling, Usage
from ollama_async.workers import messages as m

CHAT = Prompt([Message("user", "hi", images=[b"\xff"])])
RAW = Prompt(raw="a", context=[1, 300])

TO_CHILD = [
    (
        m.Submit(7, Inference(CHAT, Sampling(seed=1, stop=["\n"]))),
        (
            "017a000000 "
            "93a37375620795969183a4726f6c65a475736572a7636f6e74656e74a26869a6696d6167657391c4"
            "01ffc090c390c09d01ff04cb3fe999999999999a28cb3feccccccccccccdcb0000000000000000cb"
            "3ff000000000000040cb3ff0000000000000cb0000000000000000cb000000000000000091a10a00"
            "c3c2"
        ),
    ),
    (
        m.Submit(7, Inference(RAW, Sampling(), num_ctx=2048, shift=False, wants_context=True)),
        (
            "015e000000 "
            "93a373756207959690a1619201cd012cc390c09dffff04cb3fe999999999999a28cb3feccccccccc"
            "cccdcb0000000000000000cb3ff000000000000040cb3ff0000000000000cb0000000000000000cb"
            "000000000000000090cd0800c2c3"
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
        m.Hello(1, 4242, 3, "llama_cpp"),
        "0113000000 95a2686901cd109203a96c6c616d615f637070",
    ),
    (
        m.Loading(0.5),
        "010f000000 92a46c6f6164cb3fe0000000000000",
    ),
    (
        m.Ready(4, 4096, 1 << 32, 2, 3, 0, 5, True, ["w"]),
        "011a000000 9aa372647904cd1000cf000000010000000002030005c391a177",
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
        m.Pieces([(7, " a"), (300, "é")]),
        "0110000000 92a170929207a2206192cd012ca2c3a9",
    ),
    (
        m.Done(7, "length", Usage(1, 2, 3, 4, 5), [9]),
        "0116000000 95a4646f6e6507a66c656e6774689501020304059109",
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
        m.Vitals(1, 0.25, 3, 4, 5, 6),
        "0113000000 97a376697401cb3fd000000000000003040506",
    ),
]

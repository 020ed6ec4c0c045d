"""The part of ``bench/embeddings.py`` that runs where sentence-transformers is installed.

    python sentence_transformers_side.py FOLDER

Reads a line of JSON and answers with one: ``{"batch", "seconds"}`` with sentences a second,
``{"vectors": texts}`` with their vectors.
"""

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer, models
from transformers import BertConfig, BertModel, BertTokenizer

LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
OUTSIDE = {
    "token_embd": "embeddings.word_embeddings",
    "position_embd": "embeddings.position_embeddings",
    "token_types": "embeddings.token_type_embeddings",
    "token_embd_norm": "embeddings.LayerNorm",
}


def name_of(gguf_name: str) -> str:
    """The name that the same tensor has in Hugging Face's BERT."""
    parts = gguf_name.split(".")
    if parts[0] == "blk":
        return f"encoder.layer.{parts[1]}.{LAYER[parts[2]]}.{parts[3]}"
    return f"{OUTSIDE[parts[0]]}.{parts[1]}"


def word_piece(text: str) -> str:
    """GGUF marks beginnings of words, Hugging Face continuations."""
    if text.startswith("["):
        return text
    return text[1:] if text.startswith("▁") else f"##{text}"


def load(folder: Path) -> SentenceTransformer:
    weights = np.load(folder / "weights.npz")
    vocab, width = weights["token_embd.weight"].shape
    config = BertConfig(
        vocab_size=vocab,
        hidden_size=width,
        num_hidden_layers=sum(name.endswith("ffn_up.weight") for name in weights),
        num_attention_heads=width // 32,
        intermediate_size=weights["blk.0.ffn_up.weight"].shape[0],
        max_position_embeddings=len(weights["position_embd.weight"]),
    )
    bert = BertModel(config, add_pooling_layer=False)
    state = {name_of(name): torch.from_numpy(weights[name]) for name in weights}
    bert.load_state_dict(state, strict=False)
    bert.save_pretrained(folder / "bert")
    texts = json.loads((folder / "vocabulary.json").read_text())
    file = folder / "vocab.txt"
    file.write_text("\n".join(map(word_piece, texts)))
    BertTokenizer(str(file)).save_pretrained(folder / "bert")
    transformer = models.Transformer(str(folder / "bert"))
    return SentenceTransformer(modules=[transformer, models.Pooling(width)], device="cpu")


def main() -> None:
    folder = Path(sys.argv[1])
    model = load(folder)
    texts = json.loads((folder / "sentences.json").read_text())
    for line in sys.stdin:
        question = json.loads(line)
        if "vectors" in question:
            vectors = model.encode(question["vectors"], normalize_embeddings=True)
            print(json.dumps(vectors.tolist()), flush=True)
            continue
        size, done, began = question["batch"], 0, time.perf_counter()
        while (passed := time.perf_counter() - began) < question["seconds"]:
            start = done % (len(texts) - size)
            model.encode(texts[start : start + size], batch_size=size, show_progress_bar=False)
            done += size
        print(json.dumps(done / passed), flush=True)


if __name__ == "__main__":
    main()

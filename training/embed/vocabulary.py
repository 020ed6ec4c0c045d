"""The pieces of words that the embedding model knows, learned from its own corpus."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from embed.tokenizer import SPECIAL, WORD_START, words

_ALPHABET = [*string.ascii_lowercase, *string.digits, *string.punctuation]
_COUNTED = range(4, 400)
"""Times that a word counts. Invented words occur less often. Beyond, a word becomes a piece anyway,
and would only make its parts look useful.
"""


def learn_pieces(texts: Iterable[str], size: int) -> list[str]:
    """At most ``size`` pieces, the special ones first; the same texts give the same ones.

    Learned like byte pairs are, from words with the mark of their begin. The library's trainer for
    WordPiece gives other pieces each time.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=_ALPHABET,
        show_progress=False,
    )
    counts = Counter(word for text in texts for word in words(text))
    tokenizer.train_from_iterator(
        (
            (WORD_START + word + " ") * min(count, _COUNTED.stop)
            for word, count in counts.items()
            if count >= _COUNTED.start
        ),
        trainer,
    )
    ids: dict[str, int] = tokenizer.get_vocab()
    return sorted(ids, key=ids.__getitem__)

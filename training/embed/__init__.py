"""The recipe of ``demo-embed``, which embeds sentences: corpus, training, export, evaluation."""

"""The recipe of the small models that the package carries: corpus, training, export, evaluation."""

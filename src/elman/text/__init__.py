"""Text → ids → windows. Reading order: reading, vocabulary, prose, bpe, tokenizers, builtin, encoding, cache,
corpus, windows."""

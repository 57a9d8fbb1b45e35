"""Text → ids → windows.

Reading order: reading, vocabulary, prose, bpe, tokenizers, builtin, sources, encoding, cache, building,
corpus, heldout, windows.
"""

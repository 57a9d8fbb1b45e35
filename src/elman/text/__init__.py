"""Text → ids → windows.

Reading order: reading, vocabulary, paragraphs, prose, bpe, tokenizers, builtin, sources, encoding, cache,
building, corpus, heldout, windows.
"""

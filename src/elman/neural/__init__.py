"""Neural language models: the output layer, Bengio's fixed window, the recurrent model, word vectors."""

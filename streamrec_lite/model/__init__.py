"""The encoder-decoder Transformer, and the vectors that represent items."""

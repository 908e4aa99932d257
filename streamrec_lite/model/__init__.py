"""The encoder-decoder Transformer, and the vectors that stand for items."""

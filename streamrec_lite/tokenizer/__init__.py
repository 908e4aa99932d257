"""From item text to semantic IDs: embeddings, RQ-VAE, collision repair, trie, health report (eqs 4-8)."""

"""From a trained model to answers: one token at a time, beam search, sampling, thoughts, recommendations."""

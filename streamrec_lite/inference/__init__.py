"""Answers of a trained model: step decoder, beam search, sampling, thoughts, recommendations."""

"""Ranking metrics, and one evaluator for every model."""

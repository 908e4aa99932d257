"""Interactions and item text: where they come from, the synthetic playground, splits and batches."""

"""The training loop, and the three stages that use it."""

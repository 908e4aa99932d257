"""All settings of a run: what they are called, what they may be, and what each of them does."""

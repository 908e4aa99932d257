"""The models that STREAM-Rec is measured against: counting, neural, and TIGER."""

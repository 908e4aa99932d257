"""streamrec_lite: slow thinking for sequential recommendation, to read, run and measure."""

__version__ = "0.1.0"

"""``python -m streamrec_lite.cli``: the command line without its installed entry point."""

from .app import main

main()

"""The command line: `streamrec COMMAND`."""

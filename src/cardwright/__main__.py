"""The command ``cardwright``."""

from cardwright.edges.cli.commands import main

if __name__ == "__main__":
    main()

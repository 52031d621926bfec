"""`python -m mutorch` is the command line."""

from mutorch.cli import main

if __name__ == "__main__":
    main()

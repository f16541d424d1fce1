"""The command line as `python -m ptarmigan`, which is how torchrun starts it."""

from ptarmigan.cli import main

if __name__ == "__main__":
    main()

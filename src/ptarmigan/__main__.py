"""`python -m ptarmigan`, as torchrun calls it."""

from ptarmigan.cli import main

if __name__ == "__main__":
    main()

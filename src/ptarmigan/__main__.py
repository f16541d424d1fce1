"""The command line as `ptarmigan` and as `python -m ptarmigan`, which is how torchrun starts it."""

import gc
import sys
import time


def main() -> None:
    """Run the command line.  Its modules are imported here, so that Ctrl-C is also reported while they are."""
    gc.disable()  # imports leave no garbage, and looking for it takes a tenth of the start
    try:
        from ptarmigan.core.clock import COMMAND

        COMMAND.set(time.monotonic())
        from ptarmigan.cli import main

        gc.enable()
        main()
    except KeyboardInterrupt:
        if sys.stderr is not None:
            sys.stderr.write("ptarmigan: interrupted [interrupted]\n")
        sys.exit(130)
    finally:
        gc.freeze()  # Python would otherwise search all objects for garbage before it exits, which takes half a second


if __name__ == "__main__":
    main()

"""The command `slimseg`, and `python -m slimseg`: Ctrl-C is heard before anything large is imported."""

from __future__ import annotations

import signal

from slimseg.stopping import listening


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # at the very end, too, no traceback
    with listening():
        from slimseg.cli import main as run

        run()


if __name__ == "__main__":
    main()

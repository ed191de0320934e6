"""The command `graftax`: what is in a saved model, without a line of Python."""

import argparse
import sys
import warnings
from collections.abc import Sequence

from .files import FormatError, load
from .paths import PatternError
from .surgery import NoMatchError, select


def main(arguments: Sequence[str] | None = None) -> int:
    """`graftax paths FILE [PATTERN ...]`: list the nodes of a saved model that the patterns match.

    **Arguments:**

    - `arguments`: the words of the command line; those of this process if None.

    **Returns:**

    The exit status: 0, or 2 with a message if the file or a pattern cannot be used.
    """
    parser = argparse.ArgumentParser(prog="graftax", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    paths = commands.add_parser("paths", help="list the nodes of a saved model by path")
    paths.add_argument("file", help="a file that graftax.save wrote")
    paths.add_argument("patterns", nargs="*", metavar="PATTERN", help="as in graftax.select")
    options = parser.parse_args(arguments)
    try:
        # Blocks of a type of their own are listed as the standard containers they are.
        with warnings.catch_warnings(action="ignore"):
            _say(_listing(options.file, options.patterns))
    except (OSError, FormatError, NoMatchError, PatternError) as error:
        _say(f"graftax: {error}", error=True)
        return 2
    return 0


def _listing(file: str, patterns: Sequence[str]) -> str:
    selection = select(load(file), list(patterns) or "**")
    return f"{selection}\n{selection.size:,} parameters, {selection.nbytes:,} bytes"


def _say(text: str, error: bool = False) -> None:
    """Print a text; letters that the terminal does not have as their numbers."""
    stream = sys.stderr if error else sys.stdout
    encoding = stream.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), file=stream)


if __name__ == "__main__":
    sys.exit(main())

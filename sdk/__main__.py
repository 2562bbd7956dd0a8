"""`python -m llm_cache` and the `llm-cache` command."""

import sys


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    from llm_cache.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()

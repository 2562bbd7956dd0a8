"""`python -m llm_cache` and the `llm-cache` command."""

import sys


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    try:
        from llm_cache.cli.app import run

        code = run()
    except KeyboardInterrupt:  # while the modules were still loading
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    main()

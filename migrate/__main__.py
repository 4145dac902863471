"""`python -m migrate`, and the start of the command `memlift`, which is the same."""

import sys


def main() -> int:
    """Run the command; Ctrl-C while its modules are still being read ends it like one that comes later."""
    try:
        from migrate.cli import main as command
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\nhint: run the same command again\n")
        return 130
    return command()


if __name__ == "__main__":
    sys.exit(main())

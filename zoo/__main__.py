"""python -m zoo is zoo."""

import sys

from zoo import UserError, check_system


def main() -> None:
    """Run a command where the system has what the zoo needs; elsewhere say so, before anything else is imported."""
    try:
        check_system()
    except UserError as error:
        print(f"zoo: {error}", file=sys.stderr)
        sys.exit(2)
    from zoo import cli

    cli.main()


if __name__ == "__main__":
    main()

"""`python -m orchctl` and the console script."""

from orchctl.cli.app import main

if __name__ == "__main__":
    main()

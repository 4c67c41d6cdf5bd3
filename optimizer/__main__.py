"""``python -m optimizer`` is the ``optimize`` command."""

from optimizer.cli.main import main

if __name__ == "__main__":
    main()

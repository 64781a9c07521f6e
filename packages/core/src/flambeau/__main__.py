"""``python -m flambeau`` is the ``flambeau`` command."""

from flambeau.cli import main

if __name__ == "__main__":
    main()

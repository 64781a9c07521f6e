"""``python -m flambeau_segment`` is the ``flambeau-segment`` command."""

from .cli import main

main()

"""``python -m flambeau_translate`` is the ``flambeau-translate`` command."""

from .cli import main

main()

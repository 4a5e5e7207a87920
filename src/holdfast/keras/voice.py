"""What a callback says: lines on the screen as Keras prints them, and each warning once."""

import logging
import sys
import warnings

import keras

from holdfast.errors import CheckpointWarning

_log = logging.getLogger(__name__)


class Voice:
    """
    Prints and warns for a callback.

    Parameters:
        verbose (int): from 1 on it prints.
    """

    def __init__(self, verbose: int) -> None:
        self._verbose = verbose
        self._is_interactive = True
        self._warned: set[str] = set()

    def begin(self) -> None:
        """Ask Keras where lines go. It knows on the thread that trains, and on no other."""
        self._is_interactive = keras.config.is_interactive_logging_enabled()

    def tell(self, text: str) -> None:
        """Print a line, or log it where Keras was told to log."""
        if self._verbose < 1:
            return
        if self._is_interactive:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        else:
            _log.info("%s", text.strip())

    def warn(self, text: str) -> None:
        """Warn."""
        warnings.warn(text, CheckpointWarning, stacklevel=4)

    def warn_once(self, about: str, text: str) -> None:
        """Warn, unless it has warned about this before."""
        if about not in self._warned:
            self._warned.add(about)
            self.warn(text)

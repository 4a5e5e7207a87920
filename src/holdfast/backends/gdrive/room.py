"""How much an account may still put into Drive, looked up before something large is sent."""

from holdfast.backends.gdrive.client import Client
from holdfast.backends.gdrive.known import Known
from holdfast.backends.gdrive.places import Base
from holdfast.errors import StorageFull

#: Seconds that an answer is relied on; what is sent meanwhile is taken off.
_TRUST_S = 60.0


class Room:
    """
    The room of an account. What goes to a shared drive takes none of it.

    Parameters:
        client (Client): asks.
        base (Base): where the store lies.
        known (Known): has the clock.
    """

    def __init__(self, client: Client, base: Base, known: Known) -> None:
        self._client = client
        self._base = base
        self._known = known
        self._looked: tuple[float, int | None] | None = None

    def free(self) -> int | None:
        """The bytes that still fit; None where there is no bound."""
        quota = None if self._base.drive else self._client.quota()
        free = None if quota is None else max(0, quota[0] - quota[1])
        self._looked = (self._known.clock(), free)
        return free

    def take(self, size: int) -> None:
        """
        Make sure that something of this size still fits.

        Raises:
            StorageFull: it does not.
        """
        if not size or self._base.drive:
            return
        at, free = self._looked or (float("-inf"), None)
        if self._known.clock() - at > _TRUST_S or (free is not None and free < size):
            free = self.free()
        if free is None:
            return
        if free < size:
            raise StorageFull(
                f"Drive has room for {free:,} more bytes, and {size:,} are to be sent. What is "
                "committed is untouched. Make room and empty the trash, which counts too, then "
                "repeat the call. (A service account has no room of its own: put the store on a "
                "shared drive.)"
            )
        self._looked = (self._looked[0] if self._looked else at, free - size)

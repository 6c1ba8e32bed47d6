"""REST faults on demand: what to answer instead of the truth, and how often.

PURE.
"""

import msgspec

from k2.simulator.frames import compact_json

MESSAGES: dict[int, tuple[int, str]] = {
    418: (-1003, "Way too much request weight used; IP banned."),
    429: (-1003, "Too much request weight used; please use WebSocket Streams."),
    451: (
        0,
        "Service unavailable from a restricted location according to 'b. Eligibility'.",
    ),
    500: (-1000, "An unknown error occurred while processing the request."),
    503: (-1008, "Server is currently overloaded with other requests. Please try again."),
    504: (-1007, "Timeout waiting for response from backend server."),
}
HTML_403 = (
    "<html>\r\n<head><title>403 Forbidden</title></head>\r\n<body>\r\n<center><h1>403 Forbidden"
    "</h1></center>\r\n</body>\r\n</html>\r\n"
)


class RestFault(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Applies to the next ``count`` requests whose path ends with ``path``.

    The answer comes ``delay_s`` late, and with ``status`` other than 200 it is that error;
    ``Retry-After`` of a 418 or 429 is ``retry_after_s``.
    """

    status: int = 200
    count: int = 1
    delay_s: float = 0.0
    path: str = ""
    retry_after_s: int = 1

    def __post_init__(self) -> None:
        if not (self.status == 200 or 400 <= self.status < 600):
            raise ValueError(f"status must be 200 or 400 to 599, not {self.status}")
        if self.count < 1 or not 0 <= self.delay_s <= 600:
            raise ValueError("count must be at least 1 and delay_s from 0 to 600")
        if not 0 <= self.retry_after_s <= 3 * 86_400:
            raise ValueError("retry_after_s must be from 0 to three days")

    def body(self) -> tuple[str, str]:
        """Return content type and text of the error."""
        if self.status == 403:
            return "text/html", HTML_403
        code, msg = MESSAGES.get(self.status, (-1000, f"Simulated failure {self.status}."))
        return "application/json", compact_json({"code": code, "msg": msg})


class FaultPlan:
    """The faults still to be played, oldest first."""

    def __init__(self) -> None:
        self._faults: list[RestFault] = []

    def add(self, fault: RestFault) -> None:
        """Append a fault."""
        self._faults.append(fault)

    def clear(self) -> None:
        """Forget all."""
        self._faults.clear()

    def take(self, path: str) -> RestFault | None:
        """Use up one count of the oldest fault for ``path``."""
        for place, fault in enumerate(self._faults):
            if path.endswith(fault.path):
                if fault.count > 1:
                    self._faults[place] = msgspec.structs.replace(fault, count=fault.count - 1)
                else:
                    del self._faults[place]
                return fault
        return None

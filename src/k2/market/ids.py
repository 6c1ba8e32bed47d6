"""A run of consecutive trade ids of one symbol."""

import msgspec


class IdRange(msgspec.Struct, frozen=True, order=True):
    """Ids ``first_id`` to ``last_id``, both inclusive."""

    first_id: int
    last_id: int

    def __post_init__(self) -> None:
        if not 0 <= self.first_id <= self.last_id:
            raise ValueError(f"not a range of trade ids: {self.first_id}..{self.last_id}")

    def __len__(self) -> int:
        return self.last_id - self.first_id + 1

    def __contains__(self, trade_id: int) -> bool:
        return self.first_id <= trade_id <= self.last_id

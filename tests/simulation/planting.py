"""How a bug is planted."""

from __future__ import annotations

from typing import Any, Protocol


class Plant(Protocol):
    """Replaces an attribute of the product for as long as the bug is planted."""

    def __call__(self, target: Any, attribute: str, value: Any, /) -> None: ...

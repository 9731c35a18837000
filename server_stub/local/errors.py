"""What goes wrong with local members."""

from __future__ import annotations


class LocalMemberError(Exception):
    """A member that did not start, stop or answer as it should; the text has its last output."""

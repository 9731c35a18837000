"""Messages of package walpb; see walpb.proto and the stub beside this file."""

from ._pool import names_of

globals().update(names_of("walpb"))

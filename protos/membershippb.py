"""Messages of package membershippb; see membershippb.proto and the stub beside this file."""

from ._pool import names_of

globals().update(names_of("membershippb"))

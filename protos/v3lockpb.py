"""Messages of package v3lockpb; see v3lockpb.proto and the stub beside this file."""

from ._pool import names_of

globals().update(names_of("v3lockpb"))

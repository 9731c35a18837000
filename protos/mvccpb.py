"""Messages of package mvccpb; see mvccpb.proto and the stub beside this file."""

from ._pool import names_of

globals().update(names_of("mvccpb"))

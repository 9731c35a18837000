"""Messages of package v3electionpb; see v3electionpb.proto and the stub beside this file."""

from ._pool import names_of

globals().update(names_of("v3electionpb"))

"""Why something that was expected may not be seen: shown only where a verdict says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.failover import measures
from benchmarks.failover.claims import Finding, Verdict
from benchmarks.failover.measures import Measure
from benchmarks.failover.settings import (
    EXACTLY_ONCE,
    HEALTH_AWARE,
    PINNED_MULTI,
    PINNED_SINGLE,
    ROUND_ROBIN,
    Setting,
)

UNEXPLAINED: Final = "Not explained yet: an open question."

LEARNER: Final = (
    "A first connection is trusted until a probe has said what it leads to, and probes are spread "
    "over the probe interval so that a fleet does not ask all at once. Calls that come before may "
    "be sent to the learner, which refuses them; none fails, for each is sent on at once."
)

REASONS: Final[dict[tuple[int, Measure, Setting], str]] = {
    (1, measures.FIRST_ELSEWHERE, PINNED_MULTI): (
        "The pin is exchanged at once; what is measured is a whole call on the new one, on a "
        "machine that serves three members and five clients with the same cores, and is about to "
        "clean up after the process that was killed."
    ),
    (6, measures.AVOIDED, PINNED_SINGLE): (
        "A member is on the list for one to two hold times of 3 s, counted from when it failed. "
        "One that takes longer than that to start is off the list when it is back."
    ),
    (10, measures.BAD_SHARE, HEALTH_AWARE): (
        "What is under way when the member falls silent: puts of unknown outcome are not repeated "
        "and fail, reads are repeated after two fifths of their time and count as slow. Silence "
        "is taken for a failure only when it is four times as long as usual, and where all "
        "members are slow, that is long."
    ),
    (10, measures.BAD_SHARE, EXACTLY_ONCE): (
        "What is under way when the member falls silent is repeated elsewhere after two fifths of "
        "its time, and counts as slow."
    ),
    (10, measures.FAILED_PUTS, HEALTH_AWARE): (
        "A put that is on the wire when the connection breaks has an unknown outcome, and is not "
        "repeated unless that is asked for."
    ),
    (11, measures.LEASES_LOST, PINNED_MULTI): (
        "Nothing moves a stream off a pin that hangs or is cut off, so that no renewal is answered "
        "for longer than the time to live, and the lease is rightly taken for lost. The claim "
        "holds where a connection ends; 1.0 does not notice where it does not."
    ),
    (11, measures.LEASES_LOST, PINNED_SINGLE): (
        "The lease's stream stays where it is until the connection ends: a ping finds that out "
        "later than the lease lives, and never where the pin is only cut off from its peers."
    ),
    (11, measures.LEASES_LOST, ROUND_ROBIN): (
        "A stream is on one member. When that hangs, or is cut off, the stream does not break, "
        "and nothing tells this policy to move it: renewals stay unanswered for longer than the "
        "lease lives."
    ),
    (12, measures.FAILED_SHARE, ROUND_ROBIN): (
        "The claim is of the first releases with this balancer. Since 3.4.32 and 3.5.14 clientv3 "
        "sends a call that a learner refused to another member, writes too, for nothing was "
        "proposed; and so does our model. The cost is an attempt more for the learner's share of "
        "the calls."
    ),
    (12, measures.AT_VICTIM, HEALTH_AWARE): LEARNER,
    (12, measures.AT_VICTIM, EXACTLY_ONCE): LEARNER,
    (13, measures.BEYOND_ELECTION, ROUND_ROBIN): (
        "Puts that a follower had passed on to the old leader wait for their deadline, and what "
        "is retried waits for its pause; on a busy machine that adds to the election."
    ),
    (13, measures.FAILED_PUTS, EXACTLY_ONCE): (
        "A write is sent up to three times within its deadline of 3 s. Where the last of these was "
        "sent before the election was over, it was passed on to a leader that was gone."
    ),
    (14, measures.FAILED, HEALTH_AWARE): (
        "A put that is under way when its member or the leader goes away has an unknown outcome, "
        'and without retry = "exactly_once" it is not repeated: those are the failures counted. '
        "A member that stops by SIGTERM hands its leadership over only if it can."
    ),
    (14, measures.FAILED, EXACTLY_ONCE): (
        "The call's deadline of 3 s passed before the cluster could serve again."
    ),
}
"""By claim, measure and policy."""


def explanations(findings: Sequence[Finding]) -> Iterator[tuple[Finding, str]]:
    """Explain every expectation that was not met."""
    for finding in findings:
        if finding.verdict is Verdict.NOT_SEEN:
            key = finding.claim.number, finding.row.measure, finding.setting
            yield finding, REASONS.get(key, UNEXPLAINED)

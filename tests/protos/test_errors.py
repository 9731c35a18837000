"""The table of refusals."""

from etcd_pinwheel.protos import errors
from etcd_pinwheel.protos.errors import BY_TEXT, Code, Refusal, Refused


def rows() -> list[Refusal]:
    return [row for row in vars(errors).values() if isinstance(row, Refusal)]


def test_texts_are_unique_for_they_are_the_key() -> None:
    assert len({row.text for row in rows()}) == len(rows()) == len(BY_TEXT)


def test_rows_that_travel_with_a_code_that_is_not_theirs() -> None:
    astray = {row.text for row in rows() if row.wire_code is not row.code}
    assert astray == {
        "etcdserver: too many requests",
        "etcdserver: re-configuration failed due to not enough started members",
        "auth: invalid auth token",
        "auth: revision in header is old",
        "auth: user name is empty",
        "auth: permission denied",
    }
    assert errors.TOO_MANY_REQUESTS.wire_code is Code.UNKNOWN


def test_codes_match_grpc() -> None:
    import grpc

    assert {code.name: int(code) for code in Code} == {
        code.name: code.value[0] for code in grpc.StatusCode
    }


def test_a_refused_call_carries_its_row() -> None:
    refused = Refused(errors.COMPACTED)
    assert refused.refusal is errors.COMPACTED
    assert str(refused) == "etcdserver: mvcc: required revision has been compacted"

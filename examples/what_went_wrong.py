"""What may be assumed after an error: the tree of errors is split by just that."""

from etcd_pinwheel import Client, NotSent, OutcomeUnknown, Refused

with Client(["127.0.0.1:1"], timeout=0.5) as nowhere:
    try:
        nowhere.put("k", "v")
    except NotSent as error:
        print("certainly not written:", *error.reasons.values())
    except OutcomeUnknown:
        print("written, or not, or to be written yet: read before writing again")
    except Refused as error:
        print("certainly not written, and not going to be:", error.text)

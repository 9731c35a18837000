"""What an entry of the log does to the state of a member.

Reading order: :mod:`.applier`, :mod:`.writes`, :mod:`.txn`, :mod:`.ranges`, :mod:`.quota`,
:mod:`.alarms`. All of it is synchronous; every member that applies the same log gets the same
state, so nothing here may depend on anything but the entry and the state it meets.
"""

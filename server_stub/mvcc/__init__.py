"""The multi-version store: a B-tree of keys over a B+tree of revisions.

Words are those of etcd's data-model page. Reading order: :mod:`.revision`, :mod:`.key_index`,
:mod:`.index`, :mod:`.backend`, :mod:`.store`, then what grows around it: :mod:`.compaction`,
:mod:`.hashing`, :mod:`.watchable`. All of it is synchronous and deterministic.
"""

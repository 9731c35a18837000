"""The wire: messages, RPCs and refusals of etcd's API, and of its log and store on disk.

One module per protobuf package (``etcdserverpb``, ``mvccpb``, ``raftpb``, ...) holds the message
classes; :mod:`.rpcs` names every RPC with its types; :mod:`.errors` is the one table of refusals.
The ``.proto`` files beside this one are the source; ``python protos/regenerate.py`` compiles them.
"""

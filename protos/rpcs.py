"""Every RPC of the API, with path and types; regenerate.py writes this file."""

from __future__ import annotations

from typing import Final

from .etcdserverpb import (
    AlarmRequest,
    AlarmResponse,
    AuthDisableRequest,
    AuthDisableResponse,
    AuthEnableRequest,
    AuthEnableResponse,
    AuthenticateRequest,
    AuthenticateResponse,
    AuthRoleAddRequest,
    AuthRoleAddResponse,
    AuthRoleDeleteRequest,
    AuthRoleDeleteResponse,
    AuthRoleGetRequest,
    AuthRoleGetResponse,
    AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse,
    AuthRoleListRequest,
    AuthRoleListResponse,
    AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse,
    AuthStatusRequest,
    AuthStatusResponse,
    AuthUserAddRequest,
    AuthUserAddResponse,
    AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse,
    AuthUserDeleteRequest,
    AuthUserDeleteResponse,
    AuthUserGetRequest,
    AuthUserGetResponse,
    AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse,
    AuthUserListRequest,
    AuthUserListResponse,
    AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse,
    CompactionRequest,
    CompactionResponse,
    DefragmentRequest,
    DefragmentResponse,
    DeleteRangeRequest,
    DeleteRangeResponse,
    DowngradeRequest,
    DowngradeResponse,
    HashKVRequest,
    HashKVResponse,
    HashRequest,
    HashResponse,
    LeaseGrantRequest,
    LeaseGrantResponse,
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    MemberAddRequest,
    MemberAddResponse,
    MemberListRequest,
    MemberListResponse,
    MemberPromoteRequest,
    MemberPromoteResponse,
    MemberRemoveRequest,
    MemberRemoveResponse,
    MemberUpdateRequest,
    MemberUpdateResponse,
    MoveLeaderRequest,
    MoveLeaderResponse,
    PutRequest,
    PutResponse,
    RangeRequest,
    RangeResponse,
    RangeStreamResponse,
    SnapshotRequest,
    SnapshotResponse,
    StatusRequest,
    StatusResponse,
    TxnRequest,
    TxnResponse,
    WatchRequest,
    WatchResponse,
)
from .rpc import (
    Rpc,
)
from .v3electionpb import (
    CampaignRequest,
    CampaignResponse,
    LeaderRequest,
    LeaderResponse,
    ProclaimRequest,
    ProclaimResponse,
    ResignRequest,
    ResignResponse,
)
from .v3lockpb import (
    LockRequest,
    LockResponse,
    UnlockRequest,
    UnlockResponse,
)

# etcdserverpb.Auth
AUTH_AUTH_DISABLE: Final = Rpc(
    "/etcdserverpb.Auth/AuthDisable",
    AuthDisableRequest,
    AuthDisableResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_AUTH_ENABLE: Final = Rpc(
    "/etcdserverpb.Auth/AuthEnable",
    AuthEnableRequest,
    AuthEnableResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_AUTH_STATUS: Final = Rpc(
    "/etcdserverpb.Auth/AuthStatus",
    AuthStatusRequest,
    AuthStatusResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_AUTHENTICATE: Final = Rpc(
    "/etcdserverpb.Auth/Authenticate",
    AuthenticateRequest,
    AuthenticateResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_ROLE_ADD: Final = Rpc(
    "/etcdserverpb.Auth/RoleAdd",
    AuthRoleAddRequest,
    AuthRoleAddResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_ROLE_DELETE: Final = Rpc(
    "/etcdserverpb.Auth/RoleDelete",
    AuthRoleDeleteRequest,
    AuthRoleDeleteResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_ROLE_GET: Final = Rpc(
    "/etcdserverpb.Auth/RoleGet",
    AuthRoleGetRequest,
    AuthRoleGetResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_ROLE_GRANT_PERMISSION: Final = Rpc(
    "/etcdserverpb.Auth/RoleGrantPermission",
    AuthRoleGrantPermissionRequest,
    AuthRoleGrantPermissionResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_ROLE_LIST: Final = Rpc(
    "/etcdserverpb.Auth/RoleList",
    AuthRoleListRequest,
    AuthRoleListResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_ROLE_REVOKE_PERMISSION: Final = Rpc(
    "/etcdserverpb.Auth/RoleRevokePermission",
    AuthRoleRevokePermissionRequest,
    AuthRoleRevokePermissionResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_USER_ADD: Final = Rpc(
    "/etcdserverpb.Auth/UserAdd",
    AuthUserAddRequest,
    AuthUserAddResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_USER_CHANGE_PASSWORD: Final = Rpc(
    "/etcdserverpb.Auth/UserChangePassword",
    AuthUserChangePasswordRequest,
    AuthUserChangePasswordResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_USER_DELETE: Final = Rpc(
    "/etcdserverpb.Auth/UserDelete",
    AuthUserDeleteRequest,
    AuthUserDeleteResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_USER_GET: Final = Rpc(
    "/etcdserverpb.Auth/UserGet",
    AuthUserGetRequest,
    AuthUserGetResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_USER_GRANT_ROLE: Final = Rpc(
    "/etcdserverpb.Auth/UserGrantRole",
    AuthUserGrantRoleRequest,
    AuthUserGrantRoleResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_USER_LIST: Final = Rpc(
    "/etcdserverpb.Auth/UserList",
    AuthUserListRequest,
    AuthUserListResponse,
    client_streaming=False,
    server_streaming=False,
)
AUTH_USER_REVOKE_ROLE: Final = Rpc(
    "/etcdserverpb.Auth/UserRevokeRole",
    AuthUserRevokeRoleRequest,
    AuthUserRevokeRoleResponse,
    client_streaming=False,
    server_streaming=False,
)

# etcdserverpb.Cluster
CLUSTER_MEMBER_ADD: Final = Rpc(
    "/etcdserverpb.Cluster/MemberAdd",
    MemberAddRequest,
    MemberAddResponse,
    client_streaming=False,
    server_streaming=False,
)
CLUSTER_MEMBER_LIST: Final = Rpc(
    "/etcdserverpb.Cluster/MemberList",
    MemberListRequest,
    MemberListResponse,
    client_streaming=False,
    server_streaming=False,
)
CLUSTER_MEMBER_PROMOTE: Final = Rpc(
    "/etcdserverpb.Cluster/MemberPromote",
    MemberPromoteRequest,
    MemberPromoteResponse,
    client_streaming=False,
    server_streaming=False,
)
CLUSTER_MEMBER_REMOVE: Final = Rpc(
    "/etcdserverpb.Cluster/MemberRemove",
    MemberRemoveRequest,
    MemberRemoveResponse,
    client_streaming=False,
    server_streaming=False,
)
CLUSTER_MEMBER_UPDATE: Final = Rpc(
    "/etcdserverpb.Cluster/MemberUpdate",
    MemberUpdateRequest,
    MemberUpdateResponse,
    client_streaming=False,
    server_streaming=False,
)

# etcdserverpb.KV
KV_COMPACT: Final = Rpc(
    "/etcdserverpb.KV/Compact",
    CompactionRequest,
    CompactionResponse,
    client_streaming=False,
    server_streaming=False,
)
KV_DELETE_RANGE: Final = Rpc(
    "/etcdserverpb.KV/DeleteRange",
    DeleteRangeRequest,
    DeleteRangeResponse,
    client_streaming=False,
    server_streaming=False,
)
KV_PUT: Final = Rpc(
    "/etcdserverpb.KV/Put",
    PutRequest,
    PutResponse,
    client_streaming=False,
    server_streaming=False,
)
KV_RANGE: Final = Rpc(
    "/etcdserverpb.KV/Range",
    RangeRequest,
    RangeResponse,
    client_streaming=False,
    server_streaming=False,
)
KV_RANGE_STREAM: Final = Rpc(
    "/etcdserverpb.KV/RangeStream",
    RangeRequest,
    RangeStreamResponse,
    client_streaming=False,
    server_streaming=True,
)
KV_TXN: Final = Rpc(
    "/etcdserverpb.KV/Txn",
    TxnRequest,
    TxnResponse,
    client_streaming=False,
    server_streaming=False,
)

# etcdserverpb.Lease
LEASE_LEASE_GRANT: Final = Rpc(
    "/etcdserverpb.Lease/LeaseGrant",
    LeaseGrantRequest,
    LeaseGrantResponse,
    client_streaming=False,
    server_streaming=False,
)
LEASE_LEASE_KEEP_ALIVE: Final = Rpc(
    "/etcdserverpb.Lease/LeaseKeepAlive",
    LeaseKeepAliveRequest,
    LeaseKeepAliveResponse,
    client_streaming=True,
    server_streaming=True,
)
LEASE_LEASE_LEASES: Final = Rpc(
    "/etcdserverpb.Lease/LeaseLeases",
    LeaseLeasesRequest,
    LeaseLeasesResponse,
    client_streaming=False,
    server_streaming=False,
)
LEASE_LEASE_REVOKE: Final = Rpc(
    "/etcdserverpb.Lease/LeaseRevoke",
    LeaseRevokeRequest,
    LeaseRevokeResponse,
    client_streaming=False,
    server_streaming=False,
)
LEASE_LEASE_TIME_TO_LIVE: Final = Rpc(
    "/etcdserverpb.Lease/LeaseTimeToLive",
    LeaseTimeToLiveRequest,
    LeaseTimeToLiveResponse,
    client_streaming=False,
    server_streaming=False,
)

# etcdserverpb.Maintenance
MAINTENANCE_ALARM: Final = Rpc(
    "/etcdserverpb.Maintenance/Alarm",
    AlarmRequest,
    AlarmResponse,
    client_streaming=False,
    server_streaming=False,
)
MAINTENANCE_DEFRAGMENT: Final = Rpc(
    "/etcdserverpb.Maintenance/Defragment",
    DefragmentRequest,
    DefragmentResponse,
    client_streaming=False,
    server_streaming=False,
)
MAINTENANCE_DOWNGRADE: Final = Rpc(
    "/etcdserverpb.Maintenance/Downgrade",
    DowngradeRequest,
    DowngradeResponse,
    client_streaming=False,
    server_streaming=False,
)
MAINTENANCE_HASH: Final = Rpc(
    "/etcdserverpb.Maintenance/Hash",
    HashRequest,
    HashResponse,
    client_streaming=False,
    server_streaming=False,
)
MAINTENANCE_HASH_KV: Final = Rpc(
    "/etcdserverpb.Maintenance/HashKV",
    HashKVRequest,
    HashKVResponse,
    client_streaming=False,
    server_streaming=False,
)
MAINTENANCE_MOVE_LEADER: Final = Rpc(
    "/etcdserverpb.Maintenance/MoveLeader",
    MoveLeaderRequest,
    MoveLeaderResponse,
    client_streaming=False,
    server_streaming=False,
)
MAINTENANCE_SNAPSHOT: Final = Rpc(
    "/etcdserverpb.Maintenance/Snapshot",
    SnapshotRequest,
    SnapshotResponse,
    client_streaming=False,
    server_streaming=True,
)
MAINTENANCE_STATUS: Final = Rpc(
    "/etcdserverpb.Maintenance/Status",
    StatusRequest,
    StatusResponse,
    client_streaming=False,
    server_streaming=False,
)

# etcdserverpb.Watch
WATCH_WATCH: Final = Rpc(
    "/etcdserverpb.Watch/Watch",
    WatchRequest,
    WatchResponse,
    client_streaming=True,
    server_streaming=True,
)

# v3electionpb.Election
ELECTION_CAMPAIGN: Final = Rpc(
    "/v3electionpb.Election/Campaign",
    CampaignRequest,
    CampaignResponse,
    client_streaming=False,
    server_streaming=False,
)
ELECTION_LEADER: Final = Rpc(
    "/v3electionpb.Election/Leader",
    LeaderRequest,
    LeaderResponse,
    client_streaming=False,
    server_streaming=False,
)
ELECTION_OBSERVE: Final = Rpc(
    "/v3electionpb.Election/Observe",
    LeaderRequest,
    LeaderResponse,
    client_streaming=False,
    server_streaming=True,
)
ELECTION_PROCLAIM: Final = Rpc(
    "/v3electionpb.Election/Proclaim",
    ProclaimRequest,
    ProclaimResponse,
    client_streaming=False,
    server_streaming=False,
)
ELECTION_RESIGN: Final = Rpc(
    "/v3electionpb.Election/Resign",
    ResignRequest,
    ResignResponse,
    client_streaming=False,
    server_streaming=False,
)

# v3lockpb.Lock
LOCK_LOCK: Final = Rpc(
    "/v3lockpb.Lock/Lock",
    LockRequest,
    LockResponse,
    client_streaming=False,
    server_streaming=False,
)
LOCK_UNLOCK: Final = Rpc(
    "/v3lockpb.Lock/Unlock",
    UnlockRequest,
    UnlockResponse,
    client_streaming=False,
    server_streaming=False,
)

ALL: Final = (
    AUTH_AUTH_DISABLE,
    AUTH_AUTH_ENABLE,
    AUTH_AUTH_STATUS,
    AUTH_AUTHENTICATE,
    AUTH_ROLE_ADD,
    AUTH_ROLE_DELETE,
    AUTH_ROLE_GET,
    AUTH_ROLE_GRANT_PERMISSION,
    AUTH_ROLE_LIST,
    AUTH_ROLE_REVOKE_PERMISSION,
    AUTH_USER_ADD,
    AUTH_USER_CHANGE_PASSWORD,
    AUTH_USER_DELETE,
    AUTH_USER_GET,
    AUTH_USER_GRANT_ROLE,
    AUTH_USER_LIST,
    AUTH_USER_REVOKE_ROLE,
    CLUSTER_MEMBER_ADD,
    CLUSTER_MEMBER_LIST,
    CLUSTER_MEMBER_PROMOTE,
    CLUSTER_MEMBER_REMOVE,
    CLUSTER_MEMBER_UPDATE,
    KV_COMPACT,
    KV_DELETE_RANGE,
    KV_PUT,
    KV_RANGE,
    KV_RANGE_STREAM,
    KV_TXN,
    LEASE_LEASE_GRANT,
    LEASE_LEASE_KEEP_ALIVE,
    LEASE_LEASE_LEASES,
    LEASE_LEASE_REVOKE,
    LEASE_LEASE_TIME_TO_LIVE,
    MAINTENANCE_ALARM,
    MAINTENANCE_DEFRAGMENT,
    MAINTENANCE_DOWNGRADE,
    MAINTENANCE_HASH,
    MAINTENANCE_HASH_KV,
    MAINTENANCE_MOVE_LEADER,
    MAINTENANCE_SNAPSHOT,
    MAINTENANCE_STATUS,
    WATCH_WATCH,
    ELECTION_CAMPAIGN,
    ELECTION_LEADER,
    ELECTION_OBSERVE,
    ELECTION_PROCLAIM,
    ELECTION_RESIGN,
    LOCK_LOCK,
    LOCK_UNLOCK,
)

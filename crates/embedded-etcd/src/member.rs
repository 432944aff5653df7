//! etcd's Cluster and Maintenance services for one member in memory.
//!
//! In: requests. Out: the member and its status. Calls about other members or a disk are
//! refused as unimplemented.

use etcd_client::proto as pb;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::connection::Peer;
use super::node::{Node, RAFT_TERM};

/// The etcd release whose API this server has. Clients ask for it, and Go's newest client can
/// be set to refuse servers older than its last release but one.
pub(super) const API_VERSION: &str = "3.6.0";

#[tonic::async_trait]
impl pb::PbClusterService for Node {
    async fn member_list(
        &self,
        request: Request<pb::PbMemberListRequest>,
    ) -> Result<Response<pb::PbMemberListResponse>, Status> {
        // The address that this client connected to works for it; the bound address may be
        // a wildcard.
        let peer = request.extensions().get::<Peer>();
        let address = peer.and_then(|peer| peer.local).unwrap_or_else(|| self.address());
        let member = pb::PbMember {
            id: self.member_id(),
            name: "embedded".to_owned(),
            client_ur_ls: vec![format!("http://{address}")],
            ..Default::default()
        };
        let mut response = pb::PbMemberListResponse { header: None, members: vec![member] };
        self.sign(&mut response.header);
        Ok(Response::new(response))
    }

    async fn member_add(
        &self,
        _: Request<pb::PbMemberAddRequest>,
    ) -> Result<Response<pb::PbMemberAddResponse>, Status> {
        Err(one_member())
    }

    async fn member_remove(
        &self,
        _: Request<pb::PbMemberRemoveRequest>,
    ) -> Result<Response<pb::PbMemberRemoveResponse>, Status> {
        Err(one_member())
    }

    async fn member_update(
        &self,
        _: Request<pb::PbMemberUpdateRequest>,
    ) -> Result<Response<pb::PbMemberUpdateResponse>, Status> {
        Err(one_member())
    }

    async fn member_promote(
        &self,
        _: Request<pb::PbMemberPromoteRequest>,
    ) -> Result<Response<pb::PbMemberPromoteResponse>, Status> {
        Err(one_member())
    }
}

#[tonic::async_trait]
impl pb::PbMaintenanceService for Node {
    type SnapshotStream = BoxStream<'static, Result<pb::PbSnapshotResponse, Status>>;

    async fn status(
        &self,
        _: Request<pb::PbStatusRequest>,
    ) -> Result<Response<pb::PbStatusResponse>, Status> {
        let (revision, (all, live)) = self.with(|store, _| (store.revision(), store.bytes()));
        let index = revision.unsigned_abs();
        let mut response = pb::PbStatusResponse {
            header: Some(pb::PbResponseHeader { revision, ..Default::default() }),
            version: API_VERSION.to_owned(),
            db_size: all as i64,
            db_size_in_use: live as i64,
            leader: self.member_id(),
            raft_index: index,
            raft_applied_index: index,
            raft_term: RAFT_TERM,
            ..Default::default()
        };
        self.sign(&mut response.header);
        Ok(Response::new(response))
    }

    async fn alarm(
        &self,
        _: Request<pb::PbAlarmRequest>,
    ) -> Result<Response<pb::PbAlarmResponse>, Status> {
        let mut response = pb::PbAlarmResponse::default();
        self.sign(&mut response.header);
        Ok(Response::new(response))
    }

    async fn defragment(
        &self,
        _: Request<pb::PbDefragmentRequest>,
    ) -> Result<Response<pb::PbDefragmentResponse>, Status> {
        // The store is never fragmented, so there is nothing to do.
        let header = self.header(self.with(|store, _| store.revision()));
        Ok(Response::new(pb::PbDefragmentResponse { header }))
    }

    async fn hash(
        &self,
        _: Request<pb::PbHashRequest>,
    ) -> Result<Response<pb::PbHashResponse>, Status> {
        let (revision, hash) =
            self.with(|store, _| store.hash(0).map(|h| (store.revision(), h)))?;
        Ok(Response::new(pb::PbHashResponse { header: self.header(revision), hash }))
    }

    async fn hash_kv(
        &self,
        request: Request<pb::PbHashKvRequest>,
    ) -> Result<Response<pb::PbHashKvResponse>, Status> {
        let asked = request.get_ref().revision;
        let (revision, compact_revision, hash) = self.with(|store, _| {
            store.hash(asked).map(|hash| (store.revision(), store.compacted(), hash))
        })?;
        let hash_revision = if asked > 0 { asked } else { revision };
        let header = self.header(revision);
        let response = pb::PbHashKvResponse { header, hash, compact_revision, hash_revision };
        Ok(Response::new(response))
    }

    async fn snapshot(
        &self,
        _: Request<pb::PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(in_memory())
    }

    async fn move_leader(
        &self,
        _: Request<pb::PbMoveLeaderRequest>,
    ) -> Result<Response<pb::PbMoveLeaderResponse>, Status> {
        Err(one_member())
    }

    async fn downgrade(
        &self,
        _: Request<pb::PbDowngradeRequest>,
    ) -> Result<Response<pb::PbDowngradeResponse>, Status> {
        Err(one_member())
    }
}

fn one_member() -> Status {
    Status::unimplemented("the embedded etcd has one member: use an etcd cluster")
}

fn in_memory() -> Status {
    Status::unimplemented("the embedded etcd keeps everything in memory: use an etcd cluster")
}

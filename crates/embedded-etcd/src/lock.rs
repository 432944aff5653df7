//! etcd's Lock service.
//!
//! In: names and leases. Out: keys that are locks for as long as they exist. A
//! client that goes away while it waits leaves the queue.

use etcd_client::proto as pb;
use tonic::{Request, Response, Status};

use super::node::{Node, check_size};
use super::queue::failed;

/// The messages; the rest of etcd's API is etcd-client's.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in proto/")]
mod proto {
    tonic::include_proto!("v3lockpb");
}

pub(super) use proto::lock_server::LockServer;

#[tonic::async_trait]
impl proto::lock_server::Lock for Node {
    async fn lock(
        &self,
        request: Request<proto::LockRequest>,
    ) -> Result<Response<proto::LockResponse>, Status> {
        check_size(request.get_ref())?;
        let request = request.into_inner();
        let place = self.queue(&request.name, request.lease, Vec::new())?;
        place.first().await?;
        // Its lease may have ended while it waited.
        let revision = self
            .with(|store, _| store.now(&place.key).map(|_| store.revision()))
            .ok_or_else(|| failed("mutex: session is expired"))?;
        let key = place.keep().key.clone();
        Ok(Response::new(proto::LockResponse { header: self.header(revision), key }))
    }

    async fn unlock(
        &self,
        request: Request<proto::UnlockRequest>,
    ) -> Result<Response<proto::UnlockResponse>, Status> {
        check_size(request.get_ref())?;
        let delete = pb::PbDeleteRequest { key: request.into_inner().key, ..Default::default() };
        let mut response = self.with(|store, _| store.delete(&delete)).map_err(failed)?;
        self.sign(&mut response.header);
        Ok(Response::new(proto::UnlockResponse { header: response.header }))
    }
}

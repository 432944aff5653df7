//! etcd's Lock service.
//!
//! In: names and leases. Out: keys; a lock is held while its key exists. A client that
//! disconnects while it waits leaves the queue.

use etcd_client::proto as pb;
use tonic::{Request, Response, Status};

use super::node::{Node, check_size};
use super::queue::failed;

/// The generated messages of this service. The other services use etcd-client's.
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
        // The lease may have ended during the wait.
        let revision = self
            .with(|store, _| store.now(&place.key).map(|_| store.revision()))
            .ok_or_else(|| failed("mutex: session is expired"))?;
        let key = place.keep_key().key.clone();
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

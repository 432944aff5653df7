//! etcd's Lease service.
//!
//! In: requests, and streams of renewals. Out: the store's answers with this server's header,
//! one for each renewal. The next renewal is read only once the client has room for the
//! answer.

use etcd_client::proto as pb;
use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use super::node::{Node, check_size};
use super::store::Store;

#[tonic::async_trait]
impl pb::PbLeaseService for Node {
    type LeaseKeepAliveStream = BoxStream<'static, Result<pb::PbLeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<pb::PbLeaseGrantRequest>,
    ) -> Result<Response<pb::PbLeaseGrantResponse>, Status> {
        check_size(request.get_ref())?;
        let mut response = self.with(|store, now| store.grant(request.get_ref(), now))?;
        self.sign(&mut response.header);
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<pb::PbLeaseRevokeRequest>,
    ) -> Result<Response<pb::PbLeaseRevokeResponse>, Status> {
        let mut response = self.with(|store, _| store.revoke(request.get_ref()))?;
        self.sign(&mut response.header);
        Ok(Response::new(response))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let start = Some((self.clone(), request.into_inner()));
        let answers = stream::unfold(start, |going| async {
            let (node, mut inbound) = going?;
            let request = tokio::select! {
                biased;
                request = inbound.next() => request?,
                stopped = node.stopped() => Err(stopped),
            };
            match request {
                Ok(request) => {
                    let mut response = node.with(|store, now| store.keep_alive(&request, now));
                    node.sign(&mut response.header);
                    Some((Ok(response), Some((node, inbound))))
                }
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<pb::PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::PbLeaseTimeToLiveResponse>, Status> {
        let run = |request: pb::PbLeaseTimeToLiveRequest, store: &mut Store, now| {
            Ok(store.time_to_live(&request, now))
        };
        let mut response = self.answer(request, Store::cost_of_lease, run).await?;
        self.sign(&mut response.get_mut().header);
        Ok(response)
    }

    async fn lease_leases(
        &self,
        request: Request<pb::PbLeaseLeasesRequest>,
    ) -> Result<Response<pb::PbLeaseLeasesResponse>, Status> {
        let run = |_, store: &mut Store, _| Ok(store.leases());
        let mut response = self.answer(request, Store::cost_of_leases, run).await?;
        self.sign(&mut response.get_mut().header);
        Ok(response)
    }
}

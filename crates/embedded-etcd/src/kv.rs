//! etcd's KV service.
//!
//! In: requests. Out: the store's answers with this server's header, once there is room
//! for them. It refuses requests that are too large; the store decides all else.

use etcd_client::proto as pb;
use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::node::{Node, check_size};
use super::store::Store;

#[tonic::async_trait]
impl pb::PbKvService for Node {
    type RangeStreamStream = BoxStream<'static, Result<pb::PbRangeStreamResponse, Status>>;

    async fn range(
        &self,
        request: Request<pb::PbRangeRequest>,
    ) -> Result<Response<pb::PbRangeResponse>, Status> {
        let mut response = self
            .answer(request, Store::cost_of_range, |request, store, _| store.range(&request))
            .await?;
        self.sign(&mut response.get_mut().header);
        Ok(response)
    }

    async fn range_stream(
        &self,
        _: Request<pb::PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("the embedded etcd has no RangeStream: use Range"))
    }

    async fn put(
        &self,
        request: Request<pb::PbPutRequest>,
    ) -> Result<Response<pb::PbPutResponse>, Status> {
        check_size(request.get_ref())?;
        let mut response = self
            .answer(request, Store::cost_of_put, |request, store, _| store.put(request))
            .await?;
        self.sign(&mut response.get_mut().header);
        Ok(response)
    }

    async fn delete_range(
        &self,
        request: Request<pb::PbDeleteRequest>,
    ) -> Result<Response<pb::PbDeleteResponse>, Status> {
        check_size(request.get_ref())?;
        let mut response = self
            .answer(request, Store::cost_of_delete, |request, store, _| store.delete(&request))
            .await?;
        self.sign(&mut response.get_mut().header);
        Ok(response)
    }

    async fn txn(
        &self,
        request: Request<pb::PbTxnRequest>,
    ) -> Result<Response<pb::PbTxnResponse>, Status> {
        check_size(request.get_ref())?;
        let mut response = self
            .answer(request, Store::cost_of_txn, |request, store, _| store.txn(request))
            .await?;
        self.sign(&mut response.get_mut().header);
        Ok(response)
    }

    async fn compact(
        &self,
        request: Request<pb::PbCompactionRequest>,
    ) -> Result<Response<pb::PbCompactionResponse>, Status> {
        let mut response = self.with(|store, _| store.compact(request.get_ref()))?;
        self.sign(&mut response.header);
        Ok(Response::new(response))
    }
}

//! etcd's Auth service, with authentication always off.
//!
//! In: requests. Out: the answers of an etcd whose authentication is disabled. It stores
//! users and roles, but no call needs them. A client that logs in gets etcd's error for
//! that and continues without a user.

use etcd_client::proto as pb;
use tonic::{Request, Response, Status};

use super::node::{Node, check_size};
use super::store::{StoreError, Users};

/// The generated messages of this service. The other services use etcd-client's.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated; documented in proto/")]
mod proto {
    tonic::include_proto!("etcdserverpb");
}

use proto as auth;
pub(super) use proto::auth_server::AuthServer;

/// The reason why authentication cannot be enabled.
const NO_AUTHENTICATION: &str =
    "the embedded etcd has no authentication: use an etcd cluster for it";

impl Node {
    /// Runs one call on users and roles. Returns the header of the response and the result.
    fn users<T>(
        &self,
        request: &impl prost::Message,
        call: impl FnOnce(&mut Users) -> Result<T, StoreError>,
    ) -> Result<(Option<pb::PbResponseHeader>, T), Status> {
        check_size(request)?;
        let (revision, answer) =
            self.with(|store, _| call(store.users()).map(|answer| (store.revision(), answer)))?;
        Ok((self.header(revision), answer))
    }
}

/// Answers a call whose response has only a header.
macro_rules! changed {
    ($answer:ident, $node:expr, $request:expr, $call:expr) => {{
        let (header, ()) = $node.users($request, $call)?;
        Ok(Response::new(auth::$answer { header }))
    }};
}

#[tonic::async_trait]
impl auth::auth_server::Auth for Node {
    async fn auth_enable(
        &self,
        request: Request<auth::AuthEnableRequest>,
    ) -> Result<Response<auth::AuthEnableResponse>, Status> {
        self.users(request.get_ref(), |users| users.enable())?;
        Err(Status::failed_precondition(NO_AUTHENTICATION))
    }

    async fn auth_disable(
        &self,
        request: Request<auth::AuthDisableRequest>,
    ) -> Result<Response<auth::AuthDisableResponse>, Status> {
        changed!(AuthDisableResponse, self, request.get_ref(), |_| Ok(()))
    }

    async fn auth_status(
        &self,
        request: Request<auth::AuthStatusRequest>,
    ) -> Result<Response<auth::AuthStatusResponse>, Status> {
        let (header, auth_revision) =
            self.users(request.get_ref(), |users| Ok(users.revision()))?;
        Ok(Response::new(auth::AuthStatusResponse { header, enabled: false, auth_revision }))
    }

    async fn authenticate(
        &self,
        _: Request<auth::AuthenticateRequest>,
    ) -> Result<Response<auth::AuthenticateResponse>, Status> {
        Err(StoreError::AuthNotEnabled.into())
    }

    async fn user_add(
        &self,
        request: Request<auth::AuthUserAddRequest>,
    ) -> Result<Response<auth::AuthUserAddResponse>, Status> {
        let request = request.get_ref();
        changed!(AuthUserAddResponse, self, request, |users| users.add_user(&request.name))
    }

    async fn user_get(
        &self,
        request: Request<auth::AuthUserGetRequest>,
    ) -> Result<Response<auth::AuthUserGetResponse>, Status> {
        let request = request.get_ref();
        let (header, roles) = self.users(request, |users| users.user(&request.name))?;
        Ok(Response::new(auth::AuthUserGetResponse { header, roles }))
    }

    async fn user_list(
        &self,
        request: Request<auth::AuthUserListRequest>,
    ) -> Result<Response<auth::AuthUserListResponse>, Status> {
        let (header, users) = self.users(request.get_ref(), |users| Ok(users.users()))?;
        Ok(Response::new(auth::AuthUserListResponse { header, users }))
    }

    async fn user_delete(
        &self,
        request: Request<auth::AuthUserDeleteRequest>,
    ) -> Result<Response<auth::AuthUserDeleteResponse>, Status> {
        let request = request.get_ref();
        changed!(AuthUserDeleteResponse, self, request, |users| users.delete_user(&request.name))
    }

    async fn user_change_password(
        &self,
        request: Request<auth::AuthUserChangePasswordRequest>,
    ) -> Result<Response<auth::AuthUserChangePasswordResponse>, Status> {
        let request = request.get_ref();
        changed!(AuthUserChangePasswordResponse, self, request, |users| {
            users.change_password(&request.name)
        })
    }

    async fn user_grant_role(
        &self,
        request: Request<auth::AuthUserGrantRoleRequest>,
    ) -> Result<Response<auth::AuthUserGrantRoleResponse>, Status> {
        let request = request.get_ref();
        changed!(AuthUserGrantRoleResponse, self, request, |users| {
            users.grant_role(&request.user, &request.role)
        })
    }

    async fn user_revoke_role(
        &self,
        request: Request<auth::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<auth::AuthUserRevokeRoleResponse>, Status> {
        let request = request.get_ref();
        changed!(AuthUserRevokeRoleResponse, self, request, |users| {
            users.revoke_role(&request.name, &request.role)
        })
    }

    async fn role_add(
        &self,
        request: Request<auth::AuthRoleAddRequest>,
    ) -> Result<Response<auth::AuthRoleAddResponse>, Status> {
        let request = request.get_ref();
        changed!(AuthRoleAddResponse, self, request, |users| users.add_role(&request.name))
    }

    async fn role_get(
        &self,
        request: Request<auth::AuthRoleGetRequest>,
    ) -> Result<Response<auth::AuthRoleGetResponse>, Status> {
        let request = request.get_ref();
        let (header, permissions) = self.users(request, |users| users.role(&request.role))?;
        let permissions = permissions.into_iter();
        let perm = permissions
            .map(|(perm_type, key, range_end)| auth::Permission { perm_type, key, range_end })
            .collect();
        Ok(Response::new(auth::AuthRoleGetResponse { header, perm }))
    }

    async fn role_list(
        &self,
        request: Request<auth::AuthRoleListRequest>,
    ) -> Result<Response<auth::AuthRoleListResponse>, Status> {
        let (header, roles) = self.users(request.get_ref(), |users| Ok(users.roles()))?;
        Ok(Response::new(auth::AuthRoleListResponse { header, roles }))
    }

    async fn role_delete(
        &self,
        request: Request<auth::AuthRoleDeleteRequest>,
    ) -> Result<Response<auth::AuthRoleDeleteResponse>, Status> {
        let request = request.get_ref();
        changed!(AuthRoleDeleteResponse, self, request, |users| users.delete_role(&request.role))
    }

    async fn role_grant_permission(
        &self,
        request: Request<auth::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<auth::AuthRoleGrantPermissionResponse>, Status> {
        let request = request.get_ref();
        changed!(AuthRoleGrantPermissionResponse, self, request, |users| {
            let perm = request.perm.as_ref().ok_or(StoreError::PermissionNotGiven)?;
            users.grant(&request.name, perm.perm_type, &perm.key, &perm.range_end)
        })
    }

    async fn role_revoke_permission(
        &self,
        request: Request<auth::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<auth::AuthRoleRevokePermissionResponse>, Status> {
        let request = request.get_ref();
        changed!(AuthRoleRevokePermissionResponse, self, request, |users| {
            users.revoke(&request.role, &request.key, &request.range_end)
        })
    }
}

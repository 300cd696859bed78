//! The service `Auth`, of which there is none: who may connect is decided by certificates, and whoever may, may everything.
//!
//! An etcd whose authentication was never enabled says the same, so that clients which ask or try first go on without.

use rpc::etcd::etcdserverpb::auth_server::Auth;
use rpc::etcd::etcdserverpb::{
    AuthDisableRequest, AuthDisableResponse, AuthEnableRequest, AuthEnableResponse, AuthRoleAddRequest,
    AuthRoleAddResponse, AuthRoleGrantPermissionRequest, AuthRoleGrantPermissionResponse, AuthRoleListRequest,
    AuthRoleListResponse, AuthStatusRequest, AuthStatusResponse, AuthUserAddRequest, AuthUserAddResponse,
    AuthUserGrantRoleRequest, AuthUserGrantRoleResponse, AuthUserListRequest, AuthUserListResponse,
    AuthenticateRequest, AuthenticateResponse,
};
use tonic::{Request, Response, Status};

use super::{Front, errors};

/// The revision of users and roles that nobody has changed.
const FIRST_REVISION: u64 = 1;

fn no_users() -> Status {
    Status::unimplemented(
        "this is trireme's store, which has no users and roles: its client certificates decide who may use it",
    )
}

#[tonic::async_trait]
impl Auth for Front {
    async fn auth_status(&self, _: Request<AuthStatusRequest>) -> Result<Response<AuthStatusResponse>, Status> {
        let (revision, _) = self.shared.newest()?;
        Ok(Response::new(AuthStatusResponse {
            header: self.shared.header(revision),
            enabled: false,
            auth_revision: FIRST_REVISION,
        }))
    }

    async fn authenticate(&self, _: Request<AuthenticateRequest>) -> Result<Response<AuthenticateResponse>, Status> {
        Err(errors::auth_not_enabled())
    }

    async fn auth_enable(&self, _: Request<AuthEnableRequest>) -> Result<Response<AuthEnableResponse>, Status> {
        Err(no_users())
    }

    async fn auth_disable(&self, _: Request<AuthDisableRequest>) -> Result<Response<AuthDisableResponse>, Status> {
        // It is, as it is in an etcd where it never was enabled.
        let (revision, _) = self.shared.newest()?;
        Ok(Response::new(AuthDisableResponse {
            header: self.shared.header(revision),
        }))
    }

    async fn user_list(&self, _: Request<AuthUserListRequest>) -> Result<Response<AuthUserListResponse>, Status> {
        let (revision, _) = self.shared.newest()?;
        Ok(Response::new(AuthUserListResponse {
            header: self.shared.header(revision),
            users: Vec::new(),
        }))
    }

    async fn role_list(&self, _: Request<AuthRoleListRequest>) -> Result<Response<AuthRoleListResponse>, Status> {
        let (revision, _) = self.shared.newest()?;
        Ok(Response::new(AuthRoleListResponse {
            header: self.shared.header(revision),
            roles: Vec::new(),
        }))
    }

    async fn user_add(&self, _: Request<AuthUserAddRequest>) -> Result<Response<AuthUserAddResponse>, Status> {
        Err(no_users())
    }

    async fn user_grant_role(
        &self,
        _: Request<AuthUserGrantRoleRequest>,
    ) -> Result<Response<AuthUserGrantRoleResponse>, Status> {
        Err(no_users())
    }

    async fn role_add(&self, _: Request<AuthRoleAddRequest>) -> Result<Response<AuthRoleAddResponse>, Status> {
        Err(no_users())
    }

    async fn role_grant_permission(
        &self,
        _: Request<AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<AuthRoleGrantPermissionResponse>, Status> {
        Err(no_users())
    }
}

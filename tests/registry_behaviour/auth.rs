//! Cases of users and roles while authentication is off.

use anyhow::Result;
use etcd_client::{Error, Permission, PermissionType, RoleRevokePermissionOptions};

use crate::registry_behaviour::scene::Scene;

impl Scene {
    fn done<T>(&mut self, what: &str, answer: Result<T, Error>) {
        match answer {
            Ok(_) => self.note(format!("{what}: done")),
            Err(error) => self.note_error(what, &error),
        }
    }

    async fn user(&mut self, name: &str) {
        match self.client.user_get(name).await {
            Ok(user) => self.note(format!("user {name}: {:?}", user.roles())),
            Err(error) => self.note_error(&format!("user {name}"), &error),
        }
    }

    async fn role(&mut self, name: &str) {
        match self.client.role_get(name).await {
            Ok(role) => self.note(format!("role {name}: {:?}", role.permissions())),
            Err(error) => self.note_error(&format!("role {name}"), &error),
        }
    }

    async fn everybody(&mut self) -> Result<()> {
        let users = self.client.user_list().await?;
        let roles = self.client.role_list().await?;
        self.note(format!("users {:?}, roles {:?}", users.users(), roles.roles()));
        Ok(())
    }
}

pub async fn users(s: &mut Scene) -> Result<()> {
    let mut client = s.client.clone();
    s.everybody().await?;
    for name in ["ann", "bob", "ann", ""] {
        let answer = client.user_add(name, "secret", None).await;
        s.done(&format!("add user {name:?}"), answer);
    }
    for name in ["reader", "reader", "root", ""] {
        let answer = client.role_add(name).await;
        s.done(&format!("add role {name:?}"), answer);
    }
    for (user, role) in
        [("ann", "reader"), ("ann", "reader"), ("ann", "none"), ("eve", "reader"), ("bob", "root")]
    {
        let answer = client.user_grant_role(user, role).await;
        s.done(&format!("grant {user} {role}"), answer);
    }
    let all = [
        Permission::new(PermissionType::Readwrite, "b"),
        Permission::new(PermissionType::Read, "a"),
        Permission::new(PermissionType::Write, "c").with_range_end("d"),
        Permission::new(PermissionType::Read, "b"),
    ];
    for permission in all {
        let answer = client.role_grant_permission("reader", permission).await;
        s.done("grant permission", answer);
    }
    let answer =
        client.role_grant_permission("none", Permission::new(PermissionType::Read, "a")).await;
    s.done("grant permission to none", answer);
    s.role("reader").await;
    s.role("none").await;
    let to_d = Some(RoleRevokePermissionOptions::new().with_range_end("d"));
    for (role, key, options) in
        [("reader", "c", None), ("reader", "c", to_d), ("reader", "b", None), ("none", "a", None)]
    {
        let answer = client.role_revoke_permission(role, key, options).await;
        s.done(&format!("revoke {role} {key}"), answer);
    }
    s.role("reader").await;
    for name in ["ann", "bob", "eve"] {
        s.user(name).await;
    }
    for (user, role) in [("bob", "reader"), ("bob", "root"), ("eve", "root")] {
        let answer = client.user_revoke_role(user, role).await;
        s.done(&format!("revoke {user} {role}"), answer);
    }
    for name in ["ann", "eve"] {
        let answer = client.user_change_password(name, "another").await;
        s.done(&format!("password of {name}"), answer);
    }
    let answer = client.auth_enable().await;
    s.done("enable without root", answer);
    let answer = client.auth_disable().await;
    s.done("disable", answer);
    for name in ["reader", "root", "none"] {
        let answer = client.role_delete(name).await;
        s.done(&format!("delete role {name}"), answer);
    }
    s.user("ann").await;
    s.everybody().await?;
    for name in ["ann", "bob", "eve"] {
        let answer = client.user_delete(name).await;
        s.done(&format!("delete user {name}"), answer);
    }
    s.everybody().await
}

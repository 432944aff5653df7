//! Users, roles and permissions, as in an etcd with authentication off. Pure.
//!
//! In: changes. Out: sorted lists, or a [`StoreError`]. They protect nothing here, so
//! passwords are not stored. The memory is bounded.

use std::collections::{BTreeMap, BTreeSet};

use super::StoreError;

/// The most bytes of all names and keys, with overhead: a thousand users. Larger systems
/// need a registry with authentication anyway.
const BYTES_MAX: usize = 128 * 1024;
/// The cost of a name or a permission beside its bytes, in bytes.
const OVERHEAD: usize = 64;
/// The role that can be granted without having been added.
const ROOT: &str = "root";

/// The users with their roles, and the roles with their permissions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Users {
    users: BTreeMap<String, BTreeSet<String>>,
    roles: BTreeMap<String, Permissions>,
    /// The number of changes so far.
    changes: u64,
    bytes: usize,
}

/// A permission: kind, key and range end.
pub(crate) type Permission = (i32, Vec<u8>, Vec<u8>);

/// The kinds of a role's permissions by key and range end.
type Permissions = BTreeMap<(Vec<u8>, Vec<u8>), i32>;

impl Users {
    /// Returns etcd's `authRevision`: 1 plus the number of changes.
    pub(crate) fn revision(&self) -> u64 {
        self.changes + 1
    }

    pub(crate) fn users(&self) -> Vec<String> {
        self.users.keys().cloned().collect()
    }

    pub(crate) fn roles(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// Returns the roles of a user.
    pub(crate) fn user(&self, name: &str) -> Result<Vec<String>, StoreError> {
        let roles = self.users.get(name).ok_or(StoreError::UserNotFound)?;
        Ok(roles.iter().cloned().collect())
    }

    /// Returns the permissions of a role.
    pub(crate) fn role(&self, name: &str) -> Result<Vec<Permission>, StoreError> {
        let permissions = self.roles.get(name).ok_or(StoreError::RoleNotFound)?;
        Ok(permissions.iter().map(|((key, end), &kind)| (kind, key.clone(), end.clone())).collect())
    }

    pub(crate) fn add_user(&mut self, name: &str) -> Result<(), StoreError> {
        if name.is_empty() {
            return Err(StoreError::UserEmpty);
        }
        if self.users.contains_key(name) {
            return Err(StoreError::UserExists);
        }
        self.charge(name.len())?;
        self.users.insert(name.to_owned(), BTreeSet::new());
        Ok(())
    }

    /// Counts a change if the user exists. The password is not stored.
    pub(crate) fn change_password(&mut self, name: &str) -> Result<(), StoreError> {
        self.user(name)?;
        self.changes += 1;
        Ok(())
    }

    pub(crate) fn delete_user(&mut self, name: &str) -> Result<(), StoreError> {
        let roles = self.users.remove(name).ok_or(StoreError::UserNotFound)?;
        self.refund(name.len());
        roles.iter().for_each(|role| self.refund(role.len()));
        self.changes += 1;
        Ok(())
    }

    pub(crate) fn grant_role(&mut self, user: &str, role: &str) -> Result<(), StoreError> {
        let has = self.users.get(user).ok_or(StoreError::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(StoreError::RoleNotFound);
        }
        if has.contains(role) {
            return Ok(());
        }
        self.charge(role.len())?;
        self.users.entry(user.to_owned()).or_default().insert(role.to_owned());
        Ok(())
    }

    pub(crate) fn revoke_role(&mut self, user: &str, role: &str) -> Result<(), StoreError> {
        let has = self.users.get_mut(user).ok_or(StoreError::UserNotFound)?;
        if !has.remove(role) {
            return Err(StoreError::RoleNotGranted);
        }
        self.refund(role.len());
        self.changes += 1;
        Ok(())
    }

    pub(crate) fn add_role(&mut self, name: &str) -> Result<(), StoreError> {
        if name.is_empty() {
            return Err(StoreError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(StoreError::RoleExists);
        }
        self.charge(name.len())?;
        self.roles.insert(name.to_owned(), Permissions::new());
        Ok(())
    }

    /// Deletes a role and revokes it from its users.
    pub(crate) fn delete_role(&mut self, name: &str) -> Result<(), StoreError> {
        let permissions = self.roles.remove(name).ok_or(StoreError::RoleNotFound)?;
        self.refund(name.len());
        permissions.keys().for_each(|(key, end)| self.refund(key.len() + end.len()));
        let lost = self.users.values_mut().filter(|roles| roles.contains(name));
        let lost = lost.map(|roles| roles.remove(name)).count();
        (0..lost).for_each(|_| self.refund(name.len()));
        self.changes += 1;
        Ok(())
    }

    pub(crate) fn grant(
        &mut self,
        role: &str,
        kind: i32,
        key: &[u8],
        end: &[u8],
    ) -> Result<(), StoreError> {
        let permissions = self.roles.get(role).ok_or(StoreError::RoleNotFound)?;
        let span = (key.to_vec(), end.to_vec());
        if permissions.contains_key(&span) {
            self.changes += 1;
        } else {
            self.charge(key.len() + end.len())?;
        }
        self.roles.entry(role.to_owned()).or_default().insert(span, kind);
        Ok(())
    }

    pub(crate) fn revoke(&mut self, role: &str, key: &[u8], end: &[u8]) -> Result<(), StoreError> {
        let permissions = self.roles.get_mut(role).ok_or(StoreError::RoleNotFound)?;
        if permissions.remove(&(key.to_vec(), end.to_vec())).is_none() {
            return Err(StoreError::PermissionNotGranted);
        }
        self.refund(key.len() + end.len());
        self.changes += 1;
        Ok(())
    }

    /// Returns etcd's error if there is no user `root` with the role `root`, which etcd
    /// requires before authentication.
    pub(crate) fn enable(&self) -> Result<(), StoreError> {
        let root = self.users.get(ROOT).ok_or(StoreError::RootUserMissing)?;
        if root.contains(ROOT) { Ok(()) } else { Err(StoreError::RootRoleMissing) }
    }

    fn charge(&mut self, bytes: usize) -> Result<(), StoreError> {
        if self.bytes + bytes + OVERHEAD > BYTES_MAX {
            return Err(StoreError::NoSpace);
        }
        self.bytes += bytes + OVERHEAD;
        self.changes += 1;
        Ok(())
    }

    fn refund(&mut self, bytes: usize) {
        self.bytes -= bytes + OVERHEAD;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_away_costs_nothing_any_more() {
        let mut users = Users::default();
        users.add_user("u").unwrap();
        users.add_role("r").unwrap();
        users.grant_role("u", "r").unwrap();
        users.grant_role("u", "r").unwrap();
        users.grant("r", 2, b"a", b"b").unwrap();
        users.grant("r", 0, b"a", b"b").unwrap();
        assert_eq!(users.user("u").unwrap(), ["r"]);
        users.delete_role("r").unwrap();
        assert_eq!(users.user("u").unwrap(), [""; 0]);
        users.delete_user("u").unwrap();
        assert_eq!(users.bytes, 0);
    }

    #[test]
    fn there_is_an_end_to_them() {
        let mut users = Users::default();
        let added = (0..).map_while(|i| users.add_user(&format!("user-{i}")).ok()).count();
        assert!((1_000..2_000).contains(&added), "{added}");
        assert_eq!(users.add_user("another"), Err(StoreError::NoSpace));
        users.delete_user("user-0").unwrap();
        users.add_user("another").unwrap();
    }
}

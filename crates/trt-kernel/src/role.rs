//! What a weight is read as: the words that programs, streamers and engines share.
//!
//! A kernel decides it, argument by argument ([`Kernel::role`]); a weight has the roles of all its
//! uses. Who places weights needs nothing else of a kernel to know which may be cut into tiles,
//! which may stay on the host, and which must be on the device.

use crate::{Arg, Kernel};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One way in which a weight is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// The right operand of a ranged product: it may be cut into tiles of rows and streamed.
    Rows,
    /// The table of a gather: a call reads few of its rows, so it may stay on the host.
    Table,
    /// Anything else: it is needed in one piece, so it is always on the device.
    Whole,
}

impl Role {
    /// Every role.
    pub const ALL: [Role; 3] = [Role::Rows, Role::Table, Role::Whole];

    /// The name that printed programs use.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Rows => "rows",
            Role::Table => "table",
            Role::Whole => "whole",
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Role::Rows => 1,
            Role::Table => 2,
            Role::Whole => 4,
        }
    }
}

/// The roles of a weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Roles(u8);

impl Roles {
    /// Whether this is one of them.
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// Makes this one of them.
    pub const fn add(&mut self, role: Role) {
        self.0 |= role.bit();
    }

    /// The roles of either.
    pub const fn and(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }

    /// Each of them, in the order of [`Role::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |r| self.has(*r))
    }
}

impl From<Role> for Roles {
    fn from(role: Role) -> Roles {
        Roles(role.bit())
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Roles {
        roles.into_iter().fold(Roles::default(), |mut all, role| {
            all.add(role);
            all
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, role) in self.iter().enumerate() {
            write!(f, "{}{role}", if i == 0 { "" } else { "+" })?;
        }
        Ok(())
    }
}

impl Kernel {
    /// What a weight is read as that is given for this argument.
    pub fn role(&self, arg: Arg) -> Role {
        match self {
            _ if self.streamed().contains(&arg) => Role::Rows,
            Kernel::Gather(gather) if gather.table == arg => Role::Table,
            Kernel::Row(_)
            | Kernel::Matmul(_)
            | Kernel::Attention(_)
            | Kernel::Gather(_)
            | Kernel::Routed(_)
            | Kernel::Move(_)
            | Kernel::Group(_) => Role::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_a_set() {
        let mut roles = Roles::from(Role::Table);
        assert!(roles.has(Role::Table) && !roles.has(Role::Rows) && !roles.has(Role::Whole));
        roles.add(Role::Rows);
        roles.add(Role::Table);
        assert_eq!(roles.iter().collect::<Vec<_>>(), [Role::Rows, Role::Table]);
        assert_eq!(roles.to_string(), "rows+table");
        assert_eq!(
            roles.and(Role::Whole.into()),
            Role::ALL.into_iter().collect()
        );
        assert_eq!(Roles::default().to_string(), "");
    }
}

//! Whom a container runs as: from the pod's security context, the image's user and the image's own account files.
//!
//! Owns: the order of precedence, and reading `/etc/passwd` and `/etc/group`.
//! Called by: container creation and exec.
//! Never: asks the node's own accounts.

use k8s_cri::v1::{LinuxContainerSecurityContext, SupplementalGroupsPolicy};

use crate::error::Error;
use crate::record::User;

struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

/// The account files of a root filesystem.
pub(crate) struct Accounts {
    passwd: Vec<Account>,
    /// Name, id, member names.
    groups: Vec<(String, u32, Vec<String>)>,
}

impl Accounts {
    pub(crate) fn parse(passwd: &str, group: &str) -> Self {
        let account = |line: &str| {
            let f: Vec<&str> = line.split(':').collect();
            let (uid, gid) = (f.get(2)?.parse().ok()?, f.get(3)?.parse().ok()?);
            Some(Account { name: f[0].into(), uid, gid, home: f.get(5).copied().unwrap_or("/").into() })
        };
        let group_line = |line: &str| {
            let f: Vec<&str> = line.split(':').collect();
            let members = f.get(3).map(|m| m.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect());
            Some((f[0].to_owned(), f.get(2)?.parse().ok()?, members.unwrap_or_default()))
        };
        Accounts {
            passwd: passwd.lines().filter_map(account).collect(),
            groups: group.lines().filter_map(group_line).collect(),
        }
    }

    fn by_uid(&self, uid: u32) -> Option<&Account> {
        self.passwd.iter().find(|a| a.uid == uid)
    }

    /// `$HOME` of a user, as runtimes set it when the image does not.
    pub(crate) fn home(&self, uid: u32) -> String {
        self.by_uid(uid).map_or_else(|| "/".to_owned(), |a| a.home.clone())
    }

    fn user(&self, text: &str) -> Result<(u32, Option<&Account>), Error> {
        if let Some(account) = self.passwd.iter().find(|a| a.name == text) {
            return Ok((account.uid, Some(account)));
        }
        let uid = text.parse().map_err(|_| Error::Invalid(format!("no users found matching {text:?} in the image")))?;
        Ok((uid, self.by_uid(uid)))
    }

    fn group(&self, text: &str) -> Result<u32, Error> {
        if let Some((_, gid, _)) = self.groups.iter().find(|(name, ..)| name == text) {
            return Ok(*gid);
        }
        text.parse().map_err(|_| Error::Invalid(format!("no groups found matching {text:?} in the image")))
    }
}

/// `image_user` is `user[:group]`, names or numbers, as images have it.
pub(crate) fn resolve(
    security: &LinuxContainerSecurityContext,
    image_user: &str,
    accounts: &Accounts,
) -> Result<User, Error> {
    let number = |value: i64, what: &str| {
        u32::try_from(value).map_err(|_| Error::Invalid(format!("{what} {value} is out of range")))
    };
    let (image_name, image_group) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (image_user, None),
    };
    let (uid, account, group) = if let Some(uid) = &security.run_as_user {
        let uid = number(uid.value, "runAsUser")?;
        (uid, accounts.by_uid(uid), None)
    } else if !security.run_as_username.is_empty() {
        let (uid, account) = accounts.user(&security.run_as_username)?;
        (uid, account, None)
    } else if image_name.is_empty() {
        (0, accounts.by_uid(0), image_group)
    } else {
        let (uid, account) = accounts.user(image_name)?;
        (uid, account, image_group)
    };
    let gid = match (&security.run_as_group, group) {
        (Some(gid), _) => number(gid.value, "runAsGroup")?,
        (None, Some(group)) if !group.is_empty() => accounts.group(group)?,
        _ => account.map_or(0, |a| a.gid),
    };
    let mut groups = Vec::new();
    let merge = security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge as i32;
    if let Some(account) = account.filter(|_| merge) {
        let member = |members: &[String]| members.contains(&account.name);
        groups.extend(accounts.groups.iter().filter(|(_, _, m)| member(m)).map(|(_, gid, _)| *gid));
    }
    for extra in &security.supplemental_groups {
        groups.push(number(*extra, "supplementalGroups")?);
    }
    groups.retain(|g| *g != gid);
    groups.sort_unstable();
    groups.dedup();
    Ok(User { uid, gid, groups })
}

#[cfg(test)]
mod tests {
    use k8s_cri::v1::Int64Value;

    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:web:/srv:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlogs:x:50:web,other\n";

    fn check(security: LinuxContainerSecurityContext, image_user: &str, expected: Result<(u32, u32, &[u32]), &str>) {
        let found = resolve(&security, image_user, &Accounts::parse(PASSWD, GROUP));
        let found = found.map(|u| (u.uid, u.gid, u.groups)).map_err(|e| e.to_string());
        assert_eq!(found, expected.map(|(u, g, s)| (u, g, s.to_vec())).map_err(str::to_owned));
    }

    fn run_as(uid: i64) -> LinuxContainerSecurityContext {
        LinuxContainerSecurityContext { run_as_user: Some(Int64Value { value: uid }), ..Default::default() }
    }

    #[test]
    fn the_image_user_brings_its_groups() {
        check(Default::default(), "web", Ok((33, 34, &[50])));
        check(Default::default(), "web:root", Ok((33, 0, &[50])));
        check(Default::default(), "", Ok((0, 0, &[])));
        check(Default::default(), "1000:2000", Ok((1000, 2000, &[])));
        check(Default::default(), "ghost", Err("no users found matching \"ghost\" in the image"));
    }

    #[test]
    fn the_pod_overrides_the_image_and_an_unknown_user_is_in_group_0() {
        check(run_as(33), "root", Ok((33, 34, &[50])));
        check(run_as(1000), "web:logs", Ok((1000, 0, &[])));
        check(run_as(-1), "", Err("runAsUser -1 is out of range"));
        let group = LinuxContainerSecurityContext {
            run_as_group: Some(Int64Value { value: 7 }),
            supplemental_groups: vec![9, 8, 7],
            ..run_as(33)
        };
        check(group.clone(), "", Ok((33, 7, &[8, 9, 50])));
        let strict = LinuxContainerSecurityContext { supplemental_groups_policy: 1, ..group };
        check(strict, "", Ok((33, 7, &[8, 9])));
    }
}

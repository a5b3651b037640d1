//! Users and groups by the container's own /etc/passwd and /etc/group. Pure: text in, ids out.
//!
//! Our own parser, since the C library's would load modules of the image into us. Lines that are not well formed
//! are passed over, as glibc does.

use crate::{Error, Result};

/// Most supplementary groups a process may have (NGROUPS_MAX, `linux/limits.h`).
const GROUPS_MAX: usize = 65536;

/// Who a program runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User id inside.
    pub uid: u32,
    /// Group id inside.
    pub gid: u32,
    /// Supplementary groups inside, without duplicates.
    pub groups: Vec<u32>,
    /// Home directory; `/` where passwd has no line.
    pub home: String,
}

impl User {
    /// Adds supplementary groups, each by name or number.
    ///
    /// # Errors
    /// `BadContainer` for a name that is not in the file.
    pub fn add_groups(&mut self, names: &[String], group: &str) -> Result<()> {
        for name in names {
            let gid = group_id(group, name)?;
            if !self.groups.contains(&gid) {
                self.groups.push(gid);
            }
        }
        Ok(())
    }
}

struct PasswdLine<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// Looks up `user[:group]`, each by name or number; `None` and the empty text are root.
///
/// Docker's rules: without a group, the gid and the supplementary groups come from the files; a number without a
/// line in passwd is gid 0; with a group, there are no supplementary groups.
///
/// # Errors
/// `BadContainer` for a name that is not in the files, or a number that is no id.
pub fn lookup(user: Option<&str>, passwd: &str, group: &str) -> Result<User> {
    let text = user.unwrap_or_default();
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, (!group.is_empty()).then_some(group)),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let line = passwd_line(passwd, user);
    let uid = match (&line, number(user)) {
        (Some(line), _) => line.uid,
        (None, Some(uid)) => uid,
        (None, None) => {
            return Err(Error::BadContainer(format!("user `{user}` is not in the container's /etc/passwd")));
        }
    };
    let home = line.as_ref().map_or("/", |line| line.home);
    let home = if home.is_empty() { "/" } else { home }.to_owned();
    if let Some(wanted) = wanted_group {
        let gid = group_id(group, wanted)?;
        return Ok(User { uid, gid, groups: Vec::new(), home });
    }
    let gid = line.as_ref().map_or(0, |line| line.gid);
    let groups = line.map(|line| groups_of(group, line.name)).unwrap_or_default();
    Ok(User { uid, gid, groups, home })
}

/// The first name of a user id; `None` where passwd has no line.
#[must_use]
pub fn name_of(uid: u32, passwd: &str) -> Option<&str> {
    passwd_lines(passwd).find(|line| line.uid == uid).map(|line| line.name)
}

fn group_id(group: &str, wanted: &str) -> Result<u32> {
    if let Some(line) = group_lines(group).find(|line| line.name == wanted) {
        return Ok(line.gid);
    }
    number(wanted).ok_or_else(|| Error::BadContainer(format!("group `{wanted}` is not in the container's /etc/group")))
}

fn groups_of(group: &str, member: &str) -> Vec<u32> {
    let mut groups: Vec<u32> = group_lines(group)
        .filter(|line| line.members.split(',').any(|name| name.trim() == member))
        .map(|line| line.gid)
        .take(GROUPS_MAX)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

/// The line of a name, else of a number: a name that looks like a number wins over the number, as in `id(1)`.
fn passwd_line<'a>(passwd: &'a str, user: &str) -> Option<PasswdLine<'a>> {
    passwd_lines(passwd).find(|line| line.name == user).or_else(|| {
        let uid = number(user)?;
        passwd_lines(passwd).find(|line| line.uid == uid)
    })
}

fn passwd_lines(text: &str) -> impl Iterator<Item = PasswdLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().splitn(7, ':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (_, uid, gid, _) = (fields.next()?, fields.next()?, fields.next()?, fields.next());
        Some(PasswdLine { name, uid: number(uid)?, gid: number(gid)?, home: fields.next().unwrap_or_default() })
    })
}

fn group_lines(text: &str) -> impl Iterator<Item = GroupLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.trim().splitn(4, ':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (_, gid) = (fields.next()?, fields.next()?);
        Some(GroupLine { name, gid: number(gid)?, members: fields.next().unwrap_or_default() })
    })
}

/// An id: digits only, and not -1, which the kernel reads as "leave it".
fn number(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|id| *id != u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nredis:x:999:998::/data:\n1000:x:7:7::/odd:\n";
    const GROUP: &str = "root:x:0:\nredis:x:998:\nvideo:x:44:www,redis\naudio:x:29: redis\nwheel:x:10:root\n";

    fn check(user: &str, expect: (u32, u32, &[u32], &str)) {
        let found = lookup(Some(user), PASSWD, GROUP).unwrap();
        assert_eq!((found.uid, found.gid, found.groups.as_slice(), found.home.as_str()), expect, "{user}");
    }

    #[test]
    fn dockers_rules_hold() {
        check("", (0, 0, &[10], "/root"));
        check("redis", (999, 998, &[29, 44], "/data"));
        check("999", (999, 998, &[29, 44], "/data"));
        check("redis:video", (999, 44, &[], "/data"));
        check("12345", (12345, 0, &[], "/"));
        check("12345:6", (12345, 6, &[], "/"));
        check("1000", (7, 7, &[], "/odd"));
        check(":44", (0, 44, &[], "/root"));
        check("redis:", (999, 998, &[29, 44], "/data"));
    }

    #[test]
    fn unknown_names_are_named() {
        let error = lookup(Some("nobody"), PASSWD, GROUP).unwrap_err();
        assert_eq!(error.to_string(), "user `nobody` is not in the container's /etc/passwd");
        let error = lookup(Some("redis:nogroup"), PASSWD, GROUP).unwrap_err();
        assert_eq!(error.to_string(), "group `nogroup` is not in the container's /etc/group");
        assert!(lookup(Some("4294967295"), PASSWD, GROUP).is_err());
        assert!(lookup(Some("-1"), PASSWD, GROUP).is_err());
    }

    #[test]
    fn an_image_without_files_has_root() {
        assert_eq!(lookup(None, "", "").unwrap(), User { uid: 0, gid: 0, groups: vec![], home: "/".into() });
    }

    proptest! {
        #[test]
        fn any_files_end(user in ".{0,20}", passwd in ".{0,200}", group in ".{0,200}") {
            let _ = lookup(Some(&user), &passwd, &group);
        }
    }
}

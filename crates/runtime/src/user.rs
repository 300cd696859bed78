//! Whom a container runs as: CRI's numbers or names against the image's own `/etc/passwd` and `/etc/group`.

/// A resolved user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, the primary one not among them unless asked for.
    pub groups: Vec<u32>,
    /// Home directory, if the user is known.
    pub home: Option<String>,
}

/// What was asked for.
#[derive(Debug, Clone, Default)]
pub struct Wanted<'a> {
    /// `runAsUser`.
    pub uid: Option<i64>,
    /// `runAsGroup`.
    pub gid: Option<i64>,
    /// A name, from the image's configuration through the kubelet.
    pub username: &'a str,
    /// The image's own `User`.
    pub image_user: &'a str,
    /// `supplementalGroups` and `fsGroup`.
    pub groups: &'a [i64],
    /// Whether groups of the image's `/etc/group` count too (`supplementalGroupsPolicy: Merge`).
    pub merge_groups: bool,
}

/// Finds the user. `passwd` and `group` are the image's files.
pub fn resolve(wanted: &Wanted<'_>, passwd: &str, group: &str) -> Result<User, String> {
    let (name, mut gid_name) = match (wanted.uid, wanted.username) {
        (Some(uid), _) => (uid.to_string(), None),
        (None, "") => match wanted.image_user.split_once(':') {
            Some((user, group)) => (user.to_owned(), Some(group.to_owned())),
            None => (wanted.image_user.to_owned(), None),
        },
        (None, name) => (name.to_owned(), None),
    };
    if let Some(gid) = wanted.gid {
        gid_name = Some(gid.to_string());
    }
    let name = if name.is_empty() { "0".to_owned() } else { name };
    let number: Option<u32> = name.parse().ok();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 4)
        .find(|fields| fields[0] == name || (number.is_some() && fields[2].parse().ok() == number));
    let mut user = User::default();
    let mut known_name = None;
    match (&entry, number) {
        (Some(fields), _) => {
            known_name = Some(fields[0].to_owned());
            user.uid = fields[2]
                .parse()
                .map_err(|_| format!("/etc/passwd: bad uid of {name:?}"))?;
            user.gid = fields[3]
                .parse()
                .map_err(|_| format!("/etc/passwd: bad gid of {name:?}"))?;
            user.home = fields
                .get(5)
                .map(|home| (*home).to_owned())
                .filter(|home| !home.is_empty());
        }
        (None, Some(number)) => user.uid = number,
        (None, None) => {
            return Err(format!(
                "unable to find user {name}: no matching entries in passwd file"
            ));
        }
    }
    let groups: Vec<Vec<&str>> = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 3)
        .collect();
    if let Some(name) = gid_name.filter(|name| !name.is_empty()) {
        let found = groups
            .iter()
            .find(|fields| fields[0] == name)
            .and_then(|fields| fields[2].parse().ok());
        user.gid = found
            .or_else(|| name.parse().ok())
            .ok_or_else(|| format!("unable to find group {name}: no matching entries in group file"))?;
    }
    let mut supplementary: Vec<u32> = Vec::new();
    for gid in wanted.groups {
        supplementary.push(u32::try_from(*gid).map_err(|_| format!("{gid} is not a group id"))?);
    }
    if let (true, Some(known)) = (wanted.merge_groups, known_name) {
        let member = |fields: &&Vec<&str>| {
            fields
                .get(3)
                .is_some_and(|members| members.split(',').any(|m| m == known))
        };
        supplementary.extend(
            groups
                .iter()
                .filter(member)
                .filter_map(|fields| fields[2].parse::<u32>().ok()),
        );
    }
    supplementary.sort_unstable();
    supplementary.dedup();
    user.groups = supplementary;
    Ok(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\nbroken\n";
    const GROUP: &str = "root:x:0:\napp:x:1001:\nextra:x:2000:app,other\n";

    fn check(wanted: Wanted<'_>, expect: Result<(u32, u32, &[u32]), &str>) {
        let user = resolve(&wanted, PASSWD, GROUP);
        match (user, expect) {
            (Ok(user), Ok((uid, gid, groups))) => {
                assert_eq!(
                    (user.uid, user.gid, user.groups.as_slice()),
                    (uid, gid, groups),
                    "{wanted:?}"
                );
            }
            (Err(text), Err(part)) => assert!(text.contains(part), "{text}"),
            (user, expect) => panic!("{wanted:?}: {user:?}, expected {expect:?}"),
        }
    }

    #[test]
    fn users() {
        let base = Wanted {
            merge_groups: true,
            ..Wanted::default()
        };
        check(base.clone(), Ok((0, 0, &[])));
        check(
            Wanted {
                username: "app",
                ..base.clone()
            },
            Ok((1000, 1001, &[2000])),
        );
        check(
            Wanted {
                image_user: "app:extra",
                ..base.clone()
            },
            Ok((1000, 2000, &[2000])),
        );
        check(
            Wanted {
                image_user: "1000",
                ..base.clone()
            },
            Ok((1000, 1001, &[2000])),
        );
        check(
            Wanted {
                uid: Some(7),
                ..base.clone()
            },
            Ok((7, 0, &[])),
        );
        check(
            Wanted {
                uid: Some(1000),
                gid: Some(5),
                groups: &[9, 8],
                ..base.clone()
            },
            Ok((1000, 5, &[8, 9, 2000])),
        );
        check(
            Wanted {
                username: "app",
                merge_groups: false,
                ..base.clone()
            },
            Ok((1000, 1001, &[])),
        );
        check(
            Wanted {
                username: "nobody",
                ..base.clone()
            },
            Err("unable to find user nobody"),
        );
        check(
            Wanted {
                image_user: "app:none",
                ..base
            },
            Err("unable to find group none"),
        );
    }
}

//! The record of pod links: one small file a link, so that a restarted daemon knows whose each link is.
//!
//! The kernel knows links and addresses but not pods. A file is written before its link is made and removed after the link
//! is gone, so every link of ours has a record; a record without a link is what a crash or a reboot leaves. Nothing is
//! fsynced: after a reboot there are no links to know about.
//!
//! Format of `<link name>`: address, newline, key, a line `pod NAMESPACE/NAME` when the pod is known, and a line for each host
//! port as [`HostPort`] writes it. Format of `last-address`: the address given out last.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use crate::host_ports::HostPort;
use crate::views::ObjectName;

/// Begins the line of the pod.
const POD_PREFIX: &str = "pod ";
const LAST_ADDRESS: &str = "last-address";
const TEMPORARY_SUFFIX: &str = ".new";

/// What is known of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Host-side link.
    pub link: String,
    /// The pod's address.
    pub address: Ipv4Addr,
    /// Whose it is, in the caller's words.
    pub key: String,
    /// The pod that it belongs to, when that was said.
    pub pod: Option<ObjectName>,
    /// The node's ports that lead to it.
    pub host_ports: Vec<HostPort>,
}

/// The directory of records.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
}

impl Records {
    /// Opens `directory`, making it if it is absent.
    pub fn open(directory: &Path) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// All records that can be read. A file that cannot be understood is removed: its link is then nobody's.
    pub fn load(&self, link_prefix: &str) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(link_prefix) {
                continue;
            }
            match fs::read_to_string(entry.path())
                .ok()
                .and_then(|text| parse(&name, &text))
            {
                Some(record) if !name.ends_with(TEMPORARY_SUFFIX) => records.push(record),
                _ => fs::remove_file(entry.path())?,
            }
        }
        records.sort_by(|a, b| a.link.cmp(&b.link));
        Ok(records)
    }

    /// Writes a record, and its address as the last one given out.
    pub fn put(&self, record: &Record) -> io::Result<()> {
        let mut text = format!("{}\n{}", record.address, record.key);
        if let Some(pod) = &record.pod {
            text += &format!("\n{POD_PREFIX}{pod}");
        }
        for port in &record.host_ports {
            text += &format!("\n{port}");
        }
        self.write(&record.link, &text)?;
        self.write(LAST_ADDRESS, &record.address.to_string())
    }

    /// Removes a record; absent is fine.
    pub fn remove(&self, link: &str) -> io::Result<()> {
        match fs::remove_file(self.directory.join(link)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The address that was given out last.
    pub fn last_address(&self) -> Option<Ipv4Addr> {
        fs::read_to_string(self.directory.join(LAST_ADDRESS))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        let temporary = self.directory.join(format!("{name}{TEMPORARY_SUFFIX}"));
        fs::write(&temporary, text)?;
        fs::rename(&temporary, self.directory.join(name))
    }
}

fn parse(link: &str, text: &str) -> Option<Record> {
    let mut lines = text.split('\n').peekable();
    let (address, key) = (lines.next()?.parse().ok()?, lines.next()?.to_owned());
    let pod = lines.next_if(|line| line.starts_with(POD_PREFIX));
    let pod = pod.and_then(|line| line.strip_prefix(POD_PREFIX)?.split_once('/'));
    Some(Record {
        link: link.to_owned(),
        address,
        key,
        pod: pod.map(|(namespace, name)| ObjectName::new(namespace, name)),
        host_ports: lines.map(|line| line.parse().ok()).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_garbage_does_not() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(&directory.path().join("links")).unwrap();
        let record = Record {
            link: "tri01".to_owned(),
            address: Ipv4Addr::new(10, 244, 0, 2),
            key: "default/web".to_owned(),
            pod: Some(ObjectName::new("default", "web")),
            host_ports: vec![
                "6 0.0.0.0 80 8080".parse().unwrap(),
                "17 127.0.0.1 53 5353".parse().unwrap(),
            ],
        };
        records.put(&record).unwrap();
        fs::write(directory.path().join("links/tri02"), "no address").unwrap();
        fs::write(directory.path().join("links/tri03.new"), "10.244.0.3\nhalf").unwrap();
        assert_eq!(records.load("tri").unwrap(), std::slice::from_ref(&record));
        let bare = Record {
            pod: None,
            host_ports: Vec::new(),
            ..record
        };
        records.put(&bare).unwrap();
        assert_eq!(records.load("tri").unwrap(), [bare]);
        assert!(!directory.path().join("links/tri02").exists());
        assert_eq!(records.last_address(), Some(Ipv4Addr::new(10, 244, 0, 2)));
        records.remove("tri01").unwrap();
        records.remove("tri01").unwrap();
        assert!(records.load("tri").unwrap().is_empty());
    }
}

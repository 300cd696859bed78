//! The real disk: `std::fs` behind the [`Disk`] interface.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{Disk, DiskFile, DiskLock, OpenMode};

/// The machine's own file systems. Files are created with mode 0600, directories with 0700.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).mode(0o600);
        match mode {
            OpenMode::Read => {}
            OpenMode::Append => {
                options.append(true);
            }
            OpenMode::CreateNew => {
                options.append(true).create_new(true);
            }
            OpenMode::Reuse => {
                options.write(true);
            }
        }
        let file = options.open(path)?;
        let end = (mode == OpenMode::Reuse).then_some(0);
        Ok(Box::new(RealFile { file, end }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        File::open(directory)?.sync_all()
    }

    fn create_directory(&self, directory: &Path) -> io::Result<()> {
        if directory.is_dir() {
            return Ok(());
        }
        let parent = directory.parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_directory(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        self.sync_directory(parent.unwrap_or(Path::new(".")))
    }

    fn free_bytes(&self, directory: &Path) -> io::Result<u64> {
        let status = rustix::fs::statvfs(directory)?;
        Ok(status.f_bavail.saturating_mul(status.f_frsize))
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Box::new(RealLock { _file: file })),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

struct RealFile {
    file: File,
    /// Where the next append goes, once there is room; before that the kernel appends, wherever others leave the end.
    end: Option<u64>,
}

impl RealFile {
    /// From now on there is room behind the end, so that the kernel does not know where that is.
    fn keep_end(&mut self) -> io::Result<u64> {
        match self.end {
            Some(end) => Ok(end),
            None => {
                let length = self.length()?;
                fcntl_setfl(&self.file, fcntl_getfl(&self.file)? - OFlags::APPEND)?;
                self.end = Some(length);
                Ok(length)
            }
        }
    }
}

impl DiskFile for RealFile {
    fn append_with_room(&mut self, bytes: &[u8], room: usize) -> io::Result<()> {
        if self.end.is_none() && room == 0 {
            return self.file.write_all(bytes);
        }
        let end = self.keep_end()?;
        self.file.write_all_at(bytes, end)?;
        self.end = Some(end + (bytes.len() - room) as u64);
        Ok(())
    }

    fn make_room(&mut self, from: u64, content: &[u8]) -> io::Result<()> {
        self.keep_end()?;
        // Written, not only allocated: blocks that were never written are marked as such, and taking that mark away is a
        // change of the file system's own data, which the next sync would have to write, too.
        self.file.write_all_at(content, from)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.file.set_len(length)?;
        self.end = self.end.map(|end| end.min(length));
        Ok(())
    }

    fn sync_data(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The kernel releases the lock when the file is closed, at the latest when the process ends.
struct RealLock {
    _file: File,
}

impl DiskLock for RealLock {}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::read_all;
    use super::*;

    #[test]
    fn files_live_through_their_operations() {
        let directory = tempfile::tempdir().unwrap();
        let disk = RealDisk;
        let inner = directory.path().join("a/b");
        disk.create_directory(&inner).unwrap();
        disk.create_directory(&inner).unwrap();
        let path = inner.join("one");
        let mut file = disk.open(&path, OpenMode::CreateNew).unwrap();
        file.append(b"hello").unwrap();
        file.append(b" world").unwrap();
        file.sync_data().unwrap();
        file.truncate(7).unwrap();
        file.append(b"!").unwrap();
        assert_eq!(read_all(file.as_ref()).unwrap(), b"hello w!");
        file.make_room(8, b"####").unwrap();
        file.append(b"?").unwrap();
        assert_eq!(read_all(file.as_ref()).unwrap(), b"hello w!?###");
        file.make_room(12, b"--").unwrap();
        file.append(b"!").unwrap();
        assert_eq!(read_all(file.as_ref()).unwrap(), b"hello w!?!##--");
        file.truncate(9).unwrap();
        file.append(b"..").unwrap();
        assert_eq!(read_all(file.as_ref()).unwrap(), b"hello w!?..");
        file.append_with_room(b"12345", 3).unwrap();
        file.append(b"-").unwrap();
        assert_eq!(read_all(file.as_ref()).unwrap(), b"hello w!?..12-45");
        let mut file = disk.open(&path, OpenMode::Reuse).unwrap();
        file.append(b"HE").unwrap();
        file.append_with_room(b"LL  ", 2).unwrap();
        file.append(b"O").unwrap();
        assert_eq!(read_all(file.as_ref()).unwrap(), b"HELLO w!?..12-45");
        drop(file);
        let mut file = disk.open(&path, OpenMode::Append).unwrap();
        file.truncate(7).unwrap();
        file.append(b"!").unwrap();
        assert_eq!(
            disk.open(&path, OpenMode::CreateNew).err().unwrap().kind(),
            io::ErrorKind::AlreadyExists
        );
        disk.rename(&path, &inner.join("two")).unwrap();
        disk.sync_directory(&inner).unwrap();
        assert_eq!(disk.list(&inner).unwrap(), ["two"]);
        let file = disk.open(&inner.join("two"), OpenMode::Read).unwrap();
        let mut buffer = [0; 3];
        assert_eq!(file.read_at(6, &mut buffer).unwrap(), 2);
        assert_eq!(file.length().unwrap(), 8);
        assert_eq!(
            fs::metadata(inner.join("two")).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(fs::metadata(&inner).unwrap().permissions().mode() & 0o777, 0o700);
        disk.remove(&inner.join("two")).unwrap();
        assert!(disk.list(&inner).unwrap().is_empty());
        assert!(disk.free_bytes(&inner).unwrap() > 0);
    }

    #[test]
    fn a_lock_has_one_holder() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("LOCK");
        let held = RealDisk.lock(&path).unwrap();
        assert_eq!(RealDisk.lock(&path).err().unwrap().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        RealDisk.lock(&path).unwrap();
    }
}

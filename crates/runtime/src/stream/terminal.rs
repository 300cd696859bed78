//! A terminal's master side for tasks.

use std::os::fd::OwnedFd;

use tokio::net::unix::pipe;

/// The master side of a terminal. To tokio it is a pipe for each direction: something to wait for and to read or write.
pub struct Terminal {
    reader: pipe::Receiver,
    writer: pipe::Sender,
    fd: OwnedFd,
}

impl Terminal {
    /// Takes the descriptor over; needs a tokio runtime.
    pub fn new(fd: OwnedFd) -> std::io::Result<Terminal> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let reader = pipe::Receiver::from_file_unchecked(fd.try_clone()?.into())?;
        let writer = pipe::Sender::from_file_unchecked(fd.try_clone()?.into())?;
        Ok(Terminal { reader, writer, fd })
    }

    /// Reads what was written to it.
    pub async fn read(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            self.reader.readable().await?;
            match self.reader.try_read(buffer) {
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    /// Types into it.
    pub async fn write(&self, mut data: &[u8]) -> std::io::Result<()> {
        while !data.is_empty() {
            self.writer.writable().await?;
            match self.writer.try_write(data) {
                Ok(count) => data = &data[count..],
                Err(err) if err.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(err) => return Err(err),
            }
        }
        Ok(())
    }

    /// Tells its size, columns and rows.
    pub fn resize(&self, (columns, rows): (u16, u16)) {
        let size = rustix::termios::Winsize {
            ws_col: columns,
            ws_row: rows,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // A terminal that is gone needs no size.
        let _ = rustix::termios::tcsetwinsize(&self.fd, size);
    }
}

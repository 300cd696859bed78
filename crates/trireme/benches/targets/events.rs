//! The events of a watch, one JSON text a line.

use anyhow::Context as _;
use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde_json::Value;

use crate::connection::Connection;

/// An open watch.
pub struct Events {
    /// Open as long as this lives.
    _connection: Connection,
    body: Incoming,
    read: BytesMut,
}

impl Events {
    /// Of the answer to a watch request.
    pub fn new(connection: Connection, body: Incoming) -> Events {
        Events {
            _connection: connection,
            body,
            read: BytesMut::new(),
        }
    }

    /// The next event.
    ///
    /// # Errors
    /// When the watch ended.
    pub async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let event = serde_json::from_slice(&self.read[..end])?;
                self.read.advance(end + 1);
                return Ok(event);
            }
            let frame = self.body.frame().await.context("the watch ended")??;
            self.read.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
        }
    }

    /// Reads what has come and answers how many events and bytes it was, without looking into them.
    pub async fn skim(&mut self) -> anyhow::Result<(usize, usize)> {
        let frame = self.body.frame().await.context("the watch ended")??;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        Ok((data.iter().filter(|byte| **byte == b'\n').count(), data.len()))
    }
}

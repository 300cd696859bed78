//! `trireme image`: the images of the node.

use std::path::Path;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;
use kubelet::cri::Cri;
use serde_json::Value;
use tokio_util::io::ReaderStream;

use crate::cli::Image;
use crate::errors::{CliError, Context as _, Kind, Result};
use crate::layout::Layout;
use crate::settings::Settings;

/// Runs one of the subcommands.
pub async fn run(command: Image, layout: &Layout, quiet: bool) -> Result {
    let settings = Settings::read(layout)?.ok_or_else(|| crate::no_cluster(layout))?;
    let node = settings.node.ok_or_else(|| {
        CliError::new(Kind::Missing, "NO_NODE", "this cluster has no node to keep images").hint("start one: trireme up")
    })?;
    match command {
        Image::Import { files } => {
            for file in &files {
                let names = import(layout, &node, file).await?;
                if !quiet {
                    names.iter().for_each(|name| println!("{name}"));
                }
            }
            Ok(())
        }
        Image::Ls => list(&cri(layout, &node)?).await,
        Image::Rm { names } => {
            let cri = cri(layout, &node)?;
            for name in &names {
                cri.remove_image(name)
                    .await
                    .doing(&format!("removing the image {name}"))?;
            }
            Ok(())
        }
    }
}

fn cri(layout: &Layout, node: &str) -> Result<Cri> {
    Cri::connect(&layout.node_run(node).join("cri.sock")).doing("reaching the container runtime")
}

async fn list(cri: &Cri) -> Result {
    let images = cri.images().await.doing("asking for the images")?;
    println!("{:<60} {:<16} SIZE", "NAME", "ID");
    for image in images {
        let id: String = image.id.trim_start_matches("sha256:").chars().take(12).collect();
        let size = format!("{:.1} MB", image.size as f64 / 1e6);
        match &image.repo_tags[..] {
            [] => println!("{:<60} {id:<16} {size}", "<none>"),
            names => names.iter().for_each(|name| println!("{name:<60} {id:<16} {size}")),
        }
    }
    Ok(())
}

/// Sends an archive to the node; answers the names of what was in it.
pub async fn import(layout: &Layout, node: &str, file: &Path) -> Result<Vec<String>> {
    let archive = tokio::fs::File::open(file)
        .await
        .map_err(|error| CliError::file(file, &error))?;
    let body = StreamBody::new(futures::TryStreamExt::map_ok(
        ReaderStream::new(archive),
        hyper::body::Frame::data,
    ));
    send(layout, node, body, &file.display().to_string()).await
}

/// Sends an archive that is in memory.
pub async fn import_bytes(layout: &Layout, node: &str, archive: Vec<u8>) -> Result<Vec<String>> {
    let body = http_body_util::Full::new(Bytes::from(archive)).map_err(std::io::Error::other);
    send(layout, node, body, "the demo's image").await
}

async fn send<B>(layout: &Layout, node: &str, body: B, what: &str) -> Result<Vec<String>>
where
    B: hyper::body::Body<Data = Bytes, Error = std::io::Error> + Send + 'static,
{
    let socket = layout.node_socket(node);
    let stream = tokio::net::UnixStream::connect(&socket).await.map_err(|error| {
        CliError::new(
            Kind::Missing,
            "NODE_DOWN",
            format!("the node {node} does not answer: {error}"),
        )
        .hint("start it: trireme up")
    })?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .doing("reaching the node")?;
    let connection = tokio::spawn(connection);
    let request = Request::post("/images")
        .header(http::header::HOST, "node")
        .body(body)
        .map_err(CliError::internal)?;
    let response = sender.send_request(request).await.doing("sending the image")?;
    let bytes = response
        .into_body()
        .collect()
        .await
        .doing("reading the node's answer")?
        .to_bytes();
    connection.abort();
    let answer: Value = serde_json::from_slice(&bytes).doing("reading the node's answer")?;
    if let Some(error) = answer["error"].as_str() {
        return Err(
            CliError::new(Kind::Usage, "BAD_IMAGE", format!("{what} was not imported: {error}"))
                .hint("`docker save` and OCI layouts in a tar are understood"),
        );
    }
    let names = answer["imported"].as_array().into_iter().flatten();
    Ok(names.filter_map(Value::as_str).map(str::to_owned).collect())
}

//! `trireme image`: the images of the node.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::TryStreamExt as _;
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::TokioIo;
use kubelet::cri::Cri;
use serde_json::Value;
use tokio_util::io::ReaderStream;

use crate::cli::Image;
use crate::errors::{CliError, Context as _, Kind, Result, words};
use crate::layout::Layout;
use crate::progress::{Progress, megabytes};
use crate::settings::Settings;

/// Runs one of the subcommands.
pub async fn run(command: Image, layout: &Layout, quiet: bool) -> Result {
    let settings = Settings::read(layout)?.ok_or_else(|| crate::no_cluster(layout))?;
    let node = settings.node.ok_or_else(|| {
        CliError::new(Kind::Missing, "NO_NODE", "this cluster has no node to keep images").hint(format!(
            "start it with one: {}; {}",
            layout.command("down"),
            layout.command("up")
        ))
    })?;
    match command {
        Image::Import { files } => {
            for file in &files {
                let names = import(layout, &node, file, quiet).await?;
                if !quiet {
                    names.iter().for_each(|name| println!("{name}"));
                }
            }
            Ok(())
        }
        Image::Ls => list(&cri(layout, &node).await?).await,
        Image::Rm { names } => remove(layout, &cri(layout, &node).await?, &names).await,
    }
}

async fn cri(layout: &Layout, node: &str) -> Result<Cri> {
    let socket = layout.node_run(node).join("cri.sock");
    // The client would connect when it is used, and say less.
    let there = tokio::net::UnixStream::connect(&socket).await;
    there.map_err(|error| node_down(layout, node, &error))?;
    Cri::connect(&socket).doing("reaching the container runtime")
}

fn node_down(layout: &Layout, node: &str, error: &std::io::Error) -> CliError {
    let what = format!("the node {node} does not answer: {}", words(error));
    let (up, status) = (layout.command("up"), layout.command("status"));
    CliError::new(Kind::Missing, "NODE_DOWN", what).hint(format!("start it: {up}; or see why: {status}"))
}

/// CRI removes what is not there without a word: people who mistyped a name want to know.
async fn remove(layout: &Layout, cri: &Cri, names: &[String]) -> Result {
    for name in names {
        if cri.image(name).await.doing("asking for the image")?.is_none() {
            let what = format!("there is no image {name}");
            let see = format!("see which there are: {}", layout.command("image ls"));
            return Err(CliError::new(Kind::Usage, "NO_IMAGE", what).hint(see));
        }
        cri.remove_image(name)
            .await
            .doing(&format!("removing the image {name}"))?;
    }
    Ok(())
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
async fn import(layout: &Layout, node: &str, file: &Path, quiet: bool) -> Result<Vec<String>> {
    let fail = |error: std::io::Error| CliError::file(file, &error);
    let metadata = std::fs::metadata(file).map_err(fail)?;
    if metadata.is_dir() {
        return Err(fail(std::io::ErrorKind::IsADirectory.into()));
    }
    let archive = tokio::fs::File::open(file).await.map_err(fail)?;
    let sent = Arc::new(AtomicU64::new(0));
    let count = sent.clone();
    let chunks = ReaderStream::new(archive).inspect_ok(move |chunk| {
        count.fetch_add(chunk.len() as u64, Ordering::Relaxed);
    });
    let body = StreamBody::new(chunks.map_ok(hyper::body::Frame::data));
    let name = file.display().to_string();
    let doing = || {
        let (sent, all) = (sent.load(Ordering::Relaxed), metadata.len());
        format!("importing {name}: {} of {}", megabytes(sent), megabytes(all))
    };
    let progress = Progress::start(quiet);
    progress.during(doing, send(layout, node, body, &name)).await
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
    let stream = tokio::net::UnixStream::connect(&socket).await;
    let stream = stream.map_err(|error| node_down(layout, node, &error))?;
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

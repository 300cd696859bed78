//! CRI's image service.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use rpc::cri;
use rpc::cri::image_service_server::ImageService;
use tonic::{Request, Response, Status};

use super::Cri;
use crate::error::Error;
use crate::image::{Image, ImageError};
use crate::runtime::blocking;
use crate::stats::filesystem_usage;

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ImageService for Cri {
    async fn list_images(&self, request: Request<cri::ListImagesRequest>) -> Answer<cri::ListImagesResponse> {
        let wanted = request
            .into_inner()
            .filter
            .and_then(|filter| filter.image)
            .map(|spec| spec.image);
        let images = match wanted.filter(|name| !name.is_empty()) {
            Some(name) => self.0.images.find(&name).into_iter().collect(),
            None => self.0.images.list(),
        };
        Ok(Response::new(cri::ListImagesResponse {
            images: images.iter().map(image).collect(),
        }))
    }

    type StreamImagesStream = Pin<Box<dyn Stream<Item = Result<cri::StreamImagesResponse, Status>> + Send>>;

    async fn stream_images(&self, request: Request<cri::StreamImagesRequest>) -> Answer<Self::StreamImagesStream> {
        let filter = request.into_inner().filter;
        let listed = self
            .list_images(Request::new(cri::ListImagesRequest { filter }))
            .await?
            .into_inner();
        let response = cri::StreamImagesResponse { images: listed.images };
        Ok(Response::new(Box::pin(futures::stream::iter([Ok(response)]))))
    }

    async fn image_status(&self, request: Request<cri::ImageStatusRequest>) -> Answer<cri::ImageStatusResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let found = self.0.images.find(&name);
        Ok(Response::new(cri::ImageStatusResponse {
            image: found.as_ref().map(image),
            info: Default::default(),
        }))
    }

    async fn pull_image(&self, request: Request<cri::PullImageRequest>) -> Answer<cri::PullImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        // A name that is none is another mistake than an image that is not there.
        let full = crate::image::reference::normalize(&name).map_err(|text| Status::from(Error::Invalid(text)))?;
        let found = self.0.images.find(&name).ok_or(ImageError::NotFound(full));
        let image = found.map_err(|err| Status::from(Error::from(err)))?;
        Ok(Response::new(cri::PullImageResponse { image_ref: image.id }))
    }

    async fn remove_image(&self, request: Request<cri::RemoveImageRequest>) -> Answer<cri::RemoveImageResponse> {
        let name = request.into_inner().image.unwrap_or_default().image;
        let runtime = Arc::clone(&self.0);
        blocking(move || Ok(runtime.images.remove(&name, &runtime.used_layers())?)).await?;
        Ok(Response::new(cri::RemoveImageResponse {}))
    }

    async fn image_fs_info(&self, _: Request<cri::ImageFsInfoRequest>) -> Answer<cri::ImageFsInfoResponse> {
        let runtime = Arc::clone(&self.0);
        let (images, containers) = blocking(move || {
            let now = runtime.now_ns();
            let root = &runtime.config.root_dir;
            let usage = |name: &str| {
                let (bytes, inodes) = sys::disk::usage(&root.join(name));
                filesystem_usage(now, root, bytes, inodes)
            };
            Ok((usage("images"), usage("containers")))
        })
        .await?;
        let response = cri::ImageFsInfoResponse {
            image_filesystems: vec![images],
            container_filesystems: vec![containers],
        };
        Ok(Response::new(response))
    }
}

fn image(image: &Image) -> cri::Image {
    let user = image.config.user.split(':').next().unwrap_or_default();
    let uid: Option<i64> = if user.is_empty() { None } else { user.parse().ok() };
    cri::Image {
        id: image.id.clone(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        size: image.size_bytes,
        uid: uid.map(|value| cri::Int64Value { value }),
        username: if uid.is_none() { user.to_owned() } else { String::new() },
        spec: Some(cri::ImageSpec {
            image: image.id.clone(),
            ..Default::default()
        }),
        pinned: image.pinned,
    }
}

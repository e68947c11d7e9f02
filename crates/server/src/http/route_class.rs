//! Which protocol a path belongs to: a closed set, for metrics and logs. Never the path itself, which callers choose.

/// The protocol of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteClass {
    /// ComfyUI's own API and page.
    Native,
    /// Function Compute's ComfyUI Serverless API.
    Serverless,
    /// PAI-EAS queues.
    Eas,
    /// KubeAI.
    Kubeai,
    /// PPIO (`/v1`) and RunPod (`/v2`).
    Async,
    /// SpeedPix.
    Speedpix,
    /// Comfy API v2.
    ComfyV2,
    /// Our own API.
    Own,
    /// Files by signed URL.
    Blobs,
    /// Pages.
    Page,
    /// Health and metrics.
    Operator,
}

impl RouteClass {
    /// The class of a path, with or without `/e/{endpoint}` in front.
    pub fn of(path: &str) -> Self {
        let path = match path.strip_prefix("/e/") {
            Some(rest) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => path,
        };
        let under = |prefix: &str| {
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if under("/api/v2/userdata") {
            RouteClass::Native
        } else if under("/api/serverless") {
            RouteClass::Serverless
        } else if under("/api/predict") {
            RouteClass::Eas
        } else if under("/api/v2") {
            RouteClass::ComfyV2
        } else if under("/openai") {
            RouteClass::Kubeai
        } else if under("/v2/userdata") {
            RouteClass::Native
        } else if under("/v1") || under("/v2") {
            RouteClass::Async
        } else if under("/scc") {
            RouteClass::Speedpix
        } else if under("/darkroom/v1/blobs") || under("/darkroom/s3") {
            RouteClass::Blobs
        } else if under("/darkroom") {
            RouteClass::Own
        } else if under("/healthz") || under("/readyz") || under("/metrics") {
            RouteClass::Operator
        } else if path == "/" || under("/login") || under("/logout") || under("/dashboard") {
            RouteClass::Page
        } else {
            RouteClass::Native
        }
    }

    /// Its word in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            RouteClass::Native => "native",
            RouteClass::Serverless => "serverless",
            RouteClass::Eas => "eas",
            RouteClass::Kubeai => "kubeai",
            RouteClass::Async => "async",
            RouteClass::Speedpix => "speedpix",
            RouteClass::ComfyV2 => "comfy_v2",
            RouteClass::Own => "own",
            RouteClass::Blobs => "blobs",
            RouteClass::Page => "page",
            RouteClass::Operator => "operator",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fall_into_classes() {
        for (path, class) in [
            ("/api/serverless/run", RouteClass::Serverless),
            ("/e/sdxl/api/serverless/run", RouteClass::Serverless),
            ("/api/serverlessness", RouteClass::Native),
            ("/api/prompt", RouteClass::Native),
            ("/prompt", RouteClass::Native),
            ("/v2/userdata", RouteClass::Native),
            ("/v2/sdxl/run", RouteClass::Async),
            ("/api/v2/jobs", RouteClass::ComfyV2),
            ("/e/sdxl/api/v2/assets/x/content", RouteClass::ComfyV2),
            ("/api/v2/userdata", RouteClass::Native),
            ("/darkroom/v1/jobs", RouteClass::Own),
            ("/darkroom/v1/blobs/a/b", RouteClass::Blobs),
            ("/darkroom/s3/outputs/a", RouteClass::Blobs),
            ("/", RouteClass::Page),
            ("/e/sdxl", RouteClass::Page),
            ("/healthz", RouteClass::Operator),
        ] {
            assert_eq!(RouteClass::of(path), class, "{path}");
        }
    }
}
